//! What clients, administrators and the broker's own clock do.

use sluice_broker::Verdict;

use crate::dice::Dice;

/// Topics that are never deleted: the first acknowledges from the disk, the second from memory.
pub const SYNC: &str = "sync";
pub const ASYNC: &str = "async";
/// A topic that comes and goes.
pub const FLEETING: &str = "fleeting";
/// Where the pipeline writes what it made of [`SYNC`].
pub const SINK: &str = "sink";
/// Queues of every topic.
pub const QUEUES: u32 = 2;
/// A group that stays, and one that comes and goes.
pub const KEEPER: &str = "keeper";
pub const LEAVER: &str = "leaver";
/// Groups that pop [`SYNC`]: the second in order.
pub const POPPER: &str = "popper";
pub const RANKS: &str = "ranks";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many messages as one unit: topic, queue, count, bytes each.
    Send(&'static str, u32, u8, u16),
    /// Topic and delay level.
    Delayed(&'static str, u8),
    /// Topic and delay, ms.
    Timed(&'static str, u32),
    Half(&'static str),
    /// Decides one of the undecided half messages, counted round.
    Decide(u8, Verdict),
    CheckHalves,
    /// Hands back the message of that number, counted round, of the topic, with that delay level.
    Back(&'static str, u8, i8),
    /// Commits a group's offset: this many tenths of a queue.
    Commit(&'static str, &'static str, u32, u8),
    RecordOffsets,
    PutTopic(&'static str),
    DeleteTopic(&'static str),
    PutGroup(&'static str),
    DeleteGroup(&'static str),
    PutDocument(u8, u16),
    DeleteDocument(u8),
    CarryDocuments,
    Deliver,
    /// A group takes up to so many messages for two seconds.
    Pop(&'static str, u8),
    /// A group acknowledges a message that it popped, counted round from the last.
    Acknowledge(&'static str, u8),
    /// The same for keeping it so many ms from now on.
    Keep(&'static str, u8, u16),
    Revive,
    /// One turn of the pipeline over one queue.
    Pipe(u32),
    /// Time passes, ms.
    Wait(u16),
    /// What is staged is written; who waits for memory only is answered.
    Write,
    /// What is written becomes durable and visible; everybody is answered.
    Settle,
    /// Drafts a checkpoint, to be written later.
    Draft,
    /// Writes the draft that is out, or a new one.
    Checkpoint,
    /// Notes how far the log is durable, and works ahead for the next checkpoint.
    Mark,
    /// Keeps this many bytes of the log.
    Retain(u16),
    /// The disk has room for very little from now on, or for all again.
    FillDisk,
    FreeDisk,
}

use Step::*;

pub const SETUP: [Step; 7] =
    [PutTopic(SYNC), PutTopic(ASYNC), PutTopic(SINK), PutGroup(KEEPER), Settle, PutTopic(FLEETING), PutGroup(LEAVER)];

/// A bit of everything. `rounds` of it; about 30 calls to the disk each.
pub fn everything(rounds: u8) -> Vec<Step> {
    let mut steps = SETUP.to_vec();
    for round in 0..rounds {
        let verdict = if round % 2 == 0 { Verdict::Commit } else { Verdict::Rollback };
        let queue = u32::from(round) % QUEUES;
        steps.extend([
            Send(SYNC, queue, 1, 300),
            Send(ASYNC, 0, 1, 20),
            Delayed(SYNC, 1),
            Timed(SYNC, 700),
            Timed(ASYNC, 4_000 + 600_000 * u32::from(round % 2)),
            Write,
            Send(FLEETING, queue, 3, 40),
            Half(SYNC),
            PutDocument(round % 3, 200),
            Settle,
            Deliver,
            Send(SYNC, 1, 4, 30),
            Decide(0, verdict),
            Pipe(queue),
            Commit(KEEPER, SYNC, queue, 10),
            Commit(LEAVER, FLEETING, 0, 5),
            Write,
            Half(ASYNC),
            Back(SYNC, round, 0),
            RecordOffsets,
            Settle,
            Wait(1_500),
            Deliver,
            Pipe(0),
            Pipe(1),
            CheckHalves,
            Revive,
            Pop(POPPER, 3),
            Pop(RANKS, 2),
            Acknowledge(POPPER, 0),
            Write,
            Acknowledge(RANKS, round % 2),
            Keep(POPPER, 2, 3_000),
            Acknowledge(RANKS, 0),
        ]);
        match round % 4 {
            0 => steps.extend([Draft, DeleteTopic(FLEETING), Send(SYNC, 0, 2, 10), PutTopic(FLEETING)]),
            1 => steps.extend([DeleteGroup(LEAVER), DeleteDocument(0), Mark, Checkpoint, Settle, PutGroup(LEAVER)]),
            2 => steps.extend([
                Wait(30_000),
                Deliver,
                Settle,
                Back("%RETRY%keeper", 0, 0),
                Back(SYNC, 1, -1),
                Settle,
                Checkpoint,
            ]),
            _ => steps.extend([DeleteTopic(FLEETING), Mark]),
        }
    }
    steps.push(Settle);
    steps
}

/// What a broker that came up again does, so that it is seen to go on.
pub fn more() -> Vec<Step> {
    let mut steps = SETUP.to_vec();
    steps.extend(everything(1));
    steps
}

/// A script by lot; each seed leaves out some kinds of steps, so that the others come more often.
pub fn random(seed: u64, len: usize) -> Vec<Step> {
    let mut dice = Dice(seed);
    let left_out = [dice.throw(KINDS), dice.throw(KINDS), dice.throw(KINDS)];
    let mut steps = SETUP.to_vec();
    while steps.len() < len {
        let kind = dice.throw(KINDS);
        if !left_out.contains(&kind) {
            steps.push(step(kind, &mut dice));
        }
        if dice.throw(4) == 0 {
            steps.push(if dice.throw(3) == 0 { Write } else { Settle });
        }
    }
    steps.extend([FreeDisk, Settle]);
    steps
}

const KINDS: u64 = 33;

fn step(kind: u64, dice: &mut Dice) -> Step {
    let mut below = |sides: u64| dice.throw(sides) as u8;
    let stable = [SYNC, ASYNC][below(2) as usize];
    let any = [SYNC, ASYNC, FLEETING][below(3) as usize];
    let group = [KEEPER, LEAVER][below(2) as usize];
    let queue = u32::from(below(u64::from(QUEUES)));
    let popper = [POPPER, RANKS][below(2) as usize];
    match kind {
        0..=2 => Send(any, queue, 1, u16::from(below(250)) * 4),
        3 | 4 => Send(any, queue, 2 + below(4), u16::from(below(100))),
        5 if below(2) == 0 => Timed(stable, 1 + u32::from(below(200)) * u32::from(below(40))),
        5 => Delayed(stable, 1 + below(3)),
        6 => Half(stable),
        7 => Decide(below(9), if below(3) == 0 { Verdict::Rollback } else { Verdict::Commit }),
        8 => CheckHalves,
        9 => Back([stable, "%RETRY%keeper"][below(2) as usize], below(50), below(4) as i8 - 1),
        10 | 11 => Commit(group, any, queue, below(11)),
        12 => RecordOffsets,
        13 => PutTopic(FLEETING),
        14 => DeleteTopic(FLEETING),
        15 => [PutGroup(LEAVER), DeleteGroup(LEAVER)][below(2) as usize],
        16 => PutDocument(below(4), u16::from(below(250)) * 4),
        17 => [DeleteDocument(below(4)), CarryDocuments][below(2) as usize],
        18 => Deliver,
        19 | 20 => Pipe(queue),
        21 => Wait(u16::from(below(250)) * 20),
        22 => Mark,
        23 => [Draft, Checkpoint][below(2) as usize],
        24 => Checkpoint,
        25 | 26 => Retain(5_000),
        28 => Pop(popper, 1 + below(8)),
        29 | 30 => Acknowledge(popper, below(6)),
        31 => Keep(popper, below(6), u16::from(below(200)) * 20),
        32 => Revive,
        _ => [FillDisk, FreeDisk, FreeDisk][below(3) as usize],
    }
}
