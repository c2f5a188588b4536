//! What a component may cost to compile. The compiler's time and memory grow faster than what it is given, so a small upload could take
//! all of the host's: it is counted first.

use wasmparser::{FunctionBody, Operator, Parser, Payload};

/// Components and modules within each other.
const MAX_DEPTH: usize = 16;
/// Functions of all modules together.
const MAX_FUNCTIONS: u32 = 50_000;
/// Code of one function, bytes.
const MAX_BODY: usize = 512 * 1024;
/// Blocks, loops and branches of one function.
const MAX_BLOCKS: u64 = 20_000;
/// Places that one branch may go to.
const MAX_TARGETS: u32 = 20_000;
/// Local variables of one function times its blocks: each may need a value of its own at each of them.
const MAX_LOCALS_BY_BLOCKS: u64 = 1_000_000;

/// # Errors
/// What there is too much of. What is not valid at all is left to the compiler to name.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    let (mut depth, mut functions) = (0_usize, 0_u32);
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
            Payload::CodeSectionEntry(body) => check_function(&body)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_function(body: &FunctionBody<'_>) -> Result<(), String> {
    let size = body.as_bytes().len();
    if size > MAX_BODY {
        return Err(format!("a function of {size} bytes, but at most {MAX_BODY} are compiled"));
    }
    let (Ok(locals), Ok(mut operators)) = (body.get_locals_reader(), body.get_operators_reader()) else {
        return Ok(());
    };
    let locals: u64 = locals.into_iter().filter_map(Result::ok).map(|(count, _)| u64::from(count)).sum();
    let mut blocks = 0;
    while let Ok(operator) = operators.read() {
        match operator {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } | Operator::BrIf { .. } => blocks += 1,
            Operator::BrTable { targets } if targets.len() > MAX_TARGETS => {
                return Err(format!("a branch to {} places, but at most {MAX_TARGETS} are compiled", targets.len()));
            }
            Operator::End if operators.eof() => break,
            _ => {}
        }
    }
    if blocks > MAX_BLOCKS {
        return Err(format!("a function of {blocks} blocks, but at most {MAX_BLOCKS} are compiled"));
    }
    if locals.saturating_mul(blocks) > MAX_LOCALS_BY_BLOCKS {
        return Err(format!(
            "a function of {locals} locals and {blocks} blocks, whose product may be at most {MAX_LOCALS_BY_BLOCKS}"
        ));
    }
    Ok(())
}
