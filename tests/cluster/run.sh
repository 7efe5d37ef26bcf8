#!/usr/bin/env bash
# Runs the scenarios on the cluster that KUBECONFIG leads to, which must have Istio, Sconce's images
# (SCONCE_IMAGE, SCONCE_TAG) and localhost/tools:1; without KUBECONFIG on one started here for it.
#
# SCONCE_CLUSTER_KEEP=1 leaves the cluster that was started here running.
given="${KUBECONFIG:-}"
# shellcheck source=parts.sh
source "$(dirname "$0")/parts.sh"

if [ -n "$given" ]; then
    export KUBECONFIG="$given"
    need kubectl
else
    # Ctrl-C as well must not leave a cluster behind.
    [ -n "${SCONCE_CLUSTER_KEEP:-}" ] || trap '"$CLUSTER/stop.sh"' EXIT
    "$CLUSTER/start.sh" > /dev/null
    "$CLUSTER/load.sh"
    # One scenario kills the API server, where that can be started again.
    export SCONCE_CLUSTER_RESTART="$CLUSTER/restart.sh"
    export PATH="$BIN:$PATH"
fi
cd "$CLUSTER/../.."
SCONCE_CLUSTER=1 cargo test --locked -p sconce-cluster-tests -- --nocapture --test-threads=1
