#!/usr/bin/env bash
# With curl alone: a topic, a plugin, a pipeline, messages in, messages out. REST is the server's address.
set -euo pipefail
REST=${REST:-http://127.0.0.1:8082}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
id=curl$$
passed=0 failed=0
# expect NAME STATUS REGEX CURL-ARGS ...: the answer must have the status and match.
expect() {
  local name=$1 status=$2 regex=$3 answer code
  shift 3
  answer=$(curl -s -w '\n%{http_code}' "$@") || true
  code=${answer##*$'\n'}
  if [[ "$code" =~ ^$status$ ]] && grep -Eq -- "$regex" <<<"${answer%$'\n'*}"; then
    passed=$((passed + 1)); echo "PASS $name: $code"
  else
    failed=$((failed + 1)); echo "FAIL $name: $code, wanted $status and /$regex/: ${answer:0:300}"
  fi
}
# built NAME: the component of a ready-made plugin.
built() {
  find "$here/../target" -path '*release*' -name "$1*.wasm" -o -path '*guests*' -name "${1//-/_}.wasm" 2>/dev/null | head -1
}
component=$(built json-filter) masking=$(built redact)
[ -n "$component" ] && [ -n "$masking" ] || { echo "interop curl: no built json-filter and redact components under target/"; exit 1; }
api=$REST/api/v1
json=(-H 'content-type: application/json')
expect health 200 ok "$REST/healthz"
expect ready 200 ready "$REST/readyz"
for topic in in out; do
  expect "create topic $topic" 201 "$id-$topic" -X PUT "${json[@]}" -d '{"queues":2}' "$api/topics/$id-$topic"
done
expect "create it again" 200 "$id-in" -X PUT "${json[@]}" -d '{"queues":2}' "$api/topics/$id-in"
expect "unknown field" 400 'quues' -X PUT "${json[@]}" -d '{"quues":2}' "$api/topics/$id-x"
expect "upload a plugin" 20. '"digest"' -X PUT --data-binary "@$component" "$api/plugins/json-filter"
expect "upload nonsense" 422 'not-wasm|not-a-component' -X PUT --data-binary 'hello' "$api/plugins/nonsense"
pipeline="{\"name\":\"$id\",\"source\":{\"topic\":\"$id-in\",\"start\":\"earliest\"},\"steps\":[{\"plugin\":\"json-filter\",\"config\":{\"path\":\"/status\",\"equals\":\"paid\"}}],\"sinks\":[\"$id-out\"]}"
expect "apply a pipeline" 201 "$id" -X PUT "${json[@]}" -d "$pipeline" "$api/pipelines/$id"
expect "a sink that is not there" 404 'nowhere' -X PUT "${json[@]}" -d "${pipeline//$id-out/nowhere}" "$api/pipelines/$id"
expect "post a message" 201 '"offset"' -X POST "${json[@]}" -d '{"key":"k1","queue":0,"body":"{\"status\":\"paid\"}"}' "$api/topics/$id-in/messages"
expect "post another" 201 '"offset"' -X POST "${json[@]}" -d '{"key":"k2","queue":0,"body":"{\"status\":\"open\"}"}' "$api/topics/$id-in/messages"
for _ in $(seq 50); do curl -s "$api/topics/$id-out/messages?queue=0&offset=0" | grep -q k1 && break; sleep 0.1; done
expect "read the result" 200 'k1' "$api/topics/$id-out/messages?queue=0&offset=0"
if curl -s "$api/topics/$id-out/messages?queue=0&offset=0" | grep -q k2; then failed=$((failed + 1)); echo "FAIL the filter: k2 came through"; else passed=$((passed + 1)); echo "PASS the filter: k2 did not come through"; fi
expect "describe the pipeline" 200 '"lag"' "$api/pipelines/$id"
expect "pause" 200 'paused' -X POST "$api/pipelines/$id:pause"
expect "resume" 200 'running' -X POST "$api/pipelines/$id:resume"
expect "delete it" 204 '' -X DELETE "$api/pipelines/$id"
granting="${pipeline//\"plugin\":\"json-filter\"/\"plugin\":\"json-filter\",\"grants\":{\"secrets\":[\"$id\"]\}}"
expect "a secret that is not there" 404 'steps\[0\].grants.secrets' -X PUT "${json[@]}" -d "$granting" "$api/pipelines/$id"
expect "set it" 201 "$id" -X PUT --data-binary 'hunter2' "$api/secrets/$id"
expect "grant it" 201 "$id" -X PUT "${json[@]}" -d "$granting" "$api/pipelines/$id"
expect "list secrets" 200 "$id" "$api/secrets"
expect "the audit" 200 "\"granted\".*$id" "$api/audit"
if curl -s "$api/secrets" "$api/audit" "$api/pipelines/$id" | grep -q hunter2; then failed=$((failed + 1)); echo "FAIL a secret was shown"; else passed=$((passed + 1)); echo "PASS no secret was shown"; fi
expect "delete what was granted" 204 '' -X DELETE "$api/pipelines/$id"
expect "delete the secret" 204 '' -X DELETE "$api/secrets/$id"
expect "upload another plugin" 20. '"digest"' -X PUT --data-binary "@$masking" "$api/plugins/redact"
expect "try it" 200 '\*\*\*' -X POST "${json[@]}" -d '{"config":{"fields":["card"]},"messages":[{"body":{"card":"4111"}}]}' "$api/plugins/redact:try"
expect "a pipeline of both, YAML" 201 "$id" -X PUT -H 'content-type: application/yaml' --data-binary @- "$api/pipelines/$id" <<EOF
name: $id
source: { topic: $id-in, start: earliest, where: "amount > 100" }
steps:
  - { plugin: json-filter@1, config: { path: /status, equals: paid } }
  - { plugin: redact, config: { fields: [card] } }
sinks: [ $id-out ]
on_failure: { retries: 3, backoff: 1s, then: dead-letter }
limits: { memory: 16MiB, deadline: 10ms }
delivery: exactly-once
EOF
expect "post the body itself" 201 '"offset"' -X POST -H 'X-Message-Key: k3' -H 'X-Message-Queue: 0' -H 'X-Message-Property-amount: 250' --data-binary '{"status":"paid","card":"4111"}' "$api/topics/$id-in/messages"
for _ in $(seq 50); do curl -s "$api/topics/$id-out/messages?key=k3" | grep -q k3 && break; sleep 0.1; done
expect "read it masked" 200 '"amount":"250".*\*\*\*' "$api/topics/$id-out/messages?key=k3"
expect "delete that pipeline" 204 '' -X DELETE "$api/pipelines/$id"
expect "keep its messages for a while" 200 '"retention":"1h"' -X PATCH "${json[@]}" -d '{"retention":"1h"}' "$api/topics/$id-out"
expect "metrics" 200 'messages_in' "$REST/metrics"
expect "openapi" 200 '"openapi"' "$api/openapi.json"
echo "interop curl: $passed passed, $failed failed"
[ "$failed" = 0 ]
