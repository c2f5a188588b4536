use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::{env, fs};

use crate::error::Error;

/// What a plugin is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Filter,
    Transform,
    Process,
    CheckTransaction,
}

/// A plugin's crate that is to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewCrate<'a> {
    /// The plugin's name and its package's.
    pub name: &'a str,
    pub role: Role,
    /// The SDK: the folder `sdk-wasm` of a checkout.
    pub sdk: &'a Path,
}

/// A file's text from the templates, by role.
macro_rules! by_role {
    ($role:expr, $file:literal) => {
        match $role {
            Role::Filter => include_str!(concat!("../templates/filter/", $file)),
            Role::Transform => include_str!(concat!("../templates/transform/", $file)),
            Role::Process => include_str!(concat!("../templates/process/", $file)),
            Role::CheckTransaction => include_str!(concat!("../templates/check-transaction/", $file)),
        }
    };
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Filter => "filter",
            Role::Transform => "transform",
            Role::Process => "process",
            Role::CheckTransaction => "check-transaction",
        })
    }
}

impl Role {
    /// What the template does, without a full stop.
    fn about(self) -> &'static str {
        match self {
            Role::Filter => "Keeps records whose property `amount` is above a limit",
            Role::Transform => "Adds a field to JSON bodies",
            Role::Process => "Counts records by key",
            Role::CheckTransaction => "Decides half messages by the amount in their bodies",
        }
    }

    /// How it is put to use.
    fn usage(self, name: &str) -> String {
        let config = match self {
            Role::Filter => "min: 100",
            Role::Transform => "source: web",
            Role::Process => "every: 10",
            Role::CheckTransaction => {
                return format!(
                    "A producer group's checker is `PUT /api/v1/producer-groups/GROUP/checker` with\n\
                     `{{\"plugin\": \"{name}\", \"config\": {{\"max\": 100}}}}`."
                );
            }
        };
        format!("A step of a pipeline is\n\n```yaml\n- {{ plugin: {name}, config: {{ {config} }} }}\n```")
    }
}

impl NewCrate<'_> {
    /// Checks a plugin's name: a letter, then letters, digits, `-` and `_`, all of them small, 64 at most.
    ///
    /// # Errors
    /// What was expected.
    pub fn check_name(name: &str) -> Result<(), String> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= 64 && name.chars().all(fits) {
            return Ok(());
        }
        Err(format!("expected a small letter, then small letters, digits, - and _, 64 at most; got {name:?}"))
    }

    /// Writes the crate into `dir`, which must not be there.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::NoSdk`]; the disk's.
    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        let sdk = fs::canonicalize(self.sdk).ok().filter(|sdk| is_sdk(sdk));
        let sdk = sdk.ok_or_else(|| Error::NoSdk { path: self.sdk.to_owned() })?;
        fs::create_dir(dir).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Exists { path: dir.to_owned() },
            _ => Error::file(dir, &error),
        })?;
        let home = fs::canonicalize(dir).map_err(|error| Error::file(dir, &error))?;
        let named = named(&sdk, &home);
        let text = |template: &str| {
            // A path on Windows has backslashes, which TOML reads as escapes.
            let sdk = named.display().to_string().replace('\\', "/");
            let (role, usage) = (self.role.to_string(), self.role.usage(self.name));
            let pairs = [
                ("{name}", self.name),
                ("{role}", role.as_str()),
                ("{about}", self.role.about()),
                ("{use}", usage.as_str()),
                ("{sdk}", sdk.as_str()),
            ];
            pairs.iter().fold(template.to_owned(), |text, (from, to)| text.replace(from, to))
        };
        let files = [
            ("Cargo.toml", text(include_str!("../templates/Cargo.toml"))),
            ("README.md", text(include_str!("../templates/README.md"))),
            (".gitignore", "/target\n*.wasm\n".to_owned()),
            ("src/lib.rs", by_role!(self.role, "lib.rs").to_owned()),
            ("tests/plugin.rs", by_role!(self.role, "plugin.rs").to_owned()),
        ];
        for (name, text) in files {
            let file = dir.join(name);
            let folder = file.parent().unwrap_or(dir);
            fs::create_dir_all(folder).map_err(|error| Error::file(folder, &error))?;
            fs::write(&file, text).map_err(|error| Error::file(&file, &error))?;
        }
        // A checkout without one is built from whatever fits.
        let lock = sdk.join("../Cargo.lock");
        if lock.is_file() {
            fs::copy(&lock, dir.join("Cargo.lock")).map_err(|error| Error::file(&lock, &error))?;
        }
        Ok(())
    }
}

/// The SDK that is nearest: of the checkout that `from` lies in, or of the one that this program was built in.
#[must_use]
pub fn find_sdk(from: &Path) -> Option<PathBuf> {
    let from = fs::canonicalize(from).ok();
    let program = env::current_exe().ok();
    let places = [from, program];
    let folders = places.iter().flatten().flat_map(|place| place.ancestors());
    folders.map(|folder| folder.join("sdk-wasm")).find(|folder| is_sdk(folder))
}

fn is_sdk(folder: &Path) -> bool {
    folder.join("guest/Cargo.toml").is_file() && folder.join("testkit/Cargo.toml").is_file()
}

/// The SDK as a crate in `home` names it: relative within the SDK's own checkout, where both move together, else in full.
fn named(sdk: &Path, home: &Path) -> PathBuf {
    let inside = sdk.parent().and_then(|checkout| home.strip_prefix(checkout).ok());
    let Some(inside) = inside else { return sdk.to_owned() };
    let up = inside.components().map(|_| Component::ParentDir);
    up.collect::<PathBuf>().join("sdk-wasm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_packages() {
        assert!(NewCrate::check_name("big-orders_2").is_ok());
        for bad in ["", "2big", "Big", "a b", "../a", &"x".repeat(65)] {
            assert!(NewCrate::check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_sdk_is_named_relative_within_its_checkout() {
        let sdk = Path::new("/c/sdk-wasm");
        assert_eq!(named(sdk, Path::new("/c/plugins/mine")), Path::new("../../sdk-wasm"));
        assert_eq!(named(sdk, Path::new("/home/mine")), sdk);
    }

    #[test]
    fn every_place_of_a_template_is_filled() {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let dir = env::temp_dir().join(format!("sluice-new-{}", std::process::id()));
        for role in [Role::Filter, Role::Transform, Role::Process, Role::CheckTransaction] {
            let new = NewCrate { name: "mine", role, sdk: &sdk };
            new.write(&dir).unwrap();
            for file in ["Cargo.toml", "README.md"] {
                let text = fs::read_to_string(dir.join(file)).unwrap();
                assert!(!["{name}", "{sdk}", "{use}", "{about}", "{role}"].iter().any(|place| text.contains(place)));
            }
            assert!(matches!(new.write(&dir), Err(Error::Exists { .. })));
            fs::remove_dir_all(&dir).unwrap();
        }
        let nowhere = NewCrate { name: "mine", role: Role::Filter, sdk: Path::new("/nowhere") };
        assert!(matches!(nowhere.write(&dir), Err(Error::NoSdk { .. })) && !dir.exists());
    }
}
