#!/usr/bin/env bash
# Installs the Debian packages that a cluster on this machine needs, as root.
# shellcheck source=parts.sh
source "$(dirname "$0")/parts.sh"

[ "$(id -u)" = 0 ] || fail "packages are installed as root"
command -v apt-get > /dev/null || fail "apt-get is not here; get these, or what they are called elsewhere: ${PACKAGES[*]}"
say "installing what is missing of ${PACKAGES[*]}"
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "${PACKAGES[@]}" > /dev/null
