# What the test cluster is made of, and where its parts are kept. Sourced by the scripts here.
# shellcheck shell=bash
set -euo pipefail

CLUSTER="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

# Kubernetes and etcd: see kubernetes/go.mod. 1.34 is the last minor version whose kubelet takes
# both cgroup v1 and containerd 1.6, which Debian 12 has.
KUBERNETES=v1.34.4
ISTIO=v0.0.0-20260827124520-eed52ebb66ad
COREDNS=v1.15.0
GATEWAY_API=v1.6.0
ENVOY=1.40.0
HELM=v4.3.1
REGISTRY=v3.0.0

# Parts are kept by version outside the tree: they take 20 minutes on 2 cores and never change.
key="$(cat "$CLUSTER"/kubernetes/* <(echo "$ISTIO $COREDNS $GATEWAY_API $ENVOY") | cksum | cut -d' ' -f1)"
PARTS="${SCONCE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sconce}/cluster-$key"
BIN="$PARTS/bin"
# Images are put together in seconds, so a change of theirs builds nothing else again.
IMAGES="$PARTS/images-$(cat "$CLUSTER"/images/* "$CLUSTER/build.sh" | cksum | cut -d' ' -f1)"
# The running cluster: sockets, logs, process ids, its kubeconfig.
RUN="${SCONCE_CLUSTER_RUN:-/run/sconce-cluster}"

say() { printf 'cluster: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# Names every program that is missing, and how to get it.
need() {
    local program missing=()
    for program in "$@"; do command -v "$program" > /dev/null || missing+=("$program"); done
    [ "${#missing[@]}" -eq 0 ] || fail "not here: ${missing[*]}; on Debian: apt-get install --no-install-recommends" \
        "${PACKAGES[*]}; and a Go of 1.24 or newer"
}

# Debian's part of it.
PACKAGES=(containerd runc containernetworking-plugins iptables conntrack iproute2 busybox-static buildah openssl gcc)

# What the running cluster writes and forgets: containers, etcd, the kubelet's pods.
DATA="${SCONCE_CLUSTER_DATA:-/var/lib/sconce-cluster}"
export KUBECONFIG="$RUN/kubeconfig"

# Starts a process that outlives this script, and notes its id.
launch() {
    local name="$1"
    shift
    setsid nohup "$@" > "$RUN/log/$name.log" 2>&1 < /dev/null &
    echo $! > "$RUN/pid/$name"
}

# Waits for a condition; says what did not come true, with the end of the log that should say why.
await() {
    local what="$1" log="$2" seconds="$3" until
    shift 3
    until=$((SECONDS + seconds))
    until "$@" > /dev/null 2>&1; do
        if [ "$SECONDS" -ge "$until" ]; then
            tail -20 "$RUN/log/$log.log" >&2
            fail "after $seconds s it is still not so: $what; the log is $RUN/log/$log.log"
        fi
        sleep 0.2
    done
}

# Copies programs with every library that they load, under the same paths.
with_libraries() {
    local target="$1" program library
    shift
    for program in "$@"; do
        { ldd "$program" 2> /dev/null || true; } | grep -o '/[^ ]*' | while read -r library; do
            install -D "$library" "$target$library"
        done
    done
}
