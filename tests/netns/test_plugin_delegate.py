"""Address plugins that are not ours: executed with no privilege, and their words passed on.

bridge (engine) ──▶ delegate worker ──▶ static, host-local of the reference, or a script
"""

import os
import pwd
import re
from pathlib import Path

import pytest

from tests.interop.differential_cases import BRIDGE
from tests.interop.observe import differences, observe, store
from tests.interop.plugin_calls import REFERENCE_DIR, JsonObject, Plugins, changed
from tests.interop.test_differential import MAY_REMAIN
from tests.world import World, wait_until

PLUGIN_DIR = "/run/plugins"
NETCONF = changed(BRIDGE, ipMasq=True, ipam={"type": "scripted"})
ADDRESS = '{"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.5/24"}]}'


@pytest.fixture
def plugins(world: World, plugin_dir: str) -> Plugins:
    world.netns("blue")
    world.run(["mkdir", PLUGIN_DIR])
    return Plugins(world, plugin_dir, path=PLUGIN_DIR)


def write_plugin(world: World, *lines: str, interpreter: str = "/bin/sh") -> None:
    """Write the plugin `scripted`; it says what it is told to say for ADD, and nothing else."""
    path = world.outside_path(PLUGIN_DIR) / "scripted"
    path.write_text("\n".join([f"#!{interpreter}", *lines]) + "\n")
    path.chmod(0o755)


def answering(document: str) -> str:
    return f"[ \"$CNI_COMMAND\" != ADD ] || printf '%s' '{document}'"


class TestPrivilege:
    PROBES = (
        'say() { echo "$1=$2" >&2; }',
        'say uid "$(id -u)"; say gid "$(id -g)"; say groups "$(id -G)"',
        'say shadow "$(wc -c 2>/dev/null < /etc/shadow)"',
        'say proc "$(ls /proc 2>/dev/null | grep -cx self)"',
        'say etc "$(echo x 2>/dev/null > /etc/cni/written && echo written)"',
        'say link "$(ip link add probe0 type bridge 2>/dev/null && echo made)"',
        'say mount "$(mount -t tmpfs x /etc/cni 2>/dev/null && echo mounted)"',
        'say state "$(echo x 2>/dev/null > /var/lib/cni/networks/probe && echo written)"',
        answering(ADDRESS),
    )

    def probe(self, plugins: Plugins, level: str) -> dict[str, str]:
        write_plugin(plugins.world, *self.PROBES)
        answer = plugins.call("ADD", NETCONF, env={"CNISANDBOX_LEVEL": level})
        said = re.findall(r"^cnisandbox: scripted: (\w+)=(.*)$", answer.stderr, re.MULTILINE)
        assert len(said) == len(answer.stderr.splitlines()), answer.stderr
        return dict(said)

    @pytest.mark.parametrize("level", ["hardened", "netadmin"])
    def test_it_can_do_nothing_but_keep_state(self, plugins: Plugins, level: str) -> None:
        user = pwd.getpwnam("cnisandbox")
        ids = {"uid": str(user.pw_uid), "gid": str(user.pw_gid), "groups": str(user.pw_gid)}
        refused = dict.fromkeys(("shadow", "etc", "link", "mount"), "")
        assert self.probe(plugins, level) == {**ids, **refused, "proc": "0", "state": "written"}

    def test_control_as_root_it_could(self, plugins: Plugins) -> None:
        said = self.probe(plugins, "root")
        assert (said["uid"], said["shadow"]) == ("0", str(Path("/etc/shadow").stat().st_size))
        assert (said["proc"], said["etc"], said["link"], said["mount"]) == ("1", "written", "made", "mounted")

    def test_kernel_says_the_same_of_its_process(self, plugins: Plugins) -> None:
        world, user = plugins.world, pwd.getpwnam("cnisandbox")
        write_plugin(world, "until [ -e /var/lib/cni/networks/go ]; do sleep 0.02; done", answering(ADDRESS))
        call = plugins.start("ADD", NETCONF)
        pid = wait_until(lambda: next(filter(is_scripted, world.pids()), 0))
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert status["Uid"].split() == [str(user.pw_uid)] * 4
        assert status["Gid"].split() == [str(user.pw_gid)] * 4
        assert [status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == ["0" * 16] * 5
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        wait_until(lambda: own_files(pid) == [f"{PLUGIN_DIR}/scripted"])  # the linker has the shell's libraries open
        (world.outside_path("/var/lib/cni/networks") / "go").touch()
        stdout, _ = call.communicate(timeout=10)
        assert call.returncode == 0, stdout


def own_files(pid: int) -> list[str]:
    """What a process has open besides the standard descriptors."""
    try:
        return [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd") if int(fd) > 2]
    except FileNotFoundError:  # closed meanwhile
        return []


def is_scripted(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == f"/bin/sh\0{PLUGIN_DIR}/scripted\0".encode()
    except OSError:
        return False


class TestProtocol:
    def test_it_gets_the_netconf_to_the_byte_and_the_environment(self, plugins: Plugins) -> None:
        write_plugin(
            plugins.world,
            'if [ "$CNI_COMMAND" = ADD ]; then',
            "cat > /var/lib/cni/networks/stdin; env > /var/lib/cni/networks/environment",
            f"echo '{ADDRESS}'; fi",
        )
        data = b'{"cniVersion":"1.0.0", "name":"lab","type":"bridge",\t"ipam": {"type":"scripted","x":1e3,"x":2}}\n'
        plugins.call("ADD", data, args="IgnoreUnknown=1;A=b")
        assert plugins.world.read("/var/lib/cni/networks/stdin") == data
        environment = plugins.world.read("/var/lib/cni/networks/environment").decode().splitlines()
        expected = plugins.environment("ADD", args="IgnoreUnknown=1;A=b")
        assert {f"{key}={value}" for key, value in expected.items()} <= set(environment)

    @pytest.mark.parametrize("verb", ["DEL", "CHECK", "GC", "STATUS"])
    def test_every_verb_is_forwarded(self, plugins: Plugins, verb: str) -> None:
        write_plugin(plugins.world, 'echo "asked $CNI_COMMAND" >&2', answering(ADDRESS.replace("1.0.0", "1.1.0")))
        netconf = changed(NETCONF, cniVersion="1.1.0")
        result = plugins.add(netconf)
        prepared = {**netconf, "prevResult": result, "cni.dev/valid-attachments": []}
        assert plugins.call(verb, prepared).stderr == f"cnisandbox: scripted: asked {verb}\n"

    def test_result_of_an_older_version_is_understood(self, plugins: Plugins) -> None:
        write_plugin(plugins.world, answering('{"ip4": {"ip": "10.9.0.5/24", "gateway": "10.9.0.1"}}'))
        result = plugins.add(changed(NETCONF, cniVersion="0.2.0"))
        assert result["ip4"] == {"ip": "10.9.0.5/24", "gateway": "10.9.0.1"}

    def test_its_error_is_passed_on_as_it_is(self, plugins: Plugins) -> None:
        error = '{"cniVersion": "1.0.0", "code": 123, "msg": "no more", "details": "the drawer is empty"}'
        write_plugin(plugins.world, f"echo '{error}'; exit 1")
        for verb in ("ADD", "DEL"):
            said = plugins.fail(verb, NETCONF)
            assert (said["code"], said["msg"]) == (123, "no more")
            assert said["details"].startswith("the drawer is empty")


BROKEN = {
    "no-output": ("exit 0",),
    "not-json": ("echo nonsense",),
    "a-list": ("echo '[]'",),
    "no-addresses": (answering('{"cniVersion": "1.0.0"}'),),
    "address-without-prefix": (answering('{"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.5"}]}'),),
    "address-is-no-address": (answering('{"cniVersion": "1.0.0", "ips": [{"address": "x/24"}]}'),),
    "route-is-no-route": (answering(ADDRESS[:-1] + ', "routes": [{"dst": 5}]}'),),
    "version-unknown": (answering(ADDRESS.replace("1.0.0", "9.0.0")),),
    "dies-by-signal": ("kill -SEGV $$",),
    "fails-without-a-word": ("exit 3",),
    "says-too-much": ("yes 2>/dev/null | head -c 2000000",),
    "writes-too-much-to-stderr": ("yes 2>/dev/null | head -c 2000000 >&2",),
    "cannot-be-executed": (),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_plugin_is_an_error_and_nothing_is_left(plugins: Plugins, name: str) -> None:
    write_plugin(plugins.world, *BROKEN[name], interpreter="/bin/sh" if BROKEN[name] else "/nowhere")
    before = observe(plugins.world, "blue").state
    error = plugins.fail("ADD", NETCONF)
    assert "defect of cnisandbox" not in error.get("details", "")
    changes = differences(before, observe(plugins.world, "blue").state)
    assert [path for path in changes if not re.fullmatch(MAY_REMAIN, path)] == []


def test_plugin_that_says_too_much_on_two_outputs_is_still_told_to_give_back(plugins: Plugins) -> None:
    """Neither is too long, and together they do not fit into one message."""
    lots = "yes 2>/dev/null | head -c 1048576"
    write_plugin(plugins.world, f'[ "$CNI_COMMAND" = ADD ] && {lots} && {lots} >&2; exit 0')
    error = plugins.fail("ADD", NETCONF)
    assert error["msg"].endswith("it wrote more than 1048576 bytes")
    assert "details" not in error, error


def test_plugin_need_not_read_what_it_does_not_use(plugins: Plugins) -> None:
    write_plugin(plugins.world, "exec 0<&-", answering(ADDRESS))
    plugins.add({**NETCONF, "filler": "x" * 500_000})


STATIC: JsonObject = {
    "type": "static",
    "addresses": [{"address": "10.9.0.5/24", "gateway": "10.9.0.1"}],
    "routes": [{"dst": "0.0.0.0/0"}],
}


@pytest.mark.parametrize("name", ["bridge", "loopback"])
def test_plugin_of_ours_that_gives_no_addresses_is_refused(world: World, plugin_dir: str, name: str) -> None:
    world.netns("blue")
    error = Plugins(world, plugin_dir).fail("ADD", changed(NETCONF, ipam={"type": name}))
    assert (error["code"], error["msg"]) == (
        7,
        f"ipam.type: '{name}' is {name} of cnisandbox, which gives no addresses",
    )
    assert "veth" not in str(world.ifnames())


class TestReference:
    @pytest.fixture
    def mixed(self, world: World, plugin_dir: str) -> Plugins:
        """Our bridge; the address plugins are the reference's."""
        world.netns("blue")
        world.netns("red")
        return Plugins(world, plugin_dir, path=REFERENCE_DIR)

    def test_static(self, mixed: Plugins) -> None:
        netconf = changed(NETCONF, ipam=STATIC)
        result = mixed.add(netconf)
        mixed.world.run(["ping", "-c1", "-W1", "10.9.0.1"], netns="blue")
        mixed.check(netconf, result)
        mixed.delete(netconf, result)

    def test_host_local_writes_as_the_service_user_what_root_can_use(self, mixed: Plugins) -> None:
        netconf = changed(NETCONF, ipam=BRIDGE["ipam"])
        result = mixed.add(netconf)
        assert result["ips"][0]["address"] == "10.9.0.2/24"
        entry = store(mixed.world)["/var/lib/cni/networks/lab/10.9.0.2"]
        assert entry["content"] == "c1\r\neth0"
        assert entry["owner"] == "0:0", "the state directory is an idmapped mount for it"
        mixed.check(netconf, result)
        as_root = Plugins(mixed.world, REFERENCE_DIR)
        assert as_root.call("ADD", netconf, plugin="host-local", container_id="c2").document["ips"]
        mixed.delete(netconf, result)
        assert "/var/lib/cni/networks/lab/10.9.0.2" not in store(mixed.world)

    def test_its_refusal_names_the_range(self, mixed: Plugins) -> None:
        netconf = changed(NETCONF, ipam={"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/30"}]]})
        mixed.add(netconf)
        error = mixed.fail("ADD", netconf, container_id="c2", netns="red")
        assert (error["code"], "10.9.0.1-10.9.0.2" in error["msg"]) == (999, True)
        assert mixed.world.ifnames("red") == {"lo"}

    def test_missing_plugin_says_where_it_was_looked_for(self, mixed: Plugins) -> None:
        for path in (REFERENCE_DIR, "", f"/none:{REFERENCE_DIR}"):
            plugins = Plugins(mixed.world, mixed.directory)
            plugins.path = path
            error = plugins.fail("ADD", changed(NETCONF, ipam={"type": "nowhere"}))
            assert error["code"] == 7
            assert "'nowhere'" in error["msg"]
            assert (path or "CNI_PATH") in error["msg"]


@pytest.mark.parametrize("name", ["../bridge", "/bin/true", ".", "a/b", "a\0b"])
def test_plugin_cannot_be_named_by_a_path(plugins: Plugins, name: str) -> None:
    error = plugins.fail("ADD", changed(NETCONF, ipam={"type": name}))
    assert error["code"] == 7
    assert error["msg"] == f"ipam.type: {name!r} cannot be the name of a plugin"


def test_processes_of_a_plugin_end_with_the_call(plugins: Plugins) -> None:
    """What a plugin leaves in the background is killed with its pid namespace, soon after: the engine does not wait."""
    write_plugin(plugins.world, "sleep 1000 < /dev/null > /dev/null 2>&1 &", answering(ADDRESS))
    plugins.add(NETCONF)
    wait_until(lambda: not any(map(is_sleeping, plugins.world.pids())))


def is_sleeping(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
    except OSError:
        return False
