//! Documents of the log that hold JSON.

use serde::de::DeserializeOwned;
use sluice_broker::Reader;

/// A document, with its place in the log and what it holds, or why that cannot be read.
pub struct Found<T> {
    pub name: String,
    pub at: u64,
    pub held: Result<T, String>,
}

/// All documents of a kind.
pub fn all<T: DeserializeOwned>(reader: &Reader, kind: &str) -> Vec<Found<T>> {
    let found = reader.documents(kind).into_iter().filter_map(|(name, document)| {
        let held = match reader.document(kind, &name) {
            Ok(None) => return None,
            Ok(Some((_, body))) => serde_json::from_slice(&body).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let held = held.map_err(|error| format!("its stored document cannot be read: {error}"));
        Some(Found { name, at: document.at.0, held })
    });
    found.collect()
}
