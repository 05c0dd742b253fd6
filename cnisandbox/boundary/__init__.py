"""The only code that may hold a capability.

Privilege: modules in this folder run in the entry before the drop, and in the workers up to the end of it. A test fails
when one of them imports more than its short list (no json, re, subprocess, logging, pickle, importlib; nothing
third-party but our own cffi extension).
"""
