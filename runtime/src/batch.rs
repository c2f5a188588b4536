use std::sync::Arc;

use bytes::Bytes;

use crate::bindings::Columns;
use crate::bindings::sluice::plugin::types as wit;

/// How much later than the broker stored it a record may say that it was born, milliseconds: one producer whose clock is wrong must not end
/// every window of a queue.
const CLOCK_AHEAD: u64 = 60_000;

/// One record, as it comes from a source and goes to a sink. Cloning shares the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Offset in the source queue.
    pub offset: u64,
    pub key: Option<Bytes>,
    /// Empty if there is none.
    pub tag: Bytes,
    /// Property bytes as RocketMQ stores them: name 0x01 value 0x02, repeated. Where they name the key and the tag as well (`KEYS`,
    /// `TAGS`), the fields above win.
    pub headers: Bytes,
    pub value: Bytes,
    /// How the value is compressed, in the host's own numbers; 0 when it is plain. A source leaves it so only where no plugin of the chain asks for
    /// values; what a plugin puts in its place is plain.
    pub packed: u8,
    /// Producer's time, milliseconds since 1970.
    pub born_at: u64,
    /// Broker's time, milliseconds since 1970.
    pub stored_at: u64,
    /// Why the value cannot be read, such as a body that does not decompress. Then it is as it was stored, and no plugin sees the record: a
    /// stage has it be a dead letter.
    pub unreadable: Option<Arc<str>>,
}

impl Record {
    /// The producer's time, but no later than a minute after the broker's: what processors and their clocks go by.
    #[inline]
    #[must_use]
    pub fn event_time(&self) -> u64 {
        self.born_at.min(self.stored_at.saturating_add(CLOCK_AHEAD))
    }

    /// Bytes of the key, tag, headers and value.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size_of(Columns::all())
    }

    /// Bytes of those of the columns that are of bytes.
    #[inline]
    fn size_of(&self, columns: Columns) -> usize {
        let mut size = 0;
        if columns.contains(Columns::KEY) {
            size += self.key.as_ref().map_or(0, Bytes::len);
        }
        if columns.contains(Columns::TAG) {
            size += self.tag.len();
        }
        if columns.contains(Columns::HEADERS) {
            size += self.headers.len();
        }
        if columns.contains(Columns::VALUE) {
            size += self.value.len();
        }
        size
    }
}

#[derive(Default)]
struct Column {
    data: Vec<u8>,
    ends: Vec<u32>,
}

impl Column {
    fn clear(&mut self) {
        self.data.clear();
        self.ends.clear();
    }

    #[expect(clippy::cast_possible_truncation, reason = "Batch::extend keeps the sum of all columns below u32::MAX")]
    fn extend<'r>(&mut self, items: impl Iterator<Item = &'r [u8]>) {
        for item in items {
            self.data.extend_from_slice(item);
            self.ends.push(self.data.len() as u32);
        }
    }

    fn as_wit(&self) -> wit::ColumnParam<'_> {
        wit::ColumnParam { data: &self.data, ends: &self.ends }
    }
}

/// Records side by side as the plugin gets them: only the columns that it asked for are filled. Reusable by [`Batch::clear`].
#[derive(Default)]
pub struct Batch {
    needs: Columns,
    queue: u32,
    count: u32,
    bytes: usize,
    time: u64,
    newest: u64,
    first: u64,
    offsets: Vec<u64>,
    born_at: Vec<u64>,
    stored_at: Vec<u64>,
    attempts: Vec<u16>,
    keys: Column,
    key_present: Vec<u8>,
    tags: Column,
    values: Column,
    headers: Column,
}

impl Batch {
    /// Most records of one batch.
    pub const MAX_RECORDS: u32 = 4096;
    /// Most bytes of one batch.
    pub const MAX_BYTES: usize = 64 * 1024 * 1024;

    /// `needs` is the manifest's.
    #[must_use]
    pub fn new(needs: Columns, queue: u32) -> Batch {
        Batch { needs, queue, ..Batch::default() }
    }

    pub fn clear(&mut self) {
        (self.count, self.bytes, self.time, self.newest, self.first) = (0, 0, 0, 0, 0);
        self.offsets.clear();
        self.born_at.clear();
        self.stored_at.clear();
        self.attempts.clear();
        self.key_present.clear();
        for column in [&mut self.keys, &mut self.tags, &mut self.values, &mut self.headers] {
            column.clear();
        }
    }

    /// Adds a record. False means that the batch is full and the record was not added.
    #[must_use]
    pub fn push(&mut self, record: &Record, attempt: u16) -> bool {
        self.extend(std::iter::once((record, attempt))) == 1
    }

    /// Adds records with their attempts until the batch is full, and says how many.
    #[must_use]
    pub fn extend<'r>(&mut self, records: impl Iterator<Item = (&'r Record, u16)> + Clone) -> usize {
        let needs = self.needs;
        let room = Batch::MAX_RECORDS as usize - self.len();
        let (mut taken, mut bytes, mut time, mut newest) = (0_u32, self.bytes, self.time, self.newest);
        for (record, _) in records.clone().take(room) {
            let size = record.size_of(needs);
            if bytes + size > Batch::MAX_BYTES {
                break;
            }
            (taken, bytes) = (taken + 1, bytes + size);
            (time, newest) = (time.max(record.stored_at), newest.max(record.event_time()));
        }
        let before = self.len();
        if before == 0 {
            self.first = records.clone().next().map_or(0, |(record, _)| record.offset);
        }
        self.count += taken;
        (self.bytes, self.time, self.newest) = (bytes, time, newest);
        let taken = taken as usize;
        // Column by column: each loop does one thing, so that its misses of the cache overlap.
        let records = records.take(taken);
        let each = || records.clone().map(|(record, _)| record);
        if needs.contains(Columns::OFFSET) {
            self.offsets.extend(each().map(|record| record.offset));
        }
        if needs.contains(Columns::BORN_AT) {
            self.born_at.extend(each().map(Record::event_time));
        }
        if needs.contains(Columns::STORED_AT) {
            self.stored_at.extend(each().map(|record| record.stored_at));
        }
        if needs.contains(Columns::ATTEMPT) {
            for (index, (_, attempt)) in records.clone().enumerate() {
                if attempt > 0 || !self.attempts.is_empty() {
                    self.attempts.resize(before + index, 0);
                    self.attempts.push(attempt);
                }
            }
        }
        if needs.contains(Columns::KEY) {
            self.keys.extend(each().map(|record| record.key.as_deref().unwrap_or_default()));
            self.key_present.resize(self.len().div_ceil(8), 0);
            for (index, record) in each().enumerate() {
                let index = before + index;
                self.key_present[index / 8] |= u8::from(record.key.is_some()) << (index % 8);
            }
        }
        if needs.contains(Columns::TAG) {
            self.tags.extend(each().map(|record| &*record.tag));
        }
        if needs.contains(Columns::VALUE) {
            self.values.extend(each().map(|record| &*record.value));
        }
        if needs.contains(Columns::HEADERS) {
            self.headers.extend(each().map(|record| &*record.headers));
        }
        taken
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The batch's own time: the newest `stored_at`.
    pub(crate) fn time(&self) -> u64 {
        self.time
    }

    /// The newest event time.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// What the plugin's randomness starts from, the same on every replay.
    pub(crate) fn seed(&self) -> u64 {
        self.first ^ (u64::from(self.queue) << 40)
    }

    pub(crate) fn as_wit(&self) -> wit::Batch<'_> {
        let asked = |column| self.needs.contains(column);
        wit::Batch {
            count: self.count,
            queue: self.queue,
            offsets: asked(Columns::OFFSET).then_some(&self.offsets),
            born_at: asked(Columns::BORN_AT).then_some(&self.born_at),
            stored_at: asked(Columns::STORED_AT).then_some(&self.stored_at),
            attempts: (!self.attempts.is_empty()).then_some(&self.attempts),
            keys: asked(Columns::KEY).then(|| self.keys.as_wit()),
            key_present: asked(Columns::KEY).then_some(&self.key_present),
            tags: asked(Columns::TAG).then(|| self.tags.as_wit()),
            values: asked(Columns::VALUE).then(|| self.values.as_wit()),
            headers: asked(Columns::HEADERS).then(|| self.headers.as_wit()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(i: usize) -> Record {
        let key = (!i.is_multiple_of(3)).then(|| format!("key {i}").into());
        let (tag, value) = (format!("t{i}").into(), "v".repeat(i).into());
        Record { offset: i as u64, key, tag, value, stored_at: 9 - i as u64, ..Record::default() }
    }

    #[test]
    fn what_is_added_in_parts_is_as_if_it_were_added_at_once() {
        let records: Vec<(Record, u16)> = (0..10).map(|i| (record(i), u16::from(i == 4))).collect();
        let each = || records.iter().map(|(record, attempt)| (record, *attempt));
        let [mut whole, mut parts] = [(); 2].map(|()| Batch::new(Columns::all() ^ Columns::TAG, 7));
        assert_eq!(whole.extend(each()), 10);
        assert!(each().take(3).all(|(record, attempt)| parts.push(record, attempt)));
        assert_eq!(parts.extend(each().skip(3)), 7);
        for batch in [&whole, &parts] {
            assert_eq!((batch.len(), batch.time(), batch.seed()), (10, 9, 7 << 40));
            let wit = batch.as_wit();
            let keys = wit.keys.unwrap();
            assert_eq!((&keys.data[..10], &keys.ends[..4]), (&b"key 1key 2"[..], &[0, 5, 10, 10][..]));
            assert_eq!(wit.key_present, Some(&[0b1011_0110, 0b01][..]));
            assert_eq!(wit.attempts, Some(&[0, 0, 0, 0, 1, 0, 0, 0, 0, 0][..]));
            assert_eq!(wit.values.unwrap().ends, [0, 1, 3, 6, 10, 15, 21, 28, 36, 45]);
            assert_eq!(wit.stored_at, Some(&[9, 8, 7, 6, 5, 4, 3, 2, 1, 0][..]));
            assert!(wit.tags.is_none(), "the tags were not asked for");
        }
    }

    #[test]
    fn a_full_batch_takes_no_more() {
        let large = Record { value: vec![0; Batch::MAX_BYTES / 2].into(), ..Record::default() };
        let mut batch = Batch::new(Columns::VALUE, 0);
        assert_eq!(batch.extend(std::iter::repeat_n((&large, 0), 3)), 2);
        assert!(!batch.push(&record(1), 0));
        let wit = batch.as_wit();
        assert!(wit.offsets.is_none() && wit.born_at.is_none() && wit.stored_at.is_none() && wit.attempts.is_none());
        assert!(wit.keys.is_none() && wit.key_present.is_none() && wit.tags.is_none() && wit.headers.is_none());
        let mut batch = Batch::new(Columns::KEY, 0);
        let most = Batch::MAX_RECORDS as usize;
        assert_eq!(
            batch.extend(std::iter::repeat_n((&large, 0), most + 1)),
            most,
            "values do not count where they are not"
        );
    }
}
