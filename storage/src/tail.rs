//! The end of the log after a crash: what may be cut off, and how it is cut so that it never comes back.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    Disk, Error,
    segment::{LOG_DIR, Segment},
};

const CHUNK: usize = 1 << 20;
const PAGE: usize = 4096;

/// Whether any byte of a segment was written.
pub(crate) fn has_data(segment: &Segment) -> Result<bool, Error> {
    let mut found = false;
    each_page(segment, 0, |_, _| {
        found = true;
        Ok(())
    })?;
    Ok(found)
}

/// Overwrites with zeros whatever stands at or behind `position`, and makes that durable. What was there must not be
/// taken for records of the log when later records end just before it. Returns how many bytes were given up.
pub(crate) fn cut(segment: &Segment, position: u64) -> Result<u64, Error> {
    let zeros = [0; PAGE];
    let mut end = position;
    each_page(segment, position, |at, page| {
        end = at + page.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        segment.file.write_at(&zeros[..page.len()], at).map_err(|error| segment.failed("write", error))
    })?;
    segment.file.sync().map_err(|error| segment.failed("sync", error))?;
    Ok(end - position)
}

/// Writes `from..to` again as it stands and makes it durable.
///
/// After a failed sync, pages that never reached the disk count as clean, and a new process would read them from memory
/// and sync nothing. Written again, they do get there.
pub(crate) fn rewrite(segment: &Segment, from: u64, to: u64) -> Result<(), Error> {
    each_page(segment, from, |at, page| {
        let len = page.len().min(to.saturating_sub(at) as usize);
        if len == 0 {
            return Ok(());
        }
        segment.file.write_at(&page[..len], at).map_err(|error| segment.failed("write", error))
    })?;
    segment.file.sync().map_err(|error| segment.failed("sync", error))
}

/// Removes the segments behind the first `keep`, which hold nothing.
pub(crate) fn drop_behind(disk: &dyn Disk, segments: &mut VecDeque<Arc<Segment>>, keep: usize) -> Result<(), Error> {
    while segments.len() > keep {
        let Some(segment) = segments.pop_back() else { return Ok(()) };
        disk.remove(&segment.path).map_err(|error| segment.failed("remove", error))?;
    }
    disk.sync_dir(LOG_DIR).map_err(|error| Error::io("sync", LOG_DIR, error))
}

/// Calls `each` with every page from `from` on that is not all zeros, and its position.
fn each_page(segment: &Segment, from: u64, mut each: impl FnMut(u64, &[u8]) -> Result<(), Error>) -> Result<(), Error> {
    let mut bytes = vec![0; CHUNK];
    let mut at = from;
    while at < segment.len {
        match segment.file.next_data(at).map_err(|error| segment.failed("read", error))? {
            Some(next) => at = next,
            None => return Ok(()),
        }
        // Chunks end at page boundaries, so that only the first page may be part of one.
        let end = (at / PAGE as u64 * PAGE as u64 + CHUNK as u64).min(segment.len);
        let chunk = &mut bytes[..(end - at) as usize];
        segment.file.read_at(chunk, at).map_err(|error| segment.failed("read", error))?;
        let mut rest = &*chunk;
        while !rest.is_empty() {
            let page_len = (PAGE - at as usize % PAGE).min(rest.len());
            let (page, behind) = rest.split_at(page_len);
            if page.iter().any(|byte| *byte != 0) {
                each(at, page)?;
            }
            at += page_len as u64;
            rest = behind;
        }
    }
    Ok(())
}
