#!/usr/bin/env bash
# Makes sure that `chromium` is on PATH, with fonts to render text: the tests of the web pages start a real browser.
#
#     environments/install_chromium.sh
#
# Does nothing when it is there. Otherwise it asks this machine's own package manager (Debian's), as root or by sudo.
set -euo pipefail

fail() {
    echo "install_chromium.sh: $1" >&2
    exit 1
}

if command -v chromium >/dev/null; then
    exit 0
fi
by_hand="install the browser Chromium so that \`chromium\` is on PATH, and run this again"
command -v apt-get >/dev/null || fail "there is no chromium on PATH, and no apt-get to install it with: $by_hand"

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "there is no chromium on PATH, and installing it takes root or sudo: $by_hand"
    as_root=(sudo)
fi
"${as_root[@]}" apt-get update || fail "apt-get update failed (above): once it works, run this again"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    chromium fonts-dejavu-core fonts-noto-core || fail "apt-get install failed (above): $by_hand"
hash -r
command -v chromium >/dev/null || fail "its packages are installed and there is still no chromium on PATH: $by_hand"
