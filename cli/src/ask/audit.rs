//! `sluice audit`

use clap::Args;

use super::follow;
use crate::{output::OutputArgs, rest::Rest};

#[derive(Args)]
#[command(after_help = "Example:\n  sluice audit --limit 20\n  sluice audit --follow")]
pub struct AuditArgs {
    /// The newest so many entries, 1 to 1000.
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: u32,
    /// Go on with new entries as they come.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: AuditArgs, rest: &Rest) -> anyhow::Result<()> {
    let path = format!("/audit?limit={}", args.limit);
    let columns = [
        ("at", "/at"),
        ("event", "/event"),
        ("kind", "/kind"),
        ("name", "/name"),
        ("step", "/step"),
        ("method", "/method"),
        ("url", "/url"),
        ("status", "/status"),
        ("secret", "/secret"),
        ("lookups", "/count"),
        ("error", "/error"),
    ];
    if args.follow {
        return follow(rest, &format!("{path}&follow=true"), &args.output, &columns);
    }
    args.output.list(&rest.get(&path)?, &columns)
}
