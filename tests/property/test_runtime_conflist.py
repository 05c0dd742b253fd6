"""Whatever bytes lie in a configuration file: a network, or an error that names the file."""

import json

from hypothesis import given
from hypothesis import strategies as st

from cnisandbox.errors import InvalidConfig
from cnisandbox.runtime import conflist

VALID = json.dumps(
    {
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.1.0"],
        "name": "lab",
        "disableCheck": "true",
        "plugins": [{"type": "bridge", "capabilities": {"ips": True}, "ipam": {"type": "host-local"}}],
    }
).encode()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("cniVersion", "cniVersions", "name", "plugins", "disableCheck", "disableGC", "loadOnlyInlinedPlugins")
PLUGIN = st.dictionaries(st.sampled_from(["type", "TYPE", "capabilities", "name", "x"]), JSON, max_size=4)


def load(raw: bytes) -> None:
    try:
        network = conflist.parse_list(raw, "some.conflist")
    except InvalidConfig as error:
        refusal = error.msg
    else:
        assert network.plugins
        assert conflist.parse_list(network.raw, "some.conflist") == network
        return
    assert refusal.startswith("load 'some.conflist': ")


@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    load(raw)


@given(st.integers(0, len(VALID) - 1), st.binary(max_size=3))
def test_any_change_of_a_valid_file(position: int, replacement: bytes) -> None:
    load(VALID[:position] + replacement + VALID[position + 1 :])


@given(st.dictionaries(st.sampled_from(KEYS), JSON | st.lists(PLUGIN, max_size=3), max_size=len(KEYS)))
def test_any_value_under_the_known_keys(members: dict[str, object]) -> None:
    load(json.dumps(members).encode())
