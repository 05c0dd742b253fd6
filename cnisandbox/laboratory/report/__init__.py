"""From what was measured to what is read: the audit document, its tables, its page, and two documents compared.

Privilege: none, but for `collect`, which has everything measured.
"""
