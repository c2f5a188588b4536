//! What the clients know: what they asked for, and which of three answers they got: done, refused, or none.

use std::collections::{BTreeMap, BTreeSet};

use sluice_broker::{Leased, Verdict};
use sluice_model::{LogOffset, Timestamp};

#[derive(Clone, Debug, PartialEq)]
pub enum Sort {
    Plain,
    Delayed {
        due: Timestamp,
    },
    /// The last decision, and whether it was acknowledged.
    Half {
        decision: Option<(Verdict, bool)>,
    },
}

/// A message that the broker took, with what the sender was or would have been told.
#[derive(Clone, Debug)]
pub struct Said {
    pub id: u64,
    pub sort: Sort,
    pub topic: String,
    /// Which of the topics of that name.
    pub life: u64,
    pub queue: u32,
    pub offset: u64,
    pub at: LogOffset,
    pub body: Vec<u8>,
    /// The sender was told that it is on the disk.
    pub acknowledged: bool,
    /// A crash took it, as it may one that was not acknowledged.
    pub lost: bool,
}

/// Something that has a name and one value at a time, with all values that were asked for, oldest first.
#[derive(Clone, Debug)]
pub struct Register {
    pub values: Vec<Option<String>>,
    /// The first of them that it may still have.
    pub least: usize,
}

impl Register {
    pub fn new(value: Option<String>) -> Self {
        Self { values: vec![value], least: 0 }
    }
}

/// A consumer's commits in one queue, oldest first, and the first of them that the broker may have gone back to.
#[derive(Clone, Debug, Default)]
pub struct Commits {
    pub values: Vec<Option<u64>>,
    pub least: usize,
}

/// Group, topic, queue.
pub type Place = (String, String, u32);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    Topic(String),
    Group(String),
    Document(String),
}

/// A message handed back: which, to which topic it is to go, and whether that was acknowledged.
#[derive(Clone, Debug)]
pub struct HandedBack {
    pub id: u64,
    pub to: String,
    pub acknowledged: bool,
}

/// What a group knows of the messages that it popped.
#[derive(Clone, Debug, Default)]
pub struct Popping {
    /// Every message that it was given, with what it may say of it.
    pub held: Vec<(u64, Leased)>,
    /// Messages that it acknowledged while it held them, and whether it was told so.
    pub acknowledged: BTreeMap<u64, bool>,
    /// Messages that it was given although it had been told that they are acknowledged.
    pub again: BTreeSet<u64>,
    /// Messages that it could still pop in the end.
    pub left: BTreeSet<u64>,
}

/// What a client learns when a batch is on the disk.
#[derive(Clone, Debug)]
pub enum Ack {
    Said(usize),
    /// The value of that index was taken over.
    Is(Thing, usize),
    Decided(usize),
    Back(usize),
    /// The commit of that index in that place was recorded.
    Recorded(Place, usize),
    /// The group's message of that number is acknowledged.
    Popped(String, u64),
}

#[derive(Clone, Default)]
pub struct Oracle {
    pub said: Vec<Said>,
    pub refused: BTreeSet<u64>,
    pub things: BTreeMap<Thing, Register>,
    pub commits: BTreeMap<Place, Commits>,
    pub backs: Vec<HandedBack>,
    pub popping: BTreeMap<String, Popping>,
    pub last_id: u64,
    pub last_life: u64,
}

impl Oracle {
    /// A value was asked for; answers with what its acknowledgement will be.
    pub fn ask(&mut self, thing: Thing, value: Option<String>) -> Ack {
        let register = self.things.entry(thing.clone()).or_insert_with(|| Register::new(None));
        register.values.push(value);
        Ack::Is(thing, register.values.len() - 1)
    }

    pub fn acknowledge(&mut self, ack: Ack) {
        match ack {
            Ack::Said(index) => self.said[index].acknowledged = true,
            Ack::Is(thing, index) => {
                let register = self.things.get_mut(&thing).expect("what is acknowledged was asked for");
                register.least = register.least.max(index);
            }
            Ack::Decided(index) => {
                if let Sort::Half { decision: Some((_, acknowledged)) } = &mut self.said[index].sort {
                    *acknowledged = true;
                }
            }
            Ack::Back(index) => self.backs[index].acknowledged = true,
            Ack::Popped(group, id) => {
                self.popping.entry(group).or_default().acknowledged.insert(id, true);
            }
            Ack::Recorded(place, index) => {
                let commits = self.commits.entry(place).or_default();
                commits.least = commits.least.max(index);
            }
        }
    }

    /// Positions of a deleted group or topic count no more: none is one of the values from now on.
    pub fn forget_positions(&mut self, of: impl Fn(&Place) -> bool) -> Vec<Ack> {
        let places = self.commits.iter_mut().filter(|(place, _)| of(place));
        let forget = |(place, commits): (&Place, &mut Commits)| {
            commits.values.push(None);
            Ack::Recorded(place.clone(), commits.values.len() - 1)
        };
        places.map(forget).collect()
    }

    /// After a crash: what is beyond the end of the log is lost for good.
    pub fn lose_beyond(&mut self, end: LogOffset) {
        self.said.iter_mut().filter(|said| said.at >= end).for_each(|said| said.lost = true);
    }
}
