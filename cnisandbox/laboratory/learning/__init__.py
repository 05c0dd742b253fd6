"""Learns a profile: what a plugin does as root becomes permits, paths and settings, and is tried part by part.

    world.py      a machine in small that is thrown away: namespaces, and a file system whose changes go to memory
    episode.py    ADD, CHECK, DEL and DEL again in such a world: as root, as root under strace, or confined
    state.py      what a call left behind, made comparable
    trace.py      what strace wrote, as system calls
    activity.py   what the system calls did: messages and the netns that they went to, files, programs, sockets
    facts.py      the links of an episode, and the words of profiles for them
    observed.py   netlink messages in the words of profiles
    patterns.py   names that differ from run to run, as patterns
    draft.py      the profile
    toml.py       its text
    trial.py      which part of it is needed
    compare.py    how it differs from the package's profile
    learner.py    all of this in order

Privilege: root, in namespaces of its own; the plugin that is watched has everything there.
"""
