//! Documents: named bytes that the broker keeps for its shell and does not understand (plugins, pipelines, bindings).

use std::collections::BTreeMap;

use sluice_model::{LogOffset, Properties, RecordView};

use crate::{
    Error,
    codec::{In, Out},
    error::Result,
};

/// Where the newest version of a document stands in the log. The position is also its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub at: LogOffset,
    /// A few words about it, given by whoever stored it.
    pub label: String,
}

/// View: the documents that exist, by kind and name.
#[derive(Default)]
pub struct Documents {
    by_name: BTreeMap<(String, String), Document>,
}

impl Documents {
    pub fn get(&self, kind: &str, name: &str) -> Option<&Document> {
        self.by_name.get(&(kind.to_owned(), name.to_owned()))
    }

    /// Documents of one kind, by name.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a Document)> {
        self.by_name.iter().filter(move |((k, _), _)| k == kind).map(|((_, name), document)| (name.as_str(), document))
    }

    /// The oldest place in the log that a document lives in.
    pub fn oldest(&self) -> Option<LogOffset> {
        self.by_name.values().map(|document| document.at).min()
    }

    /// Kind and name of the documents that live below `end`.
    pub(crate) fn below(&self, end: LogOffset) -> Vec<(String, String)> {
        self.by_name.iter().filter(|(_, document)| document.at < end).map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn apply(&mut self, record: &RecordView<'_>) -> Result<()> {
        let text = |key: &'static str| {
            record.property(key).map(str::to_owned).ok_or(Error::invalid(key, "expected in a document record"))
        };
        let name = (text("kind")?, text("name")?);
        if record.property("deleted").is_some() {
            self.by_name.remove(&name);
        } else {
            self.by_name.insert(name, Document { at: record.log_offset(), label: text("label")? });
        }
        Ok(())
    }

    pub(crate) fn snapshot(&self, out: &mut Out) {
        out.u32(self.by_name.len() as u32);
        for ((kind, name), document) in &self.by_name {
            out.text(kind).text(name).text(&document.label).u64(document.at.0);
        }
    }

    pub(crate) fn restore(&mut self, from: &mut In<'_>) -> Result<()> {
        for _ in 0..from.u32()? {
            let name = (from.text()?.to_owned(), from.text()?.to_owned());
            let label = from.text()?.to_owned();
            self.by_name.insert(name, Document { at: LogOffset(from.u64()?), label });
        }
        Ok(())
    }
}

/// The properties of a document's record; `label` is `None` for a removal.
pub(crate) fn properties(kind: &str, name: &str, label: Option<&str>) -> Result<Properties> {
    let last = label.map_or(("deleted", "true"), |label| ("label", label));
    Ok(Properties::from_pairs([("kind", kind), ("name", name), last])?)
}
