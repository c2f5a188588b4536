//! What a component may cost to compile. The compiler's time and memory grow faster than what it is given, so a small upload could take
//! all of the host's: it is counted first.

use wasmparser::{BlockType, CompositeInnerType, FunctionBody, Operator, Parser, Payload, TypeSectionReader};

/// Components and modules within each other.
pub(crate) const MAX_DEPTH: usize = 16;
/// Functions of all modules together.
const MAX_FUNCTIONS: u32 = 50_000;
/// Code of one function, bytes.
const MAX_BODY: usize = 512 * 1024;
/// Blocks, loops and branches of one function.
const MAX_BLOCKS: u64 = 20_000;
/// Places that one branch may go to.
const MAX_TARGETS: u32 = 20_000;
/// For all functions, the squares of [`values_at_joins`] added up: the compiler's time grows like that. 1,000 locals in 32 loops, one
/// within the other, are just beyond it: a release build took 4 s for them, and more than 20 s for 330 locals in 300 loops.
const MAX_JOINS: u64 = 1_000_000_000;

/// # Errors
/// What there is too much of. What is not valid at all is left to the compiler to name.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    let (mut depth, mut functions, mut joins, mut widest) = (0_usize, 0_u32, 0_u64, 0_u64);
    for payload in Parser::new(0).parse_all(bytes) {
        let Ok(payload) = payload else { return Ok(()) };
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(format!("components within components: at most {MAX_DEPTH} deep"));
                }
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CodeSectionStart { count, .. } => {
                functions = functions.saturating_add(count);
                if functions > MAX_FUNCTIONS {
                    return Err(format!("{functions} functions, but at most {MAX_FUNCTIONS} are compiled"));
                }
            }
            Payload::TypeSection(types) => widest = widest.max(widest_of(types)),
            Payload::CodeSectionEntry(body) => {
                let values = check_function(&body, widest)?;
                joins = joins.saturating_add(values.saturating_mul(values));
                if joins > MAX_JOINS {
                    return Err("too many locals in loops within loops; fewer or smaller functions are compiled".into());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Values that the widest function type, which a block may have as well, takes and gives.
fn widest_of(types: TypeSectionReader<'_>) -> u64 {
    let types = types.into_iter().filter_map(Result::ok).flat_map(|group| group.into_types());
    let widths = types.map(|ty| match ty.composite_type.inner {
        CompositeInnerType::Func(function) => function.params().len() + function.results().len(),
        _ => 0,
    });
    widths.max().unwrap_or(0) as u64
}

/// Gives [`values_at_joins`] of the function.
fn check_function(body: &FunctionBody<'_>, widest: u64) -> Result<u64, String> {
    let size = body.as_bytes().len();
    if size > MAX_BODY {
        return Err(format!("a function of {size} bytes, but at most {MAX_BODY} are compiled"));
    }
    let (Ok(locals), Ok(mut operators)) = (body.get_locals_reader(), body.get_operators_reader()) else {
        return Ok(0);
    };
    let locals: u64 = locals.into_iter().filter_map(Result::ok).map(|(count, _)| u64::from(count)).sum();
    let (mut blocks, mut typed, mut deepest) = (0, 0, 0);
    // Of the blocks that are open, whether they are loops, and how many are.
    let (mut open, mut loops) = (Vec::new(), 0_u64);
    while let Ok(operator) = operators.read() {
        match operator {
            Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty } => {
                let is_loop = matches!(operator, Operator::Loop { .. });
                open.push(is_loop);
                loops += u64::from(is_loop);
                deepest = deepest.max(loops);
                typed += u64::from(matches!(blockty, BlockType::FuncType(_)));
                blocks += 1;
            }
            Operator::BrIf { .. } => blocks += 1,
            Operator::BrTable { targets } if targets.len() > MAX_TARGETS => {
                return Err(format!("a branch to {} places, but at most {MAX_TARGETS} are compiled", targets.len()));
            }
            // The last one ends the function itself.
            Operator::End => loops -= u64::from(open.pop().unwrap_or(false)),
            _ => {}
        }
        if blocks > MAX_BLOCKS {
            return Err(format!("a function of more than {MAX_BLOCKS} blocks, which are not compiled"));
        }
    }
    // Parameters are locals as well.
    Ok(values_at_joins(locals.saturating_add(widest), deepest, typed, widest))
}

/// How many values may meet where ways through a function come together: each local at each loop around it, and what blocks take and
/// give.
fn values_at_joins(locals: u64, loops: u64, typed: u64, widest: u64) -> u64 {
    locals.saturating_mul(loops).saturating_add(typed.saturating_mul(widest))
}
