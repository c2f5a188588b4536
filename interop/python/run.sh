#!/usr/bin/env bash
# Installs when needed and runs the Python checks: run.sh [--list] [--jobs N] [check ...], NAMESRV_ADDR from the environment.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$here/target/venv
if [ ! -f "$venv/installed" ] || [ "$here/requirements.txt" -nt "$venv/installed" ]; then
  python3 -m venv "$venv" >&2
  "$venv/bin/pip" install -q --disable-pip-version-check --no-deps --require-hashes -r "$here/requirements.txt" >&2
  touch "$venv/installed"
fi
# The client writes logs and broadcast offsets under HOME; keep them in target/.
mkdir -p "$here/target/home"
exec env HOME="$here/target/home" PYTHONPYCACHEPREFIX="$here/target/pycache" "$venv/bin/python" "$here/main.py" "$@"
