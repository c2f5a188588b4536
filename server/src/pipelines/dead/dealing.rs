//! Who deals with the dead letters of which pipeline: one caller at a time for each.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use sluice_model::Kind;

use crate::failure::{Failure, Result};

/// How long one waits for another who deals with the same letters.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pipelines whose letters are being replayed or purged.
#[derive(Default)]
pub struct Dealing {
    names: Mutex<BTreeSet<String>>,
    ended: Condvar,
}

/// The right to deal with the letters of one pipeline, until it is dropped.
pub struct Turn<'a> {
    dealing: &'a Dealing,
    name: String,
}

impl Dealing {
    /// Waits for the turn; fails with `Busy` when it does not come soon.
    pub fn turn(&self, name: &str) -> Result<Turn<'_>> {
        let until = Instant::now() + PATIENCE;
        let mut names = self.names.lock();
        while names.contains(name) {
            if self.ended.wait_until(&mut names, until).timed_out() {
                let text = format!("the dead letters of \"{name}\" are being dealt with already");
                return Err(Failure::new(Kind::Busy, text));
            }
        }
        names.insert(name.to_owned());
        Ok(Turn { dealing: self, name: name.to_owned() })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.dealing.names.lock().remove(&self.name);
        self.dealing.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pipelines_letters_wait_for_nobody_elses() {
        let dealing = Dealing::default();
        let first = dealing.turn("p").unwrap();
        let other = dealing.turn("q").unwrap();
        std::thread::scope(|scope| {
            let (begun, begins) = std::sync::mpsc::channel();
            let dealing = &dealing;
            let second = scope.spawn(move || {
                begun.send(()).unwrap();
                dealing.turn("p").map(drop)
            });
            begins.recv().unwrap();
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap().unwrap();
        });
        drop(other);
        assert!(dealing.names.lock().is_empty());
    }
}
