#!/usr/bin/env bash
# Installs the Python clients of the Open Inference Protocol that the tests talk with, and
# other people's models, once and outside the tree, and prints the Python that has them.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
requirements="$here/clients.txt"
cache="${SCONCE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sconce}"
models="$here/models.txt"
home="$cache/clients-$(cat "$requirements" "$models" | cksum | cut -d' ' -f1)"
if [ ! -e "$home/complete" ]; then
    echo "clients: installing tritonclient, KServe's SDK, moto and a published model once" >&2
    mkdir -p "$cache"
    rm -rf "$home"
    python3 -m venv "$home" >&2 || { echo "clients: python3 has no venv; Debian: apt-get install python3-venv" >&2; exit 1; }
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" >&2
    # Only the archives are wanted: their packages would bring a second libtorch.
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$models" >&2
    touch "$home/complete"
fi
echo "$home/bin/python"
