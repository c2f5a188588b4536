//! What is asked of the host: lines, metrics, and more than there is.

use super::*;

pub(super) const WRITE: &str =
    r#"(import "sluice:plugin/log@0.3.0" "write" (func $write (param i32 i32 i32 i32 i32)))"#;

/// A body that does something for ever.
pub(super) fn for_ever(what: &str) -> String {
    format!("(loop $l {what} (br $l)) unreachable")
}

/// A body that does something so often, with the round in local 1, and then answers.
pub(super) fn times(n: u32, what: &str) -> String {
    format!(
        "(local $n i32) (loop $l {what} (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $n) (i32.const {n})))) (i32.const {ANSWER})"
    )
}

/// Floods of lines and of numbers.
pub(super) fn writing() -> Vec<Case> {
    let logs = |body: String| Guest { imports: WRITE.into(), body, memory: "(export \"memory\") 250", ..filter() };
    let line = |len: u32| {
        format!("(call $write (i32.const 2) (i32.const {FREE}) (i32.const {len}) (i32.const 0) (i32.const 0))")
    };
    let metrics = |body: String| Guest {
        imports: r#"(import "sluice:plugin/metrics@0.3.0" "register" (func $register (param i32 i32 i32 i32)))
            (import "sluice:plugin/metrics@0.3.0" "observe" (func $observe (param i32 f64)))"#
            .into(),
        body,
        memory: "(export \"memory\") 250",
        ..filter()
    };
    let register =
        |len: u32| format!("(call $register (i32.const {FREE}) (i32.const {len}) (i32.const 0) (i32.const {OWN}))");
    // Four letters of the first sixteen, from the round.
    let letter = |shift: u32| {
        format!(
            "(i32.shl (i32.and (i32.shr_u (local.get $n) (i32.const {})) (i32.const 15)) (i32.const {}))",
            shift / 2,
            shift
        )
    };
    let named = format!(
        "(i32.store (i32.const {FREE}) (i32.add (i32.const 0x61616161) (i32.or {} (i32.or {} {}))))",
        letter(0),
        letter(8),
        letter(16)
    );
    let pairs = times(
        200_000,
        &format!(
            "(i64.store (i32.add (i32.const {FREE}) (i32.shl (local.get $n) (i32.const 4))) (i64.const 0x100000200))
         (i64.store (i32.add (i32.const {}) (i32.shl (local.get $n) (i32.const 4))) (i64.const 0x100000200))",
            FREE + 8
        ),
    );
    let pairs = pairs.replace(
        &format!("(i32.const {ANSWER})"),
        &for_ever(&format!(
            "(call $write (i32.const 2) (i32.const 0) (i32.const 0) (i32.const {FREE}) (i32.const 200000))"
        )),
    );
    vec![
        call("a flood of lines", logs(times(2_000, &line(10))), "fine", ""),
        call("a flood of lines without end", logs(for_ever(&line(10))), "deadline", DEADLINE).endless(),
        call("one endless line", logs(times(1, &line(14 << 20))), "fine", ""),
        call("endless lines", logs(for_ever(&line(14 << 20))), "deadline", DEADLINE).endless(),
        call("a line with countless fields", logs(pairs), "deadline", DEADLINE).endless(),
        call("a line beyond the memory", logs(times(1, &line(1 << 30))), "trap", "out of bounds"),
        call(
            "a line of no known level",
            logs(
                "(call $write (i32.const 9) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)) unreachable"
                    .into(),
            ),
            "trap",
            "discriminant",
        ),
        call(
            "a line of noise",
            Guest { fields: bytes_at(FREE, &[0xff; 10]), ..logs(times(1, &line(10))) },
            "trap",
            "utf-8",
        ),
        call("a flood of metrics", metrics(times(1_000, &(named.clone() + &register(4)))), "fine", ""),
        call("a metric of megabytes", metrics(times(1, &register(14 << 20))), "fine", ""),
        call(
            "a flood of numbers",
            metrics(register(0) + &for_ever("(call $observe (i32.const 0) (f64.const nan))")),
            "trap",
            "0 was not registered",
        ),
        call(
            "numbers without end",
            metrics(
                named.replace("(local.get $n)", "(i32.const 0)")
                    + &register(4)
                    + &for_ever("(call $observe (i32.const 0) (f64.const nan))"),
            ),
            "deadline",
            DEADLINE,
        )
        .endless(),
        call(
            "a metric nobody registered",
            metrics("(call $observe (i32.const -1) (f64.const 1)) unreachable".into()),
            "trap",
            "was not registered",
        ),
    ]
}

/// What it must not ask of its host.
pub(super) fn host() -> Vec<Case> {
    let uses = |imports: &str, body: &str| Guest {
        imports: imports.into(),
        body: body.into(),
        memory: "(export \"memory\") 250",
        ..wasi()
    };
    let exit = r#"(import "wasi:cli/exit@0.2.6" "exit" (func $exit (param i32)))"#;
    let stdout = r#"(import "wasi:cli/stdout@0.2.6" "get-stdout" (func $stdout (result i32)))
        (import "wasi:io/streams@0.2.6" "[method]output-stream.write" (func $write (param i32 i32 i32 i32)))"#;
    let random = r#"(import "wasi:random/random@0.2.6" "get-random-bytes" (func $random (param i64 i32)))"#;
    let clock =
        r#"(import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $wait (param i64) (result i32)))"#;
    let files = r#"(import "wasi:filesystem/types@0.2.6" "[method]descriptor.sync" (func $sync (param i32)))"#;
    let lines = format!(
        "(memory.fill (i32.const {FREE}) (i32.const 10) (i32.const 14000000))
         (call $write (call $stdout) (i32.const {FREE}) (i32.const 14000000) (i32.const {OWN})) (i32.const {ANSWER})"
    );
    let unending = lines.replace("(i32.const 10)", "(i32.const 97)");
    let context = Guest {
        imports: r#"(import "sluice:plugin/context@0.3.0" "get" (func $get (param i32)))"#.into(),
        body: for_ever(&format!("(global.set $heap (i32.const {HEAP})) (call $get (i32.const {OWN}))")),
        ..filter()
    };
    vec![
        call("exits", uses(exit, "(call $exit (i32.const 0)) unreachable"), "trap", "called exit"),
        call(
            "writes to what it was not given",
            uses(
                stdout,
                &format!("(call $write (i32.const 77) (i32.const 0) (i32.const 1) (i32.const {OWN})) unreachable"),
            ),
            "trap",
            "unknown handle",
        ),
        call("prints millions of lines", uses(stdout, &lines), "fine", ""),
        call("prints a line without end", uses(stdout, &unending), "fine", ""),
        call(
            "syncs what it was not given",
            uses(files, "(call $sync (i32.const 3)) unreachable"),
            "trap",
            "unknown handle",
        ),
        call(
            "asks for all the randomness",
            uses(random, &format!("(call $random (i64.const -1) (i32.const {OWN})) unreachable")),
            "trap",
            "random bytes",
        ),
        call("waits for ever", uses(clock, &times(100, "(drop (call $wait (i64.const -1)))")), "fine", ""),
        call("hoards handles", uses(clock, &for_ever("(drop (call $wait (i64.const 1)))")), "trap", "handle limit"),
        call("hoards outputs", uses(stdout, &for_ever("(drop (call $stdout))")), "trap", "handle limit"),
        call("asks where it is for ever", context, "deadline", DEADLINE).endless(),
        call(
            "a filter that looks into a state",
            Guest {
                imports: r#"(import "sluice:plugin/timers@0.3.0" "clock" (func $clock (param i32)))"#.into(),
                body: format!("(call $clock (i32.const {OWN})) unreachable"),
                ..curious()
            },
            "trap",
            "only in the functions of a processor",
        ),
    ]
}
