//! Message filters in the language that clients call SQL92: conditions over the properties of a message.
//!
//! The grammar and what a condition means are those of Apache RocketMQ (`SelectorParser.jj`, `filter/expression`), with
//! three-valued logic: a condition is true, false or unknown, and only true is a match. Properties are text. Compared with a
//! number they are read as one of the literal's own kind (32 bits, 64 bits or floating point), and a text that is none
//! makes the whole expression incomparable, which is no match (`ExpressionMessageFilter`).
//!
//! Stricter than Apache in one thing: text that goes on behind a complete condition is refused. Apache leaves it unread, so
//! that `a > 1 b` means `a > 1` there, and `a LIKE 'x'`, `a + 1 > 2` and `a = 0x10` mean something else than they say.
//! Properties written as hexadecimal floating point or with digits other than 0 to 9 count as text that is no number.

mod eval;
mod lexer;
mod parser;

#[cfg(test)]
mod cases;

use std::{collections::BTreeMap, fmt};

pub use self::eval::Incomparable;
use self::{
    eval::Value,
    parser::{Node, Parser},
};
use crate::{Error, error::Result};

/// Longest expression, bytes.
const SOURCE_LIMIT: usize = 4_096;
/// Most parentheses, signs and NOTs within each other.
const DEPTH_LIMIT: u32 = 64;
/// Most operators that work on each other's results.
const HEIGHT_LIMIT: u32 = 256;
/// Most texts in one IN list.
const LIST_LIMIT: usize = 1_024;

/// A condition over properties, ready to be evaluated. Two are equal when they were written alike.
pub struct Expression {
    source: Box<str>,
    /// Every property that the condition names, with its place among them.
    names: BTreeMap<Box<str>, usize>,
    root: Node,
}

impl Expression {
    /// Fails with the field `subscription` and the column for what is no condition: at most 4096 bytes, 64 levels of
    /// nesting, 256 operators in a chain, 1024 texts in a list.
    ///
    /// Refused as by Apache RocketMQ: comparing by size with anything but numbers and properties, comparing with NULL
    /// by = and <>, a literal BETWEEN whose bounds are the wrong way round, IN on anything but a property, whole numbers
    /// of more than 64 bits, and floating-point literals that are 0 or infinite.
    pub fn parse(source: &str) -> Result<Self> {
        if source.len() > SOURCE_LIMIT {
            let text = format!("expected an expression of at most {SOURCE_LIMIT} bytes, got {}", source.len());
            return Err(Error::invalid("subscription", text));
        }
        let (root, names) = Parser::new(source)?.whole()?;
        Ok(Self { source: source.into(), names, root })
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the condition is true of a message with these properties.
    pub fn matches<'a>(&self, properties: impl Iterator<Item = (&'a str, &'a str)>) -> bool {
        self.evaluate(properties) == Ok(Some(true))
    }

    /// True, false or `None`, unknown. Fails when a property that is no number is compared with one, or a boolean
    /// literal that stands on the left with a property.
    ///
    /// A property that is empty is not there, and of two with the same name the last one counts (source: Apache
    /// RocketMQ `MessageDecoder.string2messageProperties`).
    pub fn evaluate<'a>(
        &self,
        properties: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> std::result::Result<Option<bool>, Incomparable> {
        let mut values = vec![None; self.names.len()];
        for (name, value) in properties {
            if !value.is_empty()
                && let Some(at) = self.names.get(name)
            {
                values[*at] = Some(value);
            }
        }
        let value = self.root.evaluate(&values)?;
        Ok(if let Some(Value::Bool(holds)) = value { Some(holds) } else { None })
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}
