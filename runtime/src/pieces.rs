//! Bulk instructions over memory, in pieces. One instruction is not interrupted, and a `memory.fill` over 64 MiB that were never touched is one that
//! takes tens of milliseconds. So each that may be long becomes a call of a function that does it piece by piece, with the deadline looked at
//! between them.
//!
//! A call takes the bytes of the instruction that it stands for where it fits, so that the code stays where debug information says it is.

use std::borrow::Cow;
use std::iter;

use wasm_encoder::{BlockType, Encode, Function, InstructionSink, MemArg};
use wasmparser::{
    BinaryReader, CodeSectionReader, DataSectionReader, FunctionBody, FunctionSectionReader, ImportSectionReader,
    Operator, TypeRef, TypeSectionReader,
};
use wasmtime::{Result, bail};

use crate::bounds::MAX_DEPTH;

/// What is done at once, bytes.
const PIECE: u32 = 64 * 1024;

/// Magic number and version, of components as of modules.
const HEADER: usize = 8;
/// Sections of a component.
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;
/// Sections of a module.
const TYPES: u8 = 1;
const IMPORTS: u8 = 2;
const FUNCTIONS: u8 = 3;
const CODE: u8 = 10;
const DATA: u8 = 11;
/// The type of a function that takes three 32-bit integers, as all bulk instructions over memory do.
const TYPE: [u8; 6] = [0x60, 3, 0x7F, 0x7F, 0x7F, 0];
const CALL: u8 = 0x10;
const NOP: u8 = 0x01;

/// The component with its long instructions in pieces.
///
/// # Errors
/// If it is not a component that can be read.
pub(crate) fn component(bytes: &[u8]) -> Result<Vec<u8>> {
    within(bytes, MAX_DEPTH)
}

fn within(bytes: &[u8], depth: usize) -> Result<Vec<u8>> {
    let sections = sections(bytes)?;
    let mut out = bytes[..HEADER].to_vec();
    for section in sections {
        match (section.id, depth.checked_sub(1)) {
            (CORE_MODULE, _) => put(&mut out, CORE_MODULE, &module(section.contents)?),
            (COMPONENT, Some(depth)) => put(&mut out, COMPONENT, &within(section.contents, depth)?),
            (COMPONENT, None) => bail!("components within components: at most {MAX_DEPTH} deep"),
            _ => out.extend_from_slice(section.whole),
        }
    }
    Ok(out)
}

#[derive(Clone, Copy)]
struct Section<'a> {
    id: u8,
    contents: &'a [u8],
    /// With the number and the length in front.
    whole: &'a [u8],
}

/// Gives an error for less than a header.
fn sections(bytes: &[u8]) -> Result<Vec<Section<'_>>> {
    let mut reader = BinaryReader::new(bytes, 0);
    reader.read_bytes(HEADER)?;
    let mut sections = Vec::new();
    while !reader.eof() {
        let start = reader.original_position();
        let (id, size) = (reader.read_u8()?, reader.read_var_u32()?);
        let contents = reader.read_bytes(size as usize)?;
        sections.push(Section { id, contents, whole: &bytes[start..reader.original_position()] });
    }
    Ok(sections)
}

fn put(out: &mut Vec<u8>, id: u8, contents: &[u8]) {
    out.push(id);
    contents.encode(out);
}

/// An instruction that may be long.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Long {
    Copy,
    Fill,
    /// From the data segment of this number.
    Init(u32),
}

impl Long {
    /// `before` is the instruction just before it.
    fn of(operator: &Operator<'_>, before: Option<&Operator<'_>>, segments: &[usize]) -> Option<Long> {
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
    fn in_pieces(self) -> Function {
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

fn module(bytes: &[u8]) -> Result<Cow<'_, [u8]>> {
    let sections = sections(bytes)?;
    let (mut types, mut functions, mut segments) = (0, 0_u32, Vec::new());
    for section in &sections {
        let reader = BinaryReader::new(section.contents, 0);
        match section.id {
            TYPES => {
                for group in TypeSectionReader::new(reader)? {
                    types += group?.types().len();
                }
            }
            IMPORTS => {
                for import in ImportSectionReader::new(reader)?.into_imports() {
                    functions += u32::from(matches!(import?.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)));
                }
            }
            FUNCTIONS => functions = functions.saturating_add(FunctionSectionReader::new(reader)?.count()),
            DATA => {
                for segment in DataSectionReader::new(reader)? {
                    segments.push(segment?.data.len());
                }
            }
            _ => {}
        }
    }
    let Some(code) = sections.iter().find(|section| section.id == CODE) else { return Ok(Cow::Borrowed(bytes)) };
    let (code, added) = calling(code.contents, functions, &segments)?;
    if added.is_empty() {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut out = bytes[..HEADER].to_vec();
    for section in sections {
        match section.id {
            TYPES => put(&mut out, TYPES, &longer(section.contents, &[&TYPE])?),
            FUNCTIONS => {
                let mut index = Vec::new();
                types.encode(&mut index);
                put(&mut out, FUNCTIONS, &longer(section.contents, &vec![&*index; added.len()])?);
            }
            CODE => put(&mut out, CODE, &code),
            _ => out.extend_from_slice(section.whole),
        }
    }
    Ok(Cow::Owned(out))
}

/// The section's contents with more entries at the end.
fn longer(contents: &[u8], entries: &[&[u8]]) -> Result<Vec<u8>> {
    let mut reader = BinaryReader::new(contents, 0);
    let mut out = Vec::with_capacity(contents.len() + 8 * entries.len());
    (reader.read_var_u32()? as usize + entries.len()).encode(&mut out);
    out.extend_from_slice(&contents[reader.original_position()..]);
    entries.iter().for_each(|entry| out.extend_from_slice(entry));
    Ok(out)
}

/// A code section with calls where its long instructions were, and the functions that are called at its end; also, for each of them, what it
/// does. They are numbered from `functions`, which is how many there are without them.
fn calling(contents: &[u8], functions: u32, segments: &[usize]) -> Result<(Vec<u8>, Vec<Long>)> {
    let mut reader = BinaryReader::new(contents, 0);
    let count = reader.read_var_u32()? as usize;
    let mut done = reader.original_position();
    let (mut bodies, mut added) = (Vec::with_capacity(contents.len()), Vec::new());
    for body in CodeSectionReader::new(BinaryReader::new(contents, 0))? {
        let body = body?;
        let range = body.range();
        let code = body_calling(contents, &body, functions, segments, &mut added)?;
        if code.len() == range.len() {
            // With its length as it was written, which need not be the shortest way.
            bodies.extend_from_slice(&contents[done..range.start]);
            bodies.extend_from_slice(&code);
        } else {
            code.encode(&mut bodies);
        }
        done = range.end;
    }
    let mut out = Vec::with_capacity(bodies.len() + 128);
    (count + added.len()).encode(&mut out);
    out.append(&mut bodies);
    added.iter().for_each(|long| long.in_pieces().encode(&mut out));
    Ok((out, added))
}

fn body_calling(
    contents: &[u8],
    body: &FunctionBody<'_>,
    functions: u32,
    segments: &[usize],
    added: &mut Vec<Long>,
) -> Result<Vec<u8>> {
    let range = body.range();
    let mut code = Vec::with_capacity(range.len());
    let (mut before, mut done) = (None, range.start);
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        let start = operators.original_position();
        let operator = operators.read()?;
        if let Some(long) = Long::of(&operator, before.as_ref(), segments) {
            let number = added.iter().position(|other| *other == long).unwrap_or(added.len());
            if number == added.len() {
                added.push(long);
            }
            let end = operators.original_position();
            code.extend_from_slice(&contents[done..start]);
            put_call(&mut code, functions.saturating_add(u32::try_from(number)?), end - start);
            done = end;
        }
        before = Some(operator);
    }
    code.extend_from_slice(&contents[done..range.end]);
    Ok(code)
}

/// A call that takes so many bytes, or more where the function's number needs them.
fn put_call(code: &mut Vec<u8>, function: u32, room: usize) {
    const MOST: usize = 5;
    let needs = (32 - function.leading_zeros()).div_ceil(7).max(1) as usize;
    let width = (room - 1).clamp(needs, MOST);
    code.push(CALL);
    code.extend((0..width).map(|i| {
        let more = if i + 1 < width { 0x80 } else { 0 };
        (function >> (7 * i)).to_le_bytes()[0] & 0x7F | more
    }));
    code.extend(iter::repeat_n(NOP, room.saturating_sub(1 + width)));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use wasmtime::{Engine, Instance, Module, Store};

    use super::*;

    const MEMORY: u32 = 6 * PIECE;

    /// Functions of every kind of long instruction over six pieces of memory, and a segment of two and a half.
    fn long() -> Vec<u8> {
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
        let pieces = module(&whole).unwrap();
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

    /// Of each function its bytes, and where they are in the code section.
    fn bodies(bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let code = sections(bytes).unwrap().into_iter().find(|section| section.id == CODE).unwrap();
        let reader = CodeSectionReader::new(BinaryReader::new(code.contents, 0)).unwrap();
        reader.into_iter().map(|body| body.unwrap().range()).map(|at| (at.start, code.contents[at].to_vec())).collect()
    }

    #[test]
    fn code_stays_where_it_is_and_what_is_short_as_it_is() {
        let whole = long();
        let (before, after) = (bodies(&whole), bodies(&module(&whole).unwrap()));
        assert_eq!((before.len(), after.len()), (4, 7));
        for ((at, code), (now, same)) in before.iter().zip(&after) {
            assert_eq!((at, code.len()), (now, same.len()));
        }
        assert_eq!(before[3], after[3], "the short ones");
        let text = r#"(module (memory 1) (func (drop (memory.grow (i32.const 1))) (memory.fill (i32.const 0) (i32.const 7) (i32.const 99))))"#;
        let short = wat::parse_str(text).unwrap();
        assert!(matches!(module(&short).unwrap(), Cow::Borrowed(same) if same == short));
    }

    #[test]
    fn a_call_takes_the_room_that_there_is() {
        let call = |function, room| {
            let mut code = Vec::new();
            put_call(&mut code, function, room);
            code
        };
        assert_eq!(call(5, 3), [CALL, 0x85, 0]);
        assert_eq!(call(300, 4), [CALL, 0xAC, 0x82, 0]);
        assert_eq!(call(5, 8), [CALL, 0x85, 0x80, 0x80, 0x80, 0, NOP, NOP]);
        assert_eq!(call(0x4000, 3), [CALL, 0x80, 0x80, 1], "one more where its number needs it");
        assert_eq!(call(u32::MAX, 3), [CALL, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]);
    }

    #[test]
    fn many_functions_make_a_call_longer_and_all_is_well() {
        let others = "(func)".repeat(17_000);
        let text = format!(
            r#"(module (memory (export "memory") 6) {others} (func (export "fill") (param i32 i32 i32)
                (memory.fill (local.get 0) (local.get 1) (local.get 2)) (memory.fill (local.get 0) (local.get 1) (local.get 2))))"#
        );
        let whole = wat::parse_str(text).unwrap();
        let pieces = module(&whole).unwrap();
        wasmparser::validate(&pieces).unwrap();
        assert_eq!(bodies(&pieces)[17_000].1.len(), bodies(&whole)[17_000].1.len() + 2);
    }

    #[test]
    fn modules_within_components_are_reached() {
        let text = "(component (component (core module (memory 1) (func (param i32)
            (memory.fill (i32.const 0) (i32.const 0) (local.get 0))))) (core module))";
        let whole = wat::parse_str(text).unwrap();
        let pieces = component(&whole).unwrap();
        wasmparser::validate(&pieces).unwrap();
        let fills = |bytes: &[u8]| bytes.windows(3).filter(|bytes| *bytes == [0xFC, 0x0B, 0]).count();
        assert_eq!((fills(&whole), fills(&pieces)), (1, 2), "a short one and one for a whole piece");
        assert!(component(&whole[..whole.len() - 1]).is_err() && component(b"\0asm").is_err());
        let deep = (0..=MAX_DEPTH).fold("(component)".to_owned(), |inner, _| format!("(component {inner})"));
        assert!(component(&wat::parse_str(deep).unwrap()).is_err());
    }
}
