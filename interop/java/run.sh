#!/usr/bin/env bash
# Builds when needed and runs the Java checks: run.sh [--list] [--jobs N] [check ...], NAMESRV_ADDR from the environment.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
jar=$here/target/interop-java-1.jar
if [ ! -f "$jar" ] || [ -n "$(find "$here/pom.xml" "$here/src" -newer "$jar" -print -quit)" ]; then
  mvn -B -q -f "$here/pom.xml" package >&2
fi
# The client writes logs and broadcast offsets under user.home; keep both in target/.
exec "${JAVA_HOME:+$JAVA_HOME/bin/}java" -Xmx1g -Duser.home="$here/target/home" -Drocketmq.client.logRoot="$here/target/logs" \
  -Drocketmq.client.localOffsetStoreDir="$here/target/home/offsets" \
  -cp "$jar:$here/target/lib/*" interop.Main "$@"
