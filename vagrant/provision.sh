#!/bin/sh
# provision.sh [SOURCE]: make a fresh Debian 12 a machine whose podman and containerd use our plugins. Run as root.
#
#   SOURCE            the tree to install; by default the one that this script is in
#   /opt/cnisandbox   a copy of it, root's alone, built there
#   /opt/cni/bin      the plugins;  /etc/cni/net.d/10-sandboxed.conflist  the network
#
# It may be run again at any time: what is there already is brought up to date.
set -eu

source=$(readlink -f "${1:-$(dirname "$0")/..}")
target=/opt/cnisandbox
runtimes="podman containerd runc conmon busybox-static containernetworking-plugins curl"

say() {
    echo "provision: $*"
}

require_root() {
    if [ "$(id -u)" -ne 0 ]; then
        say "run it as root" >&2
        exit 1
    fi
}

install_runtimes() {
    say "packages: python3 $runtimes"
    apt-get update -q >/dev/null
    # shellcheck disable=SC2086 # a list of words is meant
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3 $runtimes >/dev/null
}

# The copy belongs to root, whoever owns the source: a runtime executes as root what is in it.
copy_tree() {
    [ "$source" != "$target" ] || return 0
    say "copy: $source to $target"
    mkdir -p "$target"
    tar -C "$source" --exclude=./.git --exclude=./.venv --exclude=./build --exclude='*.so' --exclude='*.o' -cf - . |
        tar -C "$target" --no-same-owner --no-same-permissions -xf -
    chown -R root:root "$target"
    chmod -R go-w "$target"
}

install_plugins() {
    say "plugins: /opt/cni/bin"
    "$target/bootstrap" setup
    "$target/.venv/bin/cnisandbox" install --bin-dir /opt/cni/bin
    ln -sf "$target/.venv/bin/cnisandbox" /usr/local/bin/cnisandbox
}

configure_runtimes() {
    say "networks: /etc/cni/net.d/10-sandboxed.conflist, /etc/containers/containers.conf.d/cnisandbox.conf"
    install -D -m 0644 "$target/vagrant/10-sandboxed.conflist" /etc/cni/net.d/10-sandboxed.conflist
    install -D -m 0644 "$target/vagrant/containers.conf" /etc/containers/containers.conf.d/cnisandbox.conf
    if [ -d /run/systemd/system ]; then
        systemctl restart containerd
    fi
}

require_root
install_runtimes
copy_tree
install_plugins
configure_runtimes
say "done; $target/vagrant/checks.sh says what this machine can do, checks.sh --full tries all of it"
