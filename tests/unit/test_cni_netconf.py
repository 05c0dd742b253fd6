"""C-1, C-2, C-9, V-2 to V-5, G-1, G-4, T-5, T-7: what every plugin demands of its configuration."""

import json

import pytest

from cnisandbox.cni.netconf import Attachment, is_identifier, parse_netconf, sniff_version
from cnisandbox.cni.result import Address, Result
from cnisandbox.errors import IncompatibleVersion, InvalidConfig, UndecodableInput

MINIMAL = {"cniVersion": "1.1.0", "name": "net", "type": "bridge"}


def parse(verb="ADD", **changes):
    return parse_netconf(json.dumps({**MINIMAL, **changes}).encode(), verb)


def refusal(error, verb="ADD", **changes):
    with pytest.raises(error) as refused:
        parse(verb, **changes)
    return refused.value


def test_a_minimal_config_is_read():
    data = json.dumps(MINIMAL).encode()
    netconf = parse_netconf(data)
    assert (netconf.version, netconf.name, netconf.type) == ("1.1.0", "net", "bridge")
    assert netconf.prev_result is None
    assert netconf.valid_attachments is None
    assert netconf.raw == data
    assert netconf.config["type"].path == "type"


@pytest.mark.parametrize("data", [b"[]", b"1", b'"x"', b"true", b"[{}]"])
def test_c1_the_top_level_is_an_object(data):
    with pytest.raises(UndecodableInput, match=r"^decode netconf: expected an object, got "):
        parse_netconf(data)


@pytest.mark.parametrize("data", [b"null", b"{}", b'{"name":null}', b'{"name":""}'])
def test_c1_the_name_is_required(data):
    with pytest.raises(InvalidConfig, match=r"^name: missing network name$"):
        parse_netconf(data)


@pytest.mark.parametrize("name", ["a", "Z9", "0", "a.b_c-d", "my-net.1", "x" * 300])
def test_c1_a_name_may_be(name):
    assert is_identifier(name)
    assert parse(name=name).name == name


@pytest.mark.parametrize("name", ["-a", ".", "..", "_x", "a/b", "../a", "a b", "a\n", "a\0", "\xe4", "a:b", "\u0661"])
def test_c1_a_name_may_not_be(name):
    error = refusal(InvalidConfig, name=name)
    assert error.msg == "name: invalid characters found in network name"
    assert error.details == repr(name)
    assert not is_identifier(name)


def test_the_empty_text_is_no_identifier():
    assert not is_identifier("")


def test_c1_a_name_of_another_type_is_refused():
    assert refusal(InvalidConfig, name=7).msg == "name: expected a string, got 7"


@pytest.mark.parametrize("changes", [{"cniVersion": ""}, {"cniVersion": None}])
def test_c2_no_version_is_0_1_0(changes):
    assert parse(**changes).version == "0.1.0"
    assert parse_netconf(b'{"name":"net"}').version == "0.1.0"


@pytest.mark.parametrize("version", [1, 1.1, ["1.1.0"], {}, True])
def test_c2_a_version_of_another_type_cannot_be_decoded(version):
    assert "cniVersion: expected a string" in refusal(UndecodableInput, cniVersion=version).msg


def test_v2_an_unknown_version_is_refused_with_both_sides():
    error = refusal(IncompatibleVersion, cniVersion="9.8.7")
    assert error.code == 1
    assert error.details.startswith("config is '9.8.7', plugin supports 0.1.0, ")


def test_v2_the_plugins_own_versions_count():
    with pytest.raises(IncompatibleVersion):
        parse_netconf(b'{"name":"net","cniVersion":"0.2.0"}', supported=("0.3.0", "1.1.0"))


@pytest.mark.parametrize(("verb", "version"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")])
def test_v4_the_verb_has_to_exist_in_the_version(verb, version):
    assert refusal(IncompatibleVersion, verb, cniVersion=version).msg == f"config version does not allow {verb}"


@pytest.mark.parametrize("verb", ["CHECK", "GC", "STATUS"])
def test_v5_garbage_as_version_cannot_be_decoded_where_it_is_compared(verb):
    refusal(UndecodableInput, verb, cniVersion="garbage")
    refusal(IncompatibleVersion, "ADD", cniVersion="garbage")


ORDER = [
    ({"name": "", "cniVersion": "9.9.9"}, InvalidConfig, "name: "),
    ({"name": "a/b", "cniVersion": 5}, InvalidConfig, "name: "),
    ({"cniVersion": "9.9.9", "prevResult": 5}, IncompatibleVersion, "incompatible"),
    ({"cniVersion": "9.9.9", "ipam": 5}, IncompatibleVersion, "incompatible"),
]


@pytest.mark.parametrize(("changes", "error", "msg"), ORDER)
def test_the_name_is_checked_before_the_version_and_the_version_before_the_rest(changes, error, msg):
    assert refusal(error, **changes).msg.startswith(msg)


WRONG_FIELDS = [
    ({"type": []}, "type: expected a string, got []"),
    ({"ipMasq": "true"}, "ipMasq: expected true or false, got 'true'"),
    ({"ipam": []}, "ipam: expected an object, got []"),
    ({"ipam": {"type": 1}}, "ipam.type: expected a string, got 1"),
    ({"dns": "8.8.8.8"}, "dns: expected an object, got '8.8.8.8'"),
    ({"dns": {"nameservers": ["8.8.8.8", 8]}}, "dns.nameservers[1]: expected a string, got 8"),
    ({"dns": {"domain": []}}, "dns.domain: expected a string, got []"),
    ({"dns": {"search": "a"}}, "dns.search: expected an array, got 'a'"),
    ({"dns": {"options": {}}}, "dns.options: expected an array, got {}"),
    ({"prevResult": []}, "prevResult: expected an object, got []"),
    ({"prevResult": {"ips": [{}]}}, "prevResult.ips[0].address: is missing"),
    (
        {"prevResult": {"ips": [{"address": "10.0.0.1"}]}},
        "prevResult.ips[0].address: '10.0.0.1' is not an IP address with a prefix length",
    ),
    ({"cni.dev/valid-attachments": {}}, "cni.dev/valid-attachments: expected an array, got {}"),
    ({"cni.dev/valid-attachments": ["c"]}, "cni.dev/valid-attachments[0]: expected an object, got 'c'"),
]


@pytest.mark.parametrize(("changes", "msg"), WRONG_FIELDS)
def test_c9_a_wrong_field_is_named_by_its_path(changes, msg):
    assert refusal(InvalidConfig, **changes).msg == msg


def test_c9_well_known_fields_may_be_null():
    assert parse(ipMasq=None, ipam=None, dns=None, prevResult=None, type=None).type == ""


def test_unknown_fields_are_left_to_the_plugin():
    netconf = parse(args={"cni": {"ips": ["10.0.0.9"]}}, runtimeConfig={"mac": "x"}, nonsense=[1e3, 2**70])
    assert [ip.string() for ip in netconf.config["args"]["cni"]["ips"]] == ["10.0.0.9"]


def test_t7_keys_are_matched_in_any_case():
    data = (
        b'{"CNIVERSION":"0.4.0","NAME":"net","Type":"x","IPAM":{"TYPE":"host-local"},'
        b'"PrevRESULT":{"IPS":[{"ADDRESS":"10.0.0.1/8"}]}}'
    )
    netconf = parse_netconf(data)
    assert (netconf.version, netconf.name, netconf.type) == ("0.4.0", "net", "x")
    assert netconf.config["ipam"]["type"].string() == "host-local"
    assert netconf.prev_result == Result(ips=(Address("10.0.0.1/8"),))


def test_t7_the_last_duplicate_wins():
    assert parse_netconf(b'{"name":"a","NAME":"b"}').name == "b"
    assert parse_netconf(b'{"name":"a","NAME":"b","name":"c"}').name == "c"


class TestPrevResult:
    def test_t5_may_be_empty(self):
        assert parse(prevResult={}).prev_result == Result()

    def test_t5_has_the_configs_version_if_it_names_none(self):
        netconf = parse(cniVersion="0.2.0", prevResult={"ip4": {"ip": "10.0.0.1/8"}})
        assert netconf.prev_result.ips == (Address("10.0.0.1/8"),)

    @pytest.mark.parametrize(
        ("config", "result"), [("0.1.0", "0.2.0"), ("0.3.0", "0.4.0"), ("1.1.0", "1.0.0"), ("1.0.0", "1.1.0")]
    )
    def test_t5_may_have_another_version_of_the_same_family(self, config, result):
        assert parse(cniVersion=config, prevResult={"cniVersion": result}).prev_result == Result()

    @pytest.mark.parametrize(
        ("config", "result"),
        [("0.2.0", "0.3.0"), ("0.4.0", "1.0.0"), ("1.0.0", "0.4.0"), ("1.1.0", "0.2.0"), ("1.1.0", "9.9.9")],
    )
    def test_t5_of_another_family_is_refused(self, config, result):
        error = refusal(InvalidConfig, cniVersion=config, prevResult={"cniVersion": result})
        assert error.msg.startswith("prevResult.cniVersion: result type supports ")
        assert error.msg.endswith(f"but unmarshalled CNIVersion is {result!r}")


UNREADABLE = [5, [], {"ips": [{}]}, {"ips": [{"address": "?"}]}, {"cniVersion": "0.4.0"}, {"cniVersion": "9.9.9"}]


class TestDelete:
    @pytest.mark.parametrize("prev_result", UNREADABLE)
    def test_d4_unreadable_prev_result_is_none(self, prev_result):
        refusal(InvalidConfig, "CHECK", cniVersion="1.0.0", prevResult=prev_result)
        assert parse("DEL", cniVersion="1.0.0", prevResult=prev_result).prev_result is None

    def test_readable_prev_result_is_there(self):
        assert parse("DEL", prevResult={}).prev_result == Result()

    @pytest.mark.parametrize("changes", [{"dns": "8.8.8.8"}, {"dns": {"search": "a"}}, {"ipMasq": "true"}])
    def test_what_add_refuses_and_delete_does_not_need_is_no_error(self, changes):
        refusal(InvalidConfig, "ADD", **changes)
        assert parse("DEL", **changes).name == MINIMAL["name"]


ONE_ATTACHMENT = [{"containerID": "c1", "ifname": "eth0"}]


class TestValidAttachments:
    @pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments", "CNI.dev/Valid-Attachments"])
    def test_g1_are_read_under_both_keys(self, key):
        assert parse("GC", **{key: ONE_ATTACHMENT}).valid_attachments == {Attachment("c1", "eth0")}

    @pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
    @pytest.mark.parametrize("nothing", [None, []])
    def test_g4_null_and_empty_mean_that_nothing_is_valid(self, key, nothing):
        assert parse("GC", **{key: nothing}).valid_attachments == frozenset()

    def test_g4_a_missing_key_is_not_an_empty_list(self):
        assert parse("GC").valid_attachments is None

    def test_g4_the_current_key_counts_if_both_are_there(self):
        both = {
            "cni.dev/attachments": [{"containerID": "old", "ifname": "eth0"}],
            "cni.dev/valid-attachments": ONE_ATTACHMENT,
        }
        assert parse("GC", **both).valid_attachments == {Attachment("c1", "eth0")}

    def test_are_distinct_by_container_and_interface(self):
        two = [*ONE_ATTACHMENT, {"containerID": "c1", "ifname": "net1"}, *ONE_ATTACHMENT]
        assert parse("GC", **{"cni.dev/valid-attachments": two}).valid_attachments == {
            Attachment("c1", "eth0"),
            Attachment("c1", "net1"),
        }

    @pytest.mark.parametrize(
        ("entry", "path"),
        [
            (None, "[0].containerID: is missing"),
            ({}, "[0].containerID: is missing"),
            ({"containerID": "", "ifname": "eth0"}, "[0].containerID: is missing"),
            ({"containerID": "c"}, "[0].ifname: is missing"),
            ({"containerID": "c", "ifname": 5}, "[0].ifname: expected a string, got 5"),
        ],
    )
    def test_that_protect_nothing_are_refused(self, entry, path):
        assert (
            refusal(InvalidConfig, "GC", **{"cni.dev/valid-attachments": [entry]}).msg
            == f"cni.dev/valid-attachments{path}"
        )


@pytest.mark.parametrize(
    ("data", "version"),
    [
        (b'{"cniVersion":"0.3.1"}', "0.3.1"),
        (b'{"CNIversion":"0.3.1","name":[]}', "0.3.1"),
        (b'{"cniVersion":"9.9.9"}', "9.9.9"),
        (b"{}", "0.1.0"),
        (b'{"cniVersion":null}', "0.1.0"),
        (b"garbage", "1.1.0"),
        (b"", "1.1.0"),
        (b"[]", "1.1.0"),
        (b'{"cniVersion":5}', "1.1.0"),
        (b'{"cniVersion":"<script>"}', "1.1.0"),
        (b"[" * 100_000, "1.1.0"),
    ],
)
def test_the_version_of_an_error_is_found_whatever_is_wrong(data, version):
    assert sniff_version(data) == version
