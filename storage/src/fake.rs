//! A disk in memory that behaves as badly as a real one may: what was not synced can vanish or tear at a crash, room
//! runs out, and calls fail when told to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{Disk, File};

const SECTOR: u64 = 512;
const BLOCK: u64 = 4096;

type Sector = [u8; SECTOR as usize];

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

#[derive(Default)]
struct State {
    nodes: BTreeMap<String, Node>,
    /// What `nodes` would be after losing every directory change that was not synced.
    durable_nodes: BTreeMap<String, Node>,
    changes: Vec<Change>,
    files: HashMap<u64, Inode>,
    last_inode: u64,
    capacity: Option<u64>,
    calls: u64,
    crash_at: Option<u64>,
    dead: bool,
    failing_syncs: Option<u64>,
    failing_writes: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir,
    File(u64),
}

/// A directory change that is not durable yet.
#[derive(Clone)]
enum Change {
    Added(String, Node),
    Removed(String),
    Renamed(String, String, Node),
}

#[derive(Default, Clone)]
struct Inode {
    now: Content,
    durable: Content,
    dirty: BTreeSet<u64>,
    blocks: BTreeSet<u64>,
}

#[derive(Default, Clone)]
struct Content {
    len: u64,
    sectors: BTreeMap<u64, Sector>,
}

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
        let state = self.0.lock();
        let mut coin = Coin(seed);
        let mut keep = |_: &str| match fate {
            Fate::Kept => true,
            Fate::Dropped => false,
            Fate::Torn => coin.toss(),
        };
        let mut nodes = state.durable_nodes.clone();
        for change in state.changes.iter().filter(|_| keep("entry")) {
            change.apply(&mut nodes);
        }
        drop_orphans(&mut nodes);
        let mut files = HashMap::new();
        for node in nodes.values() {
            if let Node::File(id) = node {
                files.insert(*id, state.files[id].crashed(&mut keep));
            }
        }
        let survivor = State {
            durable_nodes: nodes.clone(),
            nodes,
            files,
            last_inode: state.last_inode,
            capacity: state.capacity,
            ..State::default()
        };
        Self(Arc::new(Mutex::new(survivor)))
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

impl State {
    /// Counts a mutating call. `Ok(true)` when the process dies in it.
    fn call(&mut self) -> io::Result<bool> {
        if self.dead {
            return Err(dead());
        }
        self.calls += 1;
        self.dead = self.crash_at.is_some_and(|at| self.calls >= at);
        Ok(self.dead)
    }

    fn call_or_die(&mut self) -> io::Result<()> {
        if self.call()? { Err(dead()) } else { Ok(()) }
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(dead()) } else { Ok(()) }
    }

    fn file(&self, path: &str) -> io::Result<u64> {
        match self.nodes.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.nodes);
        self.changes.push(change);
    }

    fn used(&self) -> u64 {
        let used = |id: &u64| self.files.get(id).map_or(0, |inode| inode.blocks.len() as u64 * BLOCK);
        self.nodes.values().map(|node| if let Node::File(id) = node { used(id) } else { 0 }).sum()
    }

    fn allocate(&mut self, id: u64, from: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let blocks = from / BLOCK..=(from + len - 1) / BLOCK;
        let inode = self.files.get(&id).ok_or(io::ErrorKind::NotFound)?;
        let new = blocks.clone().filter(|block| !inode.blocks.contains(block)).count() as u64 * BLOCK;
        if new > 0 && self.capacity.is_some_and(|capacity| self.used() + new > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(inode) = self.files.get_mut(&id) {
            inode.blocks.extend(blocks);
        }
        Ok(())
    }

    fn sync_dir(&mut self, dir: &str) {
        let durable = &mut self.durable_nodes;
        self.changes.retain(|change| {
            let done = parent(change.path()) == dir;
            if done {
                change.apply(durable);
            }
            !done
        });
    }

    fn sync_fails(&mut self) -> bool {
        match self.failing_syncs {
            Some(0) => {
                self.failing_syncs = None;
                true
            }
            left => {
                self.failing_syncs = left.map(|left| left - 1);
                false
            }
        }
    }
}

impl Change {
    fn apply(&self, nodes: &mut BTreeMap<String, Node>) {
        match self {
            Self::Added(path, node) => {
                nodes.insert(path.clone(), *node);
            }
            Self::Removed(path) => {
                nodes.remove(path);
            }
            Self::Renamed(from, to, node) => {
                nodes.remove(from);
                nodes.insert(to.clone(), *node);
            }
        }
    }

    fn path(&self) -> &str {
        match self {
            Self::Added(path, _) | Self::Removed(path) | Self::Renamed(_, path, _) => path,
        }
    }
}

impl Inode {
    fn crashed(&self, keep: &mut impl FnMut(&str) -> bool) -> Self {
        let mut content = self.durable.clone();
        if self.now.len != content.len && keep("length") {
            content.len = self.now.len;
        }
        for sector in self.dirty.iter().filter(|_| keep("sector")) {
            if let Some(bytes) = self.now.sectors.get(sector) {
                content.sectors.insert(*sector, *bytes);
                content.len = content.len.max(self.now.len.min((sector + 1) * SECTOR));
            }
        }
        Self { now: content.clone(), durable: content, dirty: BTreeSet::new(), blocks: self.blocks.clone() }
    }

    fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            if let Some(bytes) = self.now.sectors.get(&sector) {
                self.durable.sectors.insert(sector, *bytes);
            }
        }
        self.durable.len = self.now.len;
    }
}

impl Content {
    fn read(&self, bytes: &mut [u8], at: u64) {
        bytes.fill(0);
        let end = at + bytes.len() as u64;
        for (sector, content) in self.sectors.range(at / SECTOR..end.div_ceil(SECTOR)) {
            let base = sector * SECTOR;
            let (from, to) = (base.max(at), (base + SECTOR).min(end));
            bytes[(from - at) as usize..(to - at) as usize]
                .copy_from_slice(&content[(from - base) as usize..(to - base) as usize]);
        }
    }

    fn write(&mut self, bytes: &[u8], at: u64, mut touched: impl FnMut(u64)) {
        let mut rest = bytes;
        let mut at = at;
        while !rest.is_empty() {
            let inside = (at % SECTOR) as usize;
            let part = rest.len().min(SECTOR as usize - inside);
            let sector = self.sectors.entry(at / SECTOR).or_insert([0; SECTOR as usize]);
            sector[inside..inside + part].copy_from_slice(&rest[..part]);
            touched(at / SECTOR);
            rest = &rest[part..];
            at += part as u64;
        }
        self.len = self.len.max(at);
    }
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
        let state = self.disk.0.lock();
        state.alive()?;
        let content = &state.files.get(&self.id).ok_or(io::ErrorKind::NotFound)?.now;
        if at + bytes.len() as u64 > content.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.read(bytes, at);
        Ok(())
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
        let mut bytes = vec![0; len];
        self.read_at(&mut bytes, from)?;
        Ok(bytes.into())
    }
}

/// A file without its directory cannot be reached.
fn drop_orphans(nodes: &mut BTreeMap<String, Node>) {
    let paths: Vec<String> = nodes.keys().cloned().collect();
    // Parents sort before what is in them.
    for path in paths {
        if !parent(&path).is_empty() && !nodes.contains_key(parent(&path)) {
            nodes.remove(&path);
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn dead() -> io::Error {
    io::Error::other("the process is dead")
}

fn eio() -> io::Error {
    io::Error::other("input/output error")
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same seed, the same tosses.
struct Coin(u64);

impl Coin {
    fn toss(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }
}
