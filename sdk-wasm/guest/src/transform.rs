use crate::failure::Failure;
use crate::record::Record;
use crate::wit::imports::types::{self, Column, Patch};

/// Takes the output records made from one input record. Sending none drops it.
pub struct Out<'a> {
    pub(crate) output: &'a mut Output,
    pub(crate) origin: u32,
}

/// One output record: what is not set is the input's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "an Emit does nothing until it is sent"]
pub struct Emit {
    key: Option<Vec<u8>>,
    tag: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Option<Vec<u8>>,
    target: u16,
}

impl Emit {
    /// The input record as it is.
    pub fn same() -> Emit {
        Emit::default()
    }

    pub fn value(mut self, value: impl Into<Vec<u8>>) -> Emit {
        self.value = Some(value.into());
        self
    }

    /// An empty key means that the record has none.
    pub fn key(mut self, key: &str) -> Emit {
        self.key = Some(key.into());
        self
    }

    pub fn tag(mut self, tag: &str) -> Emit {
        self.tag = Some(tag.into());
        self
    }

    /// Replaces all properties. Names and values must not hold the characters 1 and 2.
    pub fn headers<'b>(mut self, headers: impl IntoIterator<Item = (&'b str, &'b str)>) -> Emit {
        let mut raw = Vec::new();
        for (name, value) in headers {
            raw.extend_from_slice(name.as_bytes());
            raw.push(1);
            raw.extend_from_slice(value.as_bytes());
            raw.push(2);
        }
        self.headers = Some(raw);
        self
    }

    /// What is not set becomes empty instead of the input's own, but for the key.
    pub(crate) fn over_nothing(self, key: &[u8]) -> Emit {
        Emit {
            key: self.key.or_else(|| Some(str::from_utf8(key).unwrap_or_default().into())),
            tag: self.tag.or_else(|| Some(Vec::new())),
            value: self.value.or_else(|| Some(Vec::new())),
            headers: self.headers.or_else(|| Some(Vec::new())),
            target: self.target,
        }
    }

    /// Send to the output with this index instead of output 0.
    pub fn to(mut self, output: u16) -> Emit {
        self.target = output;
        self
    }
}

impl Out<'_> {
    /// Passes the input record on as it is.
    pub fn pass(&mut self) {
        self.send(Emit::same());
    }

    /// Passes the input record on, as it is, to the output with this index.
    pub fn pass_to(&mut self, output: u16) {
        self.send(Emit::same().to(output));
    }

    pub fn send(&mut self, emit: Emit) {
        self.output.push(self.origin, emit);
    }
}

/// What a transform function may return.
pub trait IntoDone {
    /// # Errors
    /// The record failed; what it sent is dropped.
    fn into_done(self) -> Result<(), Failure>;
}

impl IntoDone for () {
    fn into_done(self) -> Result<(), Failure> {
        Ok(())
    }
}

impl IntoDone for Result<(), Failure> {
    fn into_done(self) -> Result<(), Failure> {
        self
    }
}

/// The output of a batch as it grows. A column costs nothing until the first record changes it.
#[derive(Default)]
pub(crate) struct Output {
    origin: Vec<u32>,
    target: Vec<u16>,
    keys: Grown,
    tags: Grown,
    values: Grown,
    headers: Grown,
}

#[derive(Default)]
struct Grown {
    changed: Vec<u8>,
    data: Vec<u8>,
    ends: Vec<u32>,
    /// How much room the first change makes, in bytes and items.
    room: (usize, usize),
}

impl Grown {
    fn set(&mut self, index: usize, item: Option<&[u8]>) {
        let Some(item) = item else { return };
        if self.changed.is_empty() {
            let (bytes, items) = self.room;
            self.data.reserve(bytes);
            self.ends.reserve(items);
            self.changed.reserve(items.div_ceil(8));
        }
        self.pad(index);
        self.changed.resize(index / 8 + 1, 0);
        self.changed[index / 8] |= 1 << (index % 8);
        self.data.extend_from_slice(item);
        self.ends.push(self.end());
    }

    /// Empty items for the outputs before `index` that changed nothing.
    fn pad(&mut self, index: usize) {
        let end = self.end();
        self.ends.resize(index, end);
    }

    fn end(&self) -> u32 {
        // A guest's whole memory is smaller than 4 GiB.
        u32::try_from(self.data.len()).unwrap_or(u32::MAX)
    }

    fn cut(&mut self, len: usize) {
        if self.ends.len() > len {
            self.ends.truncate(len);
            let end = self.ends.last().copied().unwrap_or(0);
            self.data.truncate(end as usize);
            self.changed.truncate(len.div_ceil(8));
            if let Some(last) = self.changed.last_mut().filter(|_| !len.is_multiple_of(8)) {
                *last &= (1 << (len % 8)) - 1;
            }
        }
    }

    fn finish(mut self, len: usize) -> Option<Patch> {
        if self.changed.is_empty() {
            return None;
        }
        self.pad(len);
        self.changed.resize(len.div_ceil(8), 0);
        Some(Patch { changed: self.changed, items: Column { data: self.data, ends: self.ends } })
    }
}

impl Output {
    /// With room for as many records, and as many bytes of values, as the batch has.
    pub(crate) fn for_batch(batch: &types::Batch) -> Output {
        let records = batch.count as usize;
        let bytes = batch.values.as_ref().map_or(0, |values| values.data.len());
        let grown = |bytes| Grown { room: (bytes, records), ..Grown::default() };
        Output {
            origin: Vec::with_capacity(records),
            target: Vec::with_capacity(records),
            keys: grown(0),
            tags: grown(0),
            values: grown(bytes),
            headers: grown(0),
        }
    }

    pub(crate) fn push(&mut self, origin: u32, emit: Emit) {
        let index = self.origin.len();
        let Emit { key, tag, value, headers, target } = emit;
        self.origin.push(origin);
        self.target.push(target);
        self.keys.set(index, key.as_deref());
        self.tags.set(index, tag.as_deref());
        self.values.set(index, value.as_deref());
        self.headers.set(index, headers.as_deref());
    }

    pub(crate) fn len(&self) -> usize {
        self.origin.len()
    }

    /// Takes back everything after the first `len` records.
    pub(crate) fn cut(&mut self, len: usize) {
        self.origin.truncate(len);
        self.target.truncate(len);
        for column in [&mut self.keys, &mut self.tags, &mut self.values, &mut self.headers] {
            column.cut(len);
        }
    }

    pub(crate) fn finish(self, failed: Vec<types::Failure>) -> types::Output {
        let n = self.len();
        types::Output {
            origin: self.origin,
            target: if self.target.iter().all(|t| *t == 0) { Vec::new() } else { self.target },
            keys: self.keys.finish(n),
            tags: self.tags.finish(n),
            values: self.values.finish(n),
            headers: self.headers.finish(n),
            failed,
        }
    }
}

/// Runs the function over each record; what a failing one sent is taken back.
pub(crate) fn each(
    batch: &types::Batch,
    mut one: impl FnMut(Record<'_>, &mut Out<'_>) -> Result<(), Failure>,
) -> types::Output {
    let mut output = Output::for_batch(batch);
    let mut failed = Vec::new();
    for index in 0..batch.count {
        let before = output.len();
        let record = Record { batch, index: index as usize };
        if let Err(Failure { action, code, reason }) = one(record, &mut Out { output: &mut output, origin: index }) {
            output.cut(before);
            failed.push(types::Failure { index, action, code, reason });
        }
    }
    output.finish(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::empty_batch;

    #[test]
    fn only_what_changed_is_carried_and_a_failed_record_leaves_nothing() {
        let batch = types::Batch { count: 4, ..empty_batch() };
        let output = each(&batch, |r, out| {
            match r.index {
                0 => out.pass(),
                1 => {
                    out.send(Emit::same().value("lost").key("lost"));
                    return Err(Failure::skip("no", "way"));
                }
                2 => out.send(Emit::same().value("new").to(1)),
                _ => out.pass(),
            }
            Ok(())
        });
        assert_eq!(output.origin, [0, 2, 3]);
        assert_eq!(output.target, [0, 1, 0]);
        assert_eq!(output.failed.len(), 1);
        let values = output.values.unwrap();
        assert_eq!(
            (values.changed, values.items.data, values.items.ends),
            (vec![0b10], b"new".to_vec(), vec![0, 3, 3])
        );
        let keys = output.keys.map(|keys| (keys.changed, keys.items.data));
        assert!(keys.is_none_or(|(changed, data)| changed == [0] && data.is_empty()));
        assert!(output.headers.is_none());
    }
}
