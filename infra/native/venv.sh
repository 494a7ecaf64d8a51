#!/usr/bin/env bash
# venv.sh DIRECTORY LOCK: a virtual environment with exactly what LOCK pins, and this project in it (editable).
# Works with uv when it is there, else with the standard library's venv and pip. Does nothing when it is current.
set -euo pipefail
directory=${1:?DIRECTORY} lock=${2:?LOCK}
root=$(cd "$(dirname "$0")/../.." && pwd)
stamp=$directory/.tutti-stamp
say() { echo "venv: $*" >&2; }

version() { "$directory/bin/python" -V 2>/dev/null || true; }
# Also made anew when the checkout was moved (scripts name their interpreter by path) or its Python was replaced.
wanted() { { cat "$lock" "$root/pyproject.toml"; echo "$root"; version; } | sha256sum | cut -d' ' -f1; }
[ -x "$directory/bin/tutti" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(wanted)" ] && exit 0

find_python() {  # the first interpreter that is recent enough
  for name in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then command -v "$name"; return; fi
  done
  say "Python 3.11 or later is missing; install with: $(as_root apt-get install -y python3 python3-venv)"; exit 1
}

as_root() {  # the command as a person types it; a bare Debian has no sudo
  if [ "$(id -u)" = 0 ]; then echo "$*"; elif command -v sudo >/dev/null; then echo "sudo $*"; else echo "su -c '$*'"; fi
}

quietly() {  # WHAT COMMAND...: its output is shown only when it fails, as one line if the cause is a known one
  local what=$1 output; shift
  output=$(mktemp)
  "$@" >"$output" 2>&1 || { say "$("$python" -I "$root/infra/native/causes.py" "$what" <"$output")"; rm -f "$output"; exit 1; }
  rm -f "$output"
}

install_venv_module() {
  local packages; packages=$(basename "$python")-venv
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ -z "${TUTTI_NO_APT:-}" ]; then
    say "installing $packages"
    quietly "$packages could not be installed" apt_get "$packages"
  else  # one command for the administrator: what Kafka will ask for is named too
    /sbin/ldconfig -p 2>/dev/null | grep -q 'libgomp[.]so[.]1' || packages+=" libgomp1"
    command -v java >/dev/null || packages+=" default-jre-headless"
    command -v mvn >/dev/null || packages+=" maven"
    say "Python's venv module is missing; install what tutti needs with: $(as_root apt-get install -y --no-install-recommends "$packages")"; exit 1
  fi
}

apt_get() {  # a fresh machine has no package lists; a failure of `update` tells why the installation fails too
  apt-get -qq -o DPkg::Lock::Timeout=300 update || true
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
}

make_with_pip() {
  local pip=("$directory/bin/python" -m pip install -q --disable-pip-version-check)
  "$python" -c 'import ensurepip, venv' 2>/dev/null || install_venv_module
  quietly "$directory could not be made" "$python" -m venv --clear "$directory"  # pip does not remove what the lock file no longer has
  quietly "the packages of $lock could not be installed" "${pip[@]}" --require-hashes -r "$lock"
  quietly "this project could not be installed into $directory" "${pip[@]}" --no-deps -e "$root"
}

make_with_uv() {
  [ "$(version)" = "$("$python" -V)" ] || { rm -rf "$directory"; quietly "$directory could not be made" uv venv -q --python "$python" "$directory"; }
  quietly "the packages of $lock could not be installed" uv pip sync -q --require-hashes --python "$directory/bin/python" "$lock"
  quietly "this project could not be installed into $directory" uv pip install -q --no-deps --python "$directory/bin/python" -e "$root"
}

python=$(find_python)
say "installing $(grep -c '^[a-z].*==' "$lock") packages into $directory with $(command -v uv >/dev/null && echo uv || echo pip)"
if command -v uv >/dev/null; then make_with_uv; else make_with_pip; fi
wanted > "$stamp"
