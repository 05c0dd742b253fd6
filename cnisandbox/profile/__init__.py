"""Profiles: what each plugin may do, as data. docs/profiles.md says how one is written.

    schema    the records, and what they look like as plain data
    load      finds a profile: the administrator's, else the package's
    packaged  the package's profiles, compiled (made by compile.py from data/)
    source    reads a file: TOML to a profile, or everything that is wrong with it
    words     what may stand in a file
    lines     which key stands in which line

Privilege: none; the entry calls it as root, before anything of the plugin runs. Files are read if nobody but root can
have written them.
"""
