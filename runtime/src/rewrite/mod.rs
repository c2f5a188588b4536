//! What is changed in a component before it is compiled: in each of its modules, calls of functions at its end stand for some instructions.
//!
//! A call takes the bytes of the instruction that it stands for where it fits, so that the code stays where debug information says it is.

mod ahead;
mod pieces;

use std::borrow::Cow;
use std::iter;

use wasm_encoder::{Encode, Function};
use wasmparser::{
    BinaryReader, CodeSectionReader, DataSectionReader, FunctionBody, FunctionSectionReader, GlobalSectionReader,
    ImportSectionReader, MemorySectionReader, Operator, Parser, Payload, TypeRef, TypeSectionReader,
};
use wasmtime::{Result, bail};

use crate::bounds::MAX_DEPTH;

use ahead::{Ahead, Asks};
use pieces::Long;

/// Magic number and version, of components as of modules.
const HEADER: usize = 8;
/// Sections of a component.
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;
/// Sections of a module.
const TYPES: u8 = 1;
const IMPORTS: u8 = 2;
const FUNCTIONS: u8 = 3;
const MEMORIES: u8 = 5;
const GLOBALS: u8 = 6;
const CODE: u8 = 10;
const DATA: u8 = 11;

const CALL: u8 = 0x10;
const NOP: u8 = 0x01;

/// The component with its long instructions in pieces, and memory had ahead where a module has one for itself.
///
/// # Errors
/// If it is not a component that can be read.
pub(crate) fn component(bytes: &[u8]) -> Result<Vec<u8>> {
    within(bytes, !shares_memory(bytes)?, MAX_DEPTH)
}

/// Whether a module takes the memory of another one.
fn shares_memory(bytes: &[u8]) -> Result<bool> {
    for payload in Parser::new(0).parse_all(bytes) {
        if let Payload::ImportSection(imports) = payload? {
            for import in imports.into_imports() {
                if matches!(import?.ty, TypeRef::Memory(_)) {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

fn within(bytes: &[u8], ahead: bool, depth: usize) -> Result<Vec<u8>> {
    let sections = sections(bytes)?;
    let mut out = bytes[..HEADER].to_vec();
    for section in sections {
        match (section.id, depth.checked_sub(1)) {
            (CORE_MODULE, _) => put(&mut out, CORE_MODULE, &module(section.contents, ahead)?),
            (COMPONENT, Some(depth)) => put(&mut out, COMPONENT, &within(section.contents, ahead, depth)?),
            (COMPONENT, None) => bail!("components within components: at most {MAX_DEPTH} deep"),
            _ => out.extend_from_slice(section.whole),
        }
    }
    Ok(out)
}

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

/// An instruction that a function is called for instead.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Replaced {
    Long(Long),
    Asks(Ahead, Asks),
}

impl Replaced {
    fn function_type(self) -> &'static [u8] {
        match self {
            Replaced::Long(_) => pieces::TYPE,
            Replaced::Asks(_, asks) => asks.function_type(),
        }
    }

    fn function(self) -> Function {
        match self {
            Replaced::Long(long) => long.in_pieces(),
            Replaced::Asks(ahead, asks) => ahead.function(asks),
        }
    }
}

/// What has to be known of a module before its code is changed.
#[derive(Default)]
struct Known {
    types: usize,
    functions: u32,
    /// Lengths of the data segments.
    segments: Vec<usize>,
    ahead: Option<Ahead>,
}

impl Known {
    fn of(sections: &[Section<'_>], may_be_ahead: bool) -> Result<Known> {
        let (mut known, mut globals, mut own_globals, mut memory) = (Known::default(), 0_u32, None, None);
        for section in sections {
            let reader = BinaryReader::new(section.contents, 0);
            match section.id {
                TYPES => {
                    for group in TypeSectionReader::new(reader)? {
                        known.types += group?.types().len();
                    }
                }
                IMPORTS => {
                    for import in ImportSectionReader::new(reader)?.into_imports() {
                        match import?.ty {
                            TypeRef::Func(_) | TypeRef::FuncExact(_) => known.functions += 1,
                            TypeRef::Global(_) => globals += 1,
                            _ => {}
                        }
                    }
                }
                FUNCTIONS => {
                    known.functions = known.functions.saturating_add(FunctionSectionReader::new(reader)?.count());
                }
                MEMORIES => {
                    let mut memories = MemorySectionReader::new(reader)?.into_iter();
                    memory = memories.next().transpose()?;
                    // The engine is to see, and to refuse, a second one.
                    if memories.next().transpose()?.is_some() {
                        memory = None;
                    }
                }
                GLOBALS => own_globals = Some(GlobalSectionReader::new(reader)?.count()),
                DATA => {
                    for segment in DataSectionReader::new(reader)? {
                        known.segments.push(segment?.data.len());
                    }
                }
                _ => {}
            }
        }
        // A module that compilers make has a global for its stack.
        if let (true, Some(memory), Some(own)) = (may_be_ahead, memory, own_globals) {
            known.ahead = Ahead::of(&memory, globals.saturating_add(own));
        }
        Ok(known)
    }

    /// `before` is the instruction just before it.
    fn replaced(&self, operator: &Operator<'_>, before: Option<&Operator<'_>>) -> Option<Replaced> {
        let asks = self.ahead.and_then(|ahead| Some(Replaced::Asks(ahead, Asks::of(operator)?)));
        asks.or_else(|| Long::of(operator, before, &self.segments).map(Replaced::Long))
    }

    /// A code section with calls where instructions were, and the functions that are called at its end; also, for each of them, what it stands
    /// for. They are numbered from how many functions there are without them.
    fn calling(&self, contents: &[u8]) -> Result<(Vec<u8>, Vec<Replaced>)> {
        let mut reader = BinaryReader::new(contents, 0);
        let count = reader.read_var_u32()? as usize;
        let mut done = reader.original_position();
        let (mut bodies, mut added) = (Vec::with_capacity(contents.len()), Vec::new());
        for body in CodeSectionReader::new(BinaryReader::new(contents, 0))? {
            let body = body?;
            let range = body.range();
            let code = self.body_calling(contents, &body, &mut added)?;
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
        added.iter().for_each(|replaced| replaced.function().encode(&mut out));
        Ok((out, added))
    }

    fn body_calling(&self, contents: &[u8], body: &FunctionBody<'_>, added: &mut Vec<Replaced>) -> Result<Vec<u8>> {
        let range = body.range();
        let mut code = Vec::with_capacity(range.len());
        let (mut before, mut done) = (None, range.start);
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let start = operators.original_position();
            let operator = operators.read()?;
            if let Some(replaced) = self.replaced(&operator, before.as_ref()) {
                let number = added.iter().position(|other| *other == replaced).unwrap_or(added.len());
                if number == added.len() {
                    added.push(replaced);
                }
                let end = operators.original_position();
                code.extend_from_slice(&contents[done..start]);
                put_call(&mut code, self.functions.saturating_add(u32::try_from(number)?), end - start);
                done = end;
            }
            before = Some(operator);
        }
        code.extend_from_slice(&contents[done..range.end]);
        Ok(code)
    }
}

/// With memory ahead only if that is asked for.
fn module(bytes: &[u8], ahead: bool) -> Result<Cow<'_, [u8]>> {
    let sections = sections(bytes)?;
    let Some(code) = sections.iter().find(|section| section.id == CODE) else { return Ok(Cow::Borrowed(bytes)) };
    let mut known = Known::of(&sections, ahead)?;
    if known.ahead.is_some() && !asks_for_more(code.contents)? {
        known.ahead = None;
    }
    let (code, added) = known.calling(code.contents)?;
    if added.is_empty() {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut out = bytes[..HEADER].to_vec();
    for section in sections {
        match (section.id, known.ahead) {
            (TYPES, _) => {
                let types: Vec<&[u8]> = added.iter().map(|replaced| replaced.function_type()).collect();
                put(&mut out, TYPES, &longer(section.contents, &types)?);
            }
            (FUNCTIONS, _) => {
                let mut indices = vec![Vec::new(); added.len()];
                indices.iter_mut().enumerate().for_each(|(i, index)| (known.types + i).encode(index));
                let indices: Vec<&[u8]> = indices.iter().map(Vec::as_slice).collect();
                put(&mut out, FUNCTIONS, &longer(section.contents, &indices)?);
            }
            (MEMORIES, Some(ahead)) => put(&mut out, MEMORIES, &ahead.memories()),
            (GLOBALS, Some(ahead)) => put(&mut out, GLOBALS, &longer(section.contents, &[&ahead.global()])?),
            (CODE, _) => put(&mut out, CODE, &code),
            _ => out.extend_from_slice(section.whole),
        }
    }
    Ok(Cow::Owned(out))
}

fn asks_for_more(code: &[u8]) -> Result<bool> {
    for body in CodeSectionReader::new(BinaryReader::new(code, 0))? {
        for operator in body?.get_operators_reader()? {
            if Asks::of(&operator?) == Some(Asks::More) {
                return Ok(true);
            }
        }
    }
    Ok(false)
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

    use super::pieces::tests::long;
    use super::*;

    /// Of each function its bytes, and where they are in the code section.
    fn bodies(bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let code = sections(bytes).unwrap().into_iter().find(|section| section.id == CODE).unwrap();
        let reader = CodeSectionReader::new(BinaryReader::new(code.contents, 0)).unwrap();
        reader.into_iter().map(|body| body.unwrap().range()).map(|at| (at.start, code.contents[at].to_vec())).collect()
    }

    #[test]
    fn code_stays_where_it_is_and_what_is_short_as_it_is() {
        let whole = long();
        let (before, after) = (bodies(&whole), bodies(&module(&whole, false).unwrap()));
        assert_eq!((before.len(), after.len()), (4, 7));
        for ((at, code), (now, same)) in before.iter().zip(&after) {
            assert_eq!((at, code.len()), (now, same.len()));
        }
        assert_eq!(before[3], after[3], "the short ones");
        let text = r#"(module (memory 1) (func (drop (memory.grow (i32.const 1))) (memory.fill (i32.const 0) (i32.const 7) (i32.const 99))))"#;
        let short = wat::parse_str(text).unwrap();
        assert!(matches!(module(&short, false).unwrap(), Cow::Borrowed(same) if same == short));
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
        let pieces = module(&whole, false).unwrap();
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
