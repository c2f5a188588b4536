//! The one way to the file system: two small traits, with a real and a fake side.

use std::{io, sync::Arc};

use bytes::Bytes;

/// A directory. Paths are relative to it, separated by `/`; `""` is the directory itself.
pub trait Disk: Send + Sync {
    /// Opens a file for reading and writing. Fails with `NotFound` when there is none.
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>>;
    /// Opens a file, makes it if need be, and extends it to `len` bytes (sparse) if it is shorter.
    fn create(&self, path: &str, len: u64) -> io::Result<Arc<dyn File>>;
    /// Names in a directory, in no order; none when there is no such directory.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Atomically gives a file another name; what had that name before is gone.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Fails with `NotFound` when there is none.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes a directory and those above it; nothing happens when it is there.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// Removes a directory with all in it; nothing happens when there is none.
    fn remove_dir_all(&self, path: &str) -> io::Result<()>;
    /// Makes creations, removals and renames in a directory durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Makes everything written to any file of this disk durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Bytes that may still be allocated.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file. All positions are bytes from its start.
pub trait File: Send + Sync {
    /// Writes all of `bytes`.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Fills all of `bytes`; fails with `UnexpectedEof` when the file is shorter.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;
    /// Reserves blocks, so that a later write there cannot run out of room. Content does not change.
    fn allocate(&self, from: u64, len: u64) -> io::Result<()>;
    /// Makes what was written to this file durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    /// The first position at or behind `from` that may hold something else than zero; `None` when all is zero.
    fn next_data(&self, from: u64) -> io::Result<Option<u64>>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Part of the file as shared bytes; without a copy on a real disk.
    ///
    /// The caller asks only for bytes that nobody writes any more.
    fn slice(&self, from: u64, len: usize) -> io::Result<Bytes>;
}
