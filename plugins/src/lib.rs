//! The plugins that come with Sluice, built and embedded.

/// A plugin that is ready to upload.
#[derive(Clone, Copy, Debug)]
pub struct ReadyMade {
    pub name: &'static str,
    /// `major.minor.patch`
    pub version: &'static str,
    /// The component's bytes.
    pub component: &'static [u8],
    /// Its README, Markdown.
    pub readme: &'static str,
}

macro_rules! ready_made {
    ($name:literal) => {
        ReadyMade {
            name: $name,
            version: env!("CARGO_PKG_VERSION"),
            component: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".wasm")),
            readme: include_str!(concat!("../", $name, "/README.md")),
        }
    };
}

pub const READY_MADE: &[ReadyMade] = &[
    ready_made!("json-filter"),
    ready_made!("json-map"),
    ready_made!("redact"),
    ready_made!("route"),
    ready_made!("aggregate"),
    ready_made!("dedup"),
    ready_made!("ledger-checker"),
];

/// The plugin with this name.
#[must_use]
pub fn ready_made(name: &str) -> Option<&'static ReadyMade> {
    READY_MADE.iter().find(|plugin| plugin.name == name)
}
