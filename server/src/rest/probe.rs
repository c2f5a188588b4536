//! One plugin outside of any pipeline: it is given records one by one, and says what it makes of each.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use sluice_runtime::{
    Action, Batch, Decision, Error, Failure as Trouble, HalfMessage, Instance, Output, Plugin, Record, RecordFailure,
    Role, Setup, state::Partition,
};

type Result<T> = std::result::Result<T, Error>;

/// A plugin with all it needs. An instance that ended is started anew.
pub struct Probe {
    plugin: Plugin,
    role: Role,
    setup: Setup,
    outputs: usize,
    instance: Instance,
    /// What a processor keeps from one record to the next.
    state: Option<Box<Partition>>,
}

/// What a plugin made of a record.
pub enum Ran {
    /// A filter keeps it or not.
    Judged(bool),
    /// Each with the output that it is for.
    Made(Vec<(Record, usize)>),
    Failed(ErrorView),
}

/// How a plugin failed on a message.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ErrorView {
    pub code: String,
    pub reason: String,
    /// What is to become of the message: `retry`, `dead-letter`, `skip` or `stop`; null after a trap.
    pub action: Option<&'static str>,
}

impl Probe {
    pub fn start(plugin: Plugin, role: Role, setup: Setup, outputs: usize) -> Result<Self> {
        let instance = plugin.instance(setup.clone())?;
        let state = (role == Role::Process).then(Partition::fresh).transpose()?.map(Box::new);
        Ok(Self { plugin, role, setup, outputs, instance, state })
    }

    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    pub fn role(&self) -> Role {
        self.role
    }

    /// Runs it on a record.
    pub fn apply(&mut self, record: &Record) -> Result<Ran> {
        self.renew()?;
        let mut batch = Batch::new(self.plugin.manifest().needs, self.setup.context.queue);
        if !batch.push(record, 0) {
            let reason = "the message does not fit into a batch".to_owned();
            return Ok(Ran::Failed(ErrorView { code: "too-large".to_owned(), reason, action: None }));
        }
        let made = |output: Output| match output.failed.first() {
            Some(failed) => Ran::Failed(ErrorView::of_record(failed)),
            None => {
                let produced = output.produced.into_iter();
                Ran::Made(produced.map(|one| (one.target, one)).map(|(to, one)| (one.applied_to(record), to)).collect())
            }
        };
        let ran = match self.role {
            Role::Process => {
                let alone = std::slice::from_ref(record);
                self.instance.process_alone(alone, self.outputs, &mut self.state).map(made)
            }
            Role::Transform => self.instance.transform(&batch, self.outputs).map(made),
            Role::Filter | Role::CheckTransaction => {
                self.instance.filter(&batch).map(|verdict| match verdict.failed.first() {
                    Some(failed) => Ran::Failed(ErrorView::of_record(failed)),
                    None => Ran::Judged(verdict.keeps(0)),
                })
            }
        };
        Ok(ran.unwrap_or_else(|trouble| Ran::Failed(ErrorView::of(&trouble))))
    }

    /// Asks it about a half message.
    pub fn check(&mut self, half: &HalfMessage) -> Result<std::result::Result<Decision, ErrorView>> {
        self.renew()?;
        Ok(self.instance.check(half).map_err(|trouble| ErrorView::of(&trouble)))
    }

    fn renew(&mut self) -> Result<()> {
        if self.instance.is_dead() {
            self.instance = self.plugin.instance(self.setup.clone())?;
        }
        Ok(())
    }
}

impl ErrorView {
    /// Of a message for which there was no time behind those before it.
    pub fn not_run(limit: Duration) -> Self {
        let reason = format!("the messages before it took {} s", limit.as_secs());
        Self { code: "not-run".to_owned(), reason, action: None }
    }

    fn of_record(failed: &RecordFailure) -> Self {
        let RecordFailure { code, reason, action, .. } = failed;
        Self { code: code.clone(), reason: reason.clone(), action: Some(action_text(*action)) }
    }

    fn of(trouble: &Trouble) -> Self {
        let action = match trouble {
            Trouble::Fault { action, .. } => Some(action_text(*action)),
            _ => None,
        };
        Self { code: trouble.code().to_owned(), reason: trouble.to_string(), action }
    }
}

fn action_text(action: Action) -> &'static str {
    match action {
        Action::Retry => "retry",
        Action::DeadLetter => "dead-letter",
        Action::Skip => "skip",
        Action::Stop => "stop",
    }
}
