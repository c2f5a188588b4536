use std::path::{Path, PathBuf};

/// What sort of trouble an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Invalid,
    Unavailable,
    Internal,
}

/// Why a plugin could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no Rust toolchain here builds {target}.\n{tried}\nInstall it with:\n\n    rustup target add {target}\n")]
    NoToolchain { target: &'static str, tried: String },
    #[error("cargo does not start: {0}")]
    NoCargo(std::io::Error),
    #[error("the plugin does not compile:\n{0}")]
    Cargo(String),
    #[error("{package} makes no WebAssembly; its Cargo.toml needs\n\n    [lib]\n    crate-type = [\"cdylib\"]\n")]
    NoArtifact { package: String },
    #[error("what was compiled is no plugin: {0}")]
    Component(String),
    #[error("{} is there already; nothing was written", .path.display())]
    Exists { path: PathBuf },
    #[error("{} is no SDK: expected the folder sdk-wasm of a checkout of Sluice, with guest/ and testkit/ in it", .path.display())]
    NoSdk { path: PathBuf },
    #[error("{}: {reason}", .path.display())]
    File { path: PathBuf, reason: String },
}

impl Error {
    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Error {
        Error::File { path: path.to_owned(), reason: error.to_string() }
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Error::NoToolchain { .. } | Error::NoCargo(_) => Kind::Unavailable,
            Error::File { .. } => Kind::Internal,
            Error::Cargo(_)
            | Error::NoArtifact { .. }
            | Error::Component(_)
            | Error::Exists { .. }
            | Error::NoSdk { .. } => Kind::Invalid,
        }
    }
}
