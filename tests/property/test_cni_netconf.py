"""Properties of reading a network configuration."""

import json

from hypothesis import given
from hypothesis import strategies as st

from cnisandbox.cni.netconf import NetConf, parse_netconf, sniff_version
from cnisandbox.cni.versions import SUPPORTED, parse_version
from cnisandbox.errors import IncompatibleVersion, InvalidConfig, UndecodableInput
from tests.property.strategies import HOSTILE_BYTES, JSON, NETCONFS, mutated_netconfs, outcome, with_other_case

REFUSALS = (UndecodableInput, InvalidConfig, IncompatibleVersion)
VERBS = st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "nonsense"])


def fields(netconf):
    """All of a NetConf that is not a copy of its input."""
    return netconf.version, netconf.name, netconf.type, netconf.prev_result, netconf.valid_attachments


def encoded(document):
    return json.dumps(document).encode()


@given(HOSTILE_BYTES, VERBS)
def test_any_bytes_give_a_netconf_or_a_documented_error(data, verb):
    got = outcome(parse_netconf, data, verb, errors=REFUSALS)
    if isinstance(got, NetConf):
        assert got.raw == data
    else:
        assert got.msg
        assert "\n" not in got.msg


@given(HOSTILE_BYTES)
def test_any_bytes_give_a_version_to_report_the_error_in(data):
    parse_version(sniff_version(data))


@given(NETCONFS)
def test_a_valid_netconf_is_read_as_it_was_written(document):
    netconf = parse_netconf(encoded(document))
    assert (netconf.version, netconf.name, netconf.type) == (document["cniVersion"], document["name"], document["type"])
    assert (netconf.valid_attachments is None) == (
        "cni.dev/valid-attachments" not in document and "cni.dev/attachments" not in document
    )


@given(mutated_netconfs())
def test_an_invalid_config_error_names_a_field_of_the_config(document):
    got = outcome(parse_netconf, encoded(document), errors=REFUSALS)
    if isinstance(got, InvalidConfig):
        field = got.msg.split(":")[0].split(".")[0].split("[")[0]
        assert field in {"name", "type", "ipMasq", "ipam", "dns", "prevResult", "cni"}


@given(st.data(), NETCONFS)
def test_the_case_of_keys_does_not_matter(data, document):
    other = data.draw(with_other_case(document))
    netconf = parse_netconf(encoded(other))
    assert fields(netconf) == fields(parse_netconf(encoded(document)))
    assert netconf.config["ipam"]["subnet"].string() == ((document.get("ipam") or {}).get("subnet") or "")


@given(NETCONFS, st.dictionaries(st.text(min_size=1).map(lambda key: f"x-{key}"), JSON, max_size=3))
def test_unknown_keys_do_not_matter(document, unknown):
    data = json.dumps({**unknown, **document}, ensure_ascii=False).encode("utf-8", "replace")
    assert fields(parse_netconf(data)) == fields(parse_netconf(encoded(document)))


@given(NETCONFS, NETCONFS)
def test_the_last_of_two_equal_keys_wins(first, last):
    both = f"{json.dumps(first)[:-1]},{json.dumps({**dict.fromkeys(first), **last})[1:]}".encode()
    netconf = parse_netconf(both)
    alone = parse_netconf(encoded({**dict.fromkeys(first), **last}))
    assert fields(netconf) == fields(alone)


@given(NETCONFS, st.text(max_size=8))
def test_a_version_that_is_not_published_is_refused_by_every_verb(document, version):
    for verb in ("ADD", "DEL", "CHECK", "GC", "STATUS"):
        got = outcome(parse_netconf, encoded({**document, "cniVersion": version}), verb, errors=REFUSALS)
        assert not isinstance(got, NetConf) or got.version in SUPPORTED
