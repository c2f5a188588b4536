//! Entries of stores: brought into memory when they are used, and changed there under the journal.

use hashbrown::hash_map::EntryRef;

use super::{
    super::{
        Domain, StateError, places,
        wheel::{ALL_STORES, Due},
    },
    Entry, OVERHEAD, Partition,
};

impl Partition {
    /// The value of a key, looked at a time.
    pub(crate) fn get(&mut self, store: u16, key: &[u8], at: u64) -> Result<Option<&[u8]>, StateError> {
        self.check_time()?;
        // Room is made between turns only: until then what is only read must not fill the memory.
        if self.young_bytes > 2 * self.young_limit && !self.is_in_memory(store, key) {
            let found = self.engine.get(&places::outer(self.queue, self.places.name(store), key))?;
            let alive = found.filter(|(expires_at, _)| *expires_at == 0 || *expires_at > at);
            let Some((_, value)) = alive else { return Ok(None) };
            self.passing = value;
            return Ok(Some(&self.passing));
        }
        let entry = self.entry(store, key)?;
        Ok(entry.value.as_deref().filter(|_| entry.expires_at == 0 || entry.expires_at > at))
    }

    pub(crate) fn put(&mut self, store: u16, key: &[u8], value: &[u8], expires_at: u64) -> Result<(), StateError> {
        self.check_time()?;
        self.count_written(key.len() + value.len() + OVERHEAD);
        self.set(store, key, Some(value.into()), expires_at)
    }

    pub(crate) fn delete(&mut self, store: u16, key: &[u8]) -> Result<(), StateError> {
        self.check_time()?;
        self.count_written(key.len() + OVERHEAD);
        if self.entry(store, key)?.value.is_none() {
            return Ok(());
        }
        self.set(store, key, None, 0)
    }

    pub(crate) fn add(
        &mut self,
        store: u16,
        key: &[u8],
        delta: i64,
        at: u64,
        expires_at: u64,
    ) -> Result<i64, StateError> {
        self.check_time()?;
        self.count_written(key.len() + 8 + OVERHEAD);
        let call = self.call;
        let entry = self.entry(store, key)?;
        let alive = entry.expires_at == 0 || entry.expires_at > at;
        let number = entry.value.as_deref().filter(|_| alive).and_then(|value| <[u8; 8]>::try_from(value).ok());
        let sum = number.map_or(0, i64::from_le_bytes).wrapping_add(delta);
        // A number that stays one, in an entry that is to be written anyway: nothing but the journal hangs on it, and that only once a call.
        if entry.dirty
            && entry.expires_at == expires_at
            && let Some(value) = entry.value.as_deref_mut().filter(|value| value.len() == 8)
        {
            let touched = std::mem::replace(&mut entry.call, call);
            let mut before = sum.to_le_bytes();
            value.swap_with_slice(&mut before);
            if touched != call {
                self.journal.push(&self.scratch, Some(&before), expires_at, touched);
            }
            return Ok(sum);
        }
        self.set(store, key, Some(Box::from(sum.to_le_bytes().as_slice())), expires_at)?;
        Ok(sum)
    }

    fn is_in_memory(&mut self, store: u16, key: &[u8]) -> bool {
        places::inner(store, key, &mut self.scratch);
        let key = self.scratch.as_slice();
        self.young.contains_key(key) || self.old.contains_key(key)
    }

    /// The entry as it stands, brought into memory.
    pub(super) fn entry(&mut self, store: u16, key: &[u8]) -> Result<&mut Entry, StateError> {
        let mut inner = std::mem::take(&mut self.scratch);
        places::inner(store, key, &mut inner);
        let entry = match self.young.entry_ref(inner.as_slice()) {
            EntryRef::Occupied(entry) => entry.into_mut(),
            EntryRef::Vacant(place) => {
                let entry = match self.old.remove(inner.as_slice()) {
                    Some(entry) => entry,
                    None => match self.engine.get(&places::outer(self.queue, self.places.name(store), key))? {
                        Some((expires_at, value)) => {
                            Entry { value: Some(value.into()), expires_at, ..Entry::default() }
                        }
                        None => Entry::default(),
                    },
                };
                self.young_bytes += inner.len() + entry.size() + OVERHEAD;
                place.insert_with_key(inner.as_slice().into(), entry)
            }
        };
        self.scratch = inner;
        Ok(entry)
    }

    /// Writes an entry and, once a call, how it was to the journal.
    pub(super) fn set(
        &mut self,
        store: u16,
        key: &[u8],
        value: Option<Box<[u8]>>,
        expires_at: u64,
    ) -> Result<(), StateError> {
        let call = self.call;
        let before = self.replace(store, key, value, expires_at, call)?;
        if before.call != call {
            self.journal.push(&self.scratch, before.value.as_deref(), before.expires_at, before.call);
        }
        Ok(())
    }

    /// Writes an entry and gives the one before, leaves its key in `scratch`, and keeps the wheel and the list of what is dirty in step.
    pub(super) fn replace(
        &mut self,
        store: u16,
        key: &[u8],
        value: Option<Box<[u8]>>,
        expires_at: u64,
        call: u64,
    ) -> Result<Entry, StateError> {
        let holds_timers = self.places.holds_timers(store);
        let entry = self.entry(store, key)?;
        let before = std::mem::replace(entry, Entry { value, expires_at, call, dirty: true });
        let (size, was) = (entry.size(), before.size());
        let (due_before, due_after) = (before.expiry(), entry.expiry());
        let timers = holds_timers.then(|| (before.as_due(), entry.as_due()));
        self.young_bytes = (self.young_bytes + size).saturating_sub(was);
        self.dirty_bytes += size;
        if !before.dirty {
            self.dirty_bytes += key.len() + OVERHEAD;
            self.dirty.insert(self.scratch.as_slice().into());
        }
        if due_before != due_after {
            let due =
                |at: u64| Due { whose: ALL_STORES, domain: Domain::Expiry, at, what: self.scratch.as_slice().into() };
            let (gone, new) = (due_before.map(due), due_after.map(due));
            self.wheel.change(gone, new);
        }
        if let Some((gone, new)) = timers.filter(|(gone, new)| gone != new) {
            let domain = Domain::from_number(key.first().copied().unwrap_or_default());
            let due = |at: u64| Due { whose: store, domain, at, what: key.into() };
            self.wheel.change(gone.map(due), new.map(due));
        }
        Ok(before)
    }
}

impl Entry {
    fn size(&self) -> usize {
        self.value.as_ref().map_or(0, |value| value.len())
    }

    fn expiry(&self) -> Option<u64> {
        (self.value.is_some() && self.expires_at != 0).then_some(self.expires_at)
    }

    /// When it is due, if it is a timer.
    fn as_due(&self) -> Option<u64> {
        let value = self.value.as_deref()?;
        Some(u64::from_le_bytes(value.try_into().ok()?))
    }
}
