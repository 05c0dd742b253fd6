"""Category d: files: secrets, what makes an attacker's code run again, sockets of the runtime, state directories."""

# ruff: noqa: E501 - one row, one line: it is a table

from functools import partial

from cnisandbox.laboratory.attacker import files as _f
from cnisandbox.laboratory.attacker import network as _n
from cnisandbox.laboratory.attacker import processes as _p
from cnisandbox.laboratory.attacker.knowledge import PLUGIN_DIRECTORY
from cnisandbox.laboratory.vector import Vector

_CRON, _UNIT, _PRELOAD, _PROGRAM = (
    "/etc/cron.d/escape",
    "/etc/systemd/system/escape.service",
    "/etc/ld.so.preload",
    "/usr/local/bin/iptables",
)
_POD, _CONFLIST = "/etc/kubernetes/manifests/escape.yaml", "/etc/cni/net.d/00-escape.conflist"
_KUBECONFIG, _PLUGIN_KUBECONFIG = "/etc/kubernetes/admin.conf", "/etc/cni/net.d/calico-kubeconfig"
_PLUGIN, _PLUGIN_BESIDE_STATE = f"{PLUGIN_DIRECTORY}/portmap", "/var/lib/cni/bin/portmap"
_MODPROBE, _UEVENT, _SYSRQ, _KCORE = (
    "/proc/sys/kernel/modprobe",
    "/sys/kernel/uevent_helper",
    "/proc/sysrq-trigger",
    "/proc/kcore",
)
_DOCKER, _CONTAINERD = "/run/docker.sock", "/run/containerd/containerd.sock"
_PODMAN, _DHCP = "/run/podman/podman.sock", "/run/cni/dhcp.sock"
_RESULT = "/var/lib/cni/results/podman-other-eth0"
_BINFMT = "/proc/sys/fs/binfmt_misc/register"
_BUS, _SYSTEMD = "/run/dbus/system_bus_socket", "/run/systemd/private"

_ESCAPE = "escape matrix {}".format
_PERSISTENCE = "MITRE ATT&CK {}".format
_SOCKETS = "Schnatterer, Kubernetes AppOps Security, 2020 (mounting the Docker socket)"

# fmt: off
VECTORS: tuple[Vector, ...] = (
    # Secrets
    Vector("d-read-shadow", "d", "read /etc/shadow", _f.read_shadow, _f.said_shadow, _ESCAPE("a06")),
    Vector("d-read-secret-of-root", "d", "read a file of root, mode 0600", _f.read_secret, _f.said_secret, _ESCAPE("f05")),
    Vector("d-read-public-file", "d", "read /etc/passwd, which everybody may read", _f.read_public_file, _f.said_passwd, _ESCAPE("f03")),
    Vector("d-read-kubeconfig", "d", "read a cluster administrator's kubeconfig", partial(_f.read_file, _KUBECONFIG), partial(_f.said_what_is_in, _KUBECONFIG), _PERSISTENCE("T1552.001"), scene=partial(_f.make_secret_file, _KUBECONFIG), needs=_f.lacks_overlay),
    Vector("d-read-kubeconfig-of-plugin", "d", "read the kubeconfig that a CNI plugin has left beside the network configuration", partial(_f.read_file, _PLUGIN_KUBECONFIG), partial(_f.said_what_is_in, _PLUGIN_KUBECONFIG), "CVE-2024-33522 (what Calico's installer leaves)", scene=partial(_f.make_secret_file, _PLUGIN_KUBECONFIG), needs=_f.lacks_overlay),
    Vector("d-read-token-of-pod", "d", "read a pod's service account token in the runtime's copy of its file system", partial(_f.read_file, _f.TOKEN_FILE), partial(_f.said_what_is_in, _f.TOKEN_FILE), _PERSISTENCE("T1528"), scene=_f.make_token_of_pod),
    Vector("d-read-environment-of-process", "d", "read /proc/PID/environ of a process of root", _f.read_environment, _f.said_environment, _ESCAPE("f04")),
    Vector("d-read-through-root-of-process", "d", "read a file of root through /proc/PID/root", _f.read_secret_through_process, _f.said_secret, "proc(5)"),
    Vector("d-walk-up-from-root", "d", "../../.. from the root directory", _f.walk_up_from_root, _f.said_secret, _ESCAPE("f05, e05")),
    Vector("d-walk-up-from-state", "d", "../../.. from a state directory", _f.walk_up_from_state, _f.said_secret, _ESCAPE("e06")),
    Vector("d-walk-up-from-own-state", "d", "the same where the service user owns the directory", _f.see_private_file_from_state, _f.said_mode_of_open_directory, _ESCAPE("e07"), scene=_f.own_state_directory),
    Vector("d-walk-up-from-left-directory", "d", "FD/../secret from a directory left open", _n.walk_up_from_kept_directory, _f.said_secret, _ESCAPE("c08")),
    Vector("d-read-through-link", "d", "read through a symbolic link in a state directory", _f.read_through_link, _f.said_secret, _ESCAPE("e08"), scene=_f.make_link_to_secret),
    Vector("d-read-by-handle", "d", "open_by_handle_at() of a file of root", _f.read_secret_by_handle, _f.said_secret, _ESCAPE("d12")),
    # Writing, and what runs again
    Vector("d-write-open-directory", "d", "write to a directory that is open to everybody", _f.write_open_directory, _f.open_directory_was_written, _ESCAPE("f01, g04")),
    Vector("d-write-directory-of-root", "d", "write to a directory of root", _f.write_private_file, _f.private_file_was_written, _ESCAPE("f02")),
    Vector("d-plant-cron-job", "d", "leave a job in /etc/cron.d", partial(_f.plant, _CRON), partial(_f.is_planted, _CRON), _PERSISTENCE("T1053.003"), scene=partial(_f.cover, "/etc/cron.d"), needs=_f.lacks_overlay),
    Vector("d-plant-systemd-unit", "d", "leave a unit in /etc/systemd/system", partial(_f.plant, _UNIT), partial(_f.is_planted, _UNIT), _PERSISTENCE("T1543.002"), scene=partial(_f.cover, "/etc/systemd/system"), needs=_f.lacks_overlay),
    Vector("d-plant-preload", "d", "name a library in /etc/ld.so.preload", partial(_f.plant, _PRELOAD), partial(_f.is_planted, _PRELOAD), _PERSISTENCE("T1574.006"), scene=partial(_f.cover, "/etc"), needs=_f.lacks_overlay),
    Vector("d-plant-authorized-key", "d", "add a key to root's authorized_keys", partial(_f.plant, _f.AUTHORIZED_KEYS), partial(_f.is_planted, _f.AUTHORIZED_KEYS), _PERSISTENCE("T1098.004"), scene=_f.make_home_of_root, needs=_f.lacks_overlay),
    Vector("d-plant-program-in-path", "d", "leave a program that comes before the real one in root's PATH", partial(_f.plant, _PROGRAM), partial(_f.is_planted, _PROGRAM), _PERSISTENCE("T1574.007"), scene=partial(_f.cover, "/usr/local/bin"), needs=_f.lacks_overlay),
    Vector("d-plant-static-pod", "d", "leave a static pod for the kubelet", partial(_f.plant, _POD), partial(_f.is_planted, _POD), "Microsoft threat matrix for Kubernetes: static pods", scene=partial(_f.cover, "/etc/kubernetes/manifests"), needs=_f.lacks_overlay),
    Vector("d-plant-network-configuration", "d", "leave a conflist that comes first in /etc/cni/net.d", partial(_f.plant, _CONFLIST), partial(_f.is_planted, _CONFLIST), "Microsoft threat matrix for Kubernetes", scene=partial(_f.cover, "/etc/cni/net.d"), needs=_f.lacks_overlay),
    Vector("d-replace-plugin", "d", "make a plugin in a directory of CNI_PATH", _f.replace_plugin, _f.plugin_was_replaced, _ESCAPE("g05")),
    Vector("d-change-plugin", "d", "write to a plugin in a directory of CNI_PATH", partial(_f.write_to, _PLUGIN), partial(_f.is_planted, _PLUGIN), "cni-dev, security of writing plugins to disk", scene=partial(_f.install_plugin, _PLUGIN)),
    Vector("d-exchange-plugin", "d", "rename a file of a state directory to the name of a plugin on the same file system", partial(_f.exchange_plugin, _PLUGIN_BESIDE_STATE), partial(_f.is_planted, _PLUGIN_BESIDE_STATE), "rename(2)", scene=partial(_f.install_plugin, _PLUGIN_BESIDE_STATE)),
    Vector("d-plant-link", "d", "leave a symbolic link that a root-run reference plugin writes through, symlinkat()", _f.plant_link, _f.reference_plugin_writes_outside, _ESCAPE("e09, g19")),
    Vector("d-plant-link-by-path", "d", "the same with symlink()", _f.plant_link_by_path, _f.reference_plugin_writes_outside, _ESCAPE("g20")),
    Vector("d-set-uid-program-by-fchmod", "d", "leave a set-uid program in a state directory, root's on disk: fchmod()", _f.make_setuid_by_descriptor, _f.host_has_setuid_program, _ESCAPE("e10, g06")),
    Vector("d-set-uid-program-by-fchmodat", "d", "the same with fchmodat()", _f.make_setuid_by_path, _f.host_has_setuid_program, _ESCAPE("g07")),
    Vector("d-set-uid-program-by-fchmodat2", "d", "the same with fchmodat2()", _f.make_setuid_by_fchmodat2, _f.host_has_setuid_program, "fchmodat2(2), Linux 6.6", needs=_f.lacks_fchmodat2),
    Vector("d-set-uid-program-by-chmod", "d", "the same with chmod()", _f.make_setuid_by_chmod, _f.host_has_setuid_program, _ESCAPE("g08")),
    Vector("d-set-uid-file-by-open", "d", "make a set-uid file: open(O_CREAT, 04755)", _f.make_empty_setuid_file, _f.host_has_setuid_file, _ESCAPE("e11")),
    Vector("d-set-uid-file-by-openat2", "d", "the same with openat2(), whose mode no filter can see", _f.make_setuid_by_openat2, _f.host_has_setuid_file, "openat2(2)"),
    Vector("d-set-uid-file-by-mknod", "d", "the same with mknod(S_IFREG | 04755)", _f.make_setuid_by_mknod, _f.host_has_setuid_file, "mknod(2)"),
    Vector("d-program-with-capabilities", "d", "leave a program with file capabilities: setxattr(security.capability)", _f.give_file_capabilities, _f.state_has_file_with_capabilities, "capabilities(7)"),
    Vector("d-make-device", "d", "mknod() of /dev/mem in a state directory", _f.make_device, _f.state_has_device, _ESCAPE("e12, g09")),
    Vector("d-make-fifo", "d", "mknod() of a FIFO there, on which a plugin of root waits for ever", _f.make_fifo, _f.state_has_fifo, "mknod(2), fifo(7)"),
    Vector("d-give-file-away", "d", "fchown() in a state directory", _f.give_file_away, _f.state_has_file_of_nobody, _ESCAPE("e13, g10")),
    Vector("d-open-state-to-everybody", "d", "fchmod(0666) of a file in a state directory", _f.open_state_to_everybody, _f.state_is_open_to_everybody, _ESCAPE("e20")),
    Vector("d-link-host-file-into-state", "d", "hard link of a file of root in a state directory", _f.link_host_file_into_state, _f.file_has_two_names, _ESCAPE("g12"), scene=_f.make_linkable_file),
    Vector("d-execute-from-state", "d", "execve() of a program in a state directory", _f.execute_from_state, _f.open_directory_was_written, _ESCAPE("e14, g11")),
    Vector("d-free-address-of-other-container", "d", "delete another container's reservation", _f.free_address, _f.address_is_free, _ESCAPE("e22"), scene=_f.reserve_address),
    Vector("d-change-result-of-other-container", "d", "change what the runtime remembers of another container's result, and hands to DEL", partial(_f.write_to, _RESULT), partial(_f.is_planted, _RESULT), "CNI specification 1.1, section 4: cached results", scene=partial(_f.put_private_file, _RESULT)),
    Vector("d-erase-evidence", "d", "ftruncate() of the file with the attestations", _f.erase_attestations, _f.evidence_is_gone, _ESCAPE("e15")),
    Vector("d-overwrite-evidence", "d", "clear O_APPEND of it and overwrite", _f.overwrite_attestations, _f.evidence_is_gone, _ESCAPE("e16")),
    # What the kernel executes, and devices
    Vector("d-open-core-pattern", "d", "open core_pattern for writing", _p.open_core_pattern, _p.may_write_core_pattern, _ESCAPE("d01")),
    Vector("d-open-core-pattern-beside-sysctls", "d", "/proc/sys/net/../kernel/core_pattern", _p.open_core_pattern_beside, _p.may_write_core_pattern, _ESCAPE("d13")),
    Vector("d-open-modprobe-path", "d", "open the path of modprobe for writing", partial(_f.open_for_writing, _MODPROBE), partial(_f.may_write, _MODPROBE), "CVE-2022-0811 (sysctl injection)", needs=partial(_f.lacks_file, _MODPROBE, "CONFIG_MODULES")),
    Vector("d-open-uevent-helper", "d", "open uevent_helper for writing", partial(_f.open_for_writing, _UEVENT), partial(_f.may_write, _UEVENT), "container escapes by uevent_helper", needs=partial(_f.lacks_file, _UEVENT, "CONFIG_UEVENT_HELPER")),
    Vector("d-open-release-agent", "d", "open a release_agent for writing", _f.open_release_agent, _f.may_write_release_agent, "CVE-2022-0492", needs=_f.lacks_release_agent),
    Vector("d-open-sysrq-trigger", "d", "open /proc/sysrq-trigger for writing", partial(_f.open_for_writing, _SYSRQ), partial(_f.may_write, _SYSRQ), "proc(5)", needs=partial(_f.lacks_file, _SYSRQ, "CONFIG_MAGIC_SYSRQ")),
    Vector("d-open-kernel-memory", "d", "open /proc/kcore", partial(_f.open_for_reading, _KCORE), partial(_f.may_read, _KCORE), "Kubernetes container security: Linux capabilities, rev. 2 (SYS_RAWIO)", needs=partial(_f.lacks_file, _KCORE, "CONFIG_PROC_KCORE")),
    Vector("d-open-binary-formats", "d", "open binfmt_misc's register for writing: an interpreter for programs", partial(_f.open_for_writing, _BINFMT), partial(_f.may_write, _BINFMT), "binfmt_misc, the flag C: with the rights of the program", scene=partial(_f.mount_binary_formats, _BINFMT), needs=_f.lacks_binary_formats),
    Vector("d-open-disk", "d", "open a block device of the machine, such as its disk", _f.open_disk, _f.may_read_disk, _PERSISTENCE("T1006"), needs=_f.lacks_disk),
    Vector("d-open-disk-by-number", "d", "make a node for one in a state directory, mknod(), and open that", _f.open_disk_by_number, _f.may_read_disk, _PERSISTENCE("T1006"), needs=_f.lacks_disk),
    # Sockets
    Vector("d-connect-to-docker", "d", "connect to Docker's socket", partial(_f.connect_to, _DOCKER), _n.listener_was_reached, _SOCKETS, scene=partial(_f.listen_on, _DOCKER, 0o660)),
    Vector("d-connect-to-containerd", "d", "connect to containerd's socket", partial(_f.connect_to, _CONTAINERD), _n.listener_was_reached, _SOCKETS, scene=partial(_f.listen_on, _CONTAINERD, 0o660)),
    Vector("d-connect-to-podman", "d", "connect to podman's socket", partial(_f.connect_to, _PODMAN), _n.listener_was_reached, _SOCKETS, scene=partial(_f.listen_on, _PODMAN, 0o660)),
    Vector("d-connect-to-system-bus", "d", "connect to the system bus, which is open to everybody", partial(_f.connect_to, _BUS), _n.listener_was_reached, "dbus-daemon(1)", scene=partial(_f.listen_on, _BUS, 0o666)),
    Vector("d-connect-to-systemd", "d", "connect to systemd's private socket", partial(_f.connect_to, _SYSTEMD), _n.listener_was_reached, "systemd(1)", scene=partial(_f.listen_on, _SYSTEMD, 0o777)),
    Vector("d-connect-to-dhcp-daemon", "d", "connect to the daemon of the reference plugin dhcp", partial(_f.connect_to, _DHCP), _n.listener_was_reached, "docs/runner.md, The DHCP daemon", scene=partial(_f.listen_on, _DHCP, 0o755)),
    Vector("d-connect-to-abstract-name", "d", "abstract unix socket of a process of the host, in the host's netns or the container's", partial(_f.connect_to, _f.ABSTRACT_NAME), _f.abstract_listener_was_reached, "CVE-2020-15257", scene=_f.listen_on_abstract_names),
    Vector("d-connect-to-service-of-host", "d", "TCP connection to a service of the host, as the kubelet is", _n.connect_tcp, _n.listener_was_reached, _ESCAPE("s01"), scene=_n.listen_on_host),
)
# fmt: on
