//! The commands that ask a running server over REST.

use std::{io::Read, path::Path};

use anyhow::Context;

use crate::{
    output::{Column, OutputArgs},
    rest::Rest,
};

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
const LOG_COLUMNS: [Column; 4] = [("at", "/at"), ("level", "/level"), ("step", "/step"), ("message", "/message")];

/// Prints the lines of the logs at a path, or those that come from now on as well.
fn logs(rest: &Rest, path: &str, following: bool, output: &OutputArgs, columns: &[Column]) -> anyhow::Result<()> {
    if following {
        return follow(rest, &format!("{path}?follow=true"), output, columns);
    }
    output.list(&rest.get(path)?, columns)
}

/// Prints the events of a stream as they come.
fn follow(rest: &Rest, path: &str, output: &OutputArgs, columns: &[Column]) -> anyhow::Result<()> {
    output.head(columns)?;
    rest.follow(path, |event| output.event(&event, columns))
}

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
