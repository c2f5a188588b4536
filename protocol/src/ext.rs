use std::fmt::{self, Write};

/// The named fields of a header (`extFields`), in the order in which they stand, in one piece of memory.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Ext {
    text: String,
    spans: Vec<Span>,
}

/// A key and, directly behind it, its value.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Span {
    key: u32,
    value: u32,
    end: u32,
}

impl Ext {
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_capacity(text: usize, fields: usize) -> Self {
        Self { text: String::with_capacity(text), spans: Vec::with_capacity(fields) }
    }

    /// Adds a field.
    pub fn push(&mut self, key: &str, value: impl fmt::Display) {
        let at = self.text.len();
        self.text.push_str(key);
        let middle = self.text.len();
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{value}");
        self.close(at, middle);
    }

    /// Adds a field whose value is text; the same as [`Self::push`] without formatting.
    pub fn push_str(&mut self, key: &str, value: &str) {
        let at = self.text.len();
        self.text.push_str(key);
        let middle = self.text.len();
        self.text.push_str(value);
        self.close(at, middle);
    }

    /// The text to which a reader appends a key and a value before it calls [`Self::close`].
    pub(crate) fn text(&mut self) -> &mut String {
        &mut self.text
    }

    /// Makes a field of the text from `key` to `value` and from there to the end.
    pub(crate) fn close(&mut self, key: usize, value: usize) {
        self.spans.push(Span { key: key as u32, value: value as u32, end: self.text.len() as u32 });
    }

    /// Forgets the text from `at` on.
    pub(crate) fn truncate(&mut self, at: usize) {
        self.text.truncate(at);
    }

    /// The value of `key`; the first one when the key stands there twice.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.spans.iter().map(|span| {
            let (key, value, end) = (span.key as usize, span.value as usize, span.end as usize);
            (&self.text[key..value], &self.text[value..end])
        })
    }

    pub fn len(&self) -> usize {
        self.spans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Bytes of all keys and values.
    pub(crate) fn text_len(&self) -> usize {
        self.text.len()
    }
}

impl fmt::Debug for Ext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
