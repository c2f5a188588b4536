//! Starting, and calls that never end, dive, take memory or trap.

use super::*;

/// Trouble while it is configured.
pub(super) fn starting() -> Vec<Case> {
    let configures = |body: &str| Guest { configure: body.into(), ..filter() };
    let no =
        |len: u32| Guest { fields: words(CONFIGURED, &[1, FREE, len]), memory: "(export \"memory\") 200", ..filter() };
    vec![
        start("configure loops", configures(LOOP), "deadline", DEADLINE).endless(),
        start(
            "configure calls itself for ever",
            Guest { fields: "(func $again (result i32) (return_call $again))".into(), ..configures("(call $again)") },
            "deadline",
            DEADLINE,
        )
        .endless(),
        start("configure dives", configures(DIVE), "trap", STACK),
        start("configure takes memory", configures(BOMB), "memory", NO_ROOM),
        start("configure goes on taking", configures(GREED), "deadline", DEADLINE).endless(),
        start("configure traps", configures("unreachable"), "trap", UNREACHABLE),
        start("configure refuses at length", no(10 << 20), "configure", "refuses its config"),
        start("configure refuses beyond its memory", no(1 << 30), "trap", "out of bounds"),
        start(
            "configure answers with neither",
            Guest { fields: words(CONFIGURED, &[7]), ..filter() },
            "trap",
            "discriminant",
        ),
    ]
}

/// Trouble in the functions of the roles.
pub(super) fn calling() -> Vec<Case> {
    let post = |body: &str| Guest {
        fields: format!(r#"(func (export "cabi_post_sluice:plugin/filter@0.3.0#matches") (param i32) {body})"#),
        ..filter()
    };
    let realloc = |realloc| Guest { realloc, ..filter() };
    let large = |body: String| Guest { body, memory: "(export \"memory\") 1000", ..filter() };
    let fill = "(memory.fill (i32.const 65536) (i32.const 7) (i32.const 65000000))";
    // Without a loop there is nothing but the instructions where it could be ended: they would all be done, and the answer given.
    let lines = |line: &str| large(format!("{} (i32.const {ANSWER})", line.repeat(30)));
    let mut cases = Vec::new();
    let roles = [
        (
            filter as fn() -> Guest,
            ["matches loops", "matches dives", "matches takes memory", "matches goes on taking", "matches traps"],
        ),
        (transform, ["apply loops", "apply dives", "apply takes memory", "apply goes on taking", "apply traps"]),
        (
            process,
            ["process loops", "process dives", "process takes memory", "process goes on taking", "process traps"],
        ),
        (check, ["check loops", "check dives", "check takes memory", "check goes on taking", "check traps"]),
    ];
    for (role, [loops, dives, takes, goes_on, traps]) in roles {
        let does = |body: &str| Guest { body: body.into(), ..role() };
        cases.extend([
            call(loops, does(LOOP), "deadline", DEADLINE).endless(),
            call(dives, does(DIVE), "trap", STACK),
            call(takes, does(BOMB), "memory", NO_ROOM),
            call(goes_on, does(GREED), "deadline", DEADLINE).endless(),
            call(traps, does("unreachable"), "trap", UNREACHABLE),
        ]);
    }
    cases.extend([
        call("fills its memory for ever", large(for_ever(fill)), "deadline", DEADLINE).endless().roomy(),
        call("fills its memory in a straight line", lines(fill), "deadline", DEADLINE).endless().roomy(),
        call(
            "copies its memory in a straight line",
            lines("(memory.copy (i32.const 65536) (i32.const 131072) (i32.const 65000000))"),
            "deadline",
            DEADLINE,
        )
        .endless()
        .roomy(),
        call(
            "copies its memory from the end in a straight line",
            lines("(memory.copy (i32.const 131072) (i32.const 65536) (i32.const 65000000))"),
            "deadline",
            DEADLINE,
        )
        .endless()
        .roomy(),
        call(
            "copies from a large segment in a straight line",
            Guest {
                fields: format!("(data $large \"{}\")", "x".repeat(7_000_000)),
                ..large(
                    (1..9)
                        .map(|i| {
                            format!(
                                "(memory.init $large (i32.const {}) (i32.const 0) (i32.const 7000000))",
                                i * 7_000_000
                            )
                        })
                        .collect::<String>()
                        .repeat(20)
                        + &format!("(i32.const {ANSWER})"),
                )
            },
            "deadline",
            DEADLINE,
        )
        .endless()
        .roomy(),
        call(
            "grows its table for ever",
            Guest {
                fields: "(table $t 1 funcref)".into(),
                body: "(loop $l (drop (table.grow $t (ref.null func) (i32.const 1000))) (br $l)) unreachable".into(),
                ..filter()
            },
            "deadline",
            DEADLINE,
        )
        .endless(),
        call("hoards from call to call", filter(), "memory", NO_ROOM).acts(Act::Call(1_000)),
        call("traps at every record", Guest { body: "unreachable".into(), ..transform() }, "trap", UNREACHABLE)
            .acts(Act::Storm),
        call(
            "traps at every record, as a processor",
            Guest { body: "unreachable".into(), ..process() },
            "trap",
            UNREACHABLE,
        )
        .acts(Act::Storm),
        call("realloc beyond the memory", realloc("(i32.const -16)"), "trap", "beyond end of memory"),
        call("realloc between two words", realloc("(i32.const 65537)"), "trap", "aligned"),
        call("realloc at one place for all", realloc("(i32.const 65536)"), "fine", ""),
        call("realloc at nothing", realloc("(i32.const 0)"), "fine", ""),
        start("realloc loops", realloc(LOOP), "deadline", DEADLINE).endless(),
        call("realloc dives", realloc(DIVE), "trap", STACK),
        call("realloc takes memory", realloc(BOMB), "memory", NO_ROOM),
        call(
            "realloc calls out",
            Guest {
                imports: r#"(import "sluice:plugin/context@0.3.0" "now" (func $now (result i64)))"#.into(),
                realloc: "(drop (call $now)) (i32.const 65536)",
                ..filter()
            },
            "trap",
            "cannot leave component instance",
        ),
        call("post-return traps", post("unreachable"), "trap", UNREACHABLE),
        call("post-return loops", post("(loop $l (br $l))"), "deadline", DEADLINE).endless(),
        call("on-timers loops", wakes(LOOP), "deadline", DEADLINE).acts(Act::Timers),
        call("on-timers dives", wakes(DIVE), "trap", STACK).acts(Act::Timers),
        call("on-timers takes memory", wakes(BOMB), "memory", NO_ROOM).acts(Act::Timers),
        call("on-timers traps", wakes("unreachable"), "trap", UNREACHABLE).acts(Act::Timers),
        call(
            "on-timers lies",
            Guest { fields: words(ANSWER, &[0, OWN, 1]) + &words(OWN, &[7_000]), ..wakes_late() },
            "nonsense",
            "origin",
        )
        .acts(Act::Timers),
    ]);
    cases
}

/// A processor that sets itself a timer with each batch.
pub(super) fn wakes(timers: &str) -> Guest {
    Guest { timers: timers.into(), ..wakes_late() }
}

pub(super) fn wakes_late() -> Guest {
    Guest {
        imports: r#"(import "sluice:plugin/timers@0.3.0" "set" (func $set (param i32 i32 i32 i32 i32 i64)))"#.into(),
        body: "(call $set (i32.const 1) (i32.const 512) (i32.const 6) (i32.const 512) (i32.const 1) (i64.const 1)) (i32.const 4096)".into(),
        ..process()
    }
}
