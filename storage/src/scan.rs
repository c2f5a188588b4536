//! Reading a segment from its beginning, with every check there is.

use sluice_model::{
    RecordView, key,
    record::{self, Peek},
};

use crate::{Error, segment::Segment};

/// `__CRC32#`, a separator, ten digits, a separator.
const SUM_LEN: usize = key::RECORD_CRC.len() + 12;

/// How the records of a segment end.
pub(crate) enum End {
    /// Its filler, or its last byte.
    Whole,
    /// No further whole unit; `position` is within the segment.
    Broken { position: u64, what: String },
}

/// Calls `unit` with the records of each whole and sound unit of a segment, in order.
pub(crate) fn scan<'f>(
    segment: &Segment,
    unit: &mut (dyn FnMut(&[RecordView<'_>]) -> Result<(), Error> + 'f),
) -> Result<End, Error> {
    let bytes = segment.file.slice(0, segment.len as usize).map_err(|error| segment.failed("read", error))?;
    let (mut at, mut unit_at) = (0, 0);
    let mut records: Vec<RecordView<'_>> = Vec::new();
    let mut summed = false;
    let broken = |position: usize, what: String| Ok(End::Broken { position: position as u64, what });
    loop {
        let rest = &bytes[at..];
        if rest.is_empty() && records.is_empty() {
            return Ok(End::Whole);
        }
        match record::peek(rest) {
            Peek::Blank { size } if size == rest.len() && records.is_empty() => return Ok(End::Whole),
            Peek::Record { .. } => {}
            Peek::Nothing if records.is_empty() => return broken(at, "nothing was written here".to_owned()),
            _ => return broken(unit_at, "no record begins where one must".to_owned()),
        }
        let record = match sound(rest, segment.base + at as u64, summed) {
            Ok(record) => record,
            Err(what) => return broken(unit_at, what),
        };
        summed |= is_summed(&record);
        let place = record.unit().filter(|place| {
            let count = records.first().and_then(|first| first.unit()).map_or(place.count, |first| first.count);
            usize::from(place.index) == records.len() && place.count == count
        });
        let Some(place) = place else { return broken(unit_at, "a unit of records is not whole".to_owned()) };
        at += record.bytes().len();
        records.push(record);
        if place.is_last() {
            unit(&records)?;
            records.clear();
            unit_at = at;
        }
    }
}

/// The record at the front of `bytes`, if it is whole, sound and belongs to log offset `at`.
fn sound(bytes: &[u8], at: u64, summed: bool) -> Result<RecordView<'_>, String> {
    let record = RecordView::parse(bytes).map_err(|error| error.to_string())?;
    record.verify().map_err(|error| error.to_string())?;
    if record.log_offset().0 != at {
        return Err(format!("the record here says that it belongs to offset {}", record.log_offset()));
    }
    // Apache's records may have a checksum of their body only; ours never. One of ours whose end was not written, and
    // the checksum with it, must not pass for one of Apache's: it has zeros there, or comes behind others of ours.
    if !is_summed(&record) && (summed || record.properties().contains('\0')) {
        return Err("the record here has no checksum".to_owned());
    }
    Ok(record)
}

/// Whether a record ends with the checksum of all of it.
fn is_summed(record: &RecordView<'_>) -> bool {
    let properties = record.properties().as_bytes();
    let sum = properties.len().checked_sub(SUM_LEN).map(|at| &properties[at..]);
    let digits =
        sum.and_then(|sum| sum.strip_prefix(key::RECORD_CRC.as_bytes())?.strip_prefix(&[1])?.strip_suffix(&[2]));
    digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_digit))
}
