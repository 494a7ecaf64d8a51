#!/usr/bin/env bash
# wheel.sh PYTHON: build the wheel, install it (not editable) into a fresh environment, and run it away from the checkout.
# PYTHON is the development environment's interpreter: the wheel's dependencies are taken from there, its code is not.
set -euo pipefail
python=$(realpath -s "${1:?PYTHON}")
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT

if command -v uv >/dev/null; then uv build -q --wheel --out-dir "$work" "$root"; else "$python" -m pip wheel -q --no-deps -w "$work" "$root"; fi
"$python" -m venv --without-pip "$work/venv"
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" - "$work" "$site" "$work/venv/bin" <<'PY'
"""Unpack the wheel as an installer would: files into site-packages, a script for each console entry point."""
import configparser, pathlib, sys, zipfile
work, site, scripts = map(pathlib.Path, sys.argv[1:])
wheel = next(work.glob("*.whl"))
zipfile.ZipFile(wheel).extractall(site)
entries = configparser.ConfigParser()
entries.read(next(site.glob("*.dist-info/entry_points.txt")))
for name, target in entries["console_scripts"].items():
    module, function = target.split(":")
    script = scripts / name
    script.write_text(f"#!{scripts}/python\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    script.chmod(0o755)
print(f"{wheel.name}: {wheel.stat().st_size // 1024} kB")
PY

# A path in PYTHONPATH brings the dependencies without the .pth file of the editable install.
PYTHONPATH=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); export PYTHONPATH
cd "$work"
venv/bin/tutti --help >/dev/null
TUTTI_HOME=$work/home venv/bin/tutti status >/dev/null || [ $? = 3 ]
venv/bin/python - "$site" <<'PY'
import pathlib, sys
import infra.native.kafka, services, shared
site = pathlib.Path(sys.argv[1])
for module in (services, shared):
    assert pathlib.Path(module.__file__).is_relative_to(site), f"{module.__name__} comes from {module.__file__}, not from the wheel"
for file in ("infra/native/broker/server.properties", "services/sink/page/static/index.html", "infra/dashboards/tutti-overview.json"):
    assert (site / file).exists(), f"{file} is missing from the wheel"
PY
echo "the wheel works on its own"
