//! The `sluice` binary: one command line for everything.

mod ask;
mod command;
mod demo;
mod log;
mod output;
mod pairs;
mod rest;
mod run;
mod settings;
mod stream;

use std::process::ExitCode;

/// Idle memory and the cost of small allocations are both lower than with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    command::main()
}
