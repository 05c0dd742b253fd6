"""Properties of what is printed: every error and every text can be."""

import inspect
import json

from hypothesis import given
from hypothesis import strategies as st

from cnisandbox import errors
from cnisandbox.cni.output import error_document, error_from, version_document
from cnisandbox.cni.versions import SUPPORTED
from tests.property.strategies import ANY_TEXT, VERSIONS

SIMPLE_ERRORS = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.CniError) and error not in (errors.KernelRefused, errors.DelegateFailed)
]
ERRORS = (
    st.builds(lambda error, msg, details: error(msg, details), st.sampled_from(SIMPLE_ERRORS), ANY_TEXT, ANY_TEXT)
    | st.builds(errors.KernelRefused, ANY_TEXT, ANY_TEXT, st.integers(0, 133), ANY_TEXT)
    | st.builds(errors.DelegateFailed, st.integers(0, 2**32 - 1), ANY_TEXT, ANY_TEXT)
)


def printable(text):
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)


@given(ERRORS, VERSIONS)
def test_every_error_is_one_json_object_with_exactly_its_keys(error, version):
    document = json.loads(error_document(error, version).decode("utf-8"))
    expected = {"cniVersion": version, "code": error.code, "msg": printable(error.msg)}
    if error.details:
        expected["details"] = printable(error.details)
    assert document == expected


@given(ERRORS, VERSIONS)
def test_an_error_comes_back_with_its_code_and_texts(error, version):
    again = error_from(error_document(error, version))
    assert (again.code, again.msg, again.details) == (error.code, printable(error.msg), printable(error.details))


@given(st.binary(max_size=100) | ANY_TEXT.map(lambda text: json.dumps({"code": text, "msg": 1}).encode()))
def test_any_output_of_a_delegate_is_an_error_or_none(data):
    error = error_from(data)
    assert error is None or (0 <= error.code < 2**32 and isinstance(error.msg, str))


@given(ANY_TEXT)
def test_any_version_asked_with_is_answered_on_one_line(version):
    data = version_document(version)
    assert data.count(b"\n") == 1
    assert data.endswith(b"\n")
    assert json.loads(data) == {"cniVersion": printable(version), "supportedVersions": list(SUPPORTED)}
