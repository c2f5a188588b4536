//! The messages in the body of a pull: stored records, one behind the other.

use sluice_model::{RecordView, limits};

use crate::FieldError;

/// Most records that are read from one answer.
const RECORDS: usize = 1 << 16;

/// The records of `body`. Fails with the field `body` when what stands there is no record.
pub fn decode(body: &[u8]) -> Result<Vec<RecordView<'_>>, FieldError> {
    let mut records = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let record = RecordView::parse(rest).map_err(|problem| FieldError::new("body", problem.to_string()))?;
        rest = &rest[record.bytes().len()..];
        records.push(record);
        if records.len() > RECORDS {
            return Err(FieldError::new("body", format!("expected at most {RECORDS} records")));
        }
    }
    Ok(records)
}

/// A message's body as its sender gave it: decompressed if the system flag says so.
///
/// Fails with the field `body` when it is damaged or larger than a message may be.
pub fn plain_body(record: &RecordView<'_>) -> Result<Vec<u8>, FieldError> {
    match record.sys_flag().compression() {
        None => Ok(record.body().to_vec()),
        Some(compression) => crate::compress::decompress(record.body(), compression, limits::SYSTEM_BODY_LEN),
    }
}
