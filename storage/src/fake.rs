//! A disk in memory that behaves as badly as a real one may: what was not synced can vanish or tear at a crash, room
//! runs out, and calls fail when told to.

mod state;

use std::{io, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{Disk, File};
use state::{Change, Inode, Node, SECTOR, State, dead, eio, name, parent};

/// What becomes of everything that was not synced when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It happens to be on the disk.
    Kept,
    /// It is gone.
    Dropped,
    /// Each sector and each directory entry is there or not, as the seed has it.
    Torn,
}

/// A disk in memory. Clones are handles of the same disk.
#[derive(Clone, Default)]
pub struct FakeDisk(Arc<Mutex<State>>);

impl FakeDisk {
    pub fn new() -> Self {
        Self::default()
    }

    /// How many calls have changed or synced anything so far.
    pub fn mutating_calls(&self) -> u64 {
        self.0.lock().calls
    }

    /// The process dies at the `call`-th mutating call from now (1 is the next one): a write may still take effect, and
    /// every call from then on fails.
    pub fn crash_at(&self, call: u64) {
        let mut state = self.0.lock();
        state.crash_at = Some(state.calls + call);
    }

    /// Whether the call given to [`Self::crash_at`] has come.
    pub fn is_dead(&self) -> bool {
        self.0.lock().dead
    }

    /// Most bytes that may be allocated; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Bytes allocated now.
    pub fn used_bytes(&self) -> u64 {
        self.0.lock().used()
    }

    /// The next sync after `successes` good ones fails once with an I/O error. As on Linux, the pages count as clean
    /// afterwards although they never reached the disk: a later sync succeeds and keeps nothing of them.
    pub fn fail_sync_after(&self, successes: u64) {
        self.0.lock().failing_syncs = Some(successes);
    }

    /// Writes to files whose path begins with `prefix` fail with an I/O error; `None` ends that.
    pub fn fail_writes_to(&self, prefix: Option<&str>) {
        self.0.lock().failing_writes = prefix.map(str::to_owned);
    }

    /// The disk as the next process finds it after a power cut now. This one stays as it is.
    pub fn crash(&self, fate: Fate, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().crashed(fate, seed))))
    }

    /// The bytes of a file as a reader would see them; `None` when there is no such file.
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let Node::File(id) = state.nodes.get(path)? else { return None };
        let content = &state.files[id].now;
        let mut bytes = vec![0; content.len as usize];
        content.read(&mut bytes, 0);
        Some(bytes)
    }

    /// Changes bytes of a file behind everybody's back, durably. Fails when there is no such file.
    pub fn damage(&self, path: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        let id = state.file(path)?;
        let inode = state.files.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        inode.now.write(bytes, at, |_| {});
        inode.durable.write(bytes, at, |_| {});
        Ok(())
    }

    /// All paths of files, sorted.
    pub fn paths(&self) -> Vec<String> {
        let state = self.0.lock();
        state.nodes.iter().filter(|(_, node)| **node != Node::Dir).map(|(path, _)| path.clone()).collect()
    }

    fn handle(&self, id: u64, path: &str) -> Arc<dyn File> {
        Arc::new(FakeFile { disk: self.clone(), id, path: path.to_owned() })
    }
}

/// A file of a [`FakeDisk`].
struct FakeFile {
    disk: FakeDisk,
    id: u64,
    path: String,
}

impl Disk for FakeDisk {
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let state = self.0.lock();
        state.alive()?;
        Ok(self.handle(state.file(path)?, path))
    }

    fn create(&self, path: &str, len: u64) -> io::Result<Arc<dyn File>> {
        let mut state = self.0.lock();
        state.call_or_die()?;
        if !parent(path).is_empty() && state.nodes.get(parent(path)) != Some(&Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let id = match state.file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                state.last_inode += 1;
                let id = state.last_inode;
                state.files.insert(id, Inode::default());
                state.change(Change::Added(path.to_owned(), Node::File(id)));
                id
            }
            found => found?,
        };
        if let Some(inode) = state.files.get_mut(&id) {
            inode.now.len = inode.now.len.max(len);
        }
        Ok(self.handle(id, path))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        state.alive()?;
        Ok(state.nodes.keys().filter(|path| parent(path) == dir).map(|path| name(path).to_owned()).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.call_or_die()?;
        let id = state.file(from)?;
        state.change(Change::Renamed(from.to_owned(), to.to_owned(), Node::File(id)));
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.call_or_die()?;
        state.file(path)?;
        state.change(Change::Removed(path.to_owned()));
        Ok(())
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.call_or_die()?;
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for dir in ends.map(|end| &path[..end]) {
            if !state.nodes.contains_key(dir) {
                state.change(Change::Added(dir.to_owned(), Node::Dir));
            }
        }
        Ok(())
    }

    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.call_or_die()?;
        let below = format!("{path}/");
        let gone: Vec<String> =
            state.nodes.keys().filter(|at| *at == path || at.starts_with(&below)).rev().cloned().collect();
        for path in gone {
            state.change(Change::Removed(path));
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.call_or_die()?;
        if state.sync_fails() {
            return Err(eio());
        }
        state.sync_dir(dir);
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.call_or_die()?;
        if state.sync_fails() {
            return Err(eio());
        }
        state.durable_nodes = state.nodes.clone();
        state.changes.clear();
        state.files.values_mut().for_each(Inode::sync);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.0.lock();
        state.alive()?;
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used())))
    }
}

impl FakeFile {
    fn read_into_zeros(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let state = self.disk.0.lock();
        state.alive()?;
        let content = &state.files.get(&self.id).ok_or(io::ErrorKind::NotFound)?.now;
        if at + bytes.len() as u64 > content.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.read(bytes, at);
        Ok(())
    }
}

impl File for FakeFile {
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let dies = state.call()?;
        if state.failing_writes.as_deref().is_some_and(|prefix| self.path.starts_with(prefix)) {
            return Err(eio());
        }
        state.allocate(self.id, at, bytes.len() as u64)?;
        if let Some(Inode { now, dirty, .. }) = state.files.get_mut(&self.id) {
            now.write(bytes, at, |sector| {
                dirty.insert(sector);
            });
        }
        if dies { Err(dead()) } else { Ok(()) }
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        bytes.fill(0);
        self.read_into_zeros(bytes, at)
    }

    fn allocate(&self, from: u64, len: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.call_or_die()?;
        state.allocate(self.id, from, len)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.call_or_die()?;
        let fails = state.sync_fails();
        let inode = state.files.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?;
        if fails {
            inode.dirty.clear();
            return Err(eio());
        }
        inode.sync();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.0.lock();
        state.alive()?;
        Ok(state.files.get(&self.id).ok_or(io::ErrorKind::NotFound)?.now.len)
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        let state = self.disk.0.lock();
        state.alive()?;
        let content = &state.files.get(&self.id).ok_or(io::ErrorKind::NotFound)?.now;
        let next = content.sectors.range(from / SECTOR..).next().map(|(sector, _)| (sector * SECTOR).max(from));
        Ok(next.filter(|at| *at < content.len))
    }

    fn slice(&self, from: u64, len: usize) -> io::Result<Bytes> {
        // Memory that is zero already is not touched: a large file with little in it costs little.
        let mut bytes = vec![0; len];
        self.read_into_zeros(&mut bytes, from)?;
        Ok(bytes.into())
    }
}
