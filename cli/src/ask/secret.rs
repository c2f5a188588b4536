//! `sluice secret`

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{read, topic::all};
use crate::{
    output::{OutputArgs, say},
    rest::{Content, Rest, segment},
};

#[derive(Args)]
pub struct SecretArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Set a secret to what standard input or a file holds. Plugins that run keep the value they have read until they start again.
    #[command(
        after_help = "Example:\n  sluice secret set api-key < key.txt\n  sluice secret set api-key --file key.txt"
    )]
    Set {
        name: String,
        /// UTF-8, at most 64 KiB; a line end at its end is no part of the value. Standard input when left out.
        #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
        file: PathBuf,
    },
    /// List the names of secrets; their values are given to nobody but plugins.
    #[command(after_help = "Example:\n  sluice secret list")]
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Delete a secret.
    #[command(after_help = "Example:\n  sluice secret delete api-key")]
    Delete { name: String },
}

pub fn run(args: SecretArgs, rest: &Rest) -> anyhow::Result<()> {
    let path = |name: &str| format!("/secrets/{}", segment(name));
    match args.verb {
        Verb::Set { name, file } => {
            rest.put(&path(&name), Content::Text(read(&file)?))?;
            say(format!("secret {name} is set"))
        }
        Verb::List { output } => {
            output.list(&all(rest, "/secrets?limit=1000")?, &[("name", "/name"), ("updated at", "/updated_at")])
        }
        Verb::Delete { name } => {
            rest.delete(&path(&name))?;
            say(format!("secret {name} is deleted"))
        }
    }
}
