//! What a group wants of a topic, decided from the consume queue alone.

use sluice_model::TagCode;

use crate::{Error, error::Result};

/// Most tags in one expression.
const TAGS_LIMIT: usize = 1_024;

/// A tag expression: `*`, or tags joined by `||`. The consumer compares the tags themselves once more, because two may
/// share a code (source: Apache RocketMQ `PullAPIWrapper`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    All,
    Tags(Vec<TagCode>),
}

impl Filter {
    /// Fails with the field `subscription` when an expression names no tag at all, or too many.
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

    pub fn matches(&self, code: TagCode) -> bool {
        match self {
            Self::All => true,
            Self::Tags(codes) => codes.contains(&code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_a_set_of_tags() {
        let filter = Filter::parse(" a || b||a ").unwrap();
        assert!(filter.matches(TagCode::of(Some("a"))) && filter.matches(TagCode::of(Some("b"))));
        assert!(!filter.matches(TagCode::of(Some("c"))) && !filter.matches(TagCode::of(None)));
        assert_eq!(Filter::parse("*").unwrap(), Filter::All);
        assert!(Filter::parse("||").is_err());
    }
}
