//! State, timers and transaction checks.

use super::*;

/// Processors and their state.
pub(super) fn keeping() -> Vec<Case> {
    let with = |interface: &str, function: &str, params: &str, body: String| Guest {
        imports: format!(r#"(import "sluice:plugin/{interface}@0.3.0" "{function}" (func $f {params}))"#),
        body,
        memory: "(export \"memory\") 240",
        ..process()
    };
    let put = |body: String| with("state", "put", "(param i32 i32 i32 i32 i32 i64)", body);
    let get = |body: String| with("state", "get", "(param i32 i32 i32 i64 i32)", body);
    let get_many = |body: String| with("state", "get-many", "(param i32 i32 i32 i32 i32 i64 i32)", body);
    let put_many = |body: String| with("state", "put-many", "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i64)", body);
    let add_many = |body: String| with("state", "add-many", "(param i32 i32 i32 i32 i32 i32 i32 i64 i64 i32)", body);
    let delete_many = |body: String| with("state", "delete-many", "(param i32 i32 i32 i32 i32)", body);
    let scan = |body: String| with("state", "scan", "(param i32 i32 i32 i32 i32 i32 i32 i64 i32)", body);
    let open = |body: String| with("state", "open", "(param i32 i32 i32)", body);
    let set = |body: String| with("timers", "set", "(param i32 i32 i32 i32 i32 i64)", body);
    let take = |body: String| with("timers", "take-due", "(param i64 i32)", body);
    // Counts in memory, so that each round has another key of eight bytes.
    let next = "(i32.store (i32.const 2048) (i32.add (i32.load (i32.const 2048)) (i32.const 1)))";
    let reset = format!("(global.set $heap (i32.const {HEAP}))");
    let key = format!("(i32.const {OWN}) (i32.const 8)");
    let long_key = |len: u32| format!("(i32.const {OWN}) (i32.const {len})");
    let many = |n: u32| format!("(i32.const 0) (i32.const 0) (i32.const {FREE}) (i32.const {n})");
    let answer = format!("(i32.const {OWN})");
    vec![
        call("puts without end", put(for_ever(&format!("{next} (call $f (i32.const 0) {key} (i32.const {FREE}) (i32.const 100000) (i64.const 0))"))), "too-much-output", "more than its limit").patient(),
        call("puts little without end", put(for_ever(&format!("{next} (call $f (i32.const 0) {key} {key} (i64.const 0))"))), "too-much-output", "more than its limit").patient(),
        call("puts at a key of kilobytes", put(format!("(call $f (i32.const 0) {} {key} (i64.const 0)) unreachable", long_key(5_000))), "trap", "at most 4096"),
        call("puts a value of megabytes", put(format!("(call $f (i32.const 0) {key} {} (i64.const 0)) unreachable", long_key(14 << 20))), "too-much-output", "more than its limit").patient(),
        call("puts into a store nobody opened", put(format!("(call $f (i32.const 9) {key} {key} (i64.const 0)) unreachable")), "trap", "store 9 was not opened"),
        call("gets at a key of megabytes", get(format!("(call $f (i32.const 0) {} (i64.const 0) {answer}) unreachable", long_key(14 << 20))), "trap", "at most 4096"),
        call("gets what is not there for ever", get(for_ever(&format!("{next} (call $f (i32.const 0) {} (i64.const 0) {answer})", long_key(4_000)))), "deadline", DEADLINE).endless(),
        call("gets a million nothings", get_many(for_ever(&format!("{reset} (call $f (i32.const 0) {} (i64.const 0) {answer})", many(1_000_000)))), "deadline", DEADLINE).endless(),
        call("deletes a million nothings", delete_many(for_ever(&format!("(call $f (i32.const 0) {})", many(3_000_000)))), "too-much-output", "more than its limit").patient(),
        call("adds to a million nothings", add_many(for_ever(&format!("{reset} (call $f (i32.const 0) {} (i32.const {FREE}) (i32.const 500000) (i64.const 0) (i64.const 0) {answer})", many(500_000)))), "too-much-output", "more than its limit").patient(),
        call("keys whose ends go back", Guest { fields: words(OWN, &[5, 3]), ..put_many(format!("(call $f (i32.const 0) (i32.const {HEAP}) (i32.const 8) (i32.const {OWN}) (i32.const 2) (i32.const {HEAP}) (i32.const 8) (i32.const {OWN}) (i32.const 2) (i64.const 0)) unreachable")) }, "trap", "ends do not fit"),
        call("keys beyond their data", Guest { fields: words(OWN, &[5, 9]), ..put_many(format!("(call $f (i32.const 0) (i32.const {HEAP}) (i32.const 8) (i32.const {OWN}) (i32.const 2) (i32.const {HEAP}) (i32.const 8) (i32.const {OWN}) (i32.const 2) (i64.const 0)) unreachable")) }, "trap", "ends do not fit"),
        call("more keys than values", put_many(format!("(call $f (i32.const 0) {} {} (i64.const 0)) unreachable", many(3), many(2))), "trap", "3 keys and 2 values"),
        call("scans for ever", scan(for_ever(&format!("{reset} (call $f (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1) (i64.const 0) {answer})"))), "deadline", DEADLINE).endless(),
        call("opens stores that are not there", open(for_ever(&format!("{reset} (call $f (i32.const {FREE}) (i32.const 100) {answer})"))), "deadline", DEADLINE).endless(),
        call("opens a store of megabytes", open(times(1, &format!("(call $f (i32.const {FREE}) (i32.const {}) {answer})", 14 << 20))), "fine", ""),
        call("sets millions of timers", set(for_ever(&format!("{next} (call $f (i32.const 0) {key} (i32.const 512) (i32.const 6) (i64.const 5))"))), "too-much-output", "more than its limit").patient(),
        call("sets a timer with a long name", set(format!("(call $f (i32.const 0) {key} {} (i64.const 5)) unreachable", long_key(65))), "trap", "at most 64"),
        call("takes timers for ever", take(for_ever(&format!("{reset} (call $f (i64.const -1) {answer})"))), "deadline", DEADLINE).endless(),
    ]
}

/// Checkers and their look-ups.
pub(super) fn checking() -> Vec<Case> {
    let looks = |topic: u32, then: &str, n: u32| Guest {
        imports: r#"(import "sluice:plugin/lookup@0.3.0" "by-key" (func $look (param i32 i32 i32 i32 i32 i32)))"#
            .into(),
        fields: bytes_at(OWN, b"ledgersecret"),
        body: {
            let (at, len) = if topic == 0 { (OWN, 6) } else { (OWN + 6, 6) };
            let reset = format!("(global.set $heap (i32.const {HEAP}))");
            let once = format!(
                "{reset} (call $look (i32.const {at}) (i32.const {len}) (i32.const 512) (i32.const 6) (i32.const -1) (i32.const {})) {then}",
                OWN + 64
            );
            times(n, &once)
        },
        ..check()
    };
    // The answer's first byte says whether it is an error.
    let only_errors = format!("(if (i32.eqz (i32.load8_u (i32.const {}))) (then unreachable))", OWN + 64);
    let few_hits = format!(
        "(if (i32.eqz (i32.load8_u (i32.const {0}))) (then (if (i32.gt_u (i32.load (i32.const {1})) (i32.const 100)) (then unreachable))))",
        OWN + 64,
        OWN + 72
    );
    vec![
        call("looks into a topic not granted", looks(1, &only_errors, 10), "fine", ""),
        call("looks more often than it may", looks(0, &few_hits, 500), "fine", "").patient(),
        call(
            "looks up for ever",
            Guest { body: looks(0, "", 1).body.replace("(br_if $l", "(br $l) (br_if $l"), ..looks(0, "", 1) },
            "deadline",
            DEADLINE,
        ),
        call(
            "a decision of no known kind",
            Guest { fields: words(ANSWER, &[0, 0, 9]), ..check() },
            "trap",
            "discriminant",
        ),
        call(
            "a reason of megabytes",
            Guest { fields: words(ANSWER, &[1, 0, HEAP, 14 << 20]), memory: "(export \"memory\") 250", ..check() },
            "check-failed",
            "the plugin failed",
        ),
    ]
}
