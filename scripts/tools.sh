#!/usr/bin/env bash
# Says what is missing on this machine, and how to get it. Installs nothing.
set -u
missing=0
need() { # need COMMAND "how to get it"
    if ! command -v "$1" >/dev/null 2>&1; then
        echo "missing: $1. $2" >&2
        missing=1
    fi
}
need cargo "Install Rust with rustup (version in Cargo.toml), or your system's rust package."
need python3 "Debian: apt-get install python3 python3-pip python3-venv. Fedora: dnf install python3-pip. macOS: brew install python."
need c++ "Debian: apt-get install g++. Fedora: dnf install gcc-c++. macOS: xcode-select --install."
if command -v python3 >/dev/null 2>&1 && ! python3 -m pip --version >/dev/null 2>&1; then
    echo "missing: pip for python3. Debian: apt-get install python3-pip. Fedora: dnf install python3-pip." >&2
    missing=1
fi
exit "$missing"
