use bytes::Bytes;

use crate::bindings::Columns;
use crate::bindings::sluice::plugin::types as wit;

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
    /// Producer's time, milliseconds since 1970.
    pub born_at: u64,
    /// Broker's time, milliseconds since 1970.
    pub stored_at: u64,
}

impl Record {
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
        (self.count, self.bytes, self.time, self.first) = (0, 0, 0, 0);
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
        let (mut taken, mut bytes, mut time) = (0_u32, self.bytes, self.time);
        for (record, _) in records.clone().take(room) {
            let size = record.size_of(needs);
            if bytes + size > Batch::MAX_BYTES {
                break;
            }
            (taken, bytes, time) = (taken + 1, bytes + size, time.max(record.stored_at));
        }
        let before = self.len();
        if before == 0 {
            self.first = records.clone().next().map_or(0, |(record, _)| record.offset);
        }
        self.count += taken;
        (self.bytes, self.time) = (bytes, time);
        let taken = taken as usize;
        // Column by column: each loop does one thing, so that its misses of the cache overlap.
        let records = records.take(taken);
        let each = || records.clone().map(|(record, _)| record);
        if needs.contains(Columns::OFFSET) {
            self.offsets.extend(each().map(|record| record.offset));
        }
        if needs.contains(Columns::BORN_AT) {
            self.born_at.extend(each().map(|record| record.born_at));
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

    /// What the plugin's randomness starts from, the same on every replay.
    pub(crate) fn seed(&self) -> u64 {
        self.first ^ (u64::from(self.queue) << 40)
    }

    pub(crate) fn as_wit(&self) -> wit::Batch<'_> {
        wit::Batch {
            count: self.count,
            queue: self.queue,
            offsets: &self.offsets,
            born_at: &self.born_at,
            stored_at: &self.stored_at,
            attempts: &self.attempts,
            keys: self.keys.as_wit(),
            key_present: &self.key_present,
            tags: self.tags.as_wit(),
            values: self.values.as_wit(),
            headers: self.headers.as_wit(),
        }
    }
}
