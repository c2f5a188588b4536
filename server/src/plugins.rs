//! The plugins that users uploaded: compiled, by name and version, and kept in the log by digest.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use sluice_model::Kind;
use sluice_runtime::{Plugin, RefusalCode, Report, Role, Runtime};

use crate::{
    failure::{Failure, Result},
    grants::Granter,
    shell::Shell,
    steps::prefilter,
};

/// Kind of the documents that hold components; a document's name is `name/digest`.
const KIND: &str = "plugin";
/// Most versions of all plugins together.
const VERSIONS_LIMIT: usize = 1_024;

/// One version of a plugin.
#[derive(Clone)]
pub struct Version {
    pub name: String,
    pub plugin: Plugin,
    pub report: Report,
    /// Its place in the log: a newer upload stands behind an older one.
    pub at: u64,
}

impl Version {
    /// `major.minor.patch` as numbers, to be compared.
    fn order(&self) -> ([u64; 3], u64) {
        let mut parts = self.report.manifest.version.split('.').map(|part| part.parse().unwrap_or(0));
        ([parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0)], self.at)
    }

    pub fn version(&self) -> &str {
        &self.report.manifest.version
    }

    pub fn digest(&self) -> &str {
        &self.report.digest
    }
}

/// Which version of a plugin is meant: `name`, `name@1`, `name@1.2`, `name@1.2.3` or `name@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    pub version: Option<String>,
}

impl Wanted {
    pub fn parse(text: &str) -> Self {
        match text.split_once('@') {
            Some((name, version)) => Self { name: name.to_owned(), version: Some(version.to_owned()) },
            None => Self { name: text.to_owned(), version: None },
        }
    }

    /// Whether a step with this reference that was found as `digest` uses the version of the plugin `name` with the digest `version`: the
    /// same bytes may have several names.
    pub fn uses(reference: &str, digest: &str, version: &Version) -> bool {
        digest == version.digest() && Self::parse(reference).name == version.name
    }

    fn is_met_by(&self, version: &Version) -> bool {
        let Some(wanted) = &self.version else { return true };
        if let Some(digest) = wanted.strip_prefix("sha256:") {
            return version.digest() == digest;
        }
        let known = version.version();
        known == wanted || known.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.starts_with('.'))
    }
}

/// The registry of plugins.
pub struct Plugins {
    runtime: Runtime,
    granter: Granter,
    shell: Shell,
    by_name: RwLock<BTreeMap<String, Vec<Version>>>,
    /// Held for reading from when a version is found until what uses it is in place; for writing, from when nobody is found to use a version
    /// until it is gone.
    using: RwLock<()>,
}

impl Plugins {
    /// Compiles every plugin that the log holds. Takes as long as that.
    pub fn load(runtime: Runtime, granter: Granter, shell: Shell) -> Result<Self> {
        let mut by_name: BTreeMap<String, Vec<Version>> = BTreeMap::new();
        for (document, found) in shell.reader.documents(KIND) {
            let Some((name, _)) = document.split_once('/') else { continue };
            let component = match shell.reader.document(KIND, &document) {
                Ok(Some((_, component))) => component,
                Ok(None) => continue,
                Err(error) => {
                    // Who uses it says that it does not exist; the same bytes uploaded again mend it.
                    tracing::error!(plugin = document, %error, "a stored plugin cannot be read");
                    continue;
                }
            };
            match runtime.load(name, &component) {
                Ok((plugin, report)) => {
                    let version = Version { name: name.to_owned(), plugin, report, at: found.at.0 };
                    by_name.entry(name.to_owned()).or_default().push(version);
                }
                Err(refusal) => tracing::error!(plugin = name, %refusal, "a stored plugin does not load any more"),
            }
        }
        for versions in by_name.values_mut() {
            versions.sort_by_key(Version::order);
        }
        Ok(Self { runtime, granter, shell, by_name: RwLock::new(by_name), using: RwLock::new(()) })
    }

    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Gives plugins what is named for them where they are used.
    pub fn granter(&self) -> &Granter {
        &self.granter
    }

    /// Passes a component through the gate without keeping it. Blocks while it is compiled.
    pub fn check(&self, name: &str, component: &[u8]) -> Result<(Plugin, Report)> {
        let refused =
            |code: RefusalCode, text| Failure { kind: Kind::Invalid, field: Some(code.as_str().to_owned()), text };
        let loaded = self.runtime.load(name, component).map_err(|refusal| refused(refusal.code, refusal.message))?;
        prefilter(&loaded.0).map_err(|failure| refused(RefusalCode::Manifest, failure.text))?;
        Ok(loaded)
    }

    /// Takes a component in: through the gate, into the log, into use. Blocks while it is compiled.
    ///
    /// The same bytes again change nothing.
    pub fn put(&self, name: &str, component: Bytes) -> Result<Version> {
        check_name(name)?;
        let (plugin, report) = self.check(name, &component)?;
        let digest = report.digest.clone();
        if let Some(known) = self.versions(name).into_iter().find(|version| version.digest() == digest) {
            return Ok(known);
        }
        if self.by_name.read().values().map(Vec::len).sum::<usize>() >= VERSIONS_LIMIT {
            let text = format!("{VERSIONS_LIMIT} plugin versions are stored already; delete some");
            return Err(Failure::new(Kind::Full, text));
        }
        let (document, label) = (format!("{name}/{digest}"), report.manifest.version.clone());
        let at =
            self.shell.ask_blocking(move |broker, now| broker.put_document(KIND, &document, &label, component, now))?;
        let version = Version { name: name.to_owned(), plugin, report, at: at.0 };
        let mut by_name = self.by_name.write();
        let versions = by_name.entry(name.to_owned()).or_default();
        versions.push(version.clone());
        versions.sort_by_key(Version::order);
        Ok(version)
    }

    /// All versions of a plugin, the newest last.
    pub fn versions(&self, name: &str) -> Vec<Version> {
        self.by_name.read().get(name).cloned().unwrap_or_default()
    }

    /// The newest version of every plugin.
    pub fn newest(&self) -> Vec<Version> {
        self.by_name.read().values().filter_map(|versions| versions.last().cloned()).collect()
    }

    /// The newest version that is meant by `reference`; fails with `NotFound`, naming it.
    pub fn resolve(&self, reference: &str) -> Result<Version> {
        let wanted = Wanted::parse(reference);
        let found = self.versions(&wanted.name).into_iter().rev().find(|version| wanted.is_met_by(version));
        found.ok_or_else(|| Failure::not_found("plugin", reference))
    }

    /// Exactly this version of the plugin that `reference` names; fails with `NotFound`, naming it.
    pub fn resolve_digest(&self, reference: &str, digest: &str) -> Result<Version> {
        self.resolve(&format!("{}@sha256:{digest}", Wanted::parse(reference).name))
    }

    /// [`Self::resolve`], and the plugin must have the role.
    pub fn resolve_for(&self, reference: &str, role: Role) -> Result<Version> {
        let version = self.resolve(reference)?;
        version.plugin.expect_role(role).map_err(|error| Failure::invalid("plugin", error.to_string()))?;
        Ok(version)
    }

    /// No version is deleted while this is held: by who looks one up and puts it to use.
    pub fn using(&self) -> RwLockReadGuard<'_, ()> {
        self.using.read()
    }

    /// Deletes the versions of `name` that `which` picks, when `check`, which is given them, lets it: nobody puts them to use meanwhile.
    ///
    /// Fails with `NotFound` when it picks none.
    pub fn delete<E: From<Failure>>(
        &self,
        name: &str,
        which: impl Fn(&Version) -> bool,
        check: impl FnOnce(&[Version]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let _using = self.using.write();
        let doomed: Vec<Version> = self.versions(name).into_iter().filter(|version| which(version)).collect();
        if doomed.is_empty() {
            return Err(Failure::not_found("plugin", name).into());
        }
        check(&doomed)?;
        self.forget(name, &doomed)?;
        Ok(())
    }

    fn forget(&self, name: &str, doomed: &[Version]) -> Result<()> {
        let documents: Vec<String> = doomed.iter().map(|version| format!("{name}/{}", version.digest())).collect();
        self.shell.ask_blocking(move |broker, now| {
            documents.iter().try_for_each(|document| broker.delete_document(KIND, document, now))
        })?;
        let mut by_name = self.by_name.write();
        if let Some(versions) = by_name.get_mut(name) {
            versions.retain(|version| !doomed.iter().any(|gone| gone.digest() == version.digest()));
            if versions.is_empty() {
                by_name.remove(name);
            }
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        let text = format!("name: expected 1 to 64 letters, digits, -, _ and ., got {name:?}");
        return Err(Failure::invalid("name", text));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test panics")]
pub(crate) mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// The plugins of a broker, which may be granted what is below `dir`.
    pub(crate) fn load(shell: &Shell, dir: &std::path::Path) -> Plugins {
        load_with(sluice_runtime::Config::default(), shell, dir)
    }

    pub(crate) fn load_with(config: sluice_runtime::Config, shell: &Shell, dir: &std::path::Path) -> Plugins {
        let runtime = Runtime::new(config).unwrap();
        let secrets = crate::secrets::Secrets::new(dir.join("secrets"));
        Plugins::load(runtime, Granter::new(shell.reader.clone(), secrets), shell.clone()).unwrap()
    }

    #[test]
    fn a_stored_plugin_that_cannot_be_read_is_passed_over_until_it_is_uploaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let shell = crate::shell::tests::start(dir.path());
        let plugins = load(&shell, dir.path());
        let put = |plugins: &Plugins, name: &str, ready_made: &str| {
            let component = sluice_plugins::ready_made(ready_made).unwrap().component;
            plugins.put(name, Bytes::from_static(component)).unwrap().at
        };
        put(&plugins, "only", "json-filter");
        let at = put(&plugins, "map", "json-map");
        let segment_len = 1 << 20;
        let segment = dir.path().join(format!("commitlog/{:020}", at - at % segment_len));
        // Where its record begins.
        std::fs::File::options().write(true).open(segment).unwrap().write_all_at(&[0xFF; 8], at % segment_len).unwrap();
        let plugins = load(&shell, dir.path());
        plugins.resolve("only").unwrap();
        assert_eq!(plugins.resolve("map").err().map(|failure| failure.kind), Some(Kind::NotFound));
        put(&plugins, "map", "json-map");
        load(&shell, dir.path()).resolve("map").unwrap();
    }

    #[test]
    fn nobody_puts_a_version_to_use_while_it_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let shell = crate::shell::tests::start(dir.path());
        let plugins = load(&shell, dir.path());
        let filter = sluice_plugins::ready_made("json-filter").unwrap().component;
        plugins.put("only", Bytes::from_static(filter)).unwrap();
        let used = |_: &[Version]| Err(Failure::new(Kind::Conflict, "it is used"));
        assert_eq!(plugins.delete("only", |_| true, used).unwrap_err().kind, Kind::Conflict);
        plugins.resolve("only").unwrap();
        let check = |doomed: &[Version]| {
            assert_eq!(doomed.len(), 1);
            assert!(plugins.using.try_read().is_none());
            Ok::<_, Failure>(())
        };
        plugins.delete("only", |_| true, check).unwrap();
        assert!(plugins.using.try_write().is_some());
        assert_eq!(plugins.resolve("only").err().map(|failure| failure.kind), Some(Kind::NotFound));
    }
}
