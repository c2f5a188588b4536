//! Gives dead letters up: they count as dealt with from then on.

use std::time::{Duration, Instant};

use sluice_broker::{Boundary, Fetch, Filter};
use sluice_model::{QueueId, QueueOffset, RecordView, Timestamp, limits};

use super::{DeadLetters, dealt::Dealt};
use crate::{
    failure::Result,
    pipelines::{Pipelines, queue::FAILURE_KEYS},
};

/// Longest time that one request reads letters to find those with a code.
const SCAN_TIME: Duration = Duration::from_secs(30);

/// Which letters are to be given up.
#[derive(Clone, Debug)]
pub enum Purge {
    /// All that wait and were stored before a time, if there is one; with a code, those that failed with it. Those of timers as well, which
    /// no replay runs.
    All {
        before: Option<Timestamp>,
        code: Option<String>,
    },
    Ids(Vec<String>),
}

/// What a purge did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    pub purged: u64,
    pub left: u64,
    /// Why it ended before everything was done.
    pub stopped: Option<String>,
}

impl Pipelines {
    /// Has dead letters of a pipeline count as dealt with; fails with `NotFound` when there is no such pipeline, or no letter with one of
    /// the ids.
    pub fn purge(&self, name: &str, what: &Purge) -> Result<Purged> {
        let letters = self.dead_letters(name)?;
        let _turn = self.dealing.turn(name)?;
        letters.purge(what)
    }
}

impl DeadLetters {
    fn purge(&self, what: &Purge) -> Result<Purged> {
        let (mut marks, mut done) = (self.marks()?, Purged::default());
        match what {
            Purge::Ids(ids) => {
                for (queue, offset, _) in self.letters_with(ids)? {
                    let Some(dealt) = marks.0.get_mut(queue.0 as usize) else { continue };
                    done.purged += u64::from(!dealt.holds(offset.0));
                    dealt.add([(offset.0, offset.0 + 1)]);
                }
                if marks.0.iter().any(Dealt::is_full) {
                    return Err(Self::too_scattered());
                }
            }
            Purge::All { before, code } => {
                let until = Instant::now() + SCAN_TIME;
                for (queue, dealt) in self.queues().zip(&mut marks.0) {
                    let all = self.end(queue);
                    let end = match before {
                        Some(time) => {
                            self.reader().offset_at_time(&self.topic, queue, *time, Boundary::Lower)?.0.min(all)
                        }
                        None => all,
                    };
                    let before = dealt.open_before(all);
                    match code {
                        Some(code) if done.stopped.is_none() => {
                            done.stopped = self.purge_code(queue, dealt, end, code, until)?;
                        }
                        Some(_) => {}
                        None => dealt.add([(0, end)]),
                    }
                    done.purged += before - dealt.open_before(all);
                }
            }
        }
        if done.purged > 0 {
            self.put_marks(&marks)?;
        }
        Ok(Purged { left: self.left()?, ..done })
    }

    /// Deals with the letters of a queue before `end` that failed with `code`; answers why it ended before that.
    fn purge_code(
        &self,
        queue: QueueId,
        dealt: &mut Dealt,
        end: u64,
        code: &str,
        until: Instant,
    ) -> Result<Option<String>> {
        let mut at = dealt.next_open(0);
        while at < end {
            if Instant::now() >= until {
                return Ok(Some("it took too long for one request; ask again".to_owned()));
            }
            let fetch = Fetch {
                topic: self.topic.clone(),
                queue,
                from: QueueOffset(at),
                max_messages: limits::PULL_MESSAGES,
                max_bytes: limits::PULL_BYTES,
                filter: Filter::All,
            };
            let fetched = self.reader().fetch(&fetch)?;
            let mut found = Vec::new();
            for piece in &fetched.records {
                let mut rest = &piece[..];
                while !rest.is_empty() {
                    let letter = RecordView::parse(rest)?;
                    rest = rest.get(letter.bytes().len()..).unwrap_or_default();
                    let offset = letter.queue_offset().0;
                    if offset < end && letter.property(FAILURE_KEYS[0]) == Some(code) {
                        found.push((offset, offset + 1));
                    }
                }
            }
            let before = dealt.clone();
            dealt.add(found);
            if dealt.is_full() {
                *dealt = before;
                return Ok(Some(Self::too_scattered().text));
            }
            // A queue that was shortened meanwhile has nothing more.
            let next = if fetched.next.0 > at { fetched.next.0 } else { end };
            at = dealt.next_open(next);
        }
        Ok(None)
    }
}
