"""How verdicts, capabilities and figures are put into words, the same in the table, the page and the comparison.

Privilege: none.
"""

from collections.abc import Iterable, Sequence

from cnisandbox.laboratory.report.schema import CellMembers, Document, Exposure, Verb
from cnisandbox.laboratory.vector import NO_EFFECT, NOT_APPLICABLE, REFUSED, UNTESTED, WORKED

CONTROL = "root"
ELLIPSIS = "…"

# A cell as one character; what changed something outside has OUTSIDE_MARK beside it.
LETTERS = {WORKED: "W", REFUSED: "R", NO_EFFECT: "0", NOT_APPLICABLE: "-", UNTESTED: "?"}
OUTSIDE_MARK = "!"

COLUMN_TITLES = {
    "root": "as root, with every capability: how plugins run today",
    "netadmin": "our plugins, at level netadmin",
    "hardened": "our plugins, at level hardened",
    "mediated": "our plugins, at level mediated",
    "runner": "other people's plugins, behind the runner",
}


def clean(text: str) -> str:
    """Escape what is not printable, so that a text can drive neither a terminal nor a page.

    Args:
        text: From a document, which anybody may have written.
    """
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def cut(text: str, width: int) -> str:
    """Clean a text and cut it to a number of characters, with an ellipsis where something is missing."""
    cleaned = clean(text)
    return cleaned if len(cleaned) <= width else cleaned[: width - 1].rstrip() + ELLIPSIS


def short(cell: CellMembers) -> str:
    """Say in one word what came of an attempt: "works", "EPERM", "SIGSYS", "no effect", "n/a", "untested"."""
    words = {
        WORKED: "works",
        REFUSED: cell["signal"] or cell["errno"] or "refused",
        NO_EFFECT: "no effect",
        NOT_APPLICABLE: "n/a",
        UNTESTED: "untested",
    }
    return words[cell["verdict"]] + (OUTSIDE_MARK if cell["outside"] else "")


def sentence(cell: CellMembers) -> str:
    """Say in full what came of an attempt."""
    told = " ".join(clean(word) for word in (cell["errno"], cell["signal"]) if word)
    parts = [cell["verdict"] + (f" ({told})" if told else "")]
    parts += [f"in the {clean(cell['process'])}"] if cell["process"] and cell["verdict"] == WORKED else []
    parts += [clean(cell["reason"])] if cell["reason"] else []
    return ", ".join(parts)


def capability_name(name: str) -> str:
    """Shorten a capability for a table: without CAP_, in lower case."""
    return clean(name).removeprefix("CAP_").lower()


def listed(names: Iterable[str], most: int = 4) -> str:
    """List names, the first few if there are many; a dash for none."""
    names = list(names)
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "-"


def amount(count: int, noun: str, plural: str = "") -> str:
    """Say how many there are of something."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def size(count: int) -> str:
    """Say a number of bytes."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"


def milliseconds(value: float) -> str:
    """Say a duration to three significant digits, but never in exponents."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def name_of(exposure: Exposure) -> str:
    """Name what was measured: the network's name in its netconf, where it says more than the plugin's."""
    network = exposure["netconf"].get("name")
    plugin = exposure["plugin"]
    return network if isinstance(network, str) and network.startswith(plugin) else plugin


def label(exposure: Exposure) -> str:
    """Name an exposure and its column."""
    return f"{name_of(exposure)} {exposure['column']}"


def main_verb(exposure: Exposure) -> str:
    """Say which verb stands for the exposure where there is room for one: ADD if it was measured."""
    return "ADD" if "ADD" in exposure["verbs"] else next(iter(exposure["verbs"]), "")


def filter_words(verb: Verb) -> str:
    """Say how many system calls the filter allows."""
    calls = verb["syscalls"]
    return f"all {calls['total']}" if calls["allowed"] is None else f"{calls['allowed']} of {calls['total']}"


def untrusted_words(verb: Verb) -> str:
    """Say how much was read of what others wrote, at most, and while how many capabilities were held."""
    counts = [count for count in verb["untrusted_bytes"].values() if count]
    return f"{size(max(counts))} with {len(counts)}" if counts else size(0)


def columns_of(document: Document) -> list[str]:
    """The columns of the matrix, those that are known in their usual order first."""
    columns: Sequence[str] = document["matrix"]["columns"]
    return sorted(columns, key=lambda column: list(COLUMN_TITLES).index(column) if column in COLUMN_TITLES else 99)
