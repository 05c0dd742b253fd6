"""What a slot makes of a request's environment: what an interpreter would have made of it."""

import os
from pathlib import Path

import pytest

from cnisandbox.cli import shim
from cnisandbox.zygote import slot
from cnisandbox.zygote.slot import Taken


@pytest.mark.parametrize(
    ("environment", "variables"),
    [
        (b"", {}),
        (b"\0", {}),
        (b"A=1\0B=2\0", {"A": "1", "B": "2"}),
        (b"A=1\0B=2", {"A": "1", "B": "2"}),
        (b"A=\0", {"A": ""}),
        (b"A=1=2\0", {"A": "1=2"}),
        (b"A=1\0A=2\0", {"A": "1"}),
        (b"A\0A=1\0", {"A": "1"}),
        (b"A=1\0A\0", {"A": "1"}),
        (b"=1\0A=1\0", {"A": "1"}),
        (b"=A=1\0", {}),
        (b"A=\xc3\0B=\xa9\0C=\xc3\xa9\0", {"A": "\udcc3", "B": "\udca9", "C": "é"}),
    ],
    ids=[
        "none",
        "nothing-in-it",
        "two",
        "last-one-not-terminated",
        "empty-value",
        "value-with-sign",
        "first-of-a-name-counts",
        "no-sign-before-the-same-name",
        "no-sign-behind-the-same-name",
        "without-a-name",
        "only-without-a-name",
        "not-utf-8",
    ],
)
def test_environment_is_read_as_an_interpreter_does(environment: bytes, variables: dict[str, str]) -> None:
    assert slot._variables(environment) == variables


def test_a_call_has_its_own_variables_and_no_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FROM_BEFORE", "1")
    monkeypatch.setattr(os, "environ", os.environ)  # so that it is put back
    slot._adopt(Taken("", {"CNI_ARGS": "K=V"}, [], -1))
    assert {**os.environ} == {"CNI_ARGS": "K=V"}


def test_a_plugin_that_is_executed_as_it_is_gets_the_calls_variables() -> None:
    """The C library, which has others, is not asked."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(writing, 1)
            os.environ = {"CNI_ARGS": "K=V"}  # type: ignore[assignment]  # noqa: B003
            shim._execute("/usr/bin/env", ("env",))
        finally:
            os._exit(1)
    os.close(writing)
    _, status = os.waitpid(pid, 0)
    assert (os.read(reading, 4096), status) == (b"CNI_ARGS=K=V\n", 0)
    os.close(reading)
