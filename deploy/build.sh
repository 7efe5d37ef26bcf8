#!/usr/bin/env bash
# Builds the images of this machine's architecture from its Dockerfiles with buildah, and writes
# them as archives that `docker load` and `ctr images import` take.
#
#   deploy/build.sh FOLDER
#
# SCONCE_BIN    where the binaries are [default: target/release, built when missing]
# SCONCE_BASE   the image to take the C libraries from; without it they are this machine's own, which
#               must then be what the binaries were linked with
# SCONCE_IMAGE  what the images are called, before -sidecar and the rest [default: localhost/sconce]
# SCONCE_TAG    their tag [default: dev]
# SCONCE_SBOM   off leaves out the bills of materials, which are in /usr/share/sbom of each image and
#               beside the archives otherwise
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
out="${1:?name the folder for the archives}"
bin="${SCONCE_BIN:-$here/../target/release}"
image="${SCONCE_IMAGE:-localhost/sconce}"
tag="${SCONCE_TAG:-dev}"

say() { printf 'images: %s\n' "$*" >&2; }
command -v buildah > /dev/null || { say "buildah is not here; Debian: apt-get install buildah, or build the Dockerfiles with docker"; exit 1; }
case "$(uname -m)" in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) say "$(uname -m) is not an architecture that Sconce is built for"; exit 1 ;;
esac
[ -x "$bin/sconce-sidecar" ] || make -C "$here/.." build
libtorch="${LIBTORCH:-$(python3 "$here/../scripts/libtorch.py")}"

mkdir -p "$out"
scratch="$(mktemp -d)"
trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT
# Its own storage: nothing of another user's buildah is seen or left behind.
tool() {
    local verb="$1"
    shift
    buildah --root "$scratch/storage" --runroot "$scratch/run" --storage-driver vfs "$verb" "$@"
}

base="${SCONCE_BASE:-}"
if [ -z "$base" ]; then
    base=localhost/sconce-base
    folder="usr/lib/$(uname -m)-linux-gnu"
    mkdir -p "$scratch/base/$folder"
    for library in "/$folder"/ld-linux-*.so.* "/$folder"/lib{c.so.6,m.so.6,dl.so.2,pthread.so.0,rt.so.1,util.so.1,gcc_s.so.1,stdc++.so.6}; do
        cp --dereference "$library" "$scratch/base/$folder/"
    done
    printf 'FROM scratch\nCOPY . /\n' > "$scratch/base.Dockerfile"
    tool bud --isolation chroot --quiet --tag "$base" --file "$scratch/base.Dockerfile" "$scratch/base" > /dev/null
fi

context="$scratch/context/$arch"
mkdir -p "$context/bin" "$context/lib"
[ "${SCONCE_SBOM:-on}" = off ] || "$here/../scripts/sbom.sh" "$out"
for program in sconce sconce-control-plane sconce-sidecar; do
    install -s "$bin/$program" "$context/bin/"
    mkdir -p "$context/sbom/$program"
    [ "${SCONCE_SBOM:-on}" = off ] || cp "$out/$program.cdx.json" "$context/sbom/$program/"
done
# The folder's name is a hint for compilers; the libraries alone are needed to run.
cp --recursive "$libtorch"/lib/*.so* "$context/lib/"
for name in control-plane cli sidecar; do
    say "building $image-$name:$tag"
    tool bud --isolation chroot --quiet --build-arg "BASE=$base" --build-arg "TARGETARCH=$arch" \
        --tag "$image-$name:$tag" --file "$here/$name.Dockerfile" "$scratch/context" > /dev/null
    rm -f "$out/$name.tar"
    tool push --quiet "$image-$name:$tag" "docker-archive:$out/$name.tar:$image-$name:$tag"
done
say "wrote $(du -h "$out"/*.tar | tr '\t\n' '  ')"
