"""The forms that a document is written in, and the files they are in.

Privilege: none but to write into the directory that was asked for.
"""

import json
import os
import secrets
from collections.abc import Sequence

from cnisandbox.errors import IoFailure, quoted, reason
from cnisandbox.laboratory.report import page, paper, spreadsheet, terminal
from cnisandbox.laboratory.report.figures.board import Figure
from cnisandbox.laboratory.report.schema import Document


def render(document: Document, figures: Sequence[Figure]) -> dict[str, str]:
    """Write the document in every form.

    Returns:
        Name of a file to its content.
    """
    return {
        "audit.json": json.dumps(document, indent=1, ensure_ascii=False) + "\n",
        "audit.csv": spreadsheet.matrix(document),
        "audit-exposure.csv": spreadsheet.exposure(document),
        "audit.txt": terminal.render(document),
        "audit.html": page.render(document, figures),
        **dict(paper.files(document, figures)),
    }


def make_directory(path: str) -> None:
    """Make the directory, unless it is there.

    Raises:
        IoFailure: It cannot be made, or nothing can be written there.
    """
    try:
        os.makedirs(path, exist_ok=True)
        _write(path, "audit.json", None)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise IoFailure(f"write report to {quoted(path)}: {why}", "name a directory that you may write to") from error


def write(path: str, files: dict[str, str]) -> list[str]:
    """Write files into a directory, each at once.

    Returns:
        Their paths.

    Raises:
        IoFailure: One cannot be written.
    """
    try:
        for name, content in files.items():
            _write(path, name, content)
    except OSError as error:
        raise IoFailure(f"write report to {quoted(path)}: {reason(error)}") from error
    return [os.path.join(path, name) for name in files]


def _write(directory: str, name: str, content: str | None) -> None:
    """Write a file beside its place and put it there; without content, only see whether that is possible."""
    temporary = os.path.join(directory, f".{name}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with open(fd, "w", encoding="utf-8", errors="replace", newline="") as file:
            file.write(content or "")
        if content is not None:
            os.replace(temporary, os.path.join(directory, name))
            return
    except BaseException:
        os.unlink(temporary)
        raise
    os.unlink(temporary)
