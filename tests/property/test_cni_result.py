"""Properties of results: they come back as they were written, in every version and between versions."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnisandbox.cni.output import result_document
from cnisandbox.cni.result import parse_result, result_from, result_to
from cnisandbox.cni.value import Value, decode
from cnisandbox.cni.versions import CURRENT, ONE_ADDRESS_PER_FAMILY, SUPPORTED, family
from cnisandbox.errors import InvalidConfig
from tests.property.strategies import JSON, RESULTS, RESULTS_WITH_ADDRESS, VERSIONS, outcome

NEWER_TO_OLDER = [(new, old) for old, new in itertools.combinations_with_replacement(SUPPORTED, 2)]
OTHER_FAMILY = [(a, b) for a, b in itertools.product(SUPPORTED, SUPPORTED) if family(a) != family(b)]

few_examples = settings(max_examples=20)  # for each of 28 pairs of versions


def read(document, version):
    return result_from(Value(document, "prevResult"), version)


@pytest.mark.parametrize("version", CURRENT)
@given(result=RESULTS)
def test_a_result_survives_a_round_trip_in_a_current_version(version, result):
    assert read(result_to(result, version), version) == result


@pytest.mark.parametrize("version", SUPPORTED)
@given(result=RESULTS_WITH_ADDRESS)
def test_writing_what_was_read_changes_nothing(version, result):
    document = result_to(result, version)
    assert result_to(read(document, version), version) == document


@pytest.mark.parametrize(("new", "old"), NEWER_TO_OLDER)
@few_examples
@given(result=RESULTS_WITH_ADDRESS)
def test_going_through_a_newer_version_loses_nothing_of_an_older_one(new, old, result):
    assert result_to(read(result_to(result, new), new), old) == result_to(result, old)


@pytest.mark.parametrize(("new", "old"), NEWER_TO_OLDER)
@few_examples
@given(result=RESULTS_WITH_ADDRESS)
def test_what_an_older_version_holds_survives_a_newer_one(new, old, result):
    held = read(result_to(result, old), old)
    assert read(result_to(held, new), new) == held


@pytest.mark.parametrize(("config_version", "result_version"), OTHER_FAMILY)
@few_examples
@given(result=RESULTS_WITH_ADDRESS)
def test_a_result_of_another_family_is_refused(config_version, result_version, result):
    with pytest.raises(InvalidConfig, match=r"^prevResult\.cniVersion: "):
        read(result_to(result, result_version), config_version)


@given(RESULTS_WITH_ADDRESS, VERSIONS, VERSIONS)
def test_a_delegates_result_is_read_in_its_own_version(result, own_version, config_version):
    data = result_document(result, own_version)
    assert parse_result(data, config_version) == parse_result(data, own_version)


@given(RESULTS, VERSIONS)
def test_a_result_document_is_one_json_object_of_that_version(result, version):
    got = outcome(result_document, result, version, errors=InvalidConfig)
    if isinstance(got, InvalidConfig):
        assert version in ONE_ADDRESS_PER_FAMILY
        assert not result.ips
    else:
        document = json.loads(got)
        assert document["cniVersion"] == version
        assert "dns" in document or version in CURRENT


@given(
    st.dictionaries(st.sampled_from(["ips", "interfaces", "routes", "dns", "ip4", "ip6", "cniVersion"]), JSON), VERSIONS
)
def test_any_json_object_is_a_result_or_an_invalid_config_with_its_path(document, version):
    value = decode(json.dumps(document).encode(), "result", "prevResult")
    got = outcome(result_from, value, version, errors=InvalidConfig)
    if isinstance(got, InvalidConfig):
        assert got.msg.startswith("prevResult")
    else:
        assert outcome(result_to, got, version, errors=InvalidConfig)
