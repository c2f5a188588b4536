//! The real binary, run as users run it.
#![allow(dead_code, clippy::unwrap_used, reason = "every test file uses a part of it; a test ends where it fails")]

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A command with none of this process's settings.
pub fn sluice(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

pub fn run(args: &[&str]) -> Output {
    sluice(args).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// `sluice dev` on free ports, stopped when it is dropped.
pub struct Dev {
    child: Child,
    pub offset: u16,
    /// Goes when it is dropped, unless it was given.
    _data: Option<TempDir>,
}

impl Dev {
    /// Ready when it returns.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The same with a configuration file, TOML.
    pub fn start_with(settings: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = data.path().join("sluice.toml");
        std::fs::write(&config, settings).unwrap();
        let mut dev = Self::run_dev(data.path(), free_offset(), &["--config", config.to_str().unwrap()]);
        dev._data = Some(data);
        dev
    }

    /// The same with a data directory and ports that outlive it.
    pub fn start_in(data: &Path, offset: u16) -> Self {
        Self::run_dev(data, offset, &[])
    }

    fn run_dev(data: &Path, offset: u16, flags: &[&str]) -> Self {
        let (path, number) = (data.to_str().unwrap(), offset.to_string());
        let mut child = sluice(&["dev", "--data", path, "--port-offset", &number, "--log", "warn"])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("ready"), "{line}");
        Self { child, offset, _data: None }
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn name_server(&self) -> String {
        format!("127.0.0.1:{}", 9876 + self.offset)
    }

    /// What monitoring gets.
    pub fn metrics(&self) -> String {
        let url = format!("http://127.0.0.1:{}/metrics", 8082 + self.offset);
        ureq::get(url).call().unwrap().into_body().read_to_string().unwrap()
    }

    /// What a command prints, which must succeed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// Runs a command against it.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command against it, with lines on its standard input.
    pub fn feed(&self, args: &[&str], input: &str) -> Output {
        let mut child =
            self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = sluice(args);
        command.env("SLUICE_NAMESRV", self.name_server());
        command.env("SLUICE_SERVER", format!("http://127.0.0.1:{}", 8082 + self.offset));
        command
    }

    /// Asks it to stop, and waits for it.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it did not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An offset at which all of `dev`'s ports are free, another one each time. They are below those that the system gives to
/// connections, which would take them at any moment.
pub fn free_offset() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    for _ in 0..1_000 {
        let turn = std::process::id().wrapping_mul(131).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = 10_500 + (turn % 11_000) as u16;
        if [9876, 10_911, 8082].into_iter().all(|port| free(port + offset)) {
            return offset;
        }
    }
    panic!("no free ports");
}
