#!/usr/bin/env bash
# Judges the RocketMQ-protocol broker behind NAMESRV_ADDR (default 127.0.0.1:9876) with the Java, Go and Python clients.
# Prints every check, then the closing lines. Exit code 1 when a check of any failed.
#
#   run.sh [java | go | python]      all, one after the other, unless one is named
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
case ${1:-all} in
  all) clients="java go python" ;;
  java | go | python) clients=$1 ;;
  *) sed -n '2,5p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
for client in $clients; do
  "$here/$client/run.sh" 2>&1 | tee "$work/$client" | grep -v "^interop $client:"
  [ "${PIPESTATUS[0]}" -eq 0 ] || failed=1
done
for client in $clients; do
  grep "^interop $client:" "$work/$client" || { echo "interop $client: did not finish"; failed=1; }
done
exit $failed
