//! Looking through stores, for plugins and from outside.

use std::{borrow::Cow, ops::Bound};

use super::{
    super::{StateError, places},
    Partition,
};

/// Entries given by one scan.
pub(crate) const SCAN_LIMIT: usize = 1_024;

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// Entries of a store, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<KeyValue>,
    /// There are others behind the last one.
    pub more: bool,
}

/// A page that is being read.
struct Filling {
    page: Page,
    /// How many entries it has room for.
    limit: usize,
    /// For how many more bytes; the first entry is taken whatever it has.
    bytes: usize,
}

impl Filling {
    fn take(&mut self, key: &[u8], value: Cow<'_, [u8]>) {
        let Page { entries, more } = &mut self.page;
        let left = self.bytes.checked_sub(key.len() + value.len());
        *more |= entries.len() >= self.limit || (left.is_none() && !entries.is_empty());
        if !*more {
            self.bytes = left.unwrap_or(0);
            entries.push((key.to_vec(), value.into_owned()));
        }
    }
}

impl Partition {
    /// The entries whose keys begin with `prefix`, behind `after`, by key, looked at a time: at most so many, and so many bytes unless the
    /// first has more.
    pub(crate) fn scan(
        &self,
        store: u16,
        prefix: &[u8],
        after: Option<&[u8]>,
        (limit, bytes): (usize, usize),
        at: u64,
    ) -> Result<Page, StateError> {
        let name = self.places.name(store);
        // What is before the prefix has nothing to do with it.
        let after = after.filter(|after| *after >= prefix);
        let (mut from, mut start) = (Vec::new(), Vec::new());
        places::inner(store, prefix, &mut start);
        places::inner(store, after.unwrap_or(prefix), &mut from);
        let from = if after.is_some() { Bound::Excluded(from.as_slice()) } else { Bound::Included(from.as_slice()) };
        // What changed stands in memory as it is now, whatever the file has of it.
        let changed = self.dirty.range::<[u8], _>((from, Bound::Unbounded));
        let mut changed = changed.take_while(|key| key.starts_with(&start)).peekable();
        let alive = |expires_at: u64| expires_at == 0 || expires_at > at;
        let mut filling = Filling { page: Page::default(), limit: limit.min(SCAN_LIMIT), bytes };
        let take_changed = |filling: &mut Filling, key: &[u8]| {
            let entry = self.young.get(key).or_else(|| self.old.get(key)).filter(|entry| alive(entry.expires_at));
            if let Some(value) = entry.and_then(|entry| entry.value.as_deref()) {
                filling.take(places::split(key).1, Cow::Borrowed(value));
            }
            !filling.page.more && !self.time_is_up()
        };
        let prefix = places::outer(self.queue, name, prefix);
        let after = after.map(|after| places::outer(self.queue, name, after));
        let mut inner = Vec::new();
        self.engine.scan(&prefix, after.as_deref(), |(key, expires_at, value)| {
            let own = places::own_key(&key, name);
            places::inner(store, own, &mut inner);
            let mut changed_since = false;
            while let Some(key) = changed.next_if(|key| ***key <= *inner) {
                changed_since = **key == *inner;
                if !take_changed(&mut filling, key) {
                    return false;
                }
            }
            if !changed_since && alive(expires_at) {
                filling.take(own, Cow::Owned(value));
            }
            !filling.page.more && !self.time_is_up()
        })?;
        if !filling.page.more {
            changed.all(|key| take_changed(&mut filling, key));
        }
        self.check_time()?;
        Ok(filling.page)
    }

    /// Looks into a store from outside: `store` is `step/store`, or the store's own name when only one step has such a store. What has expired
    /// by `at`, milliseconds since 1970, is not there.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub fn look(&mut self, store: &str, key: &[u8], at: u64) -> Result<Option<Vec<u8>>, StateError> {
        let Some(number) = self.named(store) else { return Ok(None) };
        Ok(self.get(number, key, at)?.map(<[u8]>::to_vec))
    }

    /// [`Self::look`] for the entries whose keys begin with `prefix`, by key, behind `after`: at most `limit` and 1024, and at most so many
    /// bytes unless the first has more.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub fn look_through(
        &mut self,
        store: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        (limit, bytes): (usize, usize),
        at: u64,
    ) -> Result<Page, StateError> {
        let Some(number) = self.named(store) else { return Ok(Page::default()) };
        self.scan(number, prefix, after, (limit, bytes), at)
    }

    /// Names of the stores, `step/store`.
    #[must_use]
    pub fn stores(&self) -> Vec<String> {
        self.places.names().map(str::to_owned).collect()
    }

    fn named(&self, store: &str) -> Option<u16> {
        let whole = self.places.find(store);
        whole.or_else(|| {
            let short = |name: &&str| name.rsplit_once('/').is_some_and(|(_, own)| own == store);
            let mut fitting = self.places.names().filter(short);
            let first = fitting.next()?;
            if fitting.next().is_some() { None } else { self.places.find(first) }
        })
    }
}
