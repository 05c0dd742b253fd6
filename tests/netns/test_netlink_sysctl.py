"""Network settings, in a world's own netns."""

import errno
import os

import pytest

from cnisandbox.errors import KernelRefused
from cnisandbox.sysctl import interface_key, read_sysctl, write_if_present, write_sysctl


def test_setting_is_written_in_the_netns_of_the_caller_only(world):
    world.netns("blue")
    world.call(write_sysctl, "net/ipv4/ip_forward", "1", netns="blue")
    assert world.call(read_sysctl, "net/ipv4/ip_forward", netns="blue") == "1"
    assert world.call(read_sysctl, "net/ipv4/ip_forward") == "0"


def test_same_value_is_not_written_again(world):
    def write_where_writing_is_forbidden():
        os.setresuid(65534, 65534, 65534)  # without capabilities from here on
        write_sysctl("net/ipv4/ip_forward", " 0 ")
        write_sysctl("net/ipv4/tcp_rmem", "4096  131072  6291456")

    before = world.call(read_sysctl, "net/ipv4/tcp_rmem")
    if before.split() != ["4096", "131072", "6291456"]:
        world.call(write_sysctl, "net/ipv4/tcp_rmem", "4096 131072 6291456")
    world.call(write_where_writing_is_forbidden)

    def write_another():
        os.setresuid(65534, 65534, 65534)
        return write_sysctl("net/ipv4/ip_forward", "1")

    with pytest.raises(KernelRefused, match="write sysctl net/ipv4/ip_forward: permission denied") as caught:
        world.call(write_another)
    assert caught.value.errno == errno.EACCES


def test_name_of_a_link_may_have_dots(world):
    world.run(["ip", "link", "add", "cni0.100", "type", "veth", "peer", "name", "v1"])
    key = interface_key("ipv4", "cni0.100", "arp_notify")
    world.call(write_sysctl, key, "1")
    assert world.run(["cat", "/proc/sys/net/ipv4/conf/cni0.100/arp_notify"]).stdout == b"1\n"


def test_missing_setting_is_named(world):
    with pytest.raises(KernelRefused, match="read sysctl net/ipv4/conf/nosuch0/arp_notify: no such file") as caught:
        world.call(read_sysctl, "net/ipv4/conf/nosuch0/arp_notify")
    assert caught.value.errno == errno.ENOENT
    world.call(write_if_present, "net/ipv4/conf/nosuch0/arp_notify", "1")


def test_value_that_the_kernel_does_not_take_is_refused(world):
    with pytest.raises(KernelRefused, match="write sysctl net/ipv4/ip_forward: invalid argument") as caught:
        world.call(write_sysctl, "net/ipv4/ip_forward", "many")
    assert "'many'" in caught.value.details


@pytest.mark.parametrize(
    "key",
    [
        "",
        "net",
        "net/",
        "net/..",
        "net/../kernel/core_pattern",
        "kernel/core_pattern",
        "/net/ipv4/ip_forward",
        "net//ipv4",
        "net/ipv4/./ip_forward",
        "net/ipv4/ip_forward/",
        "net/a\0b",
        "net/a\nb",
        "net/" + "a" * 65,
    ],
)
def test_key_that_leads_elsewhere_is_refused(key):
    for operation in (read_sysctl, lambda key: write_sysctl(key, "1")):
        with pytest.raises(KernelRefused, match="invalid argument"):
            operation(key)


@pytest.mark.parametrize("ifname", ["", ".", "..", "a/b", "../all", "a\0"])
def test_ifname_that_leads_elsewhere_is_refused(ifname):
    with pytest.raises(KernelRefused, match="name sysctl"):
        interface_key("ipv4", ifname, "arp_notify")
