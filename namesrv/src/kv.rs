use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Most values of all namespaces.
const VALUES: usize = 100_000;
/// Longest namespace, key and value, bytes.
const NAME: usize = 1024;
const VALUE: usize = 64 * 1024;
const FILE: &str = "kvConfig.json";

/// Configuration values by namespace and key, kept in a small JSON file where there is a place for it.
#[derive(Debug, Default)]
pub struct Kv {
    table: Table,
    path: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Table {
    config_table: BTreeMap<String, BTreeMap<String, String>>,
}

impl Kv {
    /// The values stored in `dir`; none when it has no file of them yet. Creates `dir`.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let failed = |problem| Error::File { path: path.clone(), problem };
        fs::create_dir_all(dir).map_err(failed)?;
        let table = match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|problem| Error::Content { path: path.clone(), problem })?
            }
            Err(problem) if problem.kind() == ErrorKind::NotFound => Table::default(),
            Err(problem) => return Err(failed(problem)),
        };
        Ok(Self { table, path: Some(path) })
    }

    pub fn get(&self, namespace: &str, key: &str) -> Option<&str> {
        self.table.config_table.get(namespace)?.get(key).map(String::as_str)
    }

    /// All values of a namespace.
    pub fn list(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.table.config_table.get(namespace)
    }

    /// Sets a value and stores it. Fails when a name or value is too long, there are too many, or it cannot be stored; then
    /// nothing has changed.
    pub fn put(&mut self, namespace: &str, key: &str, value: &str) -> Result<(), Error> {
        for (field, text, limit) in [("namespace", namespace, NAME), ("key", key, NAME), ("value", value, VALUE)] {
            if text.len() > limit {
                return Err(Error::Field { field, expected: format!("at most {limit} bytes, got {}", text.len()) });
            }
        }
        if self.get(namespace, key).is_none()
            && self.table.config_table.values().map(BTreeMap::len).sum::<usize>() >= VALUES
        {
            return Err(Error::Field { field: "key", expected: format!("at most {VALUES} values in all") });
        }
        let mut table = self.table.clone();
        table.config_table.entry(namespace.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        self.store(table)
    }

    /// Deletes a value, which need not exist. Fails when that cannot be stored; then nothing has changed.
    pub fn delete(&mut self, namespace: &str, key: &str) -> Result<(), Error> {
        let mut table = self.table.clone();
        if let Some(values) = table.config_table.get_mut(namespace) {
            values.remove(key);
            if values.is_empty() {
                table.config_table.remove(namespace);
            }
        }
        self.store(table)
    }

    fn store(&mut self, table: Table) -> Result<(), Error> {
        if let Some(path) = &self.path {
            replace(
                path,
                &serde_json::to_vec(&table).map_err(|problem| Error::Content { path: path.clone(), problem })?,
            )
            .map_err(|problem| Error::File { path: path.clone(), problem })?;
        }
        self.table = table;
        Ok(())
    }
}

/// Replaces the file as a whole: a crash leaves the old one or the new one.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension("json.new");
    let mut file = File::create(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outlive_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let mut kv = Kv::open(dir.path()).unwrap();
        kv.put("n", "a", "1").unwrap();
        kv.put("n", "b", "2").unwrap();
        kv.delete("n", "a").unwrap();
        kv.delete("other", "a").unwrap();
        let again = Kv::open(dir.path()).unwrap();
        assert_eq!((again.get("n", "a"), again.get("n", "b")), (None, Some("2")));
        assert_eq!(again.list("n").unwrap().len(), 1);
        assert!(again.list("other").is_none());
    }

    #[test]
    fn what_cannot_be_read_or_stored_says_why() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(matches!(Kv::open(dir.path()), Err(Error::Content { .. })));
        let problem = Kv::default().put("n", "k", &"v".repeat(VALUE + 1)).unwrap_err();
        assert!(problem.to_string().starts_with("value: expected at most 65536 bytes"), "{problem}");
    }
}
