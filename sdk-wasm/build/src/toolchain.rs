use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Target;
use crate::error::Error;

/// Longest wait for `rustup target add`.
const RUSTUP_TIMEOUT: Duration = Duration::from_secs(300);
/// Builds a standard library for WebAssembly from Debian's packages.
const DEBIAN: &str = include_str!("../debian-toolchain.sh");

/// Where a toolchain came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Installed,
    Rustup,
    Debian,
}

/// A compiler that builds guests.
#[derive(Clone, Debug)]
pub struct Toolchain {
    pub source: Source,
    /// The compiler to use, if it is not the usual one.
    pub rustc: Option<PathBuf>,
}

impl Toolchain {
    /// Uses the installed target, else asks rustup for it, else builds one from Debian's packages inside `target_dir`. Only one process
    /// at a time installs anything.
    ///
    /// # Errors
    /// [`Error::NoToolchain`] says what was tried and what to type.
    pub fn find(target: Target, target_dir: &Path) -> Result<Toolchain, Error> {
        if has_target("rustc".as_ref(), target) {
            return Ok(Toolchain { source: Source::Installed, rustc: None });
        }
        let _lock = lock(target_dir)?;
        let mut tried = Vec::new();
        match rustup(target) {
            Ok(()) if has_target("rustc".as_ref(), target) => {
                return Ok(Toolchain { source: Source::Rustup, rustc: None });
            }
            Ok(()) => tried.push("rustup added it to a toolchain that is not in use".to_owned()),
            Err(e) => tried.push(e),
        }
        match debian(target, target_dir) {
            Ok(rustc) => Ok(Toolchain { source: Source::Debian, rustc: Some(rustc) }),
            Err(e) => {
                tried.push(e);
                Err(Error::NoToolchain { target: target.triple(), tried: tried.join("\n") })
            }
        }
    }
}

/// Whether the compiler has a standard library for the target.
fn has_target(rustc: &Path, target: Target) -> bool {
    let asked = Command::new(rustc).args(["--print", "target-libdir", "--target", target.triple()]).output();
    let Ok(answer) = asked else { return false };
    let Ok(files) = fs::read_dir(String::from_utf8_lossy(&answer.stdout).trim()) else { return false };
    files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
}

fn lock(target_dir: &Path) -> Result<File, Error> {
    fs::create_dir_all(target_dir).map_err(|e| Error::file(target_dir, &e))?;
    let path = target_dir.join(".toolchain-lock");
    let file = File::create(&path).map_err(|e| Error::file(&path, &e))?;
    file.lock().map_err(|e| Error::file(&path, &e))?;
    Ok(file)
}

fn rustup(target: Target) -> Result<(), String> {
    let mut command = Command::new("rustup");
    command.args(["target", "add", target.triple()]);
    run(command, RUSTUP_TIMEOUT).map(drop).map_err(|e| format!("`rustup target add {}`: {e}", target.triple()))
}

fn debian(target: Target, target_dir: &Path) -> Result<PathBuf, String> {
    if target != Target::Unknown {
        return Err(format!("Debian's Rust builds {} only", Target::Unknown.triple()));
    }
    if !Path::new("/etc/debian_version").exists() {
        return Err("Debian's Rust: this is no Debian".into());
    }
    let script = target_dir.join("debian-toolchain.sh");
    fs::write(&script, DEBIAN).map_err(|e| format!("{}: {e}", script.display()))?;
    let mut command = Command::new("bash");
    command.arg(&script).arg(target_dir.join("toolchain"));
    let out = run(command, Duration::from_secs(1800)).map_err(|e| format!("Debian's Rust: {e}"))?;
    let rustc = PathBuf::from(out.lines().last().unwrap_or_default());
    if has_target(&rustc, target) { Ok(rustc) } else { Err("Debian's Rust: it was built but does not work".into()) }
}

/// Runs to the end or the timeout; gives what it printed, or the end of its complaints.
fn run(mut command: Command, timeout: Duration) -> Result<String, String> {
    for name in
        ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
    {
        command.env_remove(name);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("does not start: {e}"))?;
    let readers = [child.stdout.take().map(reader), child.stderr.take().map(reader)];
    let start = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break status,
            None if start.elapsed() > timeout => {
                // It may have ended just now; then there is nothing to kill.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("gave up after {} s", timeout.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let [out, err] = readers.map(|reader| reader.and_then(|r| r.join().ok()).unwrap_or_default());
    if status.success() {
        return Ok(out);
    }
    let lines: Vec<&str> = err.lines().rev().take(5).collect();
    Err(lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
}

fn reader(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_tells_why_and_a_hanging_one_is_ended() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        assert_eq!(run(shell("echo out; echo err >&2"), RUSTUP_TIMEOUT), Ok("out\n".into()));
        assert_eq!(run(shell("echo broken >&2; exit 3"), RUSTUP_TIMEOUT), Err("broken".into()));
        assert_eq!(run(shell("exec sleep 1000"), Duration::from_millis(50)), Err("gave up after 0 s".into()));
    }

    #[test]
    fn the_refusal_says_what_to_type() {
        let error = Error::NoToolchain { target: Target::Unknown.triple(), tried: "nothing".into() };
        assert!(error.to_string().contains("\n    rustup target add wasm32-unknown-unknown\n"), "{error}");
    }
}
