"""What a plugin may use of its call."""

import unicodedata

import pytest

from cnisandbox.plugin import Call


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("no\tspace left: caf\u00e9 \u2192 \U0001f4a5", "no\tspace left: caf\u00e9 \u2192 \U0001f4a5"),
        ("\x1b]0;title\x07\x1b[2J", "\\x1b]0;title\\x07\\x1b[2J"),
        ("\x9b2J", "\\x9b2J"),
        ("one\r\ncnisandbox: two", "one\\x0d\\x0acnisandbox: two"),
        ("nul\0 delete\x7f", "nul\\x00 delete\\x7f"),
    ],
)
def test_warning_is_one_line_without_control_characters(
    text: str, written: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Call.warn(text)
    assert capfd.readouterr().err == f"cnisandbox: {written}\n"


def test_no_character_that_unicode_calls_a_control_is_written_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    Call.warn("".join(map(chr, range(0x3000))))
    written = capfd.readouterr().err.removesuffix("\n")
    assert {character for character in written if unicodedata.category(character) == "Cc"} == {"\t"}
