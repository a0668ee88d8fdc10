#!/usr/bin/env bash
# Shared by build and verify: where the cache is, what an image is called, how recipes are read. Builds nothing itself.
# shellcheck disable=SC2034 # the variables are used by the scripts that source this file
set -euo pipefail

IMAGES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CLONE=$(cd "$IMAGES/../.." && pwd)
CACHE=${MUSTER_CACHE:-/var/cache/muster}
STORE=$CACHE/images
INDEX=$STORE/index # one line per image: name recipe-hash tag bytes
SUITE=bookworm
# All times inside an image that would be "now" are this instant, so that a rebuild from the same packages is the same image.
EPOCH=1767225600
# Bump when a change of these scripts changes what an image contains: it is part of every recipe hash.
FORMAT=3
# In the order of building: a name comes after the one its recipe builds on.
IMAGE_NAMES=(base busybox etcd exporters haproxy mariadb mariadb-next mariadb-broken minio minio-next minio-broken nats postgres postgres-next postgres-broken redis redis-next redis-broken valkey writer)
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf '%s\n' "$*"; }
die() { printf 'images: %s\n' "$*" >&2; exit 1; }

require_root() { [ "$(id -u)" = 0 ] || die "needs root (chroot, file owners): run it with sudo"; }

# need_packages COMMAND=PACKAGE...: installs the packages whose command (or absolute path) is missing.
need_packages() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || [ -e "${pair%%=*}" ] || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing Debian packages: ${missing[*]}"
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" >/dev/null
}

# A Go too old to fetch a newer toolchain by itself counts as none.
have_go() {
  local minor
  command -v go >/dev/null || return 1
  minor=$(go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
  [ "${minor:-0}" -ge 21 ]
}

# The recipe folder of an image; etcd has a second one for machines without Go.
folder_of() {
  if [ "$1" = etcd ] && ! have_go; then echo etcd-debian; else echo "$1"; fi
}

# read_recipe NAME: sets VERSION REPOSITORY FROM RUN_AS ENTRYPOINT COMMAND ENVIRONMENT INPUTS and maybe the functions ready, stage.
read_recipe() {
  unset -f ready stage
  REPOSITORY=$1 FROM=base RUN_AS=65534:65534 ENTRYPOINT=null COMMAND=null ENVIRONMENT='' INPUTS=() VERSION=''
  # shellcheck source=/dev/null
  . "$IMAGES/$(folder_of "$1")/recipe"
  [ -n "$VERSION" ] || die "recipe of $1 names no VERSION"
  TAG=muster/$REPOSITORY:$VERSION
}

is_image() { local n; for n in "${IMAGE_NAMES[@]}"; do [ "$n" != "$1" ] || return 0; done; return 1; }

hash_files() { local f; for f in "$@"; do printf '%s %s\n' "$(sha256sum <"$f" | cut -d' ' -f1)" "${f##*/}"; done; }

# recipe_hash NAME: 12 hex digits over the recipe, all it builds on, and its input files.
recipe_hash() (
  read_recipe "$1"
  below=''
  [ "$1" = base ] || below=$(recipe_hash base)
  case $FROM in base | scratch) ;; *) below+=" $(recipe_hash "$FROM")" ;; esac
  cd "$IMAGES/$(folder_of "$1")"
  { echo "$FORMAT $SUITE $EPOCH $below"
    find . -type f -print0 | sort -z | xargs -0 sha256sum
    hash_files "${INPUTS[@]}"; } | sha256sum | cut -c1-12
)

archive_of() { echo "$STORE/$1@$2.tar"; }
megabytes() { awk -v b="$1" 'BEGIN { printf "%.1f MB", b / 1e6 }'; }

# Prints what the recipe cannot be built without, or nothing.
missing_of() { if declare -F ready >/dev/null; then ready; fi; }
