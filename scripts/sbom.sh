#!/usr/bin/env bash
# Writes a bill of materials (CycloneDX, JSON) for each of our programs into a folder.
#
#   scripts/sbom.sh FOLDER
#
# By cargo-cyclonedx, which is built and kept where it is not in PATH. libtorch, which no Cargo.lock
# knows, is added to the sidecar's.
set -euo pipefail
out="$(realpath "${1:?name the folder}")"
root="$(cd "$(dirname "$0")/.." && pwd)"
version=0.5.9
if ! command -v cargo-cyclonedx > /dev/null; then
    home="${SCONCE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sconce}/cargo-cyclonedx-$version"
    if [ ! -x "$home/bin/cargo-cyclonedx" ]; then
        echo "sbom: building cargo-cyclonedx, once" >&2
        cargo install --quiet --locked --root "$home" --version "$version" cargo-cyclonedx
    fi
    PATH="$home/bin:$PATH"
fi
# It writes beside each Cargo.toml and nowhere else.
forget() { find "$root" -path "$root/target" -prune -o -name '*_bin.cdx.json' -exec rm -f {} +; }
trap forget EXIT
cargo cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --no-build-deps \
    --manifest-path "$root/sidecar/Cargo.toml"
libtorch="${LIBTORCH:-$(python3 "$root/scripts/libtorch.py")}"
python3 - "$root" "$out" "$libtorch" << 'PYTHON'
import json, pathlib, sys
root, out, libtorch = map(pathlib.Path, sys.argv[1:])
programs = {"sconce": "cli", "sconce-control-plane": "control-plane", "sconce-sidecar": "sidecar"}
for program, folder in programs.items():
    text = (root / folder / f"{program}_bin.cdx.json").read_text()
    # Where it was built is nobody's business.
    bom = json.loads(text.replace(f"{root}/", ""))
    if program == "sconce-sidecar":
        version = (libtorch / "build-version").read_text().strip().split("+")[0]
        bom["components"].append({
            "type": "library", "name": "libtorch", "version": version, "bom-ref": f"pkg:pypi/torch@{version}",
            "purl": f"pkg:pypi/torch@{version}", "licenses": [{"license": {"id": "BSD-3-Clause"}}],
        })
    assert len(bom["components"]) > 50, f"{program}: hardly anything is listed"
    (out / f"{program}.cdx.json").write_text(json.dumps(bom, indent=1) + "\n")
PYTHON
