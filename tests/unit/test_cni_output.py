"""V-3, V-6, T-4, R-5, E-1, E-2: the documents that a plugin prints."""

import json

import pytest

from cnisandbox.cni import output
from cnisandbox.cni.output import error_document, error_from, result_document, version_document
from cnisandbox.cni.result import Address, Interface, Result
from cnisandbox.cni.versions import SUPPORTED
from cnisandbox.errors import (
    BoundaryViolation,
    CniError,
    DelegateFailed,
    IncompatibleVersion,
    InvalidConfig,
    KernelRefused,
    NotAvailable,
    TryAgain,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (IncompatibleVersion("m", "d"), 1),
        (InvalidConfig("m", "d"), 7),
        (TryAgain("m", "d"), 11),
        (NotAvailable("m", "d"), 50),
        (BoundaryViolation("m", "d"), 104),
        (CniError("m", "d"), 999),
        (DelegateFailed(42, "m", "d"), 42),
    ],
)
def test_e1_an_error_is_printed_with_its_own_code(error, code):
    document = json.loads(error_document(error, "0.4.0"))
    assert document == {"cniVersion": "0.4.0", "code": code, "msg": "m", "details": "d"}


def test_empty_details_are_left_out():
    assert json.loads(error_document(KernelRefused("create link", "eth0", 17), "1.1.0")) == {
        "cniVersion": "1.1.0",
        "code": 101,
        "msg": "create link eth0: file exists",
    }


@pytest.mark.parametrize("text", ["\ud800", "a\udcffb", '\0\n"\\', "\u2028", "\U0001f600", ""])
def test_any_text_can_be_printed(text):
    data = error_document(CniError(text, f"details {text}"), "1.1.0")
    assert json.loads(data.decode("utf-8"))["msg"] == text.replace("\ud800", "\ufffd").replace("\udcff", "\ufffd")


def test_a_result_with_a_path_that_is_not_utf_8_can_be_printed():
    result = Result(interfaces=(Interface("eth0", sandbox="/run/netns/\udce4"),))
    document = json.loads(result_document(result, "1.1.0").decode("utf-8"))
    assert document["interfaces"][0]["sandbox"] == "/run/netns/\ufffd"


@pytest.mark.parametrize("version", SUPPORTED)
def test_v3_a_result_has_the_configs_version(version):
    result = Result(ips=(Address("10.0.0.1/8"),))
    assert json.loads(result_document(result, version))["cniVersion"] == version


def test_t4_a_result_is_indented_as_the_references():
    assert result_document(Result(interfaces=(Interface("eth0"),)), "0.4.0").decode().splitlines() == [
        "{",
        '    "cniVersion": "0.4.0",',
        '    "interfaces": [',
        "        {",
        '            "name": "eth0"',
        "        }",
        "    ],",
        '    "dns": {}',
        "}",
    ]


def test_v6_the_versions_are_one_line_with_what_was_asked():
    assert (
        version_document("0.4.0", ("0.4.0", "1.0.0"))
        == b'{"cniVersion": "0.4.0", "supportedVersions": ["0.4.0", "1.0.0"]}\n'
    )
    assert json.loads(version_document("1.1.0"))["supportedVersions"] == list(SUPPORTED)


@pytest.mark.parametrize(
    ("data", "code", "msg", "details"),
    [
        (b'{"code":11,"msg":"try again","details":"d"}', 11, "try again", "d"),
        (b'{"cniVersion":"1.0.0","code":999,"msg":"boom"}', 999, "boom", ""),
        (b'{"Code":7,"MSG":"x","x":1}', 7, "x", ""),
        (b'{"msg":"no code"}', 0, "no code", ""),
        (b'{"code":3}', 3, "", ""),
    ],
)
def test_e2_a_delegates_error_is_read(data, code, msg, details):
    error = error_from(data)
    assert (type(error), error.code, error.msg, error.details) == (DelegateFailed, code, msg, details)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"panic: nil",
        b"{}",
        b"null",
        b"[]",
        b'{"cniVersion":"1.1.0"}',
        b'{"code":"7"}',
        b'{"code":-1}',
        b'{"code":7,"msg":5}',
    ],
)
def test_what_is_no_error_is_not_read_as_one(data):
    assert error_from(data) is None


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"a": [], "b": {}, "c": [1, -2, 2.5, 1e300, True, False, None]},
        [[], [[1], {"": {"x": "y"}}]],
        {'quote " and \\ and / and \x00\x1f\x7f\t\n': "ü € \U0001f600 \u2028"},
        "text",
        0,
    ],
)
def test_documents_are_written_as_json_writes_them(value: object, indent: int | None) -> None:
    assert output._encode(value, indent) == f"{json.dumps(value, ensure_ascii=False, indent=indent)}\n".encode()  # type: ignore[arg-type]
