//! Names of topics and groups. Having one is proof that it was checked.

use std::{fmt, sync::Arc};

use crate::{Error, limits};

const RETRY: &str = "%RETRY%";
const DEAD_LETTER: &str = "%DLQ%";

/// Name of a topic: 1 to 127 bytes (255 behind `%RETRY%` and `%DLQ%`) of `[%|a-zA-Z0-9_-]`.
///
/// Source: Apache RocketMQ `TopicValidator`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// Name of a producer or consumer group: 1 to 248 bytes of the same characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(Arc<str>);

impl TopicName {
    /// Fails with the field `topic` when the name is empty, too long or has a character outside the set.
    pub fn parse(name: &str) -> Result<Self, Error> {
        let derived = name.starts_with(RETRY) || name.starts_with(DEAD_LETTER);
        let limit = if derived { limits::DERIVED_TOPIC_NAME_LEN } else { limits::TOPIC_NAME_LEN };
        check("topic", name, limit)?;
        Ok(Self(name.into()))
    }

    /// The topic to which failed messages of `group` return (`%RETRY%group`).
    pub fn retry_of(group: &GroupName) -> Self {
        Self(format!("{RETRY}{group}").into())
    }

    /// The topic where messages end that `group` failed on too often (`%DLQ%group`).
    pub fn dead_letter_of(group: &GroupName) -> Self {
        Self(format!("{DEAD_LETTER}{group}").into())
    }

    /// The topic to which messages of `topic` return that `group` popped and did not acknowledge (`%RETRY%group_topic`).
    ///
    /// Fails with the field `topic` when the two names together are too long. The same text may be the retry topic of
    /// another group: the names are Apache RocketMQ's (`KeyBuilder.buildPopRetryTopicV1`).
    pub fn pop_retry_of(group: &GroupName, topic: &TopicName) -> Result<Self, Error> {
        Self::parse(&format!("{RETRY}{group}_{topic}"))
    }

    pub fn is_retry(&self) -> bool {
        self.0.starts_with(RETRY)
    }

    pub fn is_dead_letter(&self) -> bool {
        self.0.starts_with(DEAD_LETTER)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl GroupName {
    /// Fails with the field `group` when the name is empty, too long or has a character outside the set.
    pub fn parse(name: &str) -> Result<Self, Error> {
        check("group", name, limits::GROUP_NAME_LEN)?;
        Ok(Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(field: &'static str, name: &str, limit: usize) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::invalid(field, "expected a name, got nothing"));
    }
    if name.len() > limit {
        return Err(Error::invalid(field, format!("expected at most {limit} characters, got {}", name.len())));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '%' | '|' | '_' | '-');
    match name.chars().find(|c| !allowed(*c)) {
        None => Ok(()),
        Some(bad) => Err(Error::invalid(field, format!("expected only letters, digits, %, |, _ and -, got {bad:?}"))),
    }
}

macro_rules! as_text {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}
as_text!(TopicName, GroupName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_checked_and_the_error_names_the_field() {
        assert_eq!(TopicName::parse("orders-EU_1").unwrap().as_str(), "orders-EU_1");
        for bad in ["", "a b", "a/b", "ä", "a.b", &"x".repeat(128)] {
            let text = TopicName::parse(bad).unwrap_err().to_string();
            assert!(text.starts_with("topic: expected"), "{text}");
        }
        assert!(GroupName::parse("g\n").unwrap_err().to_string().starts_with("group: expected"));
    }

    #[test]
    fn the_longest_group_still_has_a_retry_topic() {
        let group = GroupName::parse(&"g".repeat(limits::GROUP_NAME_LEN)).unwrap();
        let retry = TopicName::retry_of(&group);
        assert_eq!(TopicName::parse(retry.as_str()).unwrap(), retry);
        assert!(retry.is_retry() && !retry.is_dead_letter());
    }
}
