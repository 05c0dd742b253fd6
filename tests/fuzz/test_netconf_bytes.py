"""Ten thousand hostile inputs for the first code that sees bytes from outside."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnisandbox.cni.netconf import parse_netconf, sniff_version
from cnisandbox.cni.output import error_document
from cnisandbox.errors import IncompatibleVersion, InvalidConfig, UndecodableInput
from tests.property.strategies import HOSTILE_BYTES

VERBS = st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS"])


@pytest.mark.timeout(600)  # 25 s on a machine that does nothing else
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(HOSTILE_BYTES, VERBS)
def test_ten_thousand_inputs_give_a_netconf_or_a_printable_error_with_the_specifications_code(data, verb):
    try:
        parse_netconf(data, verb)
    except (UndecodableInput, InvalidConfig, IncompatibleVersion) as error:
        document = json.loads(error_document(error, sniff_version(data)))
        assert document["code"] in (1, 6, 7)
