"""What a plugin's calls expose: which capabilities they hold, use and need, for how long, and what they read meanwhile.

    measure.py     the document
    subject.py     what is executed in a column             station.py, trial.py       where; a container's life
    tracing.py     times: tracefs                           ringbuffer.py, course.py   decode and order what it says
    observing.py   everything else: ptrace (ptracing.py)    bpf.py, sysnames.py        what a filter, a number is
    ablation.py    what is needed: without each             state.py                   whether two calls left the same

Privilege: root with everything; a plugin that is measured as root can do what root can.
"""
