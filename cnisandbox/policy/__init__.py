"""What a foreign program's netlink messages are judged by: permits as data, and the judge that reads them.

Privilege: none.
"""
