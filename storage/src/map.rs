#![allow(unsafe_code, reason = "mapping a file into memory is the one thing that cannot be said safely")]

use std::{
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions, UncheckedAdvice};

/// Bytes handed out after which the pages behind them are given back: they stay in the system's cache, but no longer
/// count as this process's memory.
const RELEASE_BYTES: usize = 16 * 1024 * 1024;

/// A file in memory, read-only, for as long as any slice of it lives.
pub(crate) struct Map {
    map: Arc<Mmap>,
    whole: Bytes,
    handed_out: AtomicUsize,
}

struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Map {
    /// Maps the first `len` bytes of `file`, which is at least as long; files of this crate are never shortened while
    /// they are open.
    pub fn new(file: &File, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        // SAFETY: the mapping is read-only; its file lies in a directory that this process holds an exclusive lock on,
        // is never shortened while open (so no page of the mapping loses its backing), and the log hands out slices
        // only of bytes below its watermarks, which nobody writes any more.
        let map = Arc::new(unsafe { MmapOptions::new().len(len).map(file)? });
        let whole = Bytes::from_owner(Owner(map.clone()));
        Ok(Self { map, whole, handed_out: AtomicUsize::new(0) })
    }

    /// Part of the file without a copy; `None` when it does not have that part.
    pub fn slice(&self, from: usize, len: usize) -> Option<Bytes> {
        let end = from.checked_add(len).filter(|end| *end <= self.whole.len())?;
        if self.handed_out.fetch_add(len, Ordering::Relaxed) > RELEASE_BYTES {
            self.handed_out.store(0, Ordering::Relaxed);
            self.release();
        }
        Some(self.whole.slice(from..end))
    }

    fn release(&self) {
        // SAFETY: the mapping is of a file and shared, so a page that is given back reads the same again from the file;
        // slices that are still out stay valid.
        let released = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
        // Advice that is not taken costs memory and nothing else.
        drop(released);
    }
}
