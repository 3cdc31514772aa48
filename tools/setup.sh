# What ./run and ./test do before they build: install missing packages and find a place for Bazel's
# files. To be sourced by bash with the working directory at the top of the tree.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }

is_debian_12() {
  # shellcheck disable=SC1091  # not part of this tree
  [ -r /etc/os-release ] && (. /etc/os-release && [ "${ID:-} ${VERSION_ID:-}" = "debian 12" ])
}

# The packages of the needs given ("build", "test") that are not installed.
missing_packages() {
  local need package architecture
  while read -r need package architecture; do
    case " $* " in *" $need "*) ;; *) continue ;; esac
    [ -z "$architecture" ] || [ "$architecture" = "$(dpkg --print-architecture)" ] || continue
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
      printf '%s\n' "$package"
  done < <(grep -v '^#' tools/packages.txt)
}

# Packages that come with a service (coturn) are wanted for their program alone: nothing is started
# while they are installed, nor at the next boot.
apt_install() {
  local policy=/usr/sbin/policy-rc.d ours='' status=0
  if [ ! -e "$policy" ] && printf '#!/bin/sh\nexit 101\n' >"$policy" 2>/dev/null; then
    chmod 755 "$policy"
    ours=1
  fi
  apt-get install -y -q -o DPkg::Lock::Timeout=300 --no-install-recommends "$@" >&2 </dev/null ||
    status=$?
  [ -z "$ours" ] || rm -f "$policy"
  case " $* " in *" coturn "*)
    [ "$status" != 0 ] || systemctl disable coturn >/dev/null 2>&1 ||
      update-rc.d coturn disable >/dev/null 2>&1 || say "Note: coturn's service may be enabled" ;;
  esac
  return "$status"
}

# Installs what is missing of the needs given, or says what to do and fails.
install_packages() {
  local missing
  if ! command -v dpkg-query >/dev/null; then
    say "This is built and tested on Debian 12 and needs its packages:" \
      "$(grep -v '^#' tools/packages.txt | cut -d' ' -f2 | tr '\n' ' ')"
    command -v bazel >/dev/null || return 1
    say "Bazel is here; going on in the hope that the libraries are too."
    return 0
  fi
  missing=$(missing_packages "$@" | tr '\n' ' ')
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" != 0 ] || ! is_debian_12; then
    say "Missing packages of Debian 12. As root: apt-get install $missing"
    return 1
  fi
  say "Installing: $missing"
  export DEBIAN_FRONTEND=noninteractive
  local packages
  read -r -a packages <<<"$missing"
  apt_install "${packages[@]}" && return 0
  # The lists of packages may be old, or never fetched.
  apt-get update -q >&2 </dev/null && apt_install "${packages[@]}"
}

# Bazel keeps its files under HOME; where that cannot be written to, or is inside this tree, it
# gets another.
choose_home() {
  local top
  top=$(pwd -P)
  case "${HOME:-}" in
    /*)
      case "$(readlink -f "$HOME" 2>/dev/null)/" in "$top"/*) ;; *)
        if mkdir -p "$HOME/.cache" 2>/dev/null && [ -w "$HOME/.cache" ]; then return 0; fi ;;
      esac ;;
  esac
  HOME="/var/tmp/ringsock-home-$(id -u)"
  export HOME
  mkdir -p "$HOME/.cache"
  chmod 700 "$HOME" 2>/dev/null
  [ -O "$HOME" ] || { say "$HOME belongs to another user"; return 1; }
}

# Everything a build needs; the arguments are the needs of tools/packages.txt.
prepare() {
  install_packages "$@" || return 1
  choose_home || return 1
  export USER="${USER:-$(id -un)}"
  local cache=$HOME/.cache/ringsock-bazel
  RINGSOCK_BUILD_FLAGS=("--disk_cache=$cache")
  python3 tools/prune_cache.py "$cache" || return 1
  [ -t 1 ] || RINGSOCK_BUILD_FLAGS+=(--noshow_progress --color=no --curses=no)
}
