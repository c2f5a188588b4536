//! Names of stores and the bytes of keys.
//!
//! In memory a key is the store's number, two bytes, and the plugin's own key. On disk and in the log stands the store's name instead.

/// Ends the name of what holds a step's timers.
const TIMERS: &str = "\u{0}timers";
/// Ends the name of what holds a step's event clock.
const CLOCK: &str = "\u{0}clock";

/// The stores of a partition, in the order in which they were first asked for.
#[derive(Default)]
pub(super) struct Places {
    names: Vec<String>,
}

impl Places {
    /// The number of a store.
    #[expect(clippy::cast_possible_truncation, reason = "a pipeline has at most 32 steps of 66 stores")]
    pub fn number(&mut self, name: &str) -> u16 {
        if let Some(known) = self.names.iter().position(|known| known == name) {
            return known as u16;
        }
        self.names.push(name.to_owned());
        (self.names.len() - 1) as u16
    }

    pub fn find(&self, name: &str) -> Option<u16> {
        self.names.iter().position(|known| known == name).and_then(|at| u16::try_from(at).ok())
    }

    pub fn name(&self, number: u16) -> &str {
        self.names.get(usize::from(number)).map_or("", String::as_str)
    }

    /// The key in memory of a key on disk. Its store need not be one that a step of today has.
    pub fn inner_of(&mut self, outer: &[u8]) -> Option<Vec<u8>> {
        let name_len = usize::from(*outer.get(4)?);
        let name = std::str::from_utf8(outer.get(5..5 + name_len)?).ok()?;
        let mut key = Vec::new();
        inner(self.number(name), outer.get(5 + name_len..)?, &mut key);
        Some(key)
    }

    pub fn holds_timers(&self, number: u16) -> bool {
        self.name(number).ends_with(TIMERS)
    }

    /// Names of the plugins' own stores.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).filter(|name| !name.contains('\0'))
    }
}

/// The name of a step's store.
pub(crate) fn store_name(step: &str, store: &str) -> String {
    format!("{step}/{store}")
}

/// The name of what holds a step's timers.
pub(crate) fn timers_name(step: &str) -> String {
    format!("{step}{TIMERS}")
}

/// The name of what holds a step's event clock.
pub(crate) fn clock_name(step: &str) -> String {
    format!("{step}{CLOCK}")
}

/// The key in memory.
pub(super) fn inner(store: u16, key: &[u8], into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(&store.to_be_bytes());
    into.extend_from_slice(key);
}

/// Store and key of a key in memory.
pub(super) fn split(inner: &[u8]) -> (u16, &[u8]) {
    match inner.split_first_chunk::<2>() {
        Some((store, key)) => (u16::from_be_bytes(*store), key),
        None => (0, inner),
    }
}

/// The key on disk: queue, length of the name, name, key. A name has at most 255 bytes.
#[expect(clippy::cast_possible_truncation, reason = "names are made of plugins' names, which are short")]
pub(super) fn outer(queue: u32, name: &str, key: &[u8]) -> Vec<u8> {
    let mut outer = Vec::with_capacity(5 + name.len() + key.len());
    outer.extend_from_slice(&queue.to_be_bytes());
    outer.push(name.len() as u8);
    outer.extend_from_slice(name.as_bytes());
    outer.extend_from_slice(key);
    outer
}

/// The plugin's own key of a key on disk.
pub(super) fn own_key<'a>(outer: &'a [u8], name: &str) -> &'a [u8] {
    outer.get(5 + name.len()..).unwrap_or_default()
}
