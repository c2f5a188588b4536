#!/usr/bin/env bash
# Every feature survives kill -9 in the middle of it: the official Java client works all of them at once against a `sluice dev`
# of its own, which is killed and started again; then everything is judged. Exit code 1 when a check failed.
#
#   kill.sh [KILLS]      20 unless it is given
#
# PORT_OFFSET (default 12000) is added to every port. When a check fails, the broker's data and both logs stay.
set -euo pipefail
kills=${1:-20}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
sluice=$here/../target/release/sluice
[ -x "$sluice" ] || { echo "interop kill: no $sluice"; exit 1; }
# Builds when needed.
"$here/java/run.sh" --list >/dev/null
offset=${PORT_OFFSET:-12000}
export NAMESRV_ADDR=127.0.0.1:$((9876 + offset)) REST=http://127.0.0.1:$((8082 + offset))
work=$(mktemp -d)
mkfifo "$work/orders" "$work/words"
broker='' judge='' keep=1
end() {
  for child in $broker $judge; do kill -9 "$child" 2>/dev/null && wait "$child" 2>/dev/null || true; done
  if [ $keep -eq 0 ]; then rm -rf "$work"; else echo "interop kill: the broker's data and both logs are in $work"; fi
}
trap end EXIT

start() {
  "$sluice" dev --data "$work/data" --port-offset "$offset" >>"$work/log" 2>&1 &
  broker=$!
}
ready() {
  for _ in $(seq 300); do
    curl -sf "$REST/readyz" >/dev/null && return
    kill -0 "$broker" 2>/dev/null || break
    sleep 0.1
  done
  echo "FAIL start: the broker does not get ready"; tail -5 "$work/log"; exit 1
}
# Without a word of the shell about the child that was killed.
kill_broker() { kill -9 "$broker"; wait "$broker" 2>/dev/null || true; }
millis() { printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)); }
# order WORD ANSWER: gives the judge an order, and waits for its answer.
order() {
  local line
  echo "$1" >&4
  while read -r line <&3; do
    [ "$line" = "$2" ] && return
    echo "$line"
  done
  echo "FAIL judge: it ended"; exit 1
}

# The client's own settings: how soon consumers share queues anew, and lock them, 20 s unless set. After a restart of the broker
# that is what takes longest.
"${JAVA_HOME:+$JAVA_HOME/bin/}java" -Xmx1g -Duser.home="$work" \
  -Drocketmq.client.rebalance.waitInterval=1000 -Drocketmq.client.rebalance.lockInterval=1000 \
  -cp "$here/java/target/interop-java-1.jar:$here/java/target/lib/*" interop.survive.Survive <"$work/orders" >"$work/words" &
judge=$!
exec 4>"$work/orders" 3<"$work/words"

start
for kill in $(seq "$kills"); do
  ready
  order up working
  # Another moment each time, so that the kills meet the log in different states.
  sleep "$(millis $((kill * 379 % 1000)))"
  kill_broker
  order killed noted
  # Now and then it is dead for a while, or is killed again while it starts.
  [ $((kill % 4)) -ne 0 ] || sleep 0.7
  if [ $((kill % 5)) -eq 0 ]; then
    start
    sleep "$(millis $((kill * 13 % 100)))"
    kill_broker
  fi
  start
done
ready
order up working
echo judge >&4
cat <&3
code=0
wait "$judge" || code=$?
judge='' keep=$code
exit "$code"
