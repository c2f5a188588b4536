#!/usr/bin/env bash
# Runs the official mqadmin against the name server in NAMESRV_ADDR (default 127.0.0.1:9876).
#
#   mqadmin.sh                smoke test: each command's exit code and one line of verdict; exit code 1 on any failure
#   mqadmin.sh COMMAND ...    runs that one mqadmin command, "-n" is added
#
# mqadmin exits 0 even when a command failed, so a verdict looks at what it printed.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export NAMESRV_ADDR=${NAMESRV_ADDR:-127.0.0.1:9876}
java=${JAVA_HOME:+$JAVA_HOME/bin/}java
home=$here/java/target/home
# Builds when needed; the tools come with the Java checks.
"$here/java/run.sh" --list >/dev/null || exit 1
options=(-Xmx192m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Duser.home="$home" -Drocketmq.client.logRoot="$home/logs" -cp "$here/java/target/interop-java-1.jar:$here/java/target/lib/*")

mqadmin() {
  timeout 60 "$java" "${options[@]}" org.apache.rocketmq.tools.command.MQAdminStartup "$@" -n "$NAMESRV_ADDR" 2>&1 |
    grep -v -e '|-INFO in ' -e '|-WARN in ' -e 'RocketMQLog:WARN'
  return "${PIPESTATUS[0]}"
}

if [ $# -gt 0 ]; then
  mqadmin "$@"
  exit
fi

passed=0 failed=0
# expect NAME REGEX COMMAND ...: the command must exit 0, throw nothing, and print a line that matches REGEX.
expect() {
  local name=$1 regex=$2 output code line
  shift 2
  output=$(mqadmin "$@")
  code=$?
  line=$(grep -E -m1 -- "$regex" <<<"$output" | tr -s ' \t' ' ' | cut -c1-140)
  if [ "$code" -eq 0 ] && [ -n "$line" ] && ! grep -qE '^(Caused by: )?(org|java|com)\.[A-Za-z.]+Exception' <<<"$output"; then
    echo "PASS $name: exit $code,$([ "${line# }" = "$line" ] && echo " ")$line"
    passed=$((passed + 1))
  else
    echo "FAIL $name: exit $code, wanted a line like /$regex/, got: $(grep -E 'DESC|Exception' <<<"$output" | head -1 | cut -c1-300) $(head -c 300 <<<"$output" | tr '\n' '|')"
    failed=$((failed + 1))
  fi
}

serial=$(date +%s)_$$
topic=it_mqadmin_t_$serial group=it_mqadmin_g_$serial key=key_$serial
clusters=$(mqadmin clusterList | awk '$4 == "0" || $3 == "0" {print}' | head -1)
read -r cluster broker _ <<<"$clusters"
address=$(grep -oE '[0-9.]+:[0-9]+' <<<"$clusters" | head -1)
if [ -z "$address" ]; then
  echo "FAIL clusterList: no master broker at $NAMESRV_ADDR"
  echo "interop mqadmin: 0 passed, 1 failed"
  exit 1
fi

expect clusterList "$broker +0 +$address" clusterList
expect updateTopic "create topic to $address success" updateTopic -b "$address" -t "$topic" -r 4 -w 4
expect topicList "$topic" topicList
expect topicRoute "\"writeQueueNums\": *4" topicRoute -t "$topic"

work=$(mktemp -d)
mkfifo "$work/in"
"$java" "${options[@]}" interop.Companion "$topic" "$group" "$key" <"$work/in" >"$work/out" 2>"$work/err" &
companion=$!
exec 9>"$work/in"
for _ in $(seq 300); do
  grep -q READY "$work/out" && break
  kill -0 "$companion" 2>/dev/null || break
  sleep 0.2
done
offset_id=$(sed -n 's/^OFFSET_ID=//p' "$work/out") unique_id=$(sed -n 's/^UNIQUE_ID=//p' "$work/out")
if [ -z "$offset_id" ]; then
  echo "FAIL companion: $(tail -3 "$work/err" | tr '\n' '|')"
  failed=$((failed + 1))
fi
# The consumer's offsets reach the broker every 5 s.
sleep 6

expect topicStatus "$broker +0 +0 +10 " topicStatus -t "$topic"
expect consumerConnection "it_mqadmin_consumer" consumerConnection -g "$group"
expect consumerProgress "$topic +$broker +0 +10 +10 +.* 0 " consumerProgress -g "$group"
expect consumerProgress-all "$group" consumerProgress
expect brokerStatus "msgPutTotalTodayNow" brokerStatus -b "$address"
expect queryMsgByKey "[0-9A-F]{32} +0 +9" queryMsgByKey -t "$topic" -k "$key"
expect queryMsgById-offset "Queue Offset: +9" queryMsgById -t "$topic" -i "$offset_id"
expect queryMsgById-status "Queue Offset: +9" queryMsgById -t "$topic" -i "$unique_id"
expect queryMsgByUniqueKey "Queue Offset: +9" queryMsgByUniqueKey -t "$topic" -i "$unique_id"
expect queryMsgTraceById "^ *Pub .* success" queryMsgTraceById -i "$unique_id"
expect queryMsgByOffset "OffsetID: +[0-9A-F]{32}" queryMsgByOffset -t "$topic" -b "$broker" -i 0 -o 3
expect setConsumeMode "set consume mode to $address success" setConsumeMode -b "$address" -t "$topic" -g "$group" -m POP
expect sendMessage "SEND_OK" sendMessage -t "$topic" -p hello -k "$key" -c TagA

client=$(mqadmin consumerConnection -g "$group" | grep -oE '[^ ]*it_mqadmin_consumer[^ ]*' | head -1)
expect consumerStatus "^#Consumer Properties#" consumerStatus -g "$group" -i "$client"
expect consumeDirectly "consumeResult=CR_SUCCESS" queryMsgById -t "$topic" -i "$offset_id" -g "$group" -d "$client"
expect updateSubGroup "create subscription group to $address success" updateSubGroup -b "$address" -g "${group}_2"
expect cloneGroupOffset "clone group offset success|success" cloneGroupOffset -s "$group" -d "${group}_2" -t "$topic"
# Apache's broker makes a group's retry topic when its first consumer comes, and consumerProgress asks for its route.
mqadmin updateTopic -b "$address" -t "%RETRY%${group}_2" -r 1 -w 1 >/dev/null
expect consumerProgress-clone "$topic +$broker +0 +1[01] +1[01] " consumerProgress -g "${group}_2"

exec 9>&-
wait "$companion" 2>/dev/null
rm -rf "$work"
expect resetOffsetByTime "$broker +0 +" resetOffsetByTime -g "$group" -t "$topic" -s 0
expect skipAccumulatedMessage "$broker +0 +1" skipAccumulatedMessage -g "$group" -t "$topic"
expect deleteTopic "delete topic \[$topic\] from cluster \[$cluster\] success" deleteTopic -t "$topic" -c "$cluster"
gone=$(mqadmin topicList)
if grep -q "^$topic\$" <<<"$gone"; then
  echo "FAIL topicList-after: the topic is still listed"
  failed=$((failed + 1))
else
  echo "PASS topicList-after: the deleted topic is gone"
  passed=$((passed + 1))
fi
echo "interop mqadmin: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
