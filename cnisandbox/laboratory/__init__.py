"""The laboratory: measures what whoever owns a plugin could do, and what a plugin needs.

Nothing that serves a call imports it. It is for root on a machine that is measured, and works in namespaces of its own.
"""
