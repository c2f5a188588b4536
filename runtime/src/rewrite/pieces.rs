//! Bulk instructions over memory, in pieces. One instruction is not interrupted, and a `memory.fill` over 64 MiB that were never touched is one that
//! takes tens of milliseconds. So each that may be long becomes a call of a function that does it piece by piece, with the deadline looked at
//! between them.

use wasm_encoder::{BlockType, Function, InstructionSink, MemArg};
use wasmparser::Operator;

/// What is done at once, bytes.
const PIECE: u32 = 64 * 1024;

/// The type of a function that takes three 32-bit integers, as all bulk instructions over memory do.
pub(super) const TYPE: &[u8] = &[0x60, 3, 0x7F, 0x7F, 0x7F, 0];

/// An instruction that may be long.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Long {
    Copy,
    Fill,
    /// From the data segment of this number.
    Init(u32),
}

impl Long {
    /// `before` is the instruction just before it.
    pub(super) fn of(operator: &Operator<'_>, before: Option<&Operator<'_>>, segments: &[usize]) -> Option<Long> {
        let short = matches!(before, Some(Operator::I32Const { value }) if value.cast_unsigned() <= PIECE);
        match *operator {
            // Further memories are refused by the engine.
            Operator::MemoryCopy { dst_mem: 0, src_mem: 0 } if !short => Some(Long::Copy),
            Operator::MemoryFill { mem: 0 } if !short => Some(Long::Fill),
            Operator::MemoryInit { data_index, mem: 0 } => {
                let length = segments.get(data_index as usize)?;
                (*length > PIECE as usize).then_some(Long::Init(data_index))
            }
            _ => None,
        }
    }

    fn instruction(self, code: &mut InstructionSink<'_>) {
        match self {
            Long::Copy => code.memory_copy(0, 0),
            Long::Fill => code.memory_fill(0),
            Long::Init(segment) => code.memory_init(0, segment),
        };
    }

    /// The function that does it in pieces. It traps beyond the end of memory as the instruction does, but may have written something by then: nobody
    /// looks at an instance that trapped.
    pub(super) fn in_pieces(self) -> Function {
        let [to, from, length] = [0, 1, 2];
        let piece = PIECE.cast_signed();
        let mut function = Function::new([]);
        let mut code = function.instructions();
        let on = |code: &mut InstructionSink<'_>, parameter| {
            code.local_get(parameter).i32_const(piece).i32_add().local_set(parameter);
        };
        let less = |code: &mut InstructionSink<'_>| {
            code.local_get(length).i32_const(piece).i32_sub().local_set(length);
        };
        if self == Long::Copy {
            few_bytes(&mut code, to, from, length);
        }
        code.loop_(BlockType::Empty);
        code.local_get(length).i32_const(piece).i32_le_u().if_(BlockType::Empty);
        code.local_get(to).local_get(from).local_get(length);
        self.instruction(&mut code);
        code.return_().end();
        if self == Long::Copy {
            // What would be overwritten before it is copied is copied first: from the end.
            code.local_get(to).local_get(from).i32_gt_u().if_(BlockType::Empty);
            less(&mut code);
            code.local_get(to).local_get(length).i32_add();
            code.local_get(from).local_get(length).i32_add();
            code.i32_const(piece);
            self.instruction(&mut code);
            code.br(1).end();
        }
        code.local_get(to).local_get(from).i32_const(piece);
        self.instruction(&mut code);
        on(&mut code, to);
        if self != Long::Fill {
            on(&mut code, from);
        }
        less(&mut code);
        code.br(0).end().end();
        function
    }
}

/// Copies 1 to 128 bytes and returns: the instruction asks the host, which costs more than to copy so few, and what is gained makes up for the call.
/// So many of the first bytes are copied, and so many of the last ones, that none is left between them; all are read before any is written,
/// as the two places may overlap.
fn few_bytes(code: &mut InstructionSink<'_>, to: u32, from: u32, length: u32) {
    code.local_get(length).i32_const(1).i32_sub().i32_const(128).i32_lt_u().if_(BlockType::Empty);
    for part in [64_u32, 32, 16, 8, 4, 2, 1] {
        let width = part.min(WIDEST);
        let last = |code: &mut InstructionSink<'_>, of| {
            code.local_get(of).local_get(length).i32_add().i32_const(part.cast_signed()).i32_sub();
        };
        code.local_get(length).i32_const(part.cast_signed()).i32_ge_u().if_(BlockType::Empty);
        let offsets = (0..part).step_by(width as usize);
        for offset in offsets.clone() {
            code.local_get(to).local_get(from);
            load(code, width, offset);
        }
        for offset in offsets.clone() {
            last(code, to);
            last(code, from);
            load(code, width, offset);
        }
        for offset in offsets.clone().chain(offsets).rev() {
            store(code, width, offset);
        }
        code.return_().end();
    }
    code.end();
}

/// The most bytes that one value has.
const WIDEST: u32 = 16;

fn load(code: &mut InstructionSink<'_>, width: u32, offset: u32) {
    let at = MemArg { offset: offset.into(), align: 0, memory_index: 0 };
    match width {
        WIDEST => code.v128_load(at),
        8 => code.i64_load(at),
        4 => code.i32_load(at),
        2 => code.i32_load16_u(at),
        _ => code.i32_load8_u(at),
    };
}

fn store(code: &mut InstructionSink<'_>, width: u32, offset: u32) {
    let at = MemArg { offset: offset.into(), align: 0, memory_index: 0 };
    match width {
        WIDEST => code.v128_store(at),
        8 => code.i64_store(at),
        4 => code.i32_store(at),
        2 => code.i32_store16(at),
        _ => code.i32_store8(at),
    };
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use wasmtime::{Engine, Instance, Module, Store};

    use super::super::module;
    use super::*;

    const MEMORY: u32 = 6 * PIECE;

    /// Functions of every kind of long instruction over six pieces of memory, and a segment of two and a half.
    pub(in super::super) fn long() -> Vec<u8> {
        let segment = "\\01\\02\\03\\04\\05\\06\\07".repeat(5 * PIECE as usize / 2 / 7);
        wat::parse_str(format!(
            r#"(module (import "host" "none" (func)) (memory (export "memory") 6) (data $d "{segment}") (data $short "abc")
            (func (export "copy") (param i32 i32 i32) (memory.copy (local.get 0) (local.get 1) (local.get 2)))
            (func (export "fill") (param i32 i32 i32) (memory.fill (local.get 0) (local.get 1) (local.get 2)))
            (func (export "init") (param i32 i32 i32) (memory.init $d (local.get 0) (local.get 1) (local.get 2)))
            (func (export "short")
                (memory.copy (i32.const 0) (i32.const 9) (i32.const {PIECE}))
                (memory.fill (i32.const 0) (i32.const 9) (i32.const 0))
                (memory.init $short (i32.const 0) (i32.const 0) (i32.const 3))))"#
        ))
        .unwrap()
    }

    /// What is in memory after the call, `None` if it trapped.
    fn after(module: &Module, name: &str, parameters: (u32, u32, u32), before: &[u8]) -> Option<Vec<u8>> {
        let mut store = Store::new(module.engine(), ());
        let none = wasmtime::Func::wrap(&mut store, || ());
        let instance = Instance::new(&mut store, module, &[none.into()]).unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        memory.data_mut(&mut store).copy_from_slice(before);
        let call = instance.get_typed_func::<(u32, u32, u32), ()>(&mut store, name).unwrap();
        call.call(&mut store, parameters).ok()?;
        Some(memory.data(&store).to_vec())
    }

    #[test]
    fn pieces_do_what_the_instruction_does() {
        let engine = Engine::default();
        let whole = long();
        let pieces = module(&whole, false).unwrap();
        assert!(pieces.len() > whole.len());
        let [whole, pieces] = [&*whole, &*pieces].map(|bytes| Module::new(&engine, bytes).unwrap());
        let places = [0, 1, PIECE - 1, PIECE, 2 * PIECE + 3, MEMORY - 1, MEMORY, u32::MAX - PIECE, u32::MAX];
        let lengths = [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 7, MEMORY, MEMORY + 1, u32::MAX];
        let before: Vec<u8> = (1..=250).cycle().take(MEMORY as usize).collect();
        let mut done = 0;
        for name in ["copy", "fill", "init"] {
            for (to, from, length) in
                places.iter().flat_map(|to| places.iter().flat_map(|from| lengths.map(|length| (*to, *from, length))))
            {
                let expected = after(&whole, name, (to, from, length), &before);
                assert!(after(&pieces, name, (to, from, length), &before) == expected, "{name} {to} {from} {length}");
                done += u32::from(expected.is_some());
            }
        }
        for (to, from, length) in
            (1..140).flat_map(|length| [(100, 100 + length / 2, length), (70, 64, length), (9, 999, length)])
        {
            let expected = after(&whole, "copy", (to, from, length), &before);
            assert!(after(&pieces, "copy", (to, from, length), &before) == expected, "{to} {from} {length}");
        }
        for length in 1..140 {
            let past = MEMORY + 1 - length;
            assert!(after(&pieces, "copy", (past, 0, length), &before).is_none(), "{length}");
            assert!(after(&pieces, "copy", (0, past, length), &before).is_none(), "{length}");
        }
        assert!(done > 300, "{done} of them did not trap");
    }
}
