#!/usr/bin/env bash
# Exactly once: a pipeline with a filter, a processor and a router is killed again and again while the official Java client feeds it, and
# while one version of the filter takes over from another and back; beside it one that drops what comes again too soon, with windows behind, which is not changed. Their processors keep more
# than they have memory for. Most lives are over in half a second; every fifth is long enough for what is kept to be written to its file while it
# changes. Then the same pipelines run once over the same source without a kill, and the official client compares the sinks byte for byte.
#
#   exactly_once.sh [KILLS]      200 unless it is given
#
# PORT_OFFSET (default 14000) is added to every port. When the check fails, the broker's data and log stay.
set -euo pipefail
kills=${1:-200}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
sluice=$here/../target/release/sluice
[ -x "$sluice" ] || { echo "interop exactly-once: no $sluice"; exit 1; }
"$here/java/run.sh" --list >/dev/null
offset=${PORT_OFFSET:-14000}
export NAMESRV_ADDR=127.0.0.1:$((9876 + offset)) SLUICE_SERVER=http://127.0.0.1:$((8082 + offset))
work=$(mktemp -d)
broker='' producer='' keep=1
end() {
  for child in $broker $producer; do kill -9 "$child" 2>/dev/null && wait "$child" 2>/dev/null || true; done
  if [ $keep -eq 0 ]; then rm -rf "$work"; else echo "interop exactly-once: the broker's data and log are in $work"; fi
}
trap end EXIT

start() {
  # Without the producer's input: it would not end as long as a broker holds it open.
  "$sluice" dev --data "$work/data" --port-offset "$offset" >>"$work/log" 2>&1 4>&- &
  broker=$!
  for _ in $(seq 300); do
    curl -sf "$SLUICE_SERVER/readyz" >/dev/null && return
    kill -0 "$broker" 2>/dev/null || break
    sleep 0.05
  done
  echo "FAIL start: the broker does not get ready"; tail -5 "$work/log"; exit 1
}
client() {
  "${JAVA_HOME:+$JAVA_HOME/bin/}java" -Xmx1g -XX:+ExitOnOutOfMemoryError -Duser.home="$work" -cp "$here/java/target/interop-java-1.jar:$here/java/target/lib/*" \
    interop.ExactlyOnce "$@"
}
# NAME SINKS FILTER
apply() {
  sed "s/SINK/$2/g" <<YAML | "$sluice" pipeline apply -f - >/dev/null
name: $1
source: { topic: eo_sales, start: earliest }
steps:
  - { plugin: $3, config: { path: /status, equals: paid } }
  - { plugin: aggregate, config: { by: /customer, sum: /amount } }
  - { plugin: route, config: { header: side, routes: { even: SINK_even, odd: SINK_odd } } }
sinks: [ SINK_even, SINK_odd ]
limits: { state: 1MiB }
YAML
}
# NAME SINKS
apply_windows() {
  cat <<YAML | "$sluice" pipeline apply -f - >/dev/null
name: $1
source: { topic: eo_sales, start: earliest }
steps:
  - { plugin: dedup, config: { by: /customer, within-ms: 5000 } }
  - { plugin: aggregate, config: { by: /customer, sum: /amount, window-ms: 1000 } }
sinks: [ $2_windows ]
limits: { state: 1MiB }
YAML
}
# Waits until a pipeline has read everything.
settled() {
  for _ in $(seq 600); do
    "$sluice" pipeline describe "$1" -o json | python3 -c 'import json,sys; p=json.load(sys.stdin); sys.exit(p["state"] != "running" or p["lag"] > 0)' && return
    sleep 0.1
  done
  echo "FAIL settle: pipeline $1 does not come to an end"; "$sluice" pipeline describe "$1"; exit 1
}

start
for topic in eo_sales eo_even eo_odd eo_windows ref_even ref_odd ref_windows; do "$sluice" topic create "$topic" --queues 4 >/dev/null; done
for plugin in json-filter aggregate dedup route; do "$sluice" plugin push "$plugin" >/dev/null; done
# The same filter says that it is a later version, and so is another component.
filter=$(ls -t "$here"/../target/release/build/*/out/json-filter.wasm | head -1)
python3 -c 'import sys; sys.stdout.buffer.write(open(sys.argv[1], "rb").read().replace(b"1.0.0", b"2.0.0"))' "$filter" >"$work/json-filter.wasm"
cmp -s "$filter" "$work/json-filter.wasm" && { echo "FAIL versions: both files of the filter are the same"; exit 1; }
"$sluice" plugin push "$work/json-filter.wasm" >/dev/null
curl -sf "$SLUICE_SERVER/api/v1/plugins/json-filter/versions/2" >/dev/null || { echo "FAIL versions: there is no json-filter@2"; exit 1; }
apply killed eo json-filter@1
apply_windows killed-windows eo
mkfifo "$work/stop"
client produce <"$work/stop" >"$work/sent" 2>/dev/null &
producer=$!
exec 4>"$work/stop"
for kill in $(seq "$kills"); do
  # The kill may come before the other version, in the middle of the change, or behind it.
  apply killed eo "json-filter@$((1 + kill % 2))" 2>/dev/null 4>&- &
  change=$!
  # Another moment each time, from the first record after the start on; what is kept goes to its file after two seconds.
  longer=$((kill % 5 == 0 ? 3 : 0))
  sleep "$longer.$(printf '%03d' $((100 + kill * 379 % 450)))"
  kill -9 "$broker"
  wait "$broker" 2>/dev/null || true
  wait "$change" || true
  start
done
exec 4>&-
wait "$producer"
producer=''
settled killed
settled killed-windows
apply reference ref json-filter@1
apply_windows reference-windows ref
changes=$("$sluice" pipeline describe killed -o json | python3 -c 'import json,sys; print(json.load(sys.stdin)["revision"])')
settled reference
settled reference-windows
echo "$(cat "$work/sent") sales acknowledged, $kills kills, $changes versions one after the other"
code=0
client judge || code=1
# An apply that the kill hits leaves the version as it is, and the next one asks for just that: each costs two changes.
if [ "$changes" -lt $((kills / 2)) ]; then
  echo "FAIL changes: $changes versions one after the other, expected at least half of $kills kills"
  code=1
fi
keep=$code
echo "interop exactly-once: $((1 - code)) passed, $code failed"
exit $code
