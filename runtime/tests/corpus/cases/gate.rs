//! What the gate looks at: what an upload is, what it costs to compile, and what it says of itself.

use super::*;

/// Uploads that are no plugins.
pub(super) fn gate() -> Vec<Case> {
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
pub(super) fn nested(depth: usize) -> Vec<u8> {
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
pub(super) fn compiling() -> Vec<Case> {
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
            "multiple memories",
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

pub(super) fn locals(n: usize) -> String {
    format!("(local {})", "i64 ".repeat(n))
}

/// Trouble while it says what it is.
pub(super) fn describing() -> Vec<Case> {
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
