use std::str;

use crate::field;
use crate::wit::imports::types::{Batch, Column};

/// One record of a batch. Reading borrows from the batch; nothing is copied.
///
/// A column that was not asked for in `needs(..)` panics when it is read, which the first test shows.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    pub(crate) batch: &'a Batch,
    pub(crate) index: usize,
}

impl<'a> Record<'a> {
    fn item(&self, column: &'a Option<Column>, name: &str) -> &'a [u8] {
        let Some(column) = column else { not_asked(name) };
        let start = if self.index == 0 { 0 } else { column.ends[self.index - 1] };
        &column.data[start as usize..column.ends[self.index] as usize]
    }

    /// The body.
    #[must_use]
    pub fn value(&self) -> &'a [u8] {
        self.item(&self.batch.values, "value")
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is no JSON.
    pub fn json(&self) -> Result<serde_json::Value, serde_json::Error> {
        parse(self.value())
    }

    /// The field of a JSON body at a JSON Pointer (RFC 6901), as `/items/0/price`; `None` if it is not there. Makes nothing of the rest of
    /// the body, so it is several times faster than [`Record::json`].
    ///
    /// # Errors
    /// The body is no JSON. Of what is passed over, numbers may be larger and values nested deeper than a [`serde_json::Value`] can hold.
    pub fn json_at(&self, pointer: &str) -> Result<Option<serde_json::Value>, serde_json::Error> {
        field::at(self.value(), pointer)
    }

    /// The same as text, see [`field::text`]: `None` for null as well.
    ///
    /// # Errors
    /// Those of [`Record::json_at`].
    pub fn text_at(&self, pointer: &str) -> Result<Option<String>, serde_json::Error> {
        Ok(self.json_at(pointer)?.and_then(field::text))
    }

    #[must_use]
    pub fn key(&self) -> Option<&'a str> {
        let key = self.item(&self.batch.keys, "key");
        let bit = |bits: &Vec<u8>| bits[self.index / 8] & (1 << (self.index % 8)) != 0;
        let present = self.batch.key_present.as_ref().is_none_or(bit);
        present.then(|| text(key))
    }

    /// Empty if there is none.
    #[must_use]
    pub fn tag(&self) -> &'a str {
        text(self.item(&self.batch.tags, "tag"))
    }

    /// All properties as stored: name 0x01 value 0x02, repeated.
    #[must_use]
    pub fn raw_headers(&self) -> &'a [u8] {
        self.item(&self.batch.headers, "headers")
    }

    /// The properties by name, in stored order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let pairs = self.raw_headers().split(|b| *b == 2);
        pairs.filter_map(|pair| {
            let middle = pair.iter().position(|b| *b == 1)?;
            Some((text(&pair[..middle]), text(&pair[middle + 1..])))
        })
    }

    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// The property as a whole number; `None` if it is absent or is none.
    #[must_use]
    pub fn header_u64(&self, name: &str) -> Option<u64> {
        self.header(name)?.parse().ok()
    }

    /// Offset in its queue.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.number(&self.batch.offsets, "offset")
    }

    /// Producer's time, milliseconds since 1970; at most a minute later than the broker's, whatever the producer said.
    #[must_use]
    pub fn born_at(&self) -> u64 {
        self.number(&self.batch.born_at, "born_at")
    }

    /// Broker's time, milliseconds since 1970.
    #[must_use]
    pub fn stored_at(&self) -> u64 {
        self.number(&self.batch.stored_at, "stored_at")
    }

    /// 0 at the first try.
    #[must_use]
    pub fn attempt(&self) -> u16 {
        let Some(attempts) = &self.batch.attempts else { not_asked("attempt") };
        attempts[self.index]
    }

    /// Number of the queue it came from.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.batch.queue
    }

    fn number(&self, column: &Option<Vec<u64>>, name: &str) -> u64 {
        let Some(column) = column else { not_asked(name) };
        column[self.index]
    }
}

/// The same as from bytes, but UTF-8 is checked once, and not in each string.
fn parse(body: &[u8]) -> Result<serde_json::Value, serde_json::Error> {
    match str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        // It names the place.
        Err(_) => serde_json::from_slice(body),
    }
}

/// Text of a key, tag or property: UTF-8, as RocketMQ's own. Up to the first byte that is not.
fn text(bytes: &[u8]) -> &str {
    match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default(),
    }
}

#[cold]
fn not_asked(name: &str) -> ! {
    panic!("the plugin reads `{name}`, but does not ask for it; write needs({name}) in its attribute")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{empty_batch, with_attempts};

    #[test]
    fn columns_are_read_by_index() {
        let column = |items: &[&str]| {
            let mut column = Column { data: vec![], ends: vec![] };
            for item in items {
                column.data.extend_from_slice(item.as_bytes());
                column.ends.push(u32::try_from(column.data.len()).unwrap());
            }
            Some(column)
        };
        let batch = Batch {
            count: 2,
            keys: column(&["", "k"]),
            key_present: Some(vec![2]),
            values: column(&["one", "two"]),
            headers: column(&["", "a\u{1}1\u{2}b\u{1}x\u{2}"]),
            ..empty_batch()
        };
        let batch = with_attempts(batch);
        let [first, second] = [0, 1].map(|index| Record { batch: &batch, index });
        assert_eq!((first.attempt(), second.attempt()), (0, 0));
        assert_eq!((first.key(), second.key()), (None, Some("k")));
        assert_eq!((first.value(), second.value()), (&b"one"[..], &b"two"[..]));
        assert_eq!((first.header("a"), second.header("b")), (None, Some("x")));
        assert_eq!((second.header_u64("a"), second.header_u64("b")), (Some(1), None));
    }

    #[test]
    fn a_body_is_read_as_the_library_reads_bytes() {
        let bodies: [&[u8]; 9] = [
            b"{\"a\":[1,\"\xC3\xA4\\u00e4\"]}",
            b" null ",
            b"",
            b"{\"a\":1",
            b"{\"a\":1}x",
            b"{\"a\":\n\"\xFF\"}",
            b"\xFF{}",
            b"{}\xFF",
            b"\xEF\xBB\xBF{}",
        ];
        for body in bodies {
            let same = |read: Result<serde_json::Value, serde_json::Error>| read.map_err(|error| error.to_string());
            assert_eq!(same(parse(body)), same(serde_json::from_slice(body)), "{body:?}");
        }
    }

    #[test]
    #[should_panic(expected = "write needs(tag)")]
    fn a_column_that_was_not_asked_for_is_named() {
        let batch = Batch { count: 1, ..empty_batch() };
        let _ = Record { batch: &batch, index: 0 }.tag();
    }

    #[test]
    #[should_panic(expected = "write needs(attempt)")]
    fn so_are_attempts_though_the_host_leaves_them_out_when_all_are_the_first() {
        let batch = Batch { count: 1, ..empty_batch() };
        let _ = Record { batch: &batch, index: 0 }.attempt();
    }
}
