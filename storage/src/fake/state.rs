//! The insides of a [`FakeDisk`](super::FakeDisk): what is there, and what of it would outlive a power cut.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
};

use super::Fate;

pub(super) const SECTOR: u64 = 512;
const BLOCK: u64 = 4096;

type Sector = [u8; SECTOR as usize];

#[derive(Default)]
pub(super) struct State {
    pub nodes: BTreeMap<String, Node>,
    /// What `nodes` would be after losing every directory change that was not synced.
    pub durable_nodes: BTreeMap<String, Node>,
    pub changes: Vec<Change>,
    pub files: HashMap<u64, Inode>,
    pub last_inode: u64,
    pub capacity: Option<u64>,
    pub calls: u64,
    pub crash_at: Option<u64>,
    pub dead: bool,
    /// Syncs that succeed before one fails.
    pub failing_syncs: Option<u64>,
    /// Paths that begin so cannot be written.
    pub failing_writes: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(u64),
}

/// A directory change that is not durable yet.
#[derive(Clone)]
pub(super) enum Change {
    Added(String, Node),
    Removed(String),
    Renamed(String, String, Node),
}

#[derive(Default, Clone)]
pub(super) struct Inode {
    pub now: Content,
    pub durable: Content,
    /// Sectors written since the last sync.
    pub dirty: BTreeSet<u64>,
    /// Blocks that count as used.
    pub blocks: BTreeSet<u64>,
}

#[derive(Default, Clone)]
pub(super) struct Content {
    pub len: u64,
    pub sectors: BTreeMap<u64, Sector>,
}

impl State {
    /// What the next process finds.
    pub fn crashed(&self, fate: Fate, seed: u64) -> Self {
        let mut coin = Coin(seed);
        let mut keep = || match fate {
            Fate::Kept => true,
            Fate::Dropped => false,
            Fate::Torn => coin.toss(),
        };
        let mut nodes = self.durable_nodes.clone();
        for change in self.changes.iter().filter(|_| keep()) {
            change.apply(&mut nodes);
        }
        drop_orphans(&mut nodes);
        let mut files = HashMap::new();
        for node in nodes.values() {
            if let Node::File(id) = node {
                files.insert(*id, self.files[id].crashed(&mut keep));
            }
        }
        State {
            durable_nodes: nodes.clone(),
            nodes,
            files,
            last_inode: self.last_inode,
            capacity: self.capacity,
            ..State::default()
        }
    }

    /// Counts a mutating call. `Ok(true)` when the process dies in it.
    pub fn call(&mut self) -> io::Result<bool> {
        if self.dead {
            return Err(dead());
        }
        self.calls += 1;
        self.dead = self.crash_at.is_some_and(|at| self.calls >= at);
        Ok(self.dead)
    }

    pub fn call_or_die(&mut self) -> io::Result<()> {
        if self.call()? { Err(dead()) } else { Ok(()) }
    }

    pub fn alive(&self) -> io::Result<()> {
        if self.dead { Err(dead()) } else { Ok(()) }
    }

    pub fn file(&self, path: &str) -> io::Result<u64> {
        match self.nodes.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub fn change(&mut self, change: Change) {
        change.apply(&mut self.nodes);
        self.changes.push(change);
    }

    pub fn used(&self) -> u64 {
        let used = |id: &u64| self.files.get(id).map_or(0, |inode| inode.blocks.len() as u64 * BLOCK);
        self.nodes.values().map(|node| if let Node::File(id) = node { used(id) } else { 0 }).sum()
    }

    pub fn allocate(&mut self, id: u64, from: u64, len: u64) -> io::Result<()> {
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

    pub fn sync_dir(&mut self, dir: &str) {
        let durable = &mut self.durable_nodes;
        self.changes.retain(|change| {
            let done = parent(change.path()) == dir;
            if done {
                change.apply(durable);
            }
            !done
        });
    }

    pub fn sync_fails(&mut self) -> bool {
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
    pub fn apply(&self, nodes: &mut BTreeMap<String, Node>) {
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
    fn crashed(&self, keep: &mut impl FnMut() -> bool) -> Self {
        let mut content = self.durable.clone();
        if self.now.len != content.len && keep() {
            content.len = self.now.len;
        }
        for sector in self.dirty.iter().filter(|_| keep()) {
            if let Some(bytes) = self.now.sectors.get(sector) {
                content.sectors.insert(*sector, *bytes);
                content.len = content.len.max(self.now.len.min((sector + 1) * SECTOR));
            }
        }
        Self { now: content.clone(), durable: content, dirty: BTreeSet::new(), blocks: self.blocks.clone() }
    }

    pub fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            if let Some(bytes) = self.now.sectors.get(&sector) {
                self.durable.sectors.insert(sector, *bytes);
            }
        }
        self.durable.len = self.now.len;
    }
}

impl Content {
    /// Reads into `bytes`, which are zeros.
    pub fn read(&self, bytes: &mut [u8], at: u64) {
        let end = at + bytes.len() as u64;
        for (sector, content) in self.sectors.range(at / SECTOR..end.div_ceil(SECTOR)) {
            let base = sector * SECTOR;
            let (from, to) = (base.max(at), (base + SECTOR).min(end));
            bytes[(from - at) as usize..(to - at) as usize]
                .copy_from_slice(&content[(from - base) as usize..(to - base) as usize]);
        }
    }

    pub fn write(&mut self, bytes: &[u8], at: u64, mut touched: impl FnMut(u64)) {
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

pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

pub(super) fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

pub(super) fn dead() -> io::Error {
    io::Error::other("the process is dead")
}

pub(super) fn eio() -> io::Error {
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
