//! Everything that a plugin returns is checked here before it is used.

use std::str;

use bytes::Bytes;

use crate::batch::Record;
use crate::bindings::Action;
use crate::bindings::sluice::plugin::types as wit;
use crate::error::Failure;
use crate::limits::Limits;

/// Longest property bytes of a record: RocketMQ stores their length in 16 bits, signed.
const MAX_HEADERS: usize = 32_767;

/// One record that the plugin failed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFailure {
    /// Index in the batch.
    pub index: usize,
    pub action: Action,
    pub code: String,
    pub reason: String,
}

/// A filter's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    keep: Vec<u8>,
    pub failed: Vec<RecordFailure>,
}

impl Verdict {
    /// Whether the record with this index is kept.
    #[must_use]
    pub fn keeps(&self, index: usize) -> bool {
        self.keep.is_empty() || self.keep[index / 8] & (1 << (index % 8)) != 0
    }
}

/// A transformer's answer: which input each output came from, where it goes, and what changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub produced: Vec<Produced>,
    pub failed: Vec<RecordFailure>,
}

/// One output record. `None` means that the input's own is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Produced {
    /// Index in the batch.
    pub origin: usize,
    /// Index of the output.
    pub target: usize,
    pub key: Option<Bytes>,
    pub tag: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Option<Bytes>,
}

impl Produced {
    /// The output record, which shares what was not changed with its input.
    #[must_use]
    pub fn applied_to(self, input: &Record) -> Record {
        let Produced { origin: _, target: _, key, tag, value, headers } = self;
        // Field by field: to share what is replaced at once would cost as much as the rest.
        let plain = value.is_some();
        Record {
            offset: input.offset,
            key: key.map_or_else(|| input.key.clone(), |key| (!key.is_empty()).then_some(key)),
            tag: tag.unwrap_or_else(|| input.tag.clone()),
            headers: headers.unwrap_or_else(|| input.headers.clone()),
            value: value.unwrap_or_else(|| input.value.clone()),
            packed: if plain { 0 } else { input.packed },
            born_at: input.born_at,
            stored_at: input.stored_at,
            unreadable: input.unreadable.clone(),
        }
    }
}

pub(crate) fn check_verdict(raw: wit::Verdict, count: usize) -> Result<Verdict, String> {
    let wit::Verdict { keep, failed } = raw;
    let expected = count.div_ceil(8);
    if !keep.is_empty() && keep.len() != expected {
        return Err(format!("keep: expected {expected} bytes for {count} records (or none), got {}", keep.len()));
    }
    Ok(Verdict { keep, failed: check_failed(failed, count)? })
}

pub(crate) fn check_output(raw: wit::Output, count: usize, outputs: usize, limits: &Limits) -> Result<Output, Failure> {
    let size = bytes_of(&raw);
    if size > limits.output {
        return Err(Failure::TooMuch { limit: limits.output });
    }
    produced(raw, count, outputs, limits).map_err(|why| Failure::Nonsense(short(why, 1024)))
}

fn bytes_of(raw: &wit::Output) -> u64 {
    let columns = [&raw.keys, &raw.tags, &raw.values, &raw.headers];
    columns.into_iter().flatten().map(|patch| patch.items.data.len() as u64).sum()
}

fn produced(raw: wit::Output, count: usize, outputs: usize, limits: &Limits) -> Result<Output, String> {
    let wit::Output { origin, target, keys, tags, values, headers, failed } = raw;
    let n = origin.len();
    let most = count.saturating_mul(limits.fan_out as usize);
    if n > most {
        return Err(format!("{n} outputs from {count} records, but the limit is {} for each", limits.fan_out));
    }
    same_length("target", target.len(), n)?;
    let mut keys = Items::check("keys", keys, n)?;
    let mut tags = Items::check("tags", tags, n)?;
    let mut values = Items::check("values", values, n)?;
    let mut headers = Items::check("headers", headers, n)?;
    let mut last = 0;
    let mut produced = Vec::with_capacity(n);
    for (i, origin) in origin.into_iter().enumerate() {
        let origin = origin as usize;
        if origin >= count {
            return Err(format!("origin[{i}] is {origin}, but the batch has {count} records"));
        }
        if origin < last {
            return Err(format!("origin[{i}] is {origin} after {last}; outputs must keep the order of their inputs"));
        }
        last = origin;
        let target = usize::from(target.get(i).copied().unwrap_or(0));
        if target >= outputs {
            return Err(format!("target[{i}] is {target}, but there are {outputs} outputs"));
        }
        let item = Produced {
            origin,
            target,
            key: keys.next(),
            tag: tags.next(),
            value: values.next(),
            headers: headers.next(),
        };
        check_texts(&item).map_err(|e| format!("output {i}: {e}"))?;
        produced.push(item);
    }
    Ok(Output { produced, failed: check_failed(failed, count)? })
}

fn same_length(name: &str, got: usize, n: usize) -> Result<(), String> {
    if got == 0 || got == n { Ok(()) } else { Err(format!("{name}: expected {n} items (or none), got {got}")) }
}

/// A patch cut into its items without copying.
struct Items {
    data: Bytes,
    changed: Vec<u8>,
    ends: Vec<u32>,
    index: usize,
}

impl Items {
    fn check(name: &str, patch: Option<wit::Patch>, n: usize) -> Result<Items, String> {
        let Some(wit::Patch { changed, items: wit::ColumnResult { data, ends } }) = patch else {
            return Ok(Items { data: Bytes::new(), changed: Vec::new(), ends: Vec::new(), index: 0 });
        };
        if ends.len() != n {
            return Err(format!("{name}: expected {n} ends, got {}", ends.len()));
        }
        if !changed.is_empty() && changed.len() != n.div_ceil(8) {
            return Err(format!(
                "{name}: expected {} bytes of `changed` (or none), got {}",
                n.div_ceil(8),
                changed.len()
            ));
        }
        let mut last = 0;
        for (i, end) in ends.iter().enumerate() {
            if *end < last || *end as usize > data.len() {
                return Err(format!("{name}: end {i} is {end}, after {last} and with {} bytes of data", data.len()));
            }
            if *end > last && !is_changed(&changed, i) {
                return Err(format!("{name}: item {i} has {} bytes, but is not changed", *end - last));
            }
            last = *end;
        }
        if last as usize != data.len() {
            return Err(format!("{name}: the last end is {last}, but there are {} bytes of data", data.len()));
        }
        Ok(Items { data: data.into(), changed, ends, index: 0 })
    }

    /// `None` if the next output keeps what its input has.
    fn next(&mut self) -> Option<Bytes> {
        let index = self.index;
        let end = *self.ends.get(index)? as usize;
        self.index += 1;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        is_changed(&self.changed, index).then(|| self.data.slice(start..end))
    }
}

/// No bits at all mean that every item is.
fn is_changed(bits: &[u8], index: usize) -> bool {
    bits.is_empty() || bits[index / 8] & (1 << (index % 8)) != 0
}

fn check_texts(item: &Produced) -> Result<(), String> {
    for (name, text) in [("key", &item.key), ("tag", &item.tag)] {
        if let Some(text) = text {
            let text = str::from_utf8(text).map_err(|_| format!("the {name} is not UTF-8"))?;
            if text.contains(['\u{1}', '\u{2}']) {
                return Err(format!("the {name} holds a byte 1 or 2, which separate properties"));
            }
        }
    }
    let Some(headers) = &item.headers else { return Ok(()) };
    if headers.len() > MAX_HEADERS {
        return Err(format!("the headers have {} bytes, but at most {MAX_HEADERS} can be stored", headers.len()));
    }
    let headers = str::from_utf8(headers).map_err(|_| "the headers are not UTF-8")?;
    for pair in headers.split('\u{2}').filter(|pair| !pair.is_empty()) {
        match pair.split_once('\u{1}') {
            Some((name, value)) if !name.is_empty() && !value.contains('\u{1}') => {}
            _ => {
                return Err(format!(
                    "the headers hold {:?}, which is no name, byte 1, value",
                    short(pair.to_owned(), 64)
                ));
            }
        }
    }
    Ok(())
}

fn check_failed(failed: Vec<wit::Failure>, count: usize) -> Result<Vec<RecordFailure>, String> {
    if failed.len() > count {
        return Err(format!("failed: {} failures for {count} records", failed.len()));
    }
    let mut seen = vec![false; if failed.is_empty() { 0 } else { count }];
    let mut checked = Vec::with_capacity(failed.len());
    for wit::Failure { index, action, code, reason } in failed {
        let index = index as usize;
        match seen.get_mut(index) {
            None => return Err(format!("failed: record {index}, but the batch has {count} records")),
            Some(true) => return Err(format!("failed: record {index} is named twice")),
            Some(seen) => *seen = true,
        }
        checked.push(RecordFailure { index, action, code: short(code, 64), reason: short(reason, 1024) });
    }
    Ok(checked)
}

/// At most `max` bytes of the text.
pub(crate) fn short(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(origin: Vec<u32>) -> wit::Output {
        let none = || None;
        wit::Output {
            origin,
            target: vec![],
            keys: none(),
            tags: none(),
            values: none(),
            headers: none(),
            failed: vec![],
        }
    }

    fn error(raw: wit::Output) -> String {
        produced(raw, 3, 2, &Limits::default()).unwrap_err()
    }

    #[test]
    fn lying_answers_are_named() {
        assert_eq!(error(raw(vec![3])), "origin[0] is 3, but the batch has 3 records");
        assert_eq!(error(raw(vec![1, 0])), "origin[1] is 0 after 1; outputs must keep the order of their inputs");
        assert_eq!(error(wit::Output { target: vec![2], ..raw(vec![0]) }), "target[0] is 2, but there are 2 outputs");
        assert_eq!(
            error(wit::Output { target: vec![1], ..raw(vec![0, 1]) }),
            "target: expected 2 items (or none), got 1"
        );
        let column = |data: &[u8], ends: &[u32]| {
            Some(wit::Patch { changed: vec![], items: wit::ColumnResult { data: data.to_vec(), ends: ends.to_vec() } })
        };
        let values = |data: &[u8], ends: &[u32]| error(wit::Output { values: column(data, ends), ..raw(vec![0, 1]) });
        assert_eq!(values(b"ab", &[2]), "values: expected 2 ends, got 1");
        assert_eq!(values(b"ab", &[2, 1]), "values: end 1 is 1, after 2 and with 2 bytes of data");
        assert_eq!(values(b"ab", &[1, 9]), "values: end 1 is 9, after 1 and with 2 bytes of data");
        assert_eq!(values(b"abc", &[1, 2]), "values: the last end is 2, but there are 3 bytes of data");
        let unchanged = column(b"ab", &[1, 2]).map(|patch| wit::Patch { changed: vec![0b01], ..patch });
        assert_eq!(
            error(wit::Output { values: unchanged, ..raw(vec![0, 1]) }),
            "values: item 1 has 1 bytes, but is not changed"
        );
        let headers = |text: &[u8]| {
            error(wit::Output { headers: column(text, &[u32::try_from(text.len()).unwrap()]), ..raw(vec![0]) })
        };
        assert_eq!(headers(b"a"), "output 0: the headers hold \"a\", which is no name, byte 1, value");
        assert_eq!(headers(b"\xff"), "output 0: the headers are not UTF-8");
        let failure = |index| wit::Failure { index, action: Action::Skip, code: String::new(), reason: String::new() };
        assert_eq!(
            error(wit::Output { failed: vec![failure(7)], ..raw(vec![]) }),
            "failed: record 7, but the batch has 3 records"
        );
        assert_eq!(
            error(wit::Output { failed: vec![failure(1), failure(1)], ..raw(vec![]) }),
            "failed: record 1 is named twice"
        );
    }

    #[test]
    fn a_verdict_has_one_bit_for_each_record() {
        let verdict = |keep: Vec<u8>, count| check_verdict(wit::Verdict { keep, failed: vec![] }, count);
        assert_eq!(verdict(vec![1], 9).unwrap_err(), "keep: expected 2 bytes for 9 records (or none), got 1");
        let kept = verdict(vec![0b0000_0010, 1], 9).unwrap();
        assert_eq!((0..9).filter(|i| kept.keeps(*i)).collect::<Vec<_>>(), [1, 8]);
        assert!(verdict(vec![], 9).unwrap().keeps(8));
    }

    #[test]
    fn what_was_not_changed_is_the_inputs_own() {
        let input = Record { offset: 7, key: Some("k".into()), value: "v".into(), packed: 3, ..Record::default() };
        let changed = Produced { key: Some(Bytes::new()), tag: Some("t".into()), ..Produced::default() };
        let expected = Record { key: None, tag: "t".into(), ..input.clone() };
        assert_eq!(changed.applied_to(&input), expected);
        let plain = Produced { value: Some("w".into()), ..Produced::default() };
        assert_eq!(plain.applied_to(&input), Record { value: "w".into(), packed: 0, ..input });
    }
}
