#!/usr/bin/env bash
# Renders istio/manifests/sconce.yaml from the chart, with its default values.
#
#   scripts/manifests.sh            writes it
#   scripts/manifests.sh --check    fails with a diff where it is not what the chart says
#
# Helm writes that it manages what it renders, which is not so here.
set -euo pipefail
cd "$(dirname "$0")/../istio"
command -v helm > /dev/null || { echo "manifests: helm is not here; tests/cluster/build.sh builds one" >&2; exit 1; }

render() {
    echo "# Written by scripts/manifests.sh from istio/chart. \`sconce install\` applies the same."
    helm template sconce chart --namespace sconce-system --include-crds \
        | sed -e 's|app.kubernetes.io/managed-by: Helm|app.kubernetes.io/managed-by: sconce|' -e '/^# Source: /d' -e 's/[[:space:]]*$//'
}

if [ "${1:-}" = --check ]; then
    diff -u manifests/sconce.yaml <(render) || { echo "manifests: istio/manifests/sconce.yaml is not what the chart says; run scripts/manifests.sh" >&2; exit 1; }
else
    render > manifests/sconce.yaml.new
    mv manifests/sconce.yaml.new manifests/sconce.yaml
fi
