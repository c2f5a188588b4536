//! The corpus: each component with what must come of it.

mod calls;
mod gate;
mod host;
mod lies;
mod state;

use wit_component::ComponentEncoder;

use crate::guest::{
    ANSWER, BOMB, CONFIGURED, DIVE, FREE, GREED, Guest, HEAP, LOOP, OWN, bytes_at, bytes_of, check, curious, filter,
    manifest, process, transform, wasi, words,
};
use {calls::*, gate::*, host::*, lies::*, state::*};

/// How far a case goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Load,
    Start,
    /// So many calls of its role, until one fails.
    Call(u32),
    /// A stage in which each record sets a timer that is due at once.
    Timers,
    /// A stage with many records, on each of which it fails.
    Storm,
}

pub struct Case {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub act: Act,
    /// The code of the refusal or of the failure; `fine` when it goes well.
    pub code: &'static str,
    /// What the message holds.
    pub says: &'static str,
    /// It would run for ever: its time on the processor is what the deadline allows.
    pub endless: bool,
    /// It is to meet another limit than the deadline, however slow the machine is.
    pub patient: bool,
    /// It may have all the memory that an operator may give.
    pub roomy: bool,
}

fn case(name: &'static str, act: Act, bytes: Vec<u8>, code: &'static str, says: &'static str) -> Case {
    Case { name, bytes, act, code, says, endless: false, patient: false, roomy: false }
}

fn refused(name: &'static str, guest: Guest, code: &'static str, says: &'static str) -> Case {
    case(name, Act::Load, guest.build(), code, says)
}

fn refused_text(name: &'static str, text: &str, code: &'static str, says: &'static str) -> Case {
    let bytes = wat::parse_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
    case(name, Act::Load, bytes, code, says)
}

fn start(name: &'static str, guest: Guest, code: &'static str, says: &'static str) -> Case {
    case(name, Act::Start, guest.build(), code, says)
}

fn call(name: &'static str, guest: Guest, code: &'static str, says: &'static str) -> Case {
    case(name, Act::Call(1), guest.build(), code, says)
}

impl Case {
    fn endless(self) -> Case {
        Case { endless: true, ..self }
    }

    fn patient(self) -> Case {
        Case { patient: true, ..self }
    }

    fn roomy(self) -> Case {
        Case { roomy: true, ..self }
    }

    fn acts(self, act: Act) -> Case {
        Case { act, ..self }
    }
}

const DEADLINE: &str = "longer than its deadline";
const STACK: &str = "call stack exhausted";
const NO_ROOM: &str = "KiB of memory";
const UNREACHABLE: &str = "unreachable";

pub fn all() -> Vec<Case> {
    let groups =
        [gate(), compiling(), describing(), starting(), calling(), lying(), writing(), host(), keeping(), checking()];
    groups.into_iter().flatten().collect()
}
