"""A profile is the administrator's or the package's, never somebody else's; what is compiled is what is written."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from cnisandbox.cli.launcher import import_directories
from cnisandbox.errors import ProfileError
from cnisandbox.profile import compile as compiler
from cnisandbox.profile import load, packaged, source
from cnisandbox.profile.schema import to_plain
from tests.world import World

MINE = 'summary = "Mine"\nlevel = "hardened"\nprograms = ["/usr/bin/x"]\n'
PLUGINS = {
    *("bridge", "ptp", "macvlan", "ipvlan", "vlan", "host-device", "loopback", "dummy", "tap", "host-local", "static"),
    *("dhcp", "portmap", "firewall", "bandwidth", "tuning", "sbr", "vrf", "generic"),
}


class Machine:
    """A world with a directory of profiles."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.directory = world.outside_path(load.DIRECTORY)
        self.directory.mkdir()
        self.cache = world.outside_path("/run/cnisandbox/profiles")

    def write(self, name: str, text: str = MINE, mode: int = 0o644) -> str:
        file = self.directory / f"{name}.toml"
        file.write_text(text)
        file.chmod(mode)
        return f"{load.DIRECTORY}/{name}.toml"

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.world.call(function, *args)

    def summary(self, name: str) -> str:
        return str(self.call(lambda: load.load_profile(name).summary))

    def refusal(self, name: str) -> ProfileError:
        with pytest.raises(ProfileError) as raised:
            self.call(lambda: to_plain(load.load_profile(name)))
        return raised.value


@pytest.fixture
def machine(world: World) -> Machine:
    return Machine(world)


def test_the_compiled_profiles_are_what_the_files_say() -> None:
    with open(compiler.TARGET, encoding="utf-8") as file:
        assert file.read() == compiler.render(), "run `python -m cnisandbox.profile.compile`"


def test_there_is_a_profile_for_each_reference_plugin() -> None:
    assert packaged.PROFILES.keys() == PLUGINS


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_a_profile_of_the_package_is_loaded_without_its_file(name: str) -> None:
    path = os.path.join(source.PROFILES, f"{name}.toml")
    loaded = load.load_profile(name) if not os.path.exists(f"{load.DIRECTORY}/{name}.toml") else None
    assert loaded == source.read_profile(source.read_text(path), name, path, "package")


def test_loading_imports_neither_toml_nor_json_nor_re() -> None:
    program = (
        f"import sys; sys.path += {import_directories()!r}\n"
        "from cnisandbox.profile.load import profile_for\n"
        "print(profile_for('/opt/cni/bin/bridge').name, *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    name, *modules = done.stdout.split()
    assert name == "bridge"
    assert not {"tomllib", "json", "re", "typing", "cnisandbox.profile.source"} & set(modules)


def test_profile_for_goes_by_the_file_name() -> None:
    assert load.profile_for("/usr/lib/cni/bridge").name == "bridge"
    assert load.profile_for("host-local").name == "host-local"


@pytest.mark.parametrize("name", ["calico", "bridge-old", "my plugin", "..", "", "/", "x" * 300, "brücke"])
def test_a_plugin_without_profile_gets_the_generic_one(name: str) -> None:
    assert load.profile_for(name).name == "generic"


def test_the_administrators_profile_replaces_the_packages_wholly(machine: Machine) -> None:
    assert machine.summary("bridge") != "Mine"
    path = machine.write("bridge")
    plain = machine.call(lambda: to_plain(load.profile_for("/opt/cni/bin/bridge")))
    assert plain[:4] == ("bridge", "Mine", path, "hardened")
    assert plain[5] == ()


def test_an_administrator_can_add_a_profile_and_replace_the_generic_one(machine: Machine) -> None:
    machine.write("calico", MINE.replace("Mine", "Calico"))
    machine.write("generic", MINE.replace("Mine", "Nothing"))
    names = [machine.call(lambda n=name: load.profile_for(n).summary) for name in ("calico", "unheard-of")]
    assert names == ["Calico", "Nothing"]


def test_a_word_with_a_slash_is_a_file(machine: Machine) -> None:
    path = machine.write("special")
    plain = machine.call(lambda: to_plain(load.load_profile(path)))
    assert plain[:3] == ("special", "Mine", path)


def test_names_are_those_of_both(machine: Machine) -> None:
    paths = {name: machine.write(name) for name in ("bridge", "mine")}
    (machine.directory / "README").write_text("not a profile")
    (machine.directory / ".hidden.toml").write_text("nor this")
    names = machine.call(load.profile_names)
    assert {entry.name for entry in names} == PLUGINS | {"mine"}
    by_name = {entry.name: entry for entry in names}
    assert by_name["bridge"] == ("bridge", paths["bridge"], True)
    assert by_name["mine"] == ("mine", paths["mine"], False)
    assert by_name["ptp"] == ("ptp", "", False)


@pytest.mark.parametrize("name", ["unheard-of", "", "..", "my plugin"])
def test_a_name_that_there_is_no_profile_of_is_an_error(name: str) -> None:
    with pytest.raises(ProfileError, match="there is no profile of that name"):
        load.load_profile(name)


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_may_write_is_refused_not_skipped(machine: Machine, mode: int) -> None:
    machine.write("bridge", mode=mode)
    error = machine.refusal("bridge")
    assert error.msg.endswith("somebody else than root may write to it")
    assert "chmod go-w" in error.details


def test_a_file_of_somebody_else_is_refused(machine: Machine) -> None:
    os.chown(machine.directory / machine.write("bridge").rpartition("/")[2], 65534, 65534)
    assert machine.refusal("bridge").msg.endswith("somebody else than root may write to it")


def test_a_directory_that_others_may_write_is_refused(machine: Machine) -> None:
    machine.write("bridge")
    machine.directory.chmod(0o777)
    assert machine.refusal("bridge").msg.endswith("somebody else than root may write to it")
    with pytest.raises(ProfileError, match="somebody else"):
        machine.call(load.profile_names)


def test_links_and_other_things_are_refused(machine: Machine) -> None:
    (machine.directory / "bridge.toml").symlink_to("/etc/shadow")
    (machine.directory / "ptp.toml").symlink_to("nothing")
    (machine.directory / "vlan.toml").mkdir()
    os.mkfifo(machine.directory / "tap.toml")
    for name in ("bridge", "ptp"):
        assert "too many levels of symbolic links" in machine.refusal(name).msg
    for name in ("vlan", "tap"):
        assert "not a file of at most" in machine.refusal(name).msg


def test_what_is_no_text_and_what_is_too_long_is_refused(machine: Machine) -> None:
    (machine.directory / "bridge.toml").write_bytes(b'summary = "x"\nlevel = "\xff"\n')
    assert machine.refusal("bridge").msg.endswith("line 2: not UTF-8")
    (machine.directory / "ptp.toml").write_bytes(b"#" * (256 * 1024 + 1))
    assert "not a file of at most 262144 bytes" in machine.refusal("ptp").msg


def test_mistakes_of_an_administrators_profile_end_the_call(machine: Machine) -> None:
    path = machine.write("bridge", MINE + "typo = 1\n")
    with pytest.raises(ProfileError) as raised:
        machine.call(lambda: load.profile_for("/opt/cni/bin/bridge").name)
    assert raised.value.msg.startswith(f"read profile {path}: line 4: typo: there is no such key")


def test_a_text_is_read_once_and_taken_compiled_afterwards(machine: Machine) -> None:
    machine.write("bridge")
    first = machine.call(lambda: to_plain(load.load_profile("bridge")))
    (copy,) = machine.cache.iterdir()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    document = json.loads(copy.read_text())
    document[1] = "Compiled"
    copy.write_text(json.dumps(document))
    assert machine.summary("bridge") == "Compiled"
    machine.write("bridge", MINE + "# changed\n")
    assert machine.call(lambda: to_plain(load.load_profile("bridge"))) == first


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '["a"]', "\x00", "[" * 10000])
def test_a_compiled_copy_that_is_damaged_is_not_used(machine: Machine, content: str) -> None:
    machine.write("bridge")
    machine.summary("bridge")
    (copy,) = machine.cache.iterdir()
    copy.write_text(content)
    assert machine.summary("bridge") == "Mine"


@pytest.mark.parametrize("what", ["copy", "directory"])
def test_a_compiled_copy_that_others_may_write_is_not_used(machine: Machine, what: str) -> None:
    machine.write("bridge")
    machine.summary("bridge")
    (copy,) = machine.cache.iterdir()
    copy.write_text(copy.read_text().replace("Mine", "Forged"))
    assert machine.summary("bridge") == "Forged"  # the control
    (copy if what == "copy" else machine.cache).chmod(0o777)
    assert machine.summary("bridge") == "Mine"


def test_without_a_place_for_copies_texts_are_read(machine: Machine) -> None:
    machine.write("bridge")
    machine.world.outside_path("/run/cnisandbox").write_text("in the way")
    assert machine.summary("bridge") == "Mine"
