//! What a group wants of a topic: tags, decided from the consume queue alone, or a condition over properties.

use std::sync::Arc;

use sluice_model::TagCode;

use crate::{Error, error::Result, sql::Expression};

/// Most tags in one expression.
const TAGS_LIMIT: usize = 1_024;

/// Which messages are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    All,
    /// Tags joined by `||`. The consumer compares the tags themselves once more, because two may share a code (source:
    /// Apache RocketMQ `PullAPIWrapper`).
    Tags(Vec<TagCode>),
    /// A condition over properties. Nobody looks at it again behind the broker.
    Sql(Arc<Expression>),
}

impl Filter {
    /// A tag expression. Fails with the field `subscription` when it names no tag at all, or too many.
    pub fn parse(expression: &str) -> Result<Self> {
        let expression = expression.trim();
        if expression.is_empty() || expression == "*" {
            return Ok(Self::All);
        }
        let tags = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty());
        let mut codes: Vec<TagCode> = tags.map(|tag| TagCode::of(Some(tag))).collect();
        if codes.is_empty() || codes.len() > TAGS_LIMIT {
            return Err(Error::invalid("subscription", format!("expected 1 to {TAGS_LIMIT} tags joined by ||")));
        }
        codes.sort_unstable_by_key(|code| code.0);
        codes.dedup();
        Ok(Self::Tags(codes))
    }

    /// A condition in SQL92. Fails as [`Expression::parse`].
    pub fn sql(expression: &str) -> Result<Self> {
        Ok(Self::Sql(Arc::new(Expression::parse(expression)?)))
    }

    /// A tag expression, or a condition in SQL92: what has blanks within a tag, quotes, parentheses or comparisons is a condition.
    pub fn read(text: &str) -> Result<Self> {
        let is_tag = |part: &str| !part.trim().contains(|c: char| c.is_whitespace() || "<>=()'\"".contains(c));
        if text.split("||").all(is_tag) { Self::parse(text) } else { Self::sql(text) }
    }

    /// Whether a message is wanted, by its tag (empty: none) and properties.
    pub fn takes<'a>(&self, tag: &str, properties: impl Iterator<Item = (&'a str, &'a str)>) -> bool {
        match self {
            Self::All => true,
            Self::Tags(codes) => codes.contains(&TagCode::of((!tag.is_empty()).then_some(tag))),
            Self::Sql(condition) => condition.matches(properties),
        }
    }

    /// Whether a message may be wanted, as far as its tag tells.
    pub fn matches(&self, code: TagCode) -> bool {
        match self {
            Self::All | Self::Sql(_) => true,
            Self::Tags(codes) => codes.contains(&code),
        }
    }

    /// What the record itself has to be asked.
    pub(crate) fn condition(&self) -> Option<&Expression> {
        if let Self::Sql(expression) = self { Some(expression) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_tags_or_a_condition() {
        assert!(matches!(Filter::read("a || b-c").unwrap(), Filter::Tags(_)));
        assert!(matches!(Filter::read(" * ").unwrap(), Filter::All));
        for condition in ["amount > 100", "amount>100", "region IN ('eu')", "a IS NULL"] {
            assert!(matches!(Filter::read(condition).unwrap(), Filter::Sql(_)), "{condition}");
        }
        assert!(Filter::read("amount > ").is_err());
        let expensive = Filter::read("amount > 100").unwrap();
        assert!(expensive.takes("", [("amount", "101")].into_iter()));
        assert!(!expensive.takes("", [("amount", "100")].into_iter()));
        assert!(Filter::read("x").unwrap().takes("x", [].into_iter()));
        assert!(!Filter::read("x").unwrap().takes("", [].into_iter()));
    }

    #[test]
    fn an_expression_is_a_set_of_tags() {
        let filter = Filter::parse(" a || b||a ").unwrap();
        assert!(filter.matches(TagCode::of(Some("a"))) && filter.matches(TagCode::of(Some("b"))));
        assert!(!filter.matches(TagCode::of(Some("c"))) && !filter.matches(TagCode::of(None)));
        assert_eq!(Filter::parse("*").unwrap(), Filter::All);
        assert!(Filter::parse("||").is_err());
    }

    #[test]
    fn conditions_are_alike_when_they_are_written_alike() {
        assert_eq!(Filter::sql("a = 1").unwrap(), Filter::sql("a = 1").unwrap());
        assert_ne!(Filter::sql("a = 1").unwrap(), Filter::sql("a =  1").unwrap());
        assert!(Filter::sql("*").is_err());
    }
}
