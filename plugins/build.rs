//! Builds the ready-made plugins and leaves their components where the crate embeds them.

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use sluice_guest_build::Guests;

const PLUGINS: [&str; 7] = ["json-filter", "json-map", "redact", "route", "aggregate", "dedup", "ledger-checker"];
const SOURCES: [&str; 4] = ["../sdk-wasm/guest", "../sdk-wasm/macros", "../sdk-wasm/wit", "../Cargo.lock"];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn std::error::Error>> {
    for path in PLUGINS.iter().chain(&SOURCES) {
        println!("cargo::rerun-if-changed={path}");
    }
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("..");
    let guests = PLUGINS.iter().fold(Guests::at(root), |guests, name| guests.package(name));
    let out = env::var("OUT_DIR")?;
    for built in guests.build()? {
        let path = Path::new(&out).join(format!("{}.wasm", built.package));
        fs::write(path, built.component)?;
    }
    Ok(())
}
