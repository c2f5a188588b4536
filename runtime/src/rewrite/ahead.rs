//! Memory had ahead. The first thing that an instance does is to ask for memory, and the page tables have to be changed for it, as they have to be
//! when the instance is gone. So a module's memory is larger from the beginning by a few pages that the module is not told of, and it is these
//! that it is given when it asks first. What it has been given is the same as ever; only what lies behind does not trap before it is given.

use wasm_encoder::{BlockType, ConstExpr, Encode, Function, GlobalType, InstructionSink, MemoryType, ValType};
use wasmparser::Operator;

/// As much as stays resident from one instance to the next, pages of 64 KiB.
const PAGES: u32 = 4;
/// What part of its memory a module has ahead at the most: a small one is to do with a small limit.
const PART: u64 = 4;
/// Most pages of a memory.
const MOST: u64 = 65_536;

/// The types of functions that do what [`Asks`] do.
const SIZE_TYPE: &[u8] = &[0x60, 0, 1, 0x7F];
const GROW_TYPE: &[u8] = &[0x60, 1, 0x7F, 1, 0x7F];

/// An instruction by which a module asks about its memory, or for more of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    Size,
    More,
}

impl Asks {
    pub(super) fn of(operator: &Operator<'_>) -> Option<Asks> {
        match operator {
            Operator::MemorySize { mem: 0 } => Some(Asks::Size),
            Operator::MemoryGrow { mem: 0 } => Some(Asks::More),
            _ => None,
        }
    }

    pub(super) fn function_type(self) -> &'static [u8] {
        match self {
            Asks::Size => SIZE_TYPE,
            Asks::More => GROW_TYPE,
        }
    }
}

/// Of a module with a memory of its own: the pages that it has without being told, and the global that holds how many of them are left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Ahead {
    memory: MemoryType,
    pages: u32,
    global: u32,
}

impl Ahead {
    /// The global is the one after these. `None` if there is no room for more pages, or the memory is of a kind that the engine refuses.
    pub(super) fn of(memory: &wasmparser::MemoryType, globals: u32) -> Option<Ahead> {
        let &wasmparser::MemoryType { memory64: false, shared: false, initial, maximum, page_size_log2: None } = memory
        else {
            return None;
        };
        let room = maximum.unwrap_or(MOST).saturating_sub(initial).min(initial / PART);
        let pages = u32::try_from(room).map_or(PAGES, |room| room.min(PAGES));
        let minimum = initial + u64::from(pages);
        let memory = MemoryType { minimum, maximum, memory64: false, shared: false, page_size_log2: None };
        (pages > 0).then_some(Ahead { memory, pages, global: globals })
    }

    /// The section of the only memory.
    pub(super) fn memories(&self) -> Vec<u8> {
        let mut section = vec![1];
        self.memory.encode(&mut section);
        section
    }

    /// The global, as its section has it.
    pub(super) fn global(&self) -> Vec<u8> {
        let mut global = Vec::new();
        GlobalType { val_type: ValType::I32, mutable: true, shared: false }.encode(&mut global);
        ConstExpr::i32_const(self.pages.cast_signed()).encode(&mut global);
        global
    }

    pub(super) fn function(&self, asks: Asks) -> Function {
        match asks {
            Asks::Size => {
                let mut function = Function::new([]);
                self.told(&mut function.instructions()).end();
                function
            }
            Asks::More => self.more(),
        }
    }

    /// How many pages the module was told of.
    fn told<'c, 'f>(&self, code: &'c mut InstructionSink<'f>) -> &'c mut InstructionSink<'f> {
        code.memory_size(0).global_get(self.global).i32_sub()
    }

    fn more(&self) -> Function {
        let (asked, before, left) = (0, 1, self.global);
        let mut function = Function::new([(1, ValType::I32)]);
        let mut code = function.instructions();
        self.told(&mut code).local_set(before);
        code.local_get(asked).global_get(left).i32_le_u().if_(BlockType::Empty);
        code.global_get(left).local_get(asked).i32_sub().global_set(left);
        code.local_get(before).return_().end();
        code.local_get(asked).global_get(left).i32_sub().memory_grow(0).i32_const(-1).i32_eq();
        code.if_(BlockType::Empty).i32_const(-1).return_().end();
        code.i32_const(0).global_set(left).local_get(before).end();
        function
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use wasmtime::{Engine, Instance, Memory, Module, Store, TypedFunc};

    use super::super::{component, module};
    use super::*;

    struct Running {
        store: Store<()>,
        memory: Memory,
        size: TypedFunc<(), u32>,
        grow: TypedFunc<u32, u32>,
    }

    impl Running {
        fn start(engine: &Engine, bytes: &[u8]) -> Running {
            let mut store = Store::new(engine, ());
            let instance = Instance::new(&mut store, &Module::new(engine, bytes).unwrap(), &[]).unwrap();
            Running {
                memory: instance.get_memory(&mut store, "memory").unwrap(),
                size: instance.get_typed_func(&mut store, "size").unwrap(),
                grow: instance.get_typed_func(&mut store, "grow").unwrap(),
                store,
            }
        }

        /// What it says of its size, and what it really has.
        fn sizes(&mut self) -> (u32, u64) {
            (self.size.call(&mut self.store, ()).unwrap(), self.memory.size(&self.store))
        }
    }

    fn asking(memory: &str) -> Vec<u8> {
        wat::parse_str(format!(
            r#"(module (memory (export "memory") {memory}) (global $other (mut i32) (i32.const 7)) (export "other" (global $other))
            (func (export "size") (result i32) memory.size)
            (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"#
        ))
        .unwrap()
    }

    #[test]
    fn a_module_sees_the_memory_that_it_would_have_seen() {
        let engine = Engine::default();
        for limits in ["0", "1", "4 4", "4 5", "11", "16 20", "17 18", "17 30", "20 65536"] {
            let plain = asking(limits);
            let ahead = module(&plain, true).unwrap();
            wasmparser::validate(&ahead).unwrap();
            for asked in [
                [0, 1, 0, 1, 1, 1, 1, 1],
                [4, 0, 1, 0, 9, 1, 0, 0],
                [5, 5, 1, 0, u32::MAX, 65_536, 1, 1],
                [3, 2, 0, 65_520, 1, 1, 0, 2],
                [u32::MAX, 1, u32::MAX, 3, u32::MAX - 3, 1, 1, 1],
            ] {
                let [mut plain, mut ahead] = [&plain, &*ahead].map(|bytes| Running::start(&engine, bytes));
                for pages in asked {
                    let expected = plain.grow.call(&mut plain.store, pages).unwrap();
                    assert_eq!(ahead.grow.call(&mut ahead.store, pages).unwrap(), expected, "{limits} {asked:?}");
                    let ((told, has), (same, really)) = (plain.sizes(), ahead.sizes());
                    assert_eq!((told, u64::from(told)), (same, has), "{limits} {asked:?}");
                    assert!((has..=has + u64::from(PAGES)).contains(&really), "{limits} {asked:?}: {really}");
                }
            }
        }
    }

    #[test]
    fn what_is_asked_for_first_is_there_already() {
        let begin = |limits| Running::start(&Engine::default(), &module(&asking(limits), true).unwrap());
        let mut running = begin("17");
        assert_eq!(running.sizes(), (17, 21));
        for (asked, told) in [(1, 18), (3, 21)] {
            running.grow.call(&mut running.store, asked).unwrap();
            assert_eq!(running.sizes(), (told, 21));
        }
        running.grow.call(&mut running.store, 1).unwrap();
        assert_eq!(running.sizes(), (22, 22));
        for (limits, sizes) in [("17 19", (17, 19)), ("9", (9, 11)), ("4", (4, 5)), ("3", (3, 3))] {
            assert_eq!(begin(limits).sizes(), sizes, "{limits}");
        }
    }

    #[test]
    fn whoever_does_not_ask_or_cannot_have_more_stays_as_it_is() {
        let grow = "(func (drop (memory.grow (i32.const 1))))";
        for text in [
            "(memory 17) (global i32 (i32.const 1)) (func (drop (memory.size)))".to_owned(),
            format!("(memory 17 17) (global i32 (i32.const 1)) {grow}"),
            format!("(memory 3) (global i32 (i32.const 1)) {grow}"),
            format!(r#"(import "m" "memory" (memory 17)) (global i32 (i32.const 1)) {grow}"#),
            format!("(memory 17) {grow}"),
            format!("(memory 17) (memory 1) (global i32 (i32.const 1)) {grow}"),
        ] {
            let plain = wat::parse_str(format!("(module {text})")).unwrap();
            assert!(*module(&plain, true).unwrap() == *plain, "{text}");
        }
        assert!(*module(&asking("17"), false).unwrap() == *asking("17"));
    }

    #[test]
    fn nothing_is_had_ahead_where_another_module_has_a_part_in_the_memory() {
        let grow = "(func (drop (memory.grow (i32.const 1))))";
        let own = format!(r#"(core module $m (memory (export "memory") 17) (global i32 (i32.const 1)) {grow})"#);
        let alone = wat::parse_str(format!("(component {own} (core instance $i (instantiate $m)))")).unwrap();
        assert!(component(&alone).unwrap().len() > alone.len());
        let other = format!(r#"(core module $o (import "m" "memory" (memory 17)) {grow})"#);
        let both = format!(
            r#"(component {own} (component {other}) {other} (core instance $i (instantiate $m))
            (core instance (instantiate $o (with "m" (instance $i)))))"#
        );
        let both = wat::parse_str(both).unwrap();
        assert!(component(&both).unwrap() == both);
    }
}
