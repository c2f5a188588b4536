#!/usr/bin/env bash
# Builds and runs the Go checks: run.sh [--list] [--jobs N] [check ...], NAMESRV_ADDR from the environment.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
(cd "$here" && go build -o target/interop .)
# The client writes offsets of broadcasting consumers under HOME; keep them in target/.
exec env HOME="$here/target/home" "$here/target/interop" "$@"
