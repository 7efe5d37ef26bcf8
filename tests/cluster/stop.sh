#!/usr/bin/env bash
# Ends the cluster that start.sh started, and takes back what it did to this machine.
# shellcheck source=parts.sh
source "$(dirname "$0")/parts.sh"

[ -e "$RUN" ] || { say "nothing is running"; exit 0; }
export PATH="$BIN:$PATH"
shopt -s nullglob

alive() { [ -e "$RUN/pid/$1" ] && kill -0 "$(cat "$RUN/pid/$1")" 2> /dev/null; }

# Ends processes by id, and waits until they have.
end() {
    local name pid until
    for name in "$@"; do
        alive "$name" || continue
        pid="$(cat "$RUN/pid/$name")"
        kill "$pid"
        # Nothing of it is kept, so nobody has to be waited for long.
        until=$((SECONDS + 3))
        while kill -0 "$pid" 2> /dev/null; do
            [ "$SECONDS" -lt "$until" ] || { kill -9 "$pid" 2> /dev/null || true; break; }
            sleep 0.1
        done
        rm -f "$RUN/pid/$name"
    done
}

# Pods first, while there is somebody to take their networks and mounts down. Controllers must not
# make new ones meanwhile.
end controller-manager scheduler
if alive apiserver && alive kubelet; then
    kubectl delete mutatingwebhookconfigurations,validatingwebhookconfigurations --all > /dev/null 2>&1 || true
    kubectl delete pods --all-namespaces --all --grace-period=1 --timeout=30s > /dev/null 2>&1 || true
fi
if alive kube-proxy; then
    end kube-proxy
    kube-proxy --cleanup > "$RUN/log/kube-proxy-cleanup.log" 2>&1 || true
fi
end kubelet
# Containers whose kubelet could not end them: theirs are the shims that call our containerd.
for pid in $(pgrep -f "containerd-shim.* -address $RUN/containerd.sock" || true); do
    kill -9 "$pid" 2> /dev/null || true
done
end containerd coredns apiserver etcd
awk -v run="$RUN" -v data="$DATA" 'index($2, run "/") == 1 || index($2, data "/") == 1 { print $2 }' /proc/mounts | sort -r \
    | while read -r mount; do umount --lazy "$mount" || true; done
# What the kubelet adds for itself, and leaves to the machine's next start.
for tool in iptables ip6tables; do
    for chain in INPUT OUTPUT; do "$tool" -w -D "$chain" -j KUBE-FIREWALL 2> /dev/null || true; done
    for table in filter mangle nat; do
        for chain in KUBE-FIREWALL KUBE-KUBELET-CANARY KUBE-IPTABLES-HINT; do
            "$tool" -w -t "$table" -F "$chain" 2> /dev/null && "$tool" -w -t "$table" -X "$chain" || true
        done
    done
done
ip link delete sconce0 2> /dev/null || true
rm -rf "$RUN" "$DATA"
say "stopped"
