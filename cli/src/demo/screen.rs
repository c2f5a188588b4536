//! Counts while they change: one line that is rewritten on a terminal, a plain line now and then elsewhere.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

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

    pub fn show(&mut self, text: &str) {
        if self.terminal {
            print!("\r\x1b[K{text}");
            let _ = std::io::stdout().flush();
        } else if self.last.is_none_or(|last| last.elapsed() >= PLAIN) {
            println!("{text}");
            self.last = Some(Instant::now());
        }
    }

    /// The last word on it.
    pub fn end(&self, text: &str) {
        println!("{}{text}", if self.terminal { "\r\x1b[K" } else { "" });
    }
}
