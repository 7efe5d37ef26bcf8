#!/usr/bin/env bash
# Builds Sconce's images and the scenarios' caller, and loads them into the cluster that start.sh started.
# shellcheck source=parts.sh
source "$(dirname "$0")/parts.sh"

[ -S "$RUN/containerd.sock" ] || fail "no cluster is running here; start.sh starts one"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
root="$CLUSTER/../.."
SCONCE_SBOM=off "$root/deploy/build.sh" "$folder"

# The caller, with the C library it was linked to and the tools it stands beside.
context="$folder/context"
mkdir -p "$context/bin" "$context/tmp"
chmod 1777 "$context/tmp"
install -s "$root/target/release/caller" "$context/bin/caller"
install "$(command -v busybox)" "$context/bin/busybox"
for name in sh sleep wget cat touch rm; do ln -s busybox "$context/bin/$name"; done
with_libraries "$context" "$root/target/release/caller"
storage=(--root "$folder/storage" --runroot "$folder/run" --storage-driver vfs)
buildah "${storage[@]}" bud --isolation chroot --quiet --tag localhost/caller:1 \
    --file "$CLUSTER/images/tools.Dockerfile" "$context" > /dev/null
buildah "${storage[@]}" push --quiet localhost/caller:1 "docker-archive:$folder/caller.tar:localhost/caller:1"

for archive in "$folder"/*.tar; do
    ctr --address "$RUN/containerd.sock" --namespace k8s.io images import "$archive" > /dev/null
done
say "Sconce's images are loaded"
