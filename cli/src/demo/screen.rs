//! Counts while they change: one line that is rewritten on a terminal, a plain line now and then elsewhere.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use crate::output::say;

/// Time between two lines where there is no terminal.
const PLAIN: Duration = Duration::from_secs(1);

pub struct Screen {
    terminal: bool,
    last: Option<Instant>,
}

impl Screen {
    pub fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), last: None }
    }

    pub fn show(&mut self, text: &str) -> anyhow::Result<()> {
        if self.terminal {
            let mut out = std::io::stdout();
            write!(out, "\r\x1b[K{text}")?;
            out.flush()?;
        } else if self.last.is_none_or(|last| last.elapsed() >= PLAIN) {
            say(text)?;
            self.last = Some(Instant::now());
        }
        Ok(())
    }

    /// The last word on it.
    pub fn end(&self, text: &str) -> anyhow::Result<()> {
        say(format!("{}{text}", if self.terminal { "\r\x1b[K" } else { "" }))
    }
}
