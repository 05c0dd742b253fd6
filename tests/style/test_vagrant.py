"""The machine of vagrant/: its scripts are clean, its checks run here in their fast mode, its files fit together."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cnisandbox.cli import launcher
from cnisandbox.runtime.conflist import load_file

VAGRANT = Path(__file__).resolve().parents[2] / "vagrant"
SCRIPTS = sorted(VAGRANT.glob("*.sh"))
CONFLIST = VAGRANT / "10-sandboxed.conflist"


def _run(*argv: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60, env=environment)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_clean_posix_shell(script: Path) -> None:
    assert script.read_text().startswith("#!/bin/sh\n")
    assert script.stat().st_mode & 0o111 == 0o111
    done = _run("shellcheck", "--enable=all", "--exclude=SC2250,SC2310,SC2312", str(script))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_refuses_to_run_without_root(script: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("changing the user needs root")
    copy = shutil.copy(script, "/run/cnisandbox-test-script.sh")  # where another user can read it
    try:
        done = _run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", copy)
    finally:
        os.unlink(copy)
    assert done.returncode == 1
    assert "as root" in done.stderr


def test_fast_checks_pass_and_name_every_link_kind() -> None:
    if os.geteuid() != 0:
        pytest.skip("making namespaces needs root")
    script = VAGRANT / "checks.sh"
    before = _run("ip", "-o", "link").stdout
    done = _run(str(script), "--fast")
    assert done.returncode == 0, done.stdout + done.stderr
    named = set(re.findall(r"^checks: kernel (?:has|lacks) ([\w-]+)", done.stdout, re.MULTILINE))
    kinds = re.search(r'^kinds="(.*)"$', script.read_text(), re.MULTILINE)
    assert kinds
    assert named == {*kinds[1].split(), "vlan-filtering"}
    assert "checks: kernel has bridge\n" in done.stdout
    assert "level hardened is available" in done.stdout
    assert done.stdout.endswith("checks: all passed\n")
    assert _run("ip", "-o", "link").stdout == before


def test_checks_say_how_they_are_called() -> None:
    done = _run(str(VAGRANT / "checks.sh"), "--wrong")
    assert done.returncode == 2
    assert done.stdout.startswith("checks.sh [--fast | --full]")


def test_vagrantfile_names_the_stock_box_and_files_that_exist() -> None:
    text = (VAGRANT / "Vagrantfile").read_text()
    assert 'config.vm.box = "debian/bookworm64"' in text
    for path in re.findall(r'path: "([^"]+)"', text) + re.findall(r"/opt/cnisandbox/vagrant/(\S+?)[\s\"]", text):
        assert (VAGRANT / path).is_file(), path
    code = re.sub(r"#.*|\"[^\"]*\"", "", text)
    assert len(re.findall(r"\bdo\b", code)) == len(re.findall(r"^\s*end\b", code, re.MULTILINE))


def test_vagrantfile_copies_no_build_of_another_machine() -> None:
    excluded = re.search(r"rsync__exclude: \[(.*)\]", (VAGRANT / "Vagrantfile").read_text())
    assert excluded
    assert {'".venv/"', '"*.so"', '".git/"'} <= set(excluded[1].split(", "))


def test_network_begins_with_our_plugin_and_suits_old_runtimes() -> None:
    network = load_file(str(CONFLIST))
    document = json.loads(CONFLIST.read_text())
    assert network.version == "1.0.0"  # podman 4.3 and containerd 1.6 refuse results of 1.1.0
    assert document["plugins"][0]["type"] in launcher.plugin_names()
    assert document["plugins"][0]["ipam"]["type"] in launcher.plugin_names()


def test_podman_looks_for_our_plugins_first() -> None:
    network = tomllib.loads((VAGRANT / "containers.conf").read_text())["network"]
    provision = (VAGRANT / "provision.sh").read_text()
    assert network["network_backend"] == "cni"
    assert f"--bin-dir {network['cni_plugin_dirs'][0]}\n" in provision
    assert network["network_config_dir"] in provision
    assert network["default_network"] == json.loads(CONFLIST.read_text())["name"]
