//! Builds plugins: finds a toolchain that makes WebAssembly, runs cargo in a target directory of its own, and makes components. Writes the
//! crate that a new plugin begins with, too.
//!
//! ```no_run
//! let built = sluice_guest_build::Guests::at("my-plugin").build()?;
//! std::fs::write("my-plugin.wasm", &built[0].component)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cargo;
mod component;
mod error;
mod new;
mod place;
mod toolchain;

use std::path::{Path, PathBuf};

pub use cargo::test;
pub use component::componentize;
pub use error::{Error, Kind};
pub use new::{NewCrate, Role, find_sdk};
pub use place::target_dir;
pub use toolchain::{Source, Toolchain};

/// What the guest is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Target {
    /// No WASI at all. The one to use.
    #[default]
    Unknown,
    /// WASI 0.2, for crates that insist on it. Needs rustup.
    Wasip2,
}

impl Target {
    #[must_use]
    pub fn triple(self) -> &'static str {
        match self {
            Target::Unknown => "wasm32-unknown-unknown",
            Target::Wasip2 => "wasm32-wasip2",
        }
    }
}

/// A plugin that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// Name of its cargo package.
    pub package: String,
    /// The component's bytes.
    pub component: Vec<u8>,
    /// Where cargo left what it compiled.
    pub artifact: PathBuf,
}

/// Guest crates of one workspace, to be built in one go.
#[derive(Clone, Debug)]
pub struct Guests {
    dir: PathBuf,
    packages: Vec<String>,
    target: Target,
    target_dir: Option<PathBuf>,
    features: Vec<String>,
}

impl Guests {
    /// `dir` holds the guest's `Cargo.toml`, or that of its workspace if packages are named.
    #[must_use]
    pub fn at(dir: impl AsRef<Path>) -> Guests {
        let dir = dir.as_ref().to_owned();
        Guests { dir, packages: Vec::new(), target: Target::default(), target_dir: None, features: Vec::new() }
    }

    /// Adds a package of the workspace.
    #[must_use]
    pub fn package(mut self, name: &str) -> Guests {
        self.packages.push(name.to_owned());
        self
    }

    #[must_use]
    pub fn target(mut self, target: Target) -> Guests {
        self.target = target;
        self
    }

    #[must_use]
    pub fn feature(mut self, feature: &str) -> Guests {
        self.features.push(feature.to_owned());
        self
    }

    /// Where to compile; [`target_dir`] otherwise. Must not be the target directory of a cargo that is waiting for this call.
    #[must_use]
    pub fn target_dir(mut self, dir: impl AsRef<Path>) -> Guests {
        self.target_dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Compiles, and makes a component of each package. Nothing is compiled anew that did not change.
    ///
    /// # Errors
    /// [`Error::NoToolchain`] says what to type; [`Error::Cargo`] carries the compiler's messages.
    pub fn build(&self) -> Result<Vec<Built>, Error> {
        let target_dir = self.target_dir.clone().unwrap_or_else(|| target_dir(&self.dir));
        let toolchain = Toolchain::find(self.target, &target_dir)?;
        let artifacts = cargo::build(self, &toolchain, &target_dir)?;
        artifacts
            .into_iter()
            .map(|(package, artifact)| {
                let bytes = std::fs::read(&artifact).map_err(|e| Error::file(&artifact, &e))?;
                Ok(Built { component: componentize(&bytes)?, package, artifact })
            })
            .collect()
    }
}
