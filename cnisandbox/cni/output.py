"""What a plugin prints: one JSON document, result, error or versions; and the way back for a delegate's error.

Every document can be encoded: half of a surrogate pair, as an environment that is not UTF-8 leaves in a Python string,
becomes U+FFFD, as in Go.

Privilege: none.

Source: CNI specification 1.1.0, sections 2 "VERSION" and 5; libcni pkg/types and pkg/version, v1.3.0.
"""

import _json  # the C module: `json` takes 2 ms, for regular expressions that writing needs none of

from cnisandbox.cni.result import Result, result_to
from cnisandbox.cni.value import decode
from cnisandbox.cni.versions import SUPPORTED
from cnisandbox.errors import CniError, DelegateFailed, InvalidConfig, UndecodableInput

_INDENT = 4
_CONTAINERS = frozenset((dict, list))
_UINT32_MAX = 2**32 - 1


def error_document(error: CniError, version: str) -> bytes:
    """Write an error.

    Args:
        error: The error; passed on with the code that it has.
        version: The netconf's version, see `netconf.sniff_version`.

    Returns:
        A JSON object with cniVersion, code, msg and, unless they are empty, details; ends with a newline.
    """
    document = {"cniVersion": version, "code": error.code, "msg": error.msg}
    if error.details:
        document["details"] = error.details
    return _encode(document, _INDENT)


def result_document(result: Result, version: str) -> bytes:
    """Write the result of an ADD.

    Args:
        result: The result.
        version: The netconf's version.

    Returns:
        A JSON object in that version's shape; ends with a newline.

    Raises:
        IncompatibleVersion, InvalidConfig: As `result.result_to`.
    """
    return _encode(result_to(result, version), _INDENT)


def version_document(netconf_version: str, supported: tuple[str, ...] = SUPPORTED) -> bytes:
    """Write the answer to VERSION.

    Args:
        netconf_version: The cniVersion that was asked with.
        supported: The versions that the plugin does.

    Returns:
        A JSON object on one line that ends with a newline.
    """
    return _encode({"cniVersion": netconf_version, "supportedVersions": list(supported)}, None)


def error_from(data: bytes) -> DelegateFailed | None:
    """Read the error that a delegated plugin printed.

    Args:
        data: Its stdout.

    Returns:
        The error with the delegate's own code, msg and details; None if there is none to read.
    """
    try:
        value = decode(data, "error", "error")
        code = value["code"].integer(minimum=0, maximum=_UINT32_MAX)
        msg = value["msg"].string()
        details = value["details"].string()
    except (UndecodableInput, InvalidConfig):
        return None
    return DelegateFailed(code, msg, details) if "code" in value or "msg" in value else None


def _encode(document: dict[str, object], indent: int | None) -> bytes:
    text = _line(document, ", ") if indent is None else _text(document, "\n", " " * indent)
    try:
        return f"{text}\n".encode()
    except UnicodeEncodeError:
        return f"{_without_surrogates(text)}\n".encode()


def _text(value: object, newline: str, margin: str) -> str:
    """Write a value over several lines as `json.dumps` does, without escapes that are not needed.

    Args:
        value: Of JSON's types; keys are texts.
        newline: What a line ends with, and the next one begins with.
        margin: What is added to it further in.
    """
    inner = newline + margin
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if _CONTAINERS.isdisjoint(map(type, members)):  # the interpreter writes what has nothing to be written further in
        text = _line(value, f",{inner}")
        return f"{text[0]}{inner}{text[1:-1]}{newline}{text[-1]}" if members else text
    parts = [_text(item, inner, margin) for item in members]
    begin, end = "[", "]"
    if isinstance(value, dict):
        begin, end = "{", "}"
        parts = list(map(": ".join, zip(map(_json.encode_basestring, value), parts, strict=True)))
    return begin + inner + f",{inner}".join(parts) + newline + end


def _line(value: object, separator: str) -> str:
    """Write a value with nothing but a separator between its members."""
    quote = _json.encode_basestring
    encode = _json.make_encoder(None, None, quote, None, ": ", separator, False, False, True)  # type: ignore[arg-type]
    return "".join(encode(value, 0))


def _without_surrogates(text: str) -> str:
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
