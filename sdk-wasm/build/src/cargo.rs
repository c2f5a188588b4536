use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::{env, fs};

use serde_json::Value;

use crate::Guests;
use crate::error::Error;
use crate::toolchain::Toolchain;

/// What an outer cargo, clippy or the user set for host code, and must not reach guest code.
const CLEARED: [&str; 14] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_TARGET_DIR",
    "CARGO_INCREMENTAL",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "RUSTC",
    "RUSTDOC",
    "CLIPPY_ARGS",
];
/// Prefixes of what cargo tells a build script or a test about the crate it belongs to.
const CLEARED_PREFIXES: [&str; 5] = ["CARGO_PROFILE_", "CARGO_FEATURE_", "CARGO_CFG_", "CARGO_PKG_", "DEP_"];

/// The release profile for guests: fast, one unit, and function names kept for the stack of a trap.
const PROFILE: [(&str, &str); 6] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
    ("CARGO_PROFILE_RELEASE_STRIP", "debuginfo"),
];

/// Package and its compiled WebAssembly, in the order the packages were named.
pub(crate) fn build(
    guests: &Guests,
    toolchain: &Toolchain,
    target_dir: &Path,
) -> Result<Vec<(String, PathBuf)>, Error> {
    let manifest = guests.dir.join("Cargo.toml");
    let manifest = fs::canonicalize(&manifest).map_err(|e| Error::file(&manifest, &e))?;
    let mut cargo = program();
    clean(&mut cargo);
    cargo.args(["build", "--release", "--lib", "--message-format=json-render-diagnostics", "--target"]);
    cargo.arg(guests.target.triple()).arg("--manifest-path").arg(&manifest).arg("--target-dir").arg(target_dir);
    for package in &guests.packages {
        cargo.args(["-p", package]);
    }
    for feature in &guests.features {
        cargo.args(["--features", feature]);
    }
    cargo.envs(PROFILE).env("CARGO_ENCODED_RUSTFLAGS", flags(&manifest));
    if let Some(rustc) = &toolchain.rustc {
        cargo.env("RUSTC", rustc);
    }
    let done = cargo.stdin(Stdio::null()).output().map_err(Error::NoCargo)?;
    if !done.status.success() {
        return Err(Error::Cargo(String::from_utf8_lossy(&done.stderr).trim().to_owned()));
    }
    let built = artifacts(&String::from_utf8_lossy(&done.stdout));
    let find = |package: &String| {
        let found = built.iter().find(|(name, _)| name == package);
        found.cloned().ok_or_else(|| Error::NoArtifact { package: package.clone() })
    };
    if guests.packages.is_empty() {
        // The packages that were asked for come last; what they depend on makes no WebAssembly file.
        let name = guests.dir.display().to_string();
        return if built.is_empty() { Err(Error::NoArtifact { package: name }) } else { Ok(built) };
    }
    guests.packages.iter().map(find).collect()
}

/// Runs the tests of the crate in `dir`, for the eyes of whoever waits for them; answers how cargo ended.
///
/// # Errors
/// There is no crate, or cargo does not start.
pub fn test(dir: &Path, arguments: &[String]) -> Result<ExitStatus, Error> {
    let manifest = dir.join("Cargo.toml");
    let manifest = fs::canonicalize(&manifest).map_err(|e| Error::file(&manifest, &e))?;
    let mut cargo = program();
    cargo.arg("test").arg("--manifest-path").arg(manifest).arg("--").args(arguments);
    cargo.status().map_err(Error::NoCargo)
}

fn program() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

fn clean(cargo: &mut Command) {
    for name in CLEARED {
        cargo.env_remove(name);
    }
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if CLEARED_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
}

/// LLVM's measure of what to inline, over four times its usual one: a call inside of WebAssembly costs a check of the stack and of the
/// deadline, so parsers gain a fifth to a quarter. Modules become about twice as large; from here on they grow faster than they gain.
const INLINE: &str = "-Cllvm-args=-inline-threshold=1000";

/// SIMD makes scans several times faster; the remapping keeps this machine's paths out of panic messages and makes builds in different
/// places alike.
fn flags(manifest: &Path) -> String {
    let mut flags = vec!["-Ctarget-feature=+simd128".to_owned(), INLINE.to_owned()];
    let mut remap = |from: &Path, to: &str| flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let user = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    if let Some(home) = home.or(user) {
        remap(&home, "/cargo");
    }
    let root = manifest.ancestors().skip(1).filter(|dir| dir.join("Cargo.lock").is_file()).last();
    if let Some(root) = root.or(manifest.parent()) {
        remap(root, "/plugin");
    }
    flags.join("\u{1f}")
}

/// The WebAssembly files that cargo reports, with their packages' names.
fn artifacts(messages: &str) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        let mut files = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let wasm = files.rfind(|file| Path::new(file).extension().is_some_and(|e| e == "wasm"));
        if let (Some(file), Some(manifest)) = (wasm, message["manifest_path"].as_str())
            && let Some(name) = package_name(message["package_id"].as_str().unwrap_or_default(), manifest)
        {
            found.push((name, PathBuf::from(file)));
        }
    }
    found
}

/// A package id ends in `#name@version`, or in `/name#version` where the directory has the package's name.
fn package_name(id: &str, manifest: &str) -> Option<String> {
    let (before, after) = id.rsplit_once('#')?;
    match after.split_once('@') {
        Some((name, _)) => Some(name.to_owned()),
        None => before.rsplit('/').next().map(str::to_owned).filter(|_| !manifest.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_package_id_are_read() {
        let name = |id| package_name(id, "Cargo.toml").unwrap();
        assert_eq!(name("path+file:///w/plugins/route#0.1.0"), "route");
        assert_eq!(name("path+file:///w/tests/guest#sluice-test-guest@0.1.0"), "sluice-test-guest");
    }

    #[test]
    fn only_webassembly_is_an_artifact() {
        let lines = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/route#0.1.0","manifest_path":"m","filenames":["/t/route.wasm"]}
{"reason":"compiler-artifact","package_id":"registry+x#serde@1.0.0","manifest_path":"m","filenames":["/t/libserde.rlib"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(artifacts(lines), [("route".to_owned(), PathBuf::from("/t/route.wasm"))]);
    }
}
