#!/usr/bin/env bash
# venv.sh DIRECTORY LOCK: a virtual environment with exactly what LOCK pins, and this project in it (editable).
# Works with uv when it is there, else with the standard library's venv and pip. Does nothing when it is current.
set -euo pipefail
directory=${1:?DIRECTORY} lock=${2:?LOCK}
root=$(cd "$(dirname "$0")/../.." && pwd)
stamp=$directory/.tutti-stamp
say() { echo "venv: $*" >&2; }

wanted=$(cat "$lock" "$root/pyproject.toml" | sha256sum | cut -d' ' -f1)
[ -x "$directory/bin/tutti" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && exit 0

find_python() {  # the first interpreter that is recent enough
  for name in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then command -v "$name"; return; fi
  done
  say "Python 3.11 or later is missing; install it with: sudo apt-get install -y python3 python3-venv"; exit 1
}

make_with_pip() {
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ -z "${TUTTI_NO_APT:-}" ]; then
      say "installing python3-venv"
      apt-get update -qq || true
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
    else
      say "Python's venv module is missing; install it with: sudo apt-get install -y python3-venv"; exit 1
    fi
  fi
  "$python" -m venv --clear "$directory"  # pip does not remove what the lock file no longer has
  "$directory/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r "$lock"
  "$directory/bin/python" -m pip install -q --disable-pip-version-check --no-deps -e "$root"
}

make_with_uv() {
  [ -x "$directory/bin/python" ] || uv venv -q --python "$python" "$directory"
  uv pip sync -q --require-hashes --python "$directory/bin/python" "$lock"
  uv pip install -q --no-deps --python "$directory/bin/python" -e "$root"
}

python=$(find_python)
say "installing $(grep -c '^[a-z].*==' "$lock") packages into $directory with $(command -v uv >/dev/null && echo uv || echo pip)"
if command -v uv >/dev/null; then make_with_uv; else make_with_pip; fi
echo "$wanted" > "$stamp"
