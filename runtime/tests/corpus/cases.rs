//! The corpus: each component with what must come of it.

use wit_component::ComponentEncoder;

use crate::guest::{
    ANSWER, BOMB, CONFIGURED, DIVE, FREE, GREED, Guest, HEAP, LOOP, OWN, bytes_at, bytes_of, check, curious, filter,
    manifest, process, transform, wasi, words,
};

/// How far a case goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Load,
    Start,
    /// So many calls of its role, until one fails.
    Call(u32),
    /// A stage in which each record sets a timer that is due at once.
    Timers,
    /// A stage with many records, on each of which it fails.
    Storm,
}

pub struct Case {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub act: Act,
    /// The code of the refusal or of the failure; `fine` when it goes well.
    pub code: &'static str,
    /// What the message holds.
    pub says: &'static str,
    /// It would run for ever: its time on the processor is what the deadline allows.
    pub endless: bool,
    /// It is to meet another limit than the deadline, however slow the machine is.
    pub patient: bool,
}

fn case(name: &'static str, act: Act, bytes: Vec<u8>, code: &'static str, says: &'static str) -> Case {
    Case { name, bytes, act, code, says, endless: false, patient: false }
}

fn refused(name: &'static str, guest: Guest, code: &'static str, says: &'static str) -> Case {
    case(name, Act::Load, guest.build(), code, says)
}

fn refused_text(name: &'static str, text: &str, code: &'static str, says: &'static str) -> Case {
    let bytes = wat::parse_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
    case(name, Act::Load, bytes, code, says)
}

fn start(name: &'static str, guest: Guest, code: &'static str, says: &'static str) -> Case {
    case(name, Act::Start, guest.build(), code, says)
}

fn call(name: &'static str, guest: Guest, code: &'static str, says: &'static str) -> Case {
    case(name, Act::Call(1), guest.build(), code, says)
}

impl Case {
    fn endless(self) -> Case {
        Case { endless: true, ..self }
    }

    fn patient(self) -> Case {
        Case { patient: true, ..self }
    }

    fn acts(self, act: Act) -> Case {
        Case { act, ..self }
    }
}

const DEADLINE: &str = "longer than its deadline";
const STACK: &str = "call stack exhausted";
const NO_ROOM: &str = "KiB of memory";
const UNREACHABLE: &str = "unreachable";

pub fn all() -> Vec<Case> {
    let groups =
        [gate(), compiling(), describing(), starting(), calling(), lying(), writing(), host(), keeping(), checking()];
    groups.into_iter().flatten().collect()
}

/// Uploads that are no plugins.
fn gate() -> Vec<Case> {
    let component = ComponentEncoder::default().module(&filter().build()).unwrap().encode().unwrap();
    let cut = component[..component.len() / 2].to_vec();
    let noise: Vec<u8> = (0..10_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let headed = |header: &[u8]| [header, &noise].concat();
    let mut typed_noise = headed(b"\0asm\x01\0\0\0");
    filter().embed(&mut typed_noise);
    let mut bare = wat::parse_str("(module)").unwrap();
    filter().embed(&mut bare);
    let load = |name, bytes, code, says| case(name, Act::Load, bytes, code, says);
    let wide: String =
        (1..40).map(|i| format!("(type $t{i} (tuple $t{} $t{} $t{} $t{}))", i - 1, i - 1, i - 1, i - 1)).collect();
    let types = format!("(component (type $t0 (tuple u8 u8)) {wide} (import \"a\" (func (param \"a\" $t39))))");
    let imports: String = (0..900).map(|i| format!("(import \"evil:net/i{i}\" (instance))")).collect();
    vec![
        load("no wasm", noise.clone(), "not-wasm", "does not start with \\0asm"),
        load("a module of noise", headed(b"\0asm\x01\0\0\0"), "core-module", "without a component type"),
        load("noise with a component type", typed_noise, "core-module", "without a component type"),
        load("a component of noise", headed(b"\0asm\x0d\0\x01\0"), "invalid", "does not compile"),
        load("another version of WebAssembly", headed(b"\0asm\x63\0\x01\0"), "invalid", "not valid WebAssembly"),
        load("only a header", b"\0asm".to_vec(), "invalid", "not valid WebAssembly"),
        load("half a component", cut, "invalid", "does not compile"),
        load("too large", [component, vec![0; 9 << 20]].concat(), "too-large", "may have at most"),
        load("a module that exports nothing", bare, "not-a-component", "failed to find export"),
        refused_text("no role", "(component)", "no-role", "exports nothing"),
        refused_text(
            "a role without the plugin",
            r#"(component (instance $i) (export "sluice:plugin/filter@0.3.0" (instance $i)))"#,
            "no-role",
            "a plugin exports sluice:plugin/plugin@0.3.0",
        ),
        refused_text(
            "a role of another version",
            r#"(component (instance $i) (export "sluice:plugin/filter@0.1.0" (instance $i)))"#,
            "contract-version",
            "this broker speaks",
        ),
        refused_text(
            "imports of another version",
            r#"(component (import "sluice:plugin/log@1.0.0" (instance)))"#,
            "contract-version",
            "imports sluice:plugin/log@1.0.0",
        ),
        refused_text(
            "an unknown import",
            r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)))"#,
            "unknown-import",
            "imports wasi:sockets/tcp@0.2.0",
        ),
        refused_text("many unknown imports", &format!("(component {imports})"), "unknown-import", "evil:net/i0"),
        refused_text(
            "an import of another type",
            r#"(component
                (import "sluice:plugin/context@0.3.0" (instance (export "now" (func (result string)))))
                (instance $i)
                (export "sluice:plugin/plugin@0.3.0" (instance $i))
                (export "sluice:plugin/filter@0.3.0" (instance $i)))"#,
            "import-type",
            "does not link",
        ),
        refused_text(
            "an import that the interface does not have",
            r#"(component
                (import "sluice:plugin/context@0.3.0" (instance (export "later" (func))))
                (instance $i)
                (export "sluice:plugin/plugin@0.3.0" (instance $i))
                (export "sluice:plugin/filter@0.3.0" (instance $i)))"#,
            "import-type",
            "later",
        ),
        refused_text(
            "an export of another type",
            r#"(component
                (core module $m (func (export "f") (result i32) (i32.const 0)))
                (core instance $m (instantiate $m))
                (func $f (result u32) (canon lift (core func $m "f")))
                (instance $i (export "describe" (func $f)) (export "configure" (func $f)) (export "matches" (func $f)))
                (export "sluice:plugin/plugin@0.3.0" (instance $i))
                (export "sluice:plugin/filter@0.3.0" (instance $i)))"#,
            "export-type",
            "type mismatch",
        ),
        load("components within components", nested(12), "no-role", "exports nothing"),
        load("components within components within components", nested(20_000), "invalid", "at most 16 deep"),
        refused_text("a type of unthinkable size", &types, "invalid", "size"),
        refused(
            "an import of preview 1",
            Guest { imports: r#"(import "wasi_snapshot_preview1" "fd_write" (func))"#.into(), ..filter() },
            "not-a-component",
            "wasm32-wasip2",
        ),
        refused(
            "an import of a wrong core type",
            Guest { imports: r#"(import "sluice:plugin/log@0.3.0" "write" (func (param i64)))"#.into(), ..filter() },
            "not-a-component",
            "type mismatch",
        ),
    ]
}

/// A component in a component in a component.
fn nested(depth: usize) -> Vec<u8> {
    const HEADER: &[u8] = b"\0asm\x0d\0\x01\0";
    const COMPONENT_SECTION: u8 = 4;
    (0..depth).fold(HEADER.to_vec(), |inner, _| {
        let mut size = inner.len();
        let mut outer = [HEADER, &[COMPONENT_SECTION]].concat();
        while size > 0x7f {
            outer.push((size & 0x7f) as u8 | 0x80);
            size >>= 7;
        }
        outer.push(size as u8);
        outer.extend(inner);
        outer
    })
}

/// What costs when it is compiled, or when its tables and memories are laid out.
fn compiling() -> Vec<Case> {
    let functions = |n: usize| Guest { fields: "(func)".repeat(n), ..filter() };
    let large = Guest { fields: format!("(func {})", "(drop (i32.const 1))".repeat(1_800_000)), ..filter() };
    let blocks = format!("(func {} {})", "block ".repeat(100_000), "end ".repeat(100_000));
    let branches = format!("(func (block (br_table {} (i32.const 0))))", "0 ".repeat(1_500_000));
    let joins = |locals: usize, loops: usize| {
        let assignments: String =
            (0..locals).map(|i| format!("(local.set {i} (i64.add (local.get {i}) (i64.const 1)))")).collect();
        let targets: String = (0..loops).map(|i| format!("{i} ")).collect();
        let (begin, end) = ("loop ".repeat(loops), "end ".repeat(loops));
        format!("(func {} {begin} {assignments} (br_table {targets} (i32.const 0)) {end})", self::locals(locals))
    };
    let instances = "(core instance (instantiate $m))";
    let with = |module: &str, instances: &str| {
        format!(
            r#"(component (core module $m {module}) {instances}
                (core module $f (func (export "f")))
                (core instance $f (instantiate $f))
                (func $f (canon lift (core func $f "f")))
                (instance $i (export "matches" (func $f)) (export "describe" (func $f)) (export "configure" (func $f)))
                (export "sluice:plugin/plugin@0.3.0" (instance $i))
                (export "sluice:plugin/filter@0.3.0" (instance $i)))"#
        )
    };
    let data: String = (0..64).map(|_| bytes_at(HEAP, &[7; 65_536])).collect();
    vec![
        refused("a million functions", functions(900_000), "invalid", "functions"),
        refused("a function of megabytes", large, "invalid", "bytes"),
        refused("blocks within blocks", Guest { fields: blocks, ..filter() }, "invalid", "blocks"),
        refused("a branch to a million places", Guest { fields: branches, ..filter() }, "invalid", "bytes"),
        refused(
            "too many locals",
            Guest { fields: format!("(func {})", locals(60_000)), ..filter() },
            "not-a-component",
            "too many locals",
        ),
        refused(
            "many locals through many loops",
            Guest { fields: joins(20_000, 2_000), ..filter() },
            "invalid",
            "locals",
        ),
        refused("some locals through some loops", Guest { fields: joins(330, 300), ..filter() }, "invalid", "locals"),
        call("locals through loops that are compiled", Guest { fields: joins(100, 32), ..filter() }, "fine", ""),
        refused_text("many core instances", &with("", &instances.repeat(40)), "invalid", "instances"),
        refused_text("many memories", &with("(memory 1)", &instances.repeat(3)), "invalid", "memories"),
        refused(
            "two memories of a module",
            Guest { memory: "(export \"memory\") 4) (memory 1", ..filter() },
            "invalid",
            "memor",
        ),
        refused(
            "a memory of 64 bits",
            Guest { memory: "(export \"memory\") i64 4", ..filter() },
            "not-a-component",
            "expected i64",
        ),
        refused(
            "another memory of 64 bits",
            Guest { memory: "(export \"memory\") 4) (memory i64 1", ..filter() },
            "invalid",
            "memory",
        ),
        refused(
            "a shared memory",
            Guest { memory: "(export \"memory\") 4 16 shared", ..filter() },
            "not-a-component",
            "shared",
        ),
        refused(
            "a memory above every limit",
            Guest { memory: "(export \"memory\") 65536", ..filter() },
            "invalid",
            "memory",
        ),
        start(
            "a memory above the instance's limit",
            Guest { memory: "(export \"memory\") 512", ..filter() },
            "memory",
            NO_ROOM,
        ),
        refused(
            "a table of millions",
            Guest { fields: "(table 9000000 funcref)".into(), ..filter() },
            "invalid",
            "table",
        ),
        refused("many tables", Guest { fields: "(table 10 funcref)".repeat(60), ..filter() }, "invalid", "tables"),
        refused(
            "data beyond the memory",
            Guest { fields: bytes_at(4 << 20, b"x"), ..filter() },
            "does-not-instantiate",
            "out of bounds",
        ),
        refused(
            "elements beyond the table",
            Guest { fields: "(table 1 funcref) (elem (i32.const 9) $dive)".into(), ..filter() },
            "does-not-instantiate",
            "out of bounds",
        ),
        call("megabytes of data", Guest { fields: data, ..filter() }, "fine", ""),
    ]
}

fn locals(n: usize) -> String {
    format!("(local {})", "i64 ".repeat(n))
}

/// Trouble while it says what it is.
fn describing() -> Vec<Case> {
    let describes = |describe: &str| Guest { describe: describe.into(), ..filter() };
    let starts = |body: &str| Guest { fields: format!("(func $begin {body}) (start $begin)"), ..filter() };
    let says = |words: Vec<u8>, data: String| Guest { manifest: Some(words), fields: data, ..filter() };
    let loud = "\\01".repeat(20_000);
    let register = r#"(import "sluice:plugin/metrics@0.3.0" "register" (func $register (param i32 i32 i32 i32)))"#;
    vec![
        refused("a start function that loops", starts(LOOP), "does-not-instantiate", DEADLINE).endless(),
        refused("a start function that dives", starts(DIVE), "does-not-instantiate", STACK),
        refused("a start function that takes memory", starts(BOMB), "does-not-instantiate", NO_ROOM),
        refused("a start function that goes on taking", starts(GREED), "does-not-instantiate", DEADLINE).endless(),
        refused("a start function that traps", starts("unreachable"), "does-not-instantiate", UNREACHABLE),
        refused("describe loops", describes(LOOP), "describe-failed", DEADLINE).endless(),
        refused("describe dives", describes(DIVE), "describe-failed", STACK),
        refused("describe takes memory", describes(BOMB), "describe-failed", NO_ROOM),
        refused("describe traps", describes("unreachable"), "describe-failed", UNREACHABLE),
        refused("a manifest beyond the memory", describes("(i32.const -8)"), "describe-failed", "out of bounds"),
        refused("a manifest between two words", describes("(i32.const 17)"), "describe-failed", "aligned"),
        refused(
            "a manifest whose list has no end",
            says(manifest([512, 6], [544, 5], [560, u32::MAX]), String::new()),
            "describe-failed",
            "out of bounds",
        ),
        refused(
            "a manifest with millions of stores",
            Guest {
                memory: "(export \"memory\") 900",
                ..says(manifest([512, 6], [544, 5], [HEAP, 3_000_000]), String::new())
            },
            "describe-failed",
            "more than its limit",
        ),
        refused(
            "a name of noise",
            says(manifest([OWN, 4], [544, 5], [0, 0]), bytes_at(OWN, b"a\xff\xfeb")),
            "describe-failed",
            "utf-8",
        ),
        refused(
            "a loud name",
            Guest { name: loud, manifest: Some(manifest([OWN, 60_000], [544, 5], [0, 0])), ..filter() },
            "bad-manifest",
            "name: ",
        ),
        refused(
            "an endless name",
            Guest {
                memory: "(export \"memory\") 300",
                ..says(manifest([HEAP, 15 << 20], [544, 5], [0, 0]), String::new())
            },
            "bad-manifest",
            "name: ",
        ),
        refused(
            "an endless version",
            Guest {
                memory: "(export \"memory\") 300",
                ..says(manifest([512, 6], [HEAP, 15 << 20], [0, 0]), String::new())
            },
            "bad-manifest",
            "version: ",
        ),
        refused(
            "stores of a filter",
            says(manifest([512, 6], [544, 5], [560, 1]), String::new()),
            "bad-manifest",
            "stores",
        ),
        call(
            "describe calls what is there",
            Guest {
                imports: register.into(),
                describe: format!(
                    "(call $register (i32.const 512) (i32.const 6) (i32.const 0) (i32.const {OWN})) (i32.const 16)"
                ),
                ..filter()
            },
            "fine",
            "",
        ),
        refused(
            "describe looks into a state",
            Guest {
                imports: r#"(import "sluice:plugin/state@0.3.0" "delete" (func $delete (param i32 i32 i32)))"#.into(),
                describe: "(call $delete (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const 16)".into(),
                ..process()
            },
            "describe-failed",
            "was not opened",
        ),
    ]
}

/// Trouble while it is configured.
fn starting() -> Vec<Case> {
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
fn calling() -> Vec<Case> {
    let post = |body: &str| Guest {
        fields: format!(r#"(func (export "cabi_post_sluice:plugin/filter@0.3.0#matches") (param i32) {body})"#),
        ..filter()
    };
    let realloc = |realloc| Guest { realloc, ..filter() };
    // One instruction cannot be interrupted, and the memory's first touch costs what the machine takes for its pages: no bound on this one.
    let fill = "(loop $l (memory.fill (i32.const 65536) (i32.const 7) (i32.const 16000000)) (br $l)) unreachable";
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
        call(
            "fills its memory for ever",
            Guest { body: fill.into(), memory: "(export \"memory\") 250", ..filter() },
            "deadline",
            DEADLINE,
        ),
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
fn wakes(timers: &str) -> Guest {
    Guest { timers: timers.into(), ..wakes_late() }
}

fn wakes_late() -> Guest {
    Guest {
        imports: r#"(import "sluice:plugin/timers@0.3.0" "set" (func $set (param i32 i32 i32 i32 i32 i64)))"#.into(),
        body: "(call $set (i32.const 1) (i32.const 512) (i32.const 6) (i32.const 512) (i32.const 1) (i64.const 1)) (i32.const 4096)".into(),
        ..process()
    }
}

/// Answers that break the contract. The batch has four records.
fn lying() -> Vec<Case> {
    let filters = |data: String| Guest { fields: data, ..filter() };
    let answers = |data: String| Guest { fields: data, ..transform() };
    // A failure: index, action, code, reason.
    let failure = |index: u32, action: u32| [index, action, 512, 6, 512, 6];
    let failures = |list: &[[u32; 6]]| {
        let len = u32::try_from(list.len()).unwrap();
        filters(words(ANSWER, &[0, 0, 0, OWN, len]) + &words(OWN, list.as_flattened()))
    };
    let noise = words(ANSWER, &[0, 0, 0, OWN, 1])
        + &words(OWN, &[0, 0, OWN + 64, 4, 512, 6])
        + &bytes_at(OWN + 64, b"\xff\xfe\xfd\xfc");
    let large = |data: String| Guest { memory: "(export \"memory\") 250", ..answers(data) };
    vec![
        call(
            "an answer beyond the memory",
            Guest { body: "(i32.const -4)".into(), ..filter() },
            "trap",
            "out of bounds",
        ),
        call("an answer between two words", Guest { body: "(i32.const 1026)".into(), ..filter() }, "trap", "aligned"),
        call("neither ok nor an error", filters(words(ANSWER, &[9])), "trap", "discriminant"),
        call(
            "a bitmap of the wrong length",
            filters(words(ANSWER, &[0, OWN, 3])),
            "nonsense",
            "keep: expected 1 bytes",
        ),
        call("a bitmap beyond the memory", filters(words(ANSWER, &[0, OWN, 1 << 30])), "trap", "out of bounds"),
        call(
            "a bitmap of megabytes",
            Guest { memory: "(export \"memory\") 250", ..filters(words(ANSWER, &[0, HEAP, 15 << 20])) },
            "nonsense",
            "keep: expected",
        ),
        call("one failure named twice", failures(&[failure(1, 0), failure(1, 0)]), "nonsense", "named twice"),
        call("a failure of no record", failures(&[failure(4, 0)]), "nonsense", "record 4"),
        call("more failures than records", failures(&[failure(1, 0); 5]), "nonsense", "5 failures for 4"),
        call("a failure with no known action", failures(&[failure(1, 9)]), "trap", "discriminant"),
        call("a failure of noise", filters(noise), "trap", "utf-8"),
        call(
            "millions of failures",
            Guest { memory: "(export \"memory\") 250", ..filters(words(ANSWER, &[0, 0, 0, HEAP, 600_000])) },
            "too-much-output",
            "more than its limit",
        ),
        call(
            "a fault of the batch",
            filters(words(ANSWER, &[1, 1, 512, 6, 512, 6])),
            "corpus",
            "failed the whole batch",
        ),
        call("an origin beyond the batch", answers(output(&[0, 4], &[], None)), "nonsense", "origin[1] is 4"),
        call("origins that go back", answers(output(&[1, 0], &[], None)), "nonsense", "origin[1] is 0 after 1"),
        call("a target that is not there", answers(output(&[0, 1], &[0, 2], None)), "nonsense", "target[1] is 2"),
        call("fewer targets than outputs", answers(output(&[0, 1], &[0], None)), "nonsense", "target: expected 2"),
        call("outputs of nothing", answers(output(&[], &[0], None)), "nonsense", "target: expected 0"),
        call("a fan of outputs", answers(output(&[0; 257], &[], None)), "nonsense", "257 outputs from 4 records"),
        call(
            "a storm of outputs",
            large(words(ANSWER, &[0, HEAP, 3_000_000])),
            "nonsense",
            "3000000 outputs from 4 records",
        ),
        call(
            "ends that go back",
            answers(output(&[0, 1], &[], Some((VALUES, &[], b"abcd", &[3, 2])))),
            "nonsense",
            "end 1 is 2, after 3",
        ),
        call(
            "ends beyond the data",
            answers(output(&[0, 1], &[], Some((VALUES, &[], b"abcd", &[3, 5])))),
            "nonsense",
            "end 1 is 5",
        ),
        call(
            "too few ends",
            answers(output(&[0, 1], &[], Some((VALUES, &[], b"abcd", &[4])))),
            "nonsense",
            "expected 2 ends",
        ),
        call(
            "data behind the last end",
            answers(output(&[0, 1], &[], Some((VALUES, &[], b"abcd", &[1, 2])))),
            "nonsense",
            "the last end is 2",
        ),
        call(
            "a patch of the wrong length",
            answers(output(&[0, 1], &[], Some((VALUES, &[3, 0], b"ab", &[1, 2])))),
            "nonsense",
            "`changed`",
        ),
        call(
            "data beyond the memory",
            answers(words(ANSWER, &[0, OWN, 1]) + &words(ANSWER + 76, &[1, 0, 0, OWN, 1 << 30, OWN, 1])),
            "trap",
            "out of bounds",
        ),
        call(
            "a key of noise",
            answers(output(&[0], &[], Some((KEYS, &[], b"\xff", &[1])))),
            "nonsense",
            "the key is not UTF-8",
        ),
        call(
            "a key that holds a property",
            answers(output(&[0], &[], Some((KEYS, &[], b"a\x01b", &[3])))),
            "nonsense",
            "byte 1 or 2",
        ),
        call(
            "a tag of noise",
            answers(output(&[0], &[], Some((TAGS, &[], b"\xc0\x80", &[2])))),
            "nonsense",
            "the tag is not UTF-8",
        ),
        call(
            "headers of noise",
            answers(output(&[0], &[], Some((HEADERS, &[], b"\xff", &[1])))),
            "nonsense",
            "the headers are not UTF-8",
        ),
        call(
            "headers without a value",
            answers(output(&[0], &[], Some((HEADERS, &[], &[3; 30_000], &[30_000])))),
            "nonsense",
            "which is no name",
        ),
        call(
            "headers longer than can be stored",
            answers(output(&[0], &[], Some((HEADERS, &[], &[b'a'; 40_000], &[40_000])))),
            "nonsense",
            "32767",
        ),
        call(
            "one place four times",
            large(
                words(ANSWER, &[0, OWN, 1])
                    + &[KEYS, TAGS, VALUES, HEADERS]
                        .map(|column| words(ANSWER + column, &[1, 0, 0, HEAP, 14 << 20, OWN + 8, 1]))
                        .concat()
                    + &words(OWN + 8, &[14 << 20]),
            ),
            "too-much-output",
            "more than its limit",
        ),
    ]
}

const KEYS: u32 = 20;
const TAGS: u32 = 48;
const VALUES: u32 = 76;
const HEADERS: u32 = 104;

/// A column, its bits of what changed, its data and its ends.
type Patch<'a> = Option<(u32, &'a [u8], &'a [u8], &'a [u32])>;

/// A transformer's answer.
fn output(origin: &[u32], target: &[u16], patch: Patch<'_>) -> String {
    let len = |n: usize| u32::try_from(n).unwrap();
    let (origins, targets, changed, ends, data) = (OWN, OWN + 2048, OWN + 2560, OWN + 2568, OWN + 2600);
    let target_bytes: Vec<u8> = target.iter().flat_map(|target| target.to_le_bytes()).collect();
    let mut text = words(ANSWER, &[0, origins, len(origin.len()), targets, len(target.len())]);
    text += &bytes_at(origins, &bytes_of(origin));
    text += &bytes_at(targets, &target_bytes);
    if let Some((column, bits, bytes, cuts)) = patch {
        text += &words(ANSWER + column, &[1, changed, len(bits.len()), data, len(bytes.len()), ends, len(cuts.len())]);
        text += &(bytes_at(changed, bits) + &bytes_at(ends, &bytes_of(cuts)) + &bytes_at(data, bytes));
    }
    text
}

const WRITE: &str = r#"(import "sluice:plugin/log@0.3.0" "write" (func $write (param i32 i32 i32 i32 i32)))"#;

/// A body that does something for ever.
fn for_ever(what: &str) -> String {
    format!("(loop $l {what} (br $l)) unreachable")
}

/// A body that does something so often, with the round in local 1, and then answers.
fn times(n: u32, what: &str) -> String {
    format!(
        "(local $n i32) (loop $l {what} (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $n) (i32.const {n})))) (i32.const {ANSWER})"
    )
}

/// Floods of lines and of numbers.
fn writing() -> Vec<Case> {
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
fn host() -> Vec<Case> {
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

/// Processors and their state.
fn keeping() -> Vec<Case> {
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
fn checking() -> Vec<Case> {
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
