#!/bin/sh
# checks.sh [--fast | --full]: say what this machine can do, and whether that is enough. Run as root.
#
#   --fast   (default) the kernel's link kinds, by name; `cnisandbox doctor`. Changes nothing, takes seconds.
#   --full   for a machine that provision.sh has made: every link kind must be there; the demo; all tests; two containers of
#            podman and two of containerd's ctr that reach each other over our network, and nothing left afterwards.
set -eu

here=$(readlink -f "$(dirname "$0")/..")
python=${PYTHON:-$here/.venv/bin/python}
mode=${1:---fast}
image=localhost/cnisandbox-check:1
failures=0

# Kinds that plugins of this project or coming ones make; each with what `ip link add` wants to know.
kinds="bridge veth dummy ifb macvlan ipvlan vlan vrf vxlan"

say() {
    echo "checks: $*"
}

failed() {
    say "FAILED: $*"
    failures=$((failures + 1))
}

# In a netns that is thrown away; what the kernel loads for it, it would load for a plugin, too.
has_link_kind() {
    case $1 in
        macvlan | ipvlan) options="link parent0 name probe0 type $1" ;;
        vlan) options="link parent0 name probe0 type vlan id 5" ;;
        vrf) options="name probe0 type vrf table 10" ;;
        vxlan) options="name probe0 type vxlan id 5 dstport 4789" ;;
        vlan-filtering) options="name probe0 type bridge vlan_filtering 1" ;;
        *) options="name probe0 type $1" ;;
    esac
    unshare --net sh -c "ip link add parent0 type veth peer name parent1 && ip link add $options" >/dev/null 2>&1
}

check_link_kinds() {
    for kind in $kinds vlan-filtering; do
        if has_link_kind "$kind"; then
            say "kernel has $kind"
        else
            say "kernel lacks $kind"
            [ "$mode" != --full ] || failed "Debian's kernel has $kind: is linux-image-amd64 running, not the cloud variant?"
        fi
    done
}

check_doctor() {
    say "cnisandbox doctor"
    "$python" -m cnisandbox.cli.main doctor || failed "doctor: level hardened is not available"
}

check_demo_and_tests() {
    say "bootstrap demo"
    "$here/bootstrap" demo || failed "demo"
    say "bootstrap test, without any skip but kernel gaps"
    CNISANDBOX_MUST_RUN=1 "$here/bootstrap" test || failed "tests"
}

# An image of one static binary: no registry is asked.
make_image() {
    rootfs=$work/rootfs
    mkdir -p "$rootfs/bin" "$rootfs/www" "$rootfs/etc" "$rootfs/proc" "$rootfs/sys" "$rootfs/dev" "$rootfs/tmp"
    cp /bin/busybox "$rootfs/bin/"
    for name in sh timeout wget httpd sleep; do
        ln -sf busybox "$rootfs/bin/$name"
    done
    echo hello >"$rootfs/www/index.html"
    tar -C "$rootfs" -cf "$work/image.tar" .
    podman import --quiet --change 'CMD ["/bin/sleep", "100000000"]' "$work/image.tar" "$image" >/dev/null
}

# shellcheck disable=SC2016 # $0 is for the shell in the container
fetch='for i in 1 2 3 4 5; do timeout 3 wget -q -O - http://$0/ && exit; sleep 1; done; exit 1'

check_podman() {
    say "podman: two containers"
    podman run --detach --name cnisandbox-web "$image" httpd -f -p 80 -h /www >/dev/null
    address=$(podman inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' cnisandbox-web)
    said=$(podman run --rm "$image" sh -c "$fetch" "$address") || true
    [ "$said" = hello ] || failed "podman: container to container ($address)"
    said=$(curl --silent --max-time 5 "http://$address/") || true
    [ "$said" = hello ] || failed "podman: host to container ($address)"
    podman rm --force --time 0 cnisandbox-web >/dev/null
}

check_containerd() {
    say "containerd: two containers"
    podman save --quiet --format oci-archive --output "$work/oci.tar" "$image"
    ctr images import "$work/oci.tar" >/dev/null
    ctr run --detach --cni "$image" cnisandbox-web httpd -f -p 80 -h /www
    address=$(basename "$(grep -l '^default-cnisandbox-web' /var/lib/cni/networks/sandboxed/10.* | head -n 1)")
    said=$(ctr run --rm --cni "$image" cnisandbox-client sh -c "$fetch" "$address") || true
    [ "$said" = hello ] || failed "containerd: container to container ($address)"
    ctr tasks kill --signal 9 cnisandbox-web
    # ctr never calls DEL for a detached container, so GC has to.
    cnisandbox net gc sandboxed --all --plugin-dir /opt/cni/bin --plugin-dir /usr/lib/cni >/dev/null || failed "gc"
    for attempt in 1 2 3 4 5; do
        ctr containers rm cnisandbox-web 2>/dev/null && break
        [ "$attempt" -lt 5 ] || failed "containerd: remove container"
        sleep 1
    done
}

check_nothing_left() {
    left=$(ip -o link | grep -c 'master cnisandbox0' || true)
    [ "$left" -eq 0 ] || failed "$left ports are left on cnisandbox0"
    left=$(find /var/lib/cni/networks/sandboxed -name '10.*' | wc -l)
    [ "$left" -eq 0 ] || failed "$left addresses are left"
    if nft list table inet cnisandbox_masquerade >/dev/null 2>&1; then
        failed "masquerading is left"
    fi
}

case $mode in
    --fast | --full) ;;
    *)
        sed -n '2,6s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
esac
if [ "$(id -u)" -ne 0 ]; then
    say "run it as root: it makes network namespaces" >&2
    exit 1
fi

cd "$here"
check_link_kinds
check_doctor
if [ "$mode" = --full ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    check_demo_and_tests
    make_image
    check_podman
    check_containerd
    check_nothing_left
fi
if [ "$failures" -gt 0 ]; then
    say "$failures failed"
    exit 1
fi
say "all passed"
