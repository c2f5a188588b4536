#![allow(unsafe_code, reason = "mapping a file into memory is the one thing that cannot be said safely")]

use std::{fs::File, io};

use bytes::Bytes;
use memmap2::MmapOptions;

/// Maps the first `len` bytes of `file`, read-only, for as long as any slice of the result lives.
///
/// `len` is at most the file's length, and files of this crate are never shortened while they are open.
pub(crate) fn map(file: &File, len: u64) -> io::Result<Bytes> {
    let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    if len == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is read-only and private to this process; its file lies in a directory that this process
    // holds an exclusive lock on, is never shortened while open (so no page of the mapping loses its backing), and the
    // log hands out slices only of bytes below its watermarks, which nobody writes any more.
    let map = unsafe { MmapOptions::new().len(len).map(file)? };
    Ok(Bytes::from_owner(map))
}
