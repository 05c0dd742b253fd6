"""A process with everything imported, whose children serve calls: the warm path of our own plugins.

    launcher (native/launcher.c) ──▶ slot      a child forked ahead, with its workers; becomes the entry of one call
                                      ▲
                                   server      keeps slots, ends those whose launcher has gone, says how they ended

It has the privileges that the entry has, and adds none to what the runtime's exec has: a call is served for who could
have executed the plugin to the same effect (`slot.py`, "Who is it?").
"""
