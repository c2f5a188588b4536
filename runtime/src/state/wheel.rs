//! What is due when: timers, and entries that expire. In memory stands what changed since the engine last wrote; the rest is on disk.

use std::collections::{BTreeSet, HashMap};

/// Which clock a timer goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    EventTime,
    ProcessingTime,
    /// Not a plugin's: an entry expires.
    Expiry,
}

impl Domain {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::EventTime => 0,
            Self::ProcessingTime => 1,
            Self::Expiry => 2,
        }
    }

    pub(super) fn from_number(number: u8) -> Self {
        match number {
            0 => Self::EventTime,
            1 => Self::ProcessingTime,
            _ => Self::Expiry,
        }
    }
}

/// A timer that a plugin set: one of each name and clock for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    pub domain: Domain,
    pub key: Vec<u8>,
    pub name: String,
    /// Milliseconds since 1970.
    pub due: u64,
}

impl Timer {
    /// Its key in the store that holds a step's timers: clock, length of the key, key, name.
    #[expect(clippy::cast_possible_truncation, reason = "a key is smaller than a guest's memory")]
    pub(super) fn own_key(&self) -> Vec<u8> {
        let mut own = Vec::with_capacity(5 + self.key.len() + self.name.len());
        own.push(self.domain.number());
        own.extend_from_slice(&(self.key.len() as u32).to_be_bytes());
        own.extend_from_slice(&self.key);
        own.extend_from_slice(self.name.as_bytes());
        own
    }

    pub(super) fn from_own_key(own: &[u8], due: u64) -> Option<Self> {
        let (domain, rest) = own.split_first()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (key, name) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        let name = String::from_utf8(name.to_vec()).ok()?;
        Some(Self { domain: Domain::from_number(*domain), key: key.to_vec(), name, due })
    }
}

/// Whose: the number of the store that holds a step's timers; of all stores for what expires.
pub(super) const ALL_STORES: u16 = u16::MAX;

/// Something due. Ordered by whose it is, then by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub whose: u16,
    pub domain: Domain,
    pub at: u64,
    /// For timers, the key in their store; for what expires, its key in memory.
    pub what: Box<[u8]>,
}

#[derive(Default)]
pub(super) struct Wheel {
    added: BTreeSet<Due>,
    removed: BTreeSet<Due>,
    on_disk: HashMap<(u16, Domain), OnDisk>,
}

/// What is known of what stands on disk of one clock.
#[derive(Default)]
struct OnDisk {
    /// The first that is not removed, once it was looked for.
    first: Option<Option<Due>>,
    /// All before this one are removed: they are not looked through again.
    from: Option<Due>,
}

impl Wheel {
    /// Something is no longer due when it was, or newly due.
    pub fn change(&mut self, gone: Option<Due>, new: Option<Due>) {
        gone.into_iter().for_each(|due| self.remove(due));
        new.into_iter().for_each(|due| self.insert(due));
    }

    fn insert(&mut self, due: Due) {
        if self.removed.remove(&due) {
            self.on_disk.remove(&(due.whose, due.domain));
        } else {
            self.added.insert(due);
        }
    }

    fn remove(&mut self, due: Due) {
        if self.added.remove(&due) {
            return;
        }
        if let Some(on_disk) = self.on_disk.get_mut(&(due.whose, due.domain))
            && on_disk.first.as_ref().is_some_and(|first| first.as_ref() == Some(&due))
        {
            on_disk.first = None;
        }
        self.removed.insert(due);
    }

    /// From where on it is to be looked for what is on disk of a clock and not removed; `None`: from its beginning.
    pub fn from(&self, whose: u16, domain: Domain) -> Option<&Due> {
        self.on_disk.get(&(whose, domain))?.from.as_ref()
    }

    /// The earliest; `read` gives the first on disk, from its first argument on, for which its second does not hold.
    pub fn first<E>(
        &mut self,
        whose: u16,
        domain: Domain,
        read: impl FnOnce(Option<&Due>, &dyn Fn(&Due) -> bool) -> Result<Option<Due>, E>,
    ) -> Result<Option<Due>, E> {
        let from = Due { whose, domain, at: 0, what: Box::default() };
        let added = self.added.range(from..).next().filter(|due| due.whose == whose && due.domain == domain);
        let known = self.on_disk.entry((whose, domain)).or_default();
        let on_disk = match &known.first {
            Some(first) => first.clone(),
            None => {
                let found = read(known.from.as_ref(), &|due| self.removed.contains(due))?;
                known.from = found.clone().or(known.from.take());
                known.first.insert(found).clone()
            }
        };
        Ok(match (added, on_disk) {
            (Some(added), Some(on_disk)) => Some(added.min(&on_disk).clone()),
            (Some(added), None) => Some(added.clone()),
            (None, on_disk) => on_disk,
        })
    }

    /// How many stand in memory.
    pub fn len(&self) -> usize {
        self.added.len() + self.removed.len()
    }

    pub fn changes(&self) -> (&BTreeSet<Due>, &BTreeSet<Due>) {
        (&self.added, &self.removed)
    }

    /// All of it is on disk now.
    pub fn written(&mut self) {
        self.added.clear();
        self.removed.clear();
        self.on_disk.clear();
    }
}
