#!/usr/bin/env bash
# Starts and stops one genuine, unmodified Apache RocketMQ (name server + broker) on loopback.
# It is the peer of the side-by-side measurements and the reference the interop checks are proved against.
#
#   run.sh start | stop | status
#
# Environment (defaults in brackets):
#   PORT_OFFSET [0]             shifts every port: name server 9876, broker 10911 (also 10909 and 10912)
#   RUN_DIR [$TMPDIR/apache-rocketmq-$PORT_OFFSET]   store, logs, configuration and pids; removed by stop
#   KEEP [0]                    1: stop leaves RUN_DIR in place
#   FLUSH_DISK_TYPE [ASYNC_FLUSH]   ASYNC_FLUSH | SYNC_FLUSH
#   BROKER_HEAP [1g]            -Xms = -Xmx of the broker. Apache's own script says 8g
#   BROKER_DIRECT [2g]          -XX:MaxDirectMemorySize. Apache's own script says 15g
#   NAMESRV_HEAP [256m]         -Xms = -Xmx of the name server. Apache's own script says 4g
#   TRANSACTION_TIMEOUT_MS [3000]          age of a half message before its producer is asked. Apache: 6000
#   TRANSACTION_CHECK_INTERVAL_MS [2000]   pause between two rounds of asking. Apache: 30000
#   BROKER_CONF_EXTRA []        further broker.conf lines
#
# The JVM flags are those of Apache's runbroker.sh / runserver.sh for Java 9 and later (G1, no -Xmn), only the
# sizes are scaled down; GC logging is left out.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lib=$here/target/lib
offset=${PORT_OFFSET:-0}
run=${RUN_DIR:-${TMPDIR:-/tmp}/apache-rocketmq-$offset}
namesrv_port=$((9876 + offset))
broker_port=$((10911 + offset))
java=${JAVA_HOME:+$JAVA_HOME/bin/}java
gc="-XX:+UseG1GC -XX:G1HeapRegionSize=16m -XX:G1ReservePercent=25 -XX:InitiatingHeapOccupancyPercent=30 -XX:SoftRefLRUPolicyMSPerMB=0"

die() { echo "run.sh: $*" >&2; exit 1; }

build() {
  [ -d "$lib" ] && return
  echo "fetching Apache RocketMQ from Maven Central into ${lib#"$PWD"/}"
  mvn -B -q -f "$here/pom.xml" package
}

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# wait_for SECONDS PID WHAT COMMAND...
wait_for() {
  local deadline=$((SECONDS + $1)) pid=$2 what=$3
  shift 3
  until "$@"; do
    kill -0 "$pid" 2>/dev/null || { tail -20 "$run"/*.out >&2; die "$what ended before it was ready"; }
    [ "$SECONDS" -lt "$deadline" ] || { tail -20 "$run"/*.out >&2; die "$what was not ready in time"; }
    sleep 0.2
  done
}

mqadmin() {
  "$java" -Xmx128m -Duser.home="$run" -Drocketmq.client.logRoot="$run/logs" -cp "$lib/*" \
    org.apache.rocketmq.tools.command.MQAdminStartup "$@"
}

routed() { mqadmin clusterList -n "127.0.0.1:$namesrv_port" 2>/dev/null | grep -q "127.0.0.1:$broker_port"; }

start() {
  build
  for port in "$namesrv_port" "$broker_port" $((broker_port - 2)) $((broker_port + 1)); do
    listening "$port" && die "port $port is taken; choose another PORT_OFFSET"
  done
  mkdir -p "$run"
  cat >"$run/namesrv.conf" <<CONF
listenPort=$namesrv_port
kvConfigPath=$run/namesrv/kvConfig.json
configStorePath=$run/namesrv/namesrv.properties
CONF
  cat >"$run/broker.conf" <<CONF
brokerClusterName=DefaultCluster
brokerName=broker-a
brokerId=0
brokerRole=ASYNC_MASTER
brokerIP1=127.0.0.1
listenPort=$broker_port
namesrvAddr=127.0.0.1:$namesrv_port
storePathRootDir=$run/store
storePathCommitLog=$run/store/commitlog
flushDiskType=${FLUSH_DISK_TYPE:-ASYNC_FLUSH}
autoCreateTopicEnable=true
autoCreateSubscriptionGroup=true
enablePropertyFilter=true
recallMessageEnable=true
transactionTimeOut=${TRANSACTION_TIMEOUT_MS:-3000}
transactionCheckInterval=${TRANSACTION_CHECK_INTERVAL_MS:-2000}
${BROKER_CONF_EXTRA:-}
CONF

  # user.home is where both programs put what has no setting of its own (logs among it).
  # shellcheck disable=SC2086
  ROCKETMQ_HOME=$run nohup "$java" -server -Xms"${NAMESRV_HEAP:-256m}" -Xmx"${NAMESRV_HEAP:-256m}" $gc \
    -XX:-OmitStackTraceInFastThrow -XX:-UseLargePages -Duser.home="$run" -cp "$lib/*" \
    org.apache.rocketmq.namesrv.NamesrvStartup -c "$run/namesrv.conf" >"$run/namesrv.out" 2>&1 &
  echo $! >"$run/namesrv.pid"
  wait_for 30 "$(cat "$run/namesrv.pid")" "the name server" listening "$namesrv_port"

  # shellcheck disable=SC2086
  ROCKETMQ_HOME=$run nohup "$java" -server -Xms"${BROKER_HEAP:-1g}" -Xmx"${BROKER_HEAP:-1g}" $gc \
    -XX:-OmitStackTraceInFastThrow -XX:+AlwaysPreTouch -XX:MaxDirectMemorySize="${BROKER_DIRECT:-2g}" -XX:-UseLargePages \
    -Duser.home="$run" -cp "$lib/*" \
    org.apache.rocketmq.broker.BrokerStartup -c "$run/broker.conf" >"$run/broker.out" 2>&1 &
  echo $! >"$run/broker.pid"
  wait_for 60 "$(cat "$run/broker.pid")" "the broker" grep -q "boot success" "$run/broker.out"
  wait_for 60 "$(cat "$run/broker.pid")" "the route" routed
  status
}

status() {
  local name
  for name in namesrv broker; do
    if [ -f "$run/$name.pid" ] && kill -0 "$(cat "$run/$name.pid")" 2>/dev/null; then
      echo "$name pid $(cat "$run/$name.pid")"
    else
      echo "$name not running"
    fi
  done
  echo "NAMESRV_ADDR=127.0.0.1:$namesrv_port broker 127.0.0.1:$broker_port store $run/store $(ls "$lib" | sed -n 's/^rocketmq-broker-\(.*\)\.jar/Apache RocketMQ \1/p')"
}

stop() {
  local name pid i
  for name in broker namesrv; do
    [ -f "$run/$name.pid" ] || continue
    pid=$(cat "$run/$name.pid")
    kill "$pid" 2>/dev/null || true
    for i in $(seq 150); do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
    kill -0 "$pid" 2>/dev/null && { echo "$name pid $pid did not end in 30 s; killed"; kill -9 "$pid"; }
    rm -f "$run/$name.pid"
  done
  if [ "${KEEP:-0}" != 1 ] && [ -f "$run/broker.conf" ]; then rm -rf "$run"; fi
  echo stopped
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  status) status ;;
  *) sed -n '2,8p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
