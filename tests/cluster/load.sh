#!/usr/bin/env bash
# Builds Sconce's images and loads them into the cluster that start.sh started.
# shellcheck source=parts.sh
source "$(dirname "$0")/parts.sh"

[ -S "$RUN/containerd.sock" ] || fail "no cluster is running here; start.sh starts one"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"$CLUSTER/../../deploy/build.sh" "$folder"
for archive in "$folder"/*.tar; do
    ctr --address "$RUN/containerd.sock" --namespace k8s.io images import "$archive" > /dev/null
done
say "Sconce's images are loaded"
