"""Names that are different in each run, as patterns that mean all of them.

    veth071255d9, vethab12cd34            veth????????
    CNI-7938659e68193485ee23da4c, …       CNI-????????????????????????

A name that stays the same in each run stands for itself. Digits that happen to be equal in all runs become part of the
pattern when they stand next to those that are not.

Privilege: none.
"""

import re
from collections.abc import Iterable, Sequence

_HEXADECIMAL = re.compile(r"(?=[a-f]*[0-9])[0-9a-f]{4,}")  # "iface" has none
_DIGITS = "0123456789abcdef"


def patterns_of(names: Sequence[Iterable[str]], known: Iterable[str] = ()) -> dict[str, str]:
    """Find a pattern for each name that is not the same in each run.

    Args:
        names: The names of each run.
        known: Texts that each run has others of, such as container ids: where they stand in a name it varies.

    Returns:
        Each name of any run with its pattern, which is the name itself if it is in all runs or alone of its form.
    """
    runs = [set(run) for run in names]
    texts = sorted((text for text in known if text), key=len, reverse=True)
    everywhere = set.intersection(*runs) if runs else set()
    groups: dict[str, list[str]] = {}
    for name in sorted(set().union(*runs)):
        if name not in everywhere or _skeleton(name, texts) != name:
            groups.setdefault(_skeleton(name, texts), []).append(name)
    found = {name: name for name in everywhere}
    for skeleton, members in groups.items():
        pattern = _pattern(members, skeleton)
        found.update(dict.fromkeys(members, pattern))
    return found


def _skeleton(name: str, texts: Sequence[str]) -> str:
    """Take what may vary out of a name, so that those of one form are equal."""
    for text in texts:
        name = re.sub(rf"(?<![A-Za-z0-9]){re.escape(text)}(?![A-Za-z0-9])", "\0", name)
    return _HEXADECIMAL.sub("\1", name)


def _pattern(members: Sequence[str], skeleton: str) -> str:
    if "\0" in skeleton:
        return re.sub("[\0\1]+", "*", skeleton)
    if len(members) == 1:
        return members[0]
    if len({len(member) for member in members}) > 1:
        return re.sub("\1+", "*", skeleton)
    columns = list(zip(*members, strict=True))
    varies = [len(set(column)) > 1 for column in columns]
    # Digits beside those that vary are as random, equal by chance.
    for order in (range(len(columns)), reversed(range(len(columns)))):
        previous = False
        for index in order:
            is_digit = all(character in _DIGITS for character in columns[index])
            varies[index] = varies[index] or (previous and is_digit)
            previous = varies[index]
    return "".join("?" if varies[index] else members[0][index] for index in range(len(columns)))
