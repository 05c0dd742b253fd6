"""What libnftables says about a failure, and how transactions are tried again."""

import errno
from typing import Any

import pytest

from cnisandbox.errors import KernelRefused
from cnisandbox.nft import connection


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("internal:0:0-0: Error: Could not process rule: File exists\n\n", errno.EEXIST),
        ("internal:0:0-0: Error: Could not process rule: Device or resource busy\n\n", errno.EBUSY),
        (
            "Error: No such file or directory; did you mean table \u2018others\u2019 in family inet?\nlist ...\n",
            errno.ENOENT,
        ),
        ("netlink: Error: cache initialization failed: Operation not permitted\n", errno.EPERM),
        ("Error: Could not process rule: Operation not supported (a hint)\n", errno.EOPNOTSUPP),
        ("internal:0:0-0: Error: Parsing command array at index 0 failed.\n\n", 0),
        ("a: Error: Parsing failed.\nb: Error: Could not process rule: File exists\nc: Error: Invalid argument", 17),
        ("Warning: File exists\n", 0),
        ("", 0),
    ],
)
def test_errno_is_found_in_the_text_of_libnftables(text: str, number: int) -> None:
    assert connection.errno_of(text) == number


def _refusals(monkeypatch: pytest.MonkeyPatch, numbers: list[int]) -> list[list[connection.Command]]:
    """Let `run` answer with these errnos, one by one, then with success; return what it was asked."""
    asked: list[list[connection.Command]] = []

    def run(commands: list[connection.Command], operation: str, target: str) -> list[Any]:
        asked.append(commands)
        if numbers:
            raise KernelRefused(operation, target, numbers.pop(0))
        return []

    monkeypatch.setattr(connection, "run", run)
    return asked


def test_a_lost_race_is_prepared_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _refusals(monkeypatch, [errno.EEXIST, errno.ENOENT, errno.EBUSY])
    connection.transact(lambda attempt: [{"attempt": attempt}], "add", "x")
    assert asked == [[{"attempt": 0}], [{"attempt": 1}], [{"attempt": 2}], [{"attempt": 3}]]


def test_a_race_that_is_always_lost_ends_with_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _refusals(monkeypatch, [errno.EBUSY] * 1000)
    with pytest.raises(KernelRefused, match=r"^add x: device or resource busy$"):
        connection.transact(lambda attempt: [{"attempt": attempt}], "add", "x")
    assert len(asked) == connection.ATTEMPTS


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, 0])
def test_another_refusal_is_not_tried_again(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    asked = _refusals(monkeypatch, [number] * 2)
    with pytest.raises(KernelRefused) as caught:
        connection.transact(lambda _: [{"x": 1}], "add", "x")
    assert caught.value.errno == number
    assert len(asked) == 1


def test_nothing_is_sent_when_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _refusals(monkeypatch, [])
    connection.transact(lambda _: [], "delete", "x")
    assert asked == []
