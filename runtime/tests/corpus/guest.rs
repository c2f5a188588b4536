//! Makes plugins of a few lines of WebAssembly text, under the real contract.

use std::fmt::Write as _;

use sluice_runtime::Role;
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Where answers may be built: zeros, unless a case puts something there. As an answer of any role zeros are `ok` and nothing else.
pub const ANSWER: u32 = 1024;
/// The same for `configure`.
pub const CONFIGURED: u32 = 800;
/// Where cases keep their own bytes, up to [`HEAP`].
pub const OWN: u32 = 2048;
/// Where `cabi_realloc` begins.
pub const HEAP: u32 = 65536;
/// Where nothing stands, not even what the host brings: for those who need megabytes.
pub const FREE: u32 = 1 << 20;

/// Runs for ever.
pub const LOOP: &str = "(loop $l (br $l)) unreachable";
/// Runs into the end of the stack.
pub const DIVE: &str = "(drop (call $dive (i32.const 0))) unreachable";
/// Takes memory until there is none, and then goes on asking.
pub const BOMB: &str = "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 64)) (i32.const -1)))) unreachable";
/// Takes memory for ever, whatever it is told.
pub const GREED: &str = "(loop $l (drop (memory.grow (i32.const 1))) (br $l)) unreachable";

const MANIFEST: u32 = 16;
const VERSION: &str = "@0.3.0";

/// WASI as other toolchains import it, cut down to what the cases call.
const WORLDS: &str = "
    package sluice:corpus;
    world wasi {
        include sluice:plugin/filter-plugin@0.3.0;
        import wasi:cli/exit@0.2.6;
        import wasi:cli/stdout@0.2.6;
        import wasi:io/streams@0.2.6;
        import wasi:filesystem/types@0.2.6;
        import wasi:random/random@0.2.6;
        import wasi:clocks/monotonic-clock@0.2.6;
    }
    world every-role {
        include sluice:plugin/filter-plugin@0.3.0;
        include sluice:plugin/process-plugin@0.3.0;
    }
";
const WASI: &str = "
    package wasi:io@0.2.6 {
        interface poll { resource pollable; }
        interface error { resource error; }
        interface streams {
            use error.{error};
            variant stream-error { last-operation-failed(error), closed }
            resource output-stream { write: func(contents: list<u8>) -> result<_, stream-error>; }
        }
    }
    package wasi:cli@0.2.6 {
        interface exit { exit: func(status: result); }
        interface stdout { use wasi:io/streams@0.2.6.{output-stream}; get-stdout: func() -> output-stream; }
    }
    package wasi:filesystem@0.2.6 {
        interface types { resource descriptor { sync: func(); } }
    }
    package wasi:random@0.2.6 {
        interface random { get-random-bytes: func(len: u64) -> list<u8>; get-random-u64: func() -> u64; }
    }
    package wasi:clocks@0.2.6 {
        interface monotonic-clock {
            use wasi:io/poll@0.2.6.{pollable};
            now: func() -> u64;
            subscribe-duration: func(when: u64) -> pollable;
        }
    }
";

/// The parts of a plugin, as text.
#[derive(Clone)]
pub struct Guest {
    pub role: Role,
    pub world: &'static str,
    /// Imports of the core module.
    pub imports: String,
    /// What stands behind `memory`: pages, and more memories.
    pub memory: &'static str,
    /// Anything else of the core module.
    pub fields: String,
    pub realloc: &'static str,
    pub describe: String,
    pub configure: String,
    /// The body of the role's function. Its argument is local 0: the address of the batch.
    pub body: String,
    /// The body of a processor's `on-timers`.
    pub timers: String,
    /// Name in the manifest, as text of WebAssembly.
    pub name: String,
    /// The whole manifest, unless it is to be the usual one.
    pub manifest: Option<Vec<u8>>,
}

fn guest(role: Role, world: &'static str) -> Guest {
    let fine = format!("(i32.const {ANSWER})");
    Guest {
        role,
        world,
        imports: String::new(),
        memory: "(export \"memory\") 4",
        fields: String::new(),
        realloc: "(call $bump (local.get 2) (local.get 3))",
        describe: format!("(i32.const {MANIFEST})"),
        configure: format!("(i32.const {CONFIGURED})"),
        body: fine.clone(),
        timers: fine,
        name: "corpus".into(),
        manifest: None,
    }
}

pub fn filter() -> Guest {
    guest(Role::Filter, "sluice:plugin/filter-plugin@0.3.0")
}

pub fn transform() -> Guest {
    guest(Role::Transform, "sluice:plugin/transform-plugin@0.3.0")
}

pub fn process() -> Guest {
    guest(Role::Process, "sluice:plugin/process-plugin@0.3.0")
}

pub fn check() -> Guest {
    guest(Role::CheckTransaction, "sluice:plugin/transaction-plugin@0.3.0")
}

/// A filter that may use the state without being a processor.
pub fn curious() -> Guest {
    guest(Role::Filter, "every-role")
}

/// A filter that uses WASI.
pub fn wasi() -> Guest {
    guest(Role::Filter, "wasi")
}

impl Guest {
    /// The core module, carrying its component type.
    pub fn build(&self) -> Vec<u8> {
        let text = self.text();
        let mut module = wat::parse_str(&text).unwrap_or_else(|e| panic!("{e}"));
        self.embed(&mut module);
        module
    }

    /// Marks a core module as one of this guest's world.
    pub fn embed(&self, module: &mut Vec<u8>) {
        let mut resolve = Resolve::default();
        let contract = include_str!("../../../sdk-wasm/wit/plugin.wit");
        resolve.push_str("plugin.wit", contract).unwrap();
        let package = resolve.push_str("corpus.wit", &format!("{WORLDS}{WASI}")).unwrap();
        let world = resolve.select_world(&[package], Some(self.world)).unwrap();
        embed_component_metadata(module, &resolve, world, StringEncoding::UTF8).unwrap();
    }

    fn text(&self) -> String {
        let Guest { imports, memory, fields, realloc, describe, configure, .. } = self;
        let plugin = format!("sluice:plugin/plugin{VERSION}");
        let manifest = self.manifest.clone().unwrap_or_else(|| self.usual_manifest());
        let mut text = format!(
            r#"(module
                {imports}
                (memory {memory})
                (global $heap (mut i32) (i32.const {HEAP}))
                (data (i32.const {MANIFEST}) "{}")
                (data (i32.const 512) "{}")
                (data (i32.const 544) "1.0.0")
                (data (i32.const 560) "\40\02\00\00\01\00\00\00\00\00\00\00\00\00\00\00s")
                {fields}
                (func $dive (param i32) (result i32)
                    (i32.add (call $dive (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
                (func $bump (param $align i32) (param $size i32) (result i32) (local $at i32)
                    (local.set $at (i32.and
                        (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
                        (i32.sub (i32.const 0) (local.get $align))))
                    (global.set $heap (i32.add (local.get $at) (local.get $size)))
                    (block $fits
                        (loop $more
                            (br_if $fits (i32.le_u (global.get $heap) (i32.shl (memory.size) (i32.const 16))))
                            (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
                        unreachable)
                    (local.get $at))
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})
                (func (export "{plugin}#describe") (result i32) {describe})
                (func (export "{plugin}#configure") (param i32 i32) (result i32) {configure})
            "#,
            escape(&manifest),
            self.name,
        );
        let export = |function: &str| format!("sluice:plugin/{}{VERSION}#{function}", self.role.as_str());
        let params = "(param i32)";
        let checked = "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32)";
        let body = &self.body;
        let mut function = |name: &str, params: &str, body: &str| {
            writeln!(text, "(func (export \"{}\") {params} (result i32) {body})", export(name)).unwrap();
        };
        match self.role {
            Role::Filter => function("matches", params, body),
            Role::Transform => function("apply", params, body),
            Role::CheckTransaction => function("check", checked, body),
            Role::Process => {
                function("apply", params, body);
                function("on-timers", "(param i32 i32)", &self.timers);
            }
        }
        if self.world == "every-role" {
            let process = format!("sluice:plugin/process{VERSION}");
            for (name, params) in [("apply", "(param i32)"), ("on-timers", "(param i32 i32)")] {
                writeln!(text, "(func (export \"{process}#{name}\") {params} (result i32) (i32.const {ANSWER}))")
                    .unwrap();
            }
        }
        text.push(')');
        text
    }

    fn usual_manifest(&self) -> Vec<u8> {
        let stores = u32::from(self.role == Role::Process || self.world == "every-role");
        manifest([512, text_len(&self.name)], [544, 5], [560, stores])
    }
}

/// A manifest that needs the values: where its name, version and stores are, each with its length.
pub fn manifest(name: [u32; 2], version: [u32; 2], stores: [u32; 2]) -> Vec<u8> {
    const NEEDS_VALUES: u32 = 2;
    const ONE_PER_SINK: u32 = 1;
    let words = [
        name[0],
        name[1],
        version[0],
        version[1],
        0,
        0,
        NEEDS_VALUES,
        0,
        0,
        0,
        ONE_PER_SINK,
        0,
        0,
        0,
        0,
        stores[0],
        stores[1],
    ];
    bytes_of(&words)
}

/// Words as they stand in a guest's memory.
pub fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A data segment of words.
pub fn words(at: u32, words: &[u32]) -> String {
    bytes_at(at, &bytes_of(words))
}

/// A data segment.
pub fn bytes_at(at: u32, bytes: &[u8]) -> String {
    format!("(data (i32.const {at}) \"{}\")\n", escape(bytes))
}

fn escape(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "\\{byte:02x}").unwrap();
        text
    })
}

/// Bytes of a text as WebAssembly's text format has it.
fn text_len(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap()
}
