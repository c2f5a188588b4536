//! The commands that ask a running server over REST.

use std::{io::Read, path::Path};

use anyhow::Context;

pub mod audit;
mod candidate;
pub mod checker;
pub mod dlq;
mod filter;
pub mod group;
mod ingress;
pub mod pipeline;
pub mod plugin;
pub mod secret;
pub mod topic;

/// How the lines of logs are listed.
const LOG_COLUMNS: [crate::output::Column; 4] =
    [("at", "/at"), ("level", "/level"), ("step", "/step"), ("message", "/message")];

/// What a file holds; `-` reads standard input.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut text)?;
    } else {
        text = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    }
    Ok(text)
}
