"""A runtime that runs in a chroot is told that its root cannot be exchanged; nothing is done with less protection."""

import json

from tests.world import World

NETCONF = {"cniVersion": "1.0.0", "name": "n1", "type": "loopback"}
JAIL = "/run/jail/root"
# Everything of the system is there, but the directory itself is no mount.
FILL = f"mkdir -p {JAIL} && cd {JAIL} && for d in /[a-z]*; do [ -d $d ] && mkdir .$d && mount --rbind $d .$d; done; :"


def test_a_root_that_is_no_mount_is_refused_with_what_to_do(world: World, plugin_dir: str) -> None:
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": world.netns("blue"),
        "CNI_IFNAME": "lo",
        "CNI_PATH": plugin_dir,
    }
    world.run(["sh", "-c", FILL])
    answer = world.run(
        ["chroot", JAIL, f"{plugin_dir}/loopback"], env=environment, stdin=json.dumps(NETCONF).encode(), expect=1
    )
    document = json.loads(answer.stdout)
    assert (document["code"], document["msg"]) == (103, "exchange the root: it is not a mount, as in a chroot")
    assert world.link("lo", "blue")["operstate"] == "DOWN"
