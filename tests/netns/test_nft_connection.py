"""libnftables in the surroundings of the host worker: no file, no capability but CAP_NET_ADMIN, few system calls."""

import errno
import os
import resource
import socket
from collections.abc import Callable
from typing import Any

import prctl
import pytest

from cnisandbox import _native, _nftables
from cnisandbox.errors import KernelRefused
from cnisandbox.nft import connection
from cnisandbox.nft.masquerade import Owner, add_masquerade, delete_masquerade, gc_masquerade, has_masquerade
from cnisandbox.nft.spoofcheck import add_spoofcheck, delete_spoofcheck, has_spoofcheck
from tests.netns.test_nft_masquerade import reference_bridge
from tests.world import CLONE_NEWNET, World, requires_feature, setns

# What libnftables 1.0.6 and Python call while they talk to the kernel. No openat, no ioctl, no stat.
NETLINK_CALLS = [
    "socket",
    "setsockopt",
    "getsockopt",
    "fcntl",
    "sendto",
    "sendmsg",
    "recvmsg",
    "pselect6",
    "getpid",
    "close",
]
PROCESS_CALLS = [
    "read",
    "write",
    "brk",
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "futex",
    "clock_gettime",
    "exit_group",
]
NETLINK_NETFILTER = 12
NOBODY = 65534
ADDRESSES = ["10.1.2.3/24", "fd00:1::3/64"]


def only_netlink() -> bytes:
    """Compile a filter that refuses with EPERM every system call but those above, and every socket but netfilter's."""
    lib, ffi = _native.lib, _native.ffi
    refuse = 0x00050000 | errno.EPERM  # SCMP_ACT_ERRNO
    context = lib.seccomp_init(refuse)
    for name in NETLINK_CALLS + PROCESS_CALLS:
        arguments = {0: socket.AF_NETLINK, 2: NETLINK_NETFILTER} if name == "socket" else {}
        compared = ffi.new(
            "struct scmp_arg_cmp[]", [(arg, lib.SCMP_CMP_EQ, value, 0) for arg, value in arguments.items()]
        )
        number = lib.seccomp_syscall_resolve_name(name.encode())
        assert lib.seccomp_rule_add_array(context, lib.SCMP_ACT_ALLOW, number, len(compared), compared) == 0, name
    fd = os.memfd_create("filter")
    assert lib.seccomp_export_bpf(context, fd) == 0
    lib.seccomp_release(context)
    return os.pread(fd, 1 << 16, 0)


def confine(capabilities: list[int], program: bytes) -> None:
    """Go into an empty root, become nobody, keep these capabilities, and allow the system calls of the filter only."""
    os.makedirs("/run/empty")
    os.chroot("/run/empty")
    os.chdir("/")
    os.setgroups([])
    prctl.securebits.keep_caps = True
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    prctl.cap_permitted.limit(*capabilities)
    prctl.cap_effective.net_admin = prctl.CAP_NET_ADMIN in capabilities
    prctl.set_no_new_privs(1)
    assert _native.lib.native_seccomp_load(program, len(program) // 8, 0) == 0


def everything() -> list[bool]:
    """Call every declared function."""
    delete_masquerade("net", "id1", "eth0")
    add_masquerade("net", "id1", "eth0", ADDRESSES)
    answers = [has_masquerade("net", "id1", "eth0", ADDRESSES)]
    add_masquerade("net", "id2", "eth0", ADDRESSES)
    answers.append(has_masquerade("net", "id2", "eth0", ADDRESSES))
    gc_masquerade("net", [Owner("id2", "eth0")])
    delete_masquerade("net", "id2", "eth0")
    add_spoofcheck("id1", "eth0", "veth-a", "02:00:00:00:00:01")
    answers.append(has_spoofcheck("id1", "eth0", "veth-a", "02:00:00:00:00:01"))
    delete_spoofcheck("id1", "eth0")
    return answers


def test_the_host_worker_can_do_everything(world: World) -> None:
    program = only_netlink()

    def work() -> list[bool]:
        confine([prctl.CAP_NET_ADMIN], program)
        with pytest.raises(PermissionError):
            socket.socket(socket.AF_UNIX)
        with pytest.raises(PermissionError):
            os.open("/", os.O_RDONLY)
        return everything()

    assert world.call(work) == [True, True, True]
    assert [o["table"]["name"] for o in world.nft_ruleset() if "table" in o] == ["nat"]


@requires_feature("iptables-nft")
def test_the_host_worker_can_remove_iptables_rules_of_the_reference_plugin(world: World) -> None:
    world.netns("pod")
    reference_bridge(world, "ADD", ipMasq=True)
    program = only_netlink()

    def work() -> None:
        confine([prctl.CAP_NET_ADMIN], program)
        delete_masquerade("net", "id1", "eth0")

    world.call(work)
    assert [o["rule"] for o in world.nft_ruleset() if "rule" in o] == []


def test_without_the_capability_the_kernel_refuses(world: World) -> None:
    program = only_netlink()

    def work() -> None:
        confine([], program)
        add_masquerade("net", "id1", "eth0", ADDRESSES)

    with pytest.raises(KernelRefused) as caught:
        world.call(work)
    assert caught.value.errno == errno.EPERM
    assert caught.value.msg == "list chain 'inet/cnisandbox_masquerade/postrouting': operation not permitted"


def test_without_a_netlink_socket_the_process_lives_and_raises(world: World) -> None:
    def work(function: Callable[..., None], *args: Any) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        function(*args)

    with pytest.raises(AssertionError, match="died without an answer"):  # the control: what libnftables does by itself
        world.call(work, _nftables.lib.nft_ctx_new, _nftables.lib.NFT_CTX_DEFAULT)
    with pytest.raises(KernelRefused) as caught:
        world.call(work, add_masquerade, "net", "id1", "eth0", ADDRESSES)
    assert caught.value.errno == errno.EMFILE


def test_a_fork_does_not_use_the_socket_of_its_parent(world: World) -> None:
    pod = world.netns("pod")

    def work() -> bool:
        add_masquerade("net", "id1", "eth0", ADDRESSES)
        child = os.fork()
        if child == 0:
            with open(pod) as netns:
                setns(netns.fileno(), CLONE_NEWNET)
            os._exit(has_masquerade("net", "id1", "eth0", ADDRESSES))
        return os.waitpid(child, 0)[1] == 0 and has_masquerade("net", "id1", "eth0", ADDRESSES)

    assert world.call(work)


def test_a_change_is_all_or_nothing(world: World) -> None:
    def work() -> None:
        connection.run(
            [
                {"add": {"table": {"family": "inet", "name": "t"}}},
                {"add": {"chain": {"family": "inet", "table": "t", "name": "c"}}},
                {"delete": {"chain": {"family": "inet", "table": "t", "name": "missing"}}},
            ],
            "try",
            "this",
        )

    with pytest.raises(KernelRefused) as caught:
        world.call(work)
    assert (caught.value.msg, caught.value.errno) == ("try this: no such file or directory", errno.ENOENT)
    assert "Could not process rule" in caught.value.details
    assert world.nft_ruleset()[1:] == []


@pytest.mark.parametrize(
    "command", [{"add": {"table": {"family": "inet", "name": "a\ud800"}}}, {"no": {"such": 1}}, {}]
)
def test_what_libnftables_cannot_read_is_refused_without_errno(world: World, command: dict[str, Any]) -> None:
    with pytest.raises(KernelRefused) as caught:
        world.call(connection.run, [command])
    assert caught.value.errno == 0
    assert caught.value.details


def test_one_answer_is_not_given_for_the_next_question(world: World) -> None:
    def work() -> list[Any]:
        first = connection.listed("chain", {"family": "inet", "table": "no", "name": "no"})
        connection.run([{"add": {"table": {"family": "inet", "name": "t"}}}])
        tables = connection.run([{"list": {"tables": {"family": "inet"}}}])
        connection.run([{"delete": {"table": {"family": "inet", "name": "t"}}}])
        return [
            first,
            [entry["table"]["name"] for entry in tables],
            connection.run([{"list": {"tables": {"family": "inet"}}}]),
        ]

    assert world.call(work) == [None, ["t"], []]


def test_a_listing_of_one_chain_does_not_hide_the_others_from_the_next_change(world: World) -> None:
    # libnftables keeps what it has listed; a change right after it needs the chains that were not listed.
    table = {"family": "inet", "table": "t"}
    world.run(["nft", "-f", "-"], stdin=b"table inet t {\nchain a {\n}\nchain b {\n}\n}\n")

    def work() -> None:
        assert connection.rules_of("inet", "t", "a") == []
        connection.run([{"add": {"rule": {**table, "chain": "b", "expr": [{"jump": {"target": "a"}}]}}}])

    world.call(work)
    assert [o["rule"]["chain"] for o in world.nft_ruleset() if "rule" in o] == ["b"]
