#!/usr/bin/env bash
# Shared by tests/run, tests/show and deploy/quickstart: what a machine needs, and the one build that all of them use.
# Sourced, not run. Installs nothing without root.
set -euo pipefail

CLONE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CLONE/target}
export MUSTER_BIN_DIR=${MUSTER_BIN_DIR:-$CARGO_TARGET_DIR/release}
export MUSTER_CACHE=${MUSTER_CACHE:-/var/cache/muster}
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
[ ! -d "$HOME/.cargo/bin" ] || export PATH=$PATH:$HOME/.cargo/bin
PACKAGES=(docker.io iptables nftables wireguard-tools iproute2 debootstrap procps tini curl ca-certificates build-essential faketime busybox-static)

say() { printf '%s\n' "$*"; }
is_root() { [ "$(id -u)" = 0 ]; }

# Which of PACKAGES are not installed.
missing_packages() {
  local name
  for name in "${PACKAGES[@]}"; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' || printf '%s ' "$name"
  done
}

# Debian's docker.io starts an engine of its own where there is systemd; emulated hosts bring theirs.
install_packages() {
  local missing
  read -r -a missing <<<"$(missing_packages)"
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing Debian packages: ${missing[*]}"
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" >/dev/null
}

need_rust() {
  command -v cargo >/dev/null || { say "no Rust toolchain: install one with rustup (https://rustup.rs), then run this again" >&2; exit 1; }
}

# The one build: tests, scenarios and the quickstart use its programs.
build_programs() { (cd "$CLONE" && cargo build --release --quiet --workspace --bins); }
