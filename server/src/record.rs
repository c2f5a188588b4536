//! Messages as plugins see them.

use bytes::Bytes;
use sluice_model::{Compression, RecordView, SysFlag, Timestamp, key, limits};
use sluice_protocol::compress;
use sluice_runtime::{Columns, Record};

/// A stored message, which shares the record's bytes. Its body is as it was before it was compressed, when `needs` has it; else it stays packed.
///
/// Fails with the reason when the body cannot be decompressed.
pub fn of_stored(view: &RecordView<'_>, bytes: &Bytes, needs: Columns) -> std::result::Result<Record, String> {
    let part = |text: &str| bytes.slice_ref(text.as_bytes());
    Ok(Record {
        offset: view.queue_offset().0,
        key: view.property(key::KEYS).map(part),
        tag: view.property(key::TAGS).map(part).unwrap_or_default(),
        headers: bytes.slice(view.own_properties_range()),
        value: plain(&bytes.slice(view.body_range()), view.sys_flag(), needs)?,
        packed: if needs.contains(Columns::VALUE) { 0 } else { packed(view.sys_flag()) },
        born_at: unsigned(view.born_at()),
        stored_at: unsigned(view.stored_at()),
        unreadable: None,
    })
}

/// [`of_stored`] with every column; one whose body cannot be decompressed has it as it is stored, and says why.
pub fn readable_or_not(view: &RecordView<'_>, bytes: &Bytes) -> std::result::Result<Record, String> {
    of_stored(view, bytes, Columns::all()).or_else(|problem| {
        let stored = of_stored(view, bytes, Columns::empty())?;
        Ok(Record { unreadable: Some(problem.into()), packed: 0, ..stored })
    })
}

/// The body as it was before it was compressed, when a plugin reads it at all.
pub fn plain(body: &Bytes, flag: SysFlag, needs: Columns) -> std::result::Result<Bytes, String> {
    match flag.compression().filter(|_| needs.contains(Columns::VALUE)) {
        None => Ok(body.clone()),
        Some(compression) => compress::decompress(body, compression, limits::SYSTEM_BODY_LEN)
            .map(Bytes::from)
            .map_err(|error| format!("the body cannot be read: {error}")),
    }
}

/// How a body is compressed, as [`Record::packed`] has it.
fn packed(flag: SysFlag) -> u8 {
    match flag.compression() {
        None => 0,
        Some(Compression::Lz4) => 1,
        Some(Compression::Zstd) => 2,
        Some(Compression::Zlib) => 3,
    }
}

/// The flag of a message whose body is a record's value.
pub fn flag_of(record: &Record) -> SysFlag {
    let compression = match record.packed {
        1 => Compression::Lz4,
        2 => Compression::Zstd,
        3 => Compression::Zlib,
        _ => return SysFlag::default(),
    };
    SysFlag::default().with_compression(compression)
}

pub fn unsigned(time: Timestamp) -> u64 {
    u64::try_from(time.0).unwrap_or(0)
}
