"""The table in docs/security-model.md is the one that tests/escape proves."""

from pathlib import Path

from tests.escape.vectors import markdown

DOCUMENT = Path(__file__).parents[2] / "docs" / "security-model.md"
BEGIN, END = "<!-- escape-matrix -->", "<!-- /escape-matrix -->"


def test_document_has_the_matrix_that_is_tested() -> None:
    text = DOCUMENT.read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    table = text.split(BEGIN)[1].split(END)[0].strip()
    assert table == markdown(), "replace it by what `python -m tests.escape.vectors` prints"
