//! Message properties: `key\u{1}value\u{2}` repeated, kept as the client sent them.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use bytestring::ByteString;

use crate::{Error, limits};

const BETWEEN: char = '\u{1}';
const AFTER: char = '\u{2}';

/// Property keys with a meaning to the broker. Source: Apache RocketMQ `MessageConst`; the `SLUICE_` ones are ours.
pub mod key {
    pub const KEYS: &str = "KEYS";
    pub const TAGS: &str = "TAGS";
    pub const WAIT: &str = "WAIT";
    pub const DELAY: &str = "DELAY";
    pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
    pub const REAL_TOPIC: &str = "REAL_TOPIC";
    pub const REAL_QUEUE: &str = "REAL_QID";
    pub const TRANSACTION_PREPARED: &str = "TRAN_MSG";
    pub const PRODUCER_GROUP: &str = "PGROUP";
    pub const UNIQUE_KEY: &str = "UNIQ_KEY";
    pub const TRANSACTION_ID: &str = "__transactionId__";
    pub const TRANSACTION_CHECK_TIMES: &str = "TRANSACTION_CHECK_TIMES";
    pub const CHECK_IMMUNITY_SECONDS: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
    pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
    pub const RECEIPT_HANDLE: &str = "POP_CK";
    /// When a message was popped for the first time, ms since 1970.
    pub const FIRST_POP_TIME: &str = "1ST_POP_TIME";
    pub const CLUSTER: &str = "CLUSTER";
    /// Where a message was sent to. A consumer that traces passes over messages without it.
    pub const REGION: &str = "MSG_REGION";
    /// The client that waits for an answer to a message.
    pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
    /// When the broker handed an answer on, ms since 1970.
    pub const REPLY_PUSHED_AT: &str = "PUSH_REPLY_TIME";
    pub const TIMER_DELAY_SECONDS: &str = "TIMER_DELAY_SEC";
    pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
    pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
    /// When a message for a time is due, ms since 1970; the broker sets it.
    pub const TIMER_OUT_MS: &str = "TIMER_OUT_MS";
    pub const DEAD_LETTER_TOPIC: &str = "DLQ_ORIGIN_TOPIC";
    pub const DEAD_LETTER_MESSAGE_ID: &str = "DLQ_ORIGIN_MESSAGE_ID";
    /// Whole-record checksum, written last (Apache RocketMQ `enabledAppendPropCRC`).
    pub const RECORD_CRC: &str = "__CRC32#";
    /// Place of a record in its unit: `index/count`.
    pub const UNIT: &str = "SLUICE_UNIT";
}

/// The property string of a message: UTF-8, at most [`limits::PROPERTIES_LEN`] bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Properties(ByteString);

impl Properties {
    /// Takes a property string as it came. Fails with the field `properties` when it is too long or not UTF-8.
    ///
    /// Pairs without the separator are kept in the bytes and seen by nobody, as in Apache RocketMQ.
    pub fn parse(raw: impl Into<Bytes>) -> Result<Self, Error> {
        let raw = raw.into();
        if raw.len() > limits::PROPERTIES_LEN {
            let (limit, got) = (limits::PROPERTIES_LEN, raw.len());
            return Err(Error::invalid("properties", format!("expected at most {limit} bytes, got {got}")));
        }
        match ByteString::try_from(raw) {
            Ok(text) => Ok(Self(text)),
            Err(_) => Err(Error::invalid("properties", "expected UTF-8")),
        }
    }

    /// Fails where [`Self::changed`] would: a key is empty, or a value holds a separator.
    pub fn check(&self) -> Result<(), Error> {
        self.iter().try_for_each(|(key, value)| check_pair(key, value))
    }

    /// Builds a property string. Fails when a key is empty, a key or value holds a separator, or the whole is too long.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Error> {
        let mut text = String::new();
        for (key, value) in pairs {
            push_pair(&mut text, key, value)?;
        }
        Self::parse(text)
    }

    /// The value of `key`; the first one when the key stands there twice.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        pairs(self.as_str())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The same properties with `changes` made: `Some` sets a key, `None` removes it. Fails as [`Self::from_pairs`].
    pub fn changed<'a>(&self, changes: &[(&'a str, Option<Cow<'a, str>>)]) -> Result<Self, Error> {
        let mut text = String::with_capacity(self.0.len() + 64);
        for (key, value) in self.iter().filter(|(key, _)| !changes.iter().any(|(changed, _)| changed == key)) {
            push_pair(&mut text, key, value)?;
        }
        for (key, value) in changes {
            if let Some(value) = value {
                push_pair(&mut text, key, value)?;
            }
        }
        Self::parse(text)
    }

    /// The same properties with one key set.
    pub fn with(&self, key: &str, value: &str) -> Result<Self, Error> {
        self.changed(&[(key, Some(Cow::Borrowed(value)))])
    }
}

/// The pairs of a property string in the order in which they stand.
pub fn pairs(text: &str) -> Pairs<'_> {
    Pairs { text, pair: 0, next: 0 }
}

/// See [`pairs`].
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    text: &'a str,
    /// Where the pair begins that was given last.
    pair: usize,
    next: usize,
}

impl Pairs<'_> {
    /// Where in the string the pair begins that was given last.
    pub fn start(&self) -> usize {
        self.pair
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        loop {
            let start = self.next;
            let between = start + memchr::memchr2(BETWEEN as u8, AFTER as u8, bytes.get(start..)?)?;
            if bytes[between] == AFTER as u8 {
                // What has no value is no pair.
                self.next = between + 1;
                continue;
            }
            let value = between + 1;
            let end = memchr::memchr(AFTER as u8, &bytes[value..]).map_or(bytes.len(), |len| value + len);
            (self.pair, self.next) = (start, end + 1);
            return Some((&self.text[start..between], &self.text[value..end]));
        }
    }
}

fn push_pair(text: &mut String, key: &str, value: &str) -> Result<(), Error> {
    check_pair(key, value)?;
    text.push_str(key);
    text.push(BETWEEN);
    text.push_str(value);
    text.push(AFTER);
    Ok(())
}

fn check_pair(key: &str, value: &str) -> Result<(), Error> {
    let separator = |s: &str| memchr::memchr2(BETWEEN as u8, AFTER as u8, s.as_bytes()).is_some();
    if key.is_empty() || separator(key) || separator(value) {
        return Err(Error::invalid(
            "properties",
            format!("expected a key, and no \\u0001 or \\u0002 in key or value, got {key:?}"),
        ));
    }
    Ok(())
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_string_is_read_as_apache_reads_it() {
        let read = Properties::parse("KEYS\u{1}a b\u{2}junk\u{2}TAGS\u{1}t").unwrap();
        assert_eq!(read.iter().collect::<Vec<_>>(), [("KEYS", "a b"), ("TAGS", "t")]);
        assert_eq!((read.get("TAGS"), read.get("tags")), (Some("t"), None));
    }

    proptest! {
        #[test]
        fn pairs_are_what_stands_between_the_separators(text in "[a-cé\u{1}\u{2}]{0,40}") {
            let expected: Vec<_> = text.split(AFTER).filter_map(|pair| pair.split_once(BETWEEN)).collect();
            let mut read = pairs(&text);
            for (key, value) in expected {
                prop_assert_eq!(read.next(), Some((key, value)));
                prop_assert_eq!(read.start(), key.as_ptr().addr() - text.as_ptr().addr());
            }
            prop_assert_eq!(read.next(), None);
        }
    }

    #[test]
    fn changes_set_and_remove() {
        let before = Properties::from_pairs([("a", "1"), ("b", "2"), ("c", "")]).unwrap();
        let after = before.changed(&[("b", None), ("a", Some("9".into())), ("d", Some("4".into()))]).unwrap();
        assert_eq!(after.iter().collect::<Vec<_>>(), [("c", ""), ("a", "9"), ("d", "4")]);
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        assert!(Properties::from_pairs([("a\u{1}", "1")]).is_err());
        assert!(Properties::from_pairs([("a", "1\u{2}")]).is_err());
        assert!(Properties::parse(vec![0xFF]).is_err());
        assert!(Properties::parse("x".repeat(limits::PROPERTIES_LEN + 1)).is_err());
    }
}
