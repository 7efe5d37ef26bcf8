#!/usr/bin/env bash
# Whether a cluster can be started on this machine; says what is missing where it cannot.
# shellcheck source=parts.sh
source "$(dirname "$0")/parts.sh"

[ "$(id -u)" = 0 ] || fail "containers and iptables need root; give KUBECONFIG to use another cluster"
need go gcc python3 containerd runc ctr buildah busybox iptables conntrack ip openssl
unshare --mount --net true 2> /dev/null || fail "this machine does not let root make namespaces"
