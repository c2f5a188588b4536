//! Secrets that plugins may be granted: files in a folder, one a secret, as container platforms mount them.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use sluice_model::{Kind, Timestamp};
use sluice_runtime::ports::{self, PortError, Secret};

use crate::failure::{Failure, Result};

/// Largest secret, bytes.
pub const SECRET_LIMIT: usize = 64 * 1024;
/// Most secrets that are listed or made.
const SECRETS_LIMIT: usize = 1_024;
const NAME_LIMIT: usize = 64;

/// What may be known about a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    /// When its file was last written.
    pub updated_at: Timestamp,
}

/// A folder of secrets. The files are the truth; nothing of them is kept in memory. Its calls block.
pub struct Secrets {
    folder: PathBuf,
    /// Held while a file is written or removed.
    writing: Mutex<()>,
}

impl Secrets {
    /// The folder is made when the first secret is written.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, writing: Mutex::new(()) }
    }

    /// The value: the file's text without the line end at its end. Fails with `NotFound`.
    pub fn read(&self, name: &str) -> Result<Secret> {
        let path = self.path(name)?;
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(SECRET_LIMIT as u64 + 1).read_to_end(&mut bytes))
            .map_err(|error| failed(name, &error))?;
        let mut text = check(bytes).map_err(|text| Failure::new(Kind::Corrupt, format!("secret {name}: {text}")))?;
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(Secret::new(text))
    }

    /// Writes a secret, whole or not at all, for this user alone; answers whether it is new.
    ///
    /// `may` is asked with whether there is one already; what it fails with is the failure.
    pub fn put(&self, name: &str, value: Vec<u8>, may: impl FnOnce(bool) -> Result<()>) -> Result<bool> {
        let path = self.path(name)?;
        let text = check(value).map_err(|text| Failure::invalid("body", format!("body: {text}")))?;
        let _writing = self.writing.lock();
        let new = !path.exists();
        may(!new)?;
        if new && self.list()?.len() >= SECRETS_LIMIT {
            return Err(Failure::new(Kind::Full, format!("there are {SECRETS_LIMIT} secrets already")));
        }
        let write = || -> io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            // Its file is its owner's alone from the first moment.
            let mut file = tempfile::Builder::new().prefix(".secret-").tempfile_in(&self.folder)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            sync(&self.folder)
        };
        write().map_err(|error| failed(name, &error))?;
        Ok(new)
    }

    /// Fails with `NotFound`, or as `may` does that is told whether it exists. Instances that have read it keep it until they end.
    pub fn delete(&self, name: &str, may: impl FnOnce(bool) -> Result<()>) -> Result<()> {
        let _writing = self.writing.lock();
        let path = self.path(name)?;
        may(path.exists())?;
        fs::remove_file(path).and_then(|()| sync(&self.folder)).map_err(|error| failed(name, &error))
    }

    /// All secrets, by name.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("folder", &error)),
        };
        // What has no name of a secret is none: mounted folders hold others beside them.
        let listed = entries.filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok().filter(|name| check_name(name).is_ok())?;
            let about = fs::metadata(self.folder.join(&name)).ok().filter(fs::Metadata::is_file)?;
            let since = about.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
            Some(Listed { name, updated_at: Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)) })
        });
        let mut listed: Vec<Listed> = listed.take(SECRETS_LIMIT).collect();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// Fails with `NotFound`, or when its file cannot be read.
    pub fn check(&self, name: &str) -> Result<()> {
        self.read(name).map(drop)
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.folder.join(name))
    }
}

impl ports::Secrets for Secrets {
    fn read(&self, name: &str) -> std::result::Result<Secret, PortError> {
        Secrets::read(self, name).map_err(|failure| PortError::Failed(failure.text))
    }
}

/// A name that is one part of a path, and not hidden.
fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_LIMIT || name.starts_with('.') || !name.chars().all(fits) {
        let text =
            format!("name: expected 1 to {NAME_LIMIT} letters, digits, -, _ and ., not beginning with ., got {name:?}");
        return Err(Failure::invalid("name", text));
    }
    Ok(())
}

/// Fails with what was expected; never with the value.
fn check(bytes: Vec<u8>) -> std::result::Result<String, String> {
    if bytes.len() > SECRET_LIMIT {
        return Err(format!("expected at most {SECRET_LIMIT} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "expected UTF-8".to_owned())
}

fn failed(name: &str, error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => Failure::not_found("secret", name),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            let text = format!("secret {name}: the folder of secrets does not allow it: {error}");
            Failure { field: Some("secret".to_owned()), ..Failure::new(Kind::Denied, text) }
        }
        ErrorKind::StorageFull => Failure::new(Kind::Full, format!("secret {name}: {error}")),
        _ => Failure::new(Kind::Internal, format!("secret {name}: {error}")),
    }
}

/// What was renamed or removed in a folder is so after a crash as well.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_secret_is_its_owners_file() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/secrets");
        let secrets = Secrets::new(folder.clone());
        assert_eq!(secrets.list().unwrap(), []);
        assert!(secrets.put("token", b"one".to_vec(), |_| Ok(())).unwrap());
        assert!(!secrets.put("token", b"hunter2\r\n".to_vec(), |_| Ok(())).unwrap());
        assert_eq!((mode(&folder), mode(&folder.join("token"))), (0o700, 0o600));
        assert_eq!(secrets.read("token").unwrap().reveal(), "hunter2");
        let listed = secrets.list().unwrap();
        assert!(listed.len() == 1 && listed[0].name == "token" && listed[0].updated_at.0 > 0);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left there");
        let if_known = |wanted: bool| {
            move |known: bool| {
                assert_eq!(known, wanted);
                Ok(())
            }
        };
        secrets.delete("token", if_known(true)).unwrap();
        assert_eq!(secrets.read("token").unwrap_err().kind, Kind::NotFound);
        assert_eq!(secrets.delete("token", if_known(false)).unwrap_err().kind, Kind::NotFound);
    }

    #[test]
    fn a_mounted_folder_is_read_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        // As container platforms do: links into a hidden folder that is swapped as a whole.
        fs::create_dir(dir.path().join("..2026")).unwrap();
        fs::write(dir.path().join("..2026/api.key"), "k\n").unwrap();
        std::os::unix::fs::symlink("..2026", dir.path().join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/api.key", dir.path().join("api.key")).unwrap();
        let secrets = Secrets::new(dir.path().to_owned());
        let names: Vec<String> = secrets.list().unwrap().into_iter().map(|listed| listed.name).collect();
        assert_eq!(names, ["api.key"]);
        assert_eq!(secrets.read("api.key").unwrap().reveal(), "k");
    }

    #[test]
    fn names_stay_in_the_folder_and_values_out_of_errors() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(dir.path().join("secrets"));
        for name in ["", ".", "..", "../x", "a/b", ".hidden", "a b", "a\0", &"x".repeat(65)] {
            assert_eq!(
                secrets.put(name, b"v".to_vec(), |_| Ok(())).unwrap_err().field.as_deref(),
                Some("name"),
                "{name:?}"
            );
            assert_eq!(secrets.read(name).unwrap_err().field.as_deref(), Some("name"), "{name:?}");
        }
        for value in [b"hunter2\xff".to_vec(), b"hunter2".repeat(SECRET_LIMIT)] {
            let failure = secrets.put("token", value, |_| Ok(())).unwrap_err();
            assert!(failure.field.as_deref() == Some("body") && !failure.text.contains("hunter2"), "{failure}");
        }
        assert!(!dir.path().join("x").exists());
    }
}
