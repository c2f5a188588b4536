//! One plugin of a chain: its instance, and the calls into it.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::batch::Batch;
use crate::bisect::{Answer, Called, Fall, Flow, Ran};
use crate::counters::{Meter, StepCounters, StepStatus};
use crate::error::{Error, Failure};
use crate::grants::Grants;
use crate::host::Context;
use crate::instance::Instance;
use crate::manifest::Role;
use crate::output::Output;
use crate::plan::Plan;
use crate::plugin::{Plugin, Setup};
use crate::ports::{PortError, Prefilter};
use crate::state::{Domain, Partition, StateError, Timer, clock_name, store_name, timers_name};

/// One plugin of the chain.
#[derive(Clone)]
pub struct Step {
    /// As the dead letters and the plugin's own context name it.
    pub name: String,
    pub plugin: Plugin,
    pub config: Map<String, Value>,
    /// Keeps records away from it; those count as dropped.
    pub prefilter: Option<Arc<dyn Prefilter>>,
    pub grants: Grants,
}

impl Step {
    /// What its plugin is used as in a pipeline.
    #[must_use]
    pub fn role(&self) -> Role {
        used_as(&self.plugin)
    }
}

/// The partition of the stage's queue, away from where others look into it while a turn runs.
pub(crate) type Home = Option<Box<Partition>>;

/// A step of a stage, with its instance.
pub(crate) struct Running {
    pub(crate) step: Step,
    pub(crate) batch: Batch,
    pub(crate) instance: Option<Instance>,
    pub(crate) counters: StepCounters,
    /// What the plugin is used as.
    role: Role,
    outputs: usize,
    /// A processor's name among those that keep state.
    keeps_as: String,
}

impl Running {
    /// The step with this index, with an instance.
    pub(crate) fn start(plan: &Plan, index: usize) -> Result<Self, Error> {
        let step = plan.steps[index].clone();
        let last = index + 1 == plan.steps.len();
        let mut running = Self {
            batch: Batch::new(step.plugin.manifest().needs, plan.queue),
            instance: None,
            counters: StepCounters::default(),
            role: used_as(&step.plugin),
            outputs: if last { plan.sinks.len() } else { 1 },
            keeps_as: keeps_as(plan, index),
            step,
        };
        running.instance = Some(running.instantiate(plan)?);
        running.name_stores(plan);
        Ok(running)
    }

    /// Makes the stores known, so that they can be looked into before the plugin asks for one.
    fn name_stores(&self, plan: &Plan) {
        let Some(state) = plan.state.as_ref().filter(|_| self.keeps_state()) else { return };
        if let Some(partition) = state.partition.lock().as_mut() {
            for store in &self.step.plugin.manifest().stores {
                partition.store(&store_name(&self.keeps_as, &store.name));
            }
        }
    }

    pub(crate) fn status(&self) -> StepStatus {
        let memory = self.instance.as_ref().map_or(0, Instance::memory);
        StepStatus {
            name: self.step.name.clone(),
            digest: self.step.plugin.digest().to_owned(),
            counters: StepCounters { memory, ..self.counters },
        }
    }

    /// Takes what came of a run into the counters.
    pub(crate) fn count(&mut self, ran: &Ran<'_>) {
        self.counters.read += ran.tried;
        self.counters.sent += ran.flows.len() as u64;
        self.counters.failed += ran.failed.len() as u64;
    }

    pub(crate) fn keeps_state(&self) -> bool {
        self.role == Role::Process
    }

    fn instantiate(&self, plan: &Plan) -> Result<Instance, Error> {
        let context = Context {
            pipeline: plan.pipeline.clone(),
            step: self.step.name.clone(),
            queue: plan.queue,
            input_topic: plan.input_topic.clone(),
            output_topics: plan.sinks.clone(),
        };
        self.step.plugin.instance(Setup {
            config: self.step.config.clone(),
            context,
            limits: plan.limits.clone(),
            grants: self.step.grants.clone(),
            observer: Arc::clone(&plan.observer),
            keeps_as: Some(self.keeps_as.clone()),
            lateness: plan.state.as_ref().map_or(0, |state| state.lateness),
        })
    }

    /// One call; the instance is made anew if the last one ended.
    ///
    /// # Errors
    /// No instance could be had, the state cannot be read or written, or what was granted is not to be had now.
    pub(crate) fn call(
        &mut self,
        plan: &Plan,
        held: &mut Option<Instance>,
        batch: &Batch,
        home: &mut Home,
    ) -> Result<Called, Error> {
        let (role, outputs) = (self.role, self.outputs);
        let answer = self.with_instance(plan, held, |instance| match role {
            Role::Process => instance.process(batch, outputs, home).map(split),
            Role::Transform => instance.transform(batch, outputs).map(Answer::Output),
            Role::Filter | Role::CheckTransaction => instance.filter(batch).map(Answer::Verdict),
        })?;
        let mut timers = role == Role::Process && home.as_ref().is_some_and(|partition| partition.took_timers());
        if timers && batch.len() == 1 && !is_fine(&answer) {
            let alone = Partition::try_without_timers(home, |home| {
                self.with_instance(plan, held, |instance| instance.process(batch, outputs, home).map(split))
            })?;
            timers = is_fine(&alone?);
        }
        Ok(Called { timers, ..called(answer, plan, home) })
    }

    /// When the first timer is due.
    pub(crate) fn next_timer(&self, domain: Domain, home: &mut Home) -> Result<Option<u64>, StateError> {
        match home {
            Some(partition) if self.keeps_state() => {
                let timers = partition.store(&timers_name(&self.keeps_as));
                partition.next_due(timers, domain)
            }
            _ => Ok(None),
        }
    }

    /// Which of the records is the first to bring its processor more than so many event-time timers together with those before it.
    pub(crate) fn brings_crowd(
        &self,
        flows: &[Flow<'_>],
        crowd: usize,
        lateness: u64,
        home: &mut Home,
    ) -> Result<Option<usize>, StateError> {
        let Some(first) = self.next_timer(Domain::EventTime, home)? else { return Ok(None) };
        let newest = self.clock(home)?;
        let until = |time: u64| time.max(newest).saturating_sub(lateness);
        let last = flows.iter().map(|flow| flow.record.event_time()).max().map_or(0, until);
        let (Some(partition), true) = (home, first <= last) else { return Ok(None) };
        let timers = partition.store(&timers_name(&self.keeps_as));
        let due = partition.due_after(timers, Domain::EventTime, crowd, last)?;
        Ok(due.and_then(|due| flows.iter().position(|flow| until(flow.record.event_time()) >= due)))
    }

    /// The newest producer's time that its processor has seen; 0 if it is none.
    pub(crate) fn clock(&self, home: &mut Home) -> Result<u64, StateError> {
        match home {
            Some(partition) if self.keeps_state() => {
                let clock = partition.store(&clock_name(&self.keeps_as));
                partition.clock(clock)
            }
            _ => Ok(0),
        }
    }

    /// Its processor is to see a record of this producer's time next.
    pub(crate) fn advance(&self, newest: u64, home: &mut Home) -> Result<(), StateError> {
        match home {
            Some(partition) if self.keeps_state() => {
                let clock = partition.store(&clock_name(&self.keeps_as));
                partition.advance(clock, newest)
            }
            _ => Ok(()),
        }
    }

    /// Takes out the timers that are due at a time, the first so many of them.
    pub(crate) fn take_timers(
        &self,
        domain: Domain,
        until: u64,
        most: usize,
        home: &mut Home,
    ) -> Result<Vec<Timer>, StateError> {
        match home {
            Some(partition) if self.keeps_state() => {
                let timers = partition.store(&timers_name(&self.keeps_as));
                partition.take_timers(timers, domain, until, most)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Tells the processor that timers are due.
    ///
    /// # Errors
    /// As [`Running::call`].
    pub(crate) fn on_timers(
        &mut self,
        plan: &Plan,
        held: &mut Option<Instance>,
        due: &[Timer],
        now: u64,
        home: &mut Home,
    ) -> Result<Called, Error> {
        let outputs = self.outputs;
        let answer =
            self.with_instance(plan, held, |instance| instance.on_timers(due, now, outputs, home).map(split))?;
        Ok(called(answer, plan, home))
    }

    /// What was granted and is not to be had now is no failure of a record: the turn is made again later. Nor is a state that is broken.
    fn with_instance<R>(
        &mut self,
        plan: &Plan,
        held: &mut Option<Instance>,
        call: impl FnOnce(&mut Instance) -> Result<R, Failure>,
    ) -> Result<Result<R, Failure>, Error> {
        let meter = Meter::start();
        let mut instance = match held.take() {
            Some(instance) => instance,
            None => self.instantiate(plan)?,
        };
        let answer = call(&mut instance);
        let its_own = !matches!(answer, Err(Failure::Unavailable(_) | Failure::State(_)));
        self.counters.spent(&meter, instance.is_dead() && its_own);
        if !instance.is_dead() {
            *held = Some(instance);
        }
        match answer {
            Err(Failure::Unavailable(reason)) => Err(PortError::Busy(reason).into()),
            Err(Failure::State(problem)) => Err(StateError::File(problem).into()),
            answer => Ok(answer),
        }
    }
}

fn is_fine(answer: &Result<Answer, Failure>) -> bool {
    !matches!(answer, Err(_) | Ok(Answer::Without { .. }))
}

/// The turn can take no more when it wrote as much as half an answer may have, or over as much.
fn called(answer: Result<Answer, Failure>, plan: &Plan, home: &Home) -> Called {
    let written = home.as_ref().map_or(0, |partition| partition.written().max(partition.overwritten()));
    Called { answer, full: written as u64 > plan.limits.output / 2, timers: false }
}

/// A processor's answer: when a record failed, those around it have to be tried again, since the state is as before the call.
fn split(mut output: Output) -> Answer {
    let first = output.failed.iter().enumerate().min_by_key(|(_, failed)| failed.index).map(|(at, _)| at);
    match first {
        None => Answer::Output(output),
        Some(at) => {
            let failed = output.failed.swap_remove(at);
            let fall = Fall { action: failed.action, code: failed.code, reason: failed.reason };
            Answer::Without { index: failed.index, fall }
        }
    }
}

/// What a plugin with several roles runs as.
pub(crate) fn used_as(plugin: &Plugin) -> Role {
    let first = [Role::Process, Role::Transform].into_iter().find(|role| plugin.has(*role));
    first.unwrap_or(Role::Filter)
}

/// The name that a step keeps its state under.
fn keeps_as(plan: &Plan, index: usize) -> String {
    let step = |step: &Step| (step.plugin.manifest().name.clone(), step.role() == Role::Process);
    name_of_last(plan.steps[..=index].iter().map(step))
}

/// The last step's plugin's name, with a number when an earlier step has it as well; the next number where another processor goes by that
/// name already, as one whose plugin is `a-2` does before the second `a`. Steps are told by their plugin, and whether they keep state.
fn name_of_last(steps: impl Iterator<Item = (String, bool)>) -> String {
    let (mut plugins, mut taken) = (Vec::new(), Vec::new());
    let mut last = String::new();
    for (plugin, keeps) in steps {
        let before = plugins.iter().filter(|other| **other == plugin).count();
        let mut names =
            (before + 1..).map(|number| if number == 1 { plugin.clone() } else { format!("{plugin}-{number}") });
        last = names.find(|name| !taken.contains(name)).unwrap_or_default();
        if keeps {
            taken.push(last.clone());
        }
        plugins.push(plugin);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_processors_keep_under_one_name() {
        let names = |steps: &[(&str, bool)]| -> Vec<String> {
            let name = |at: usize| name_of_last(steps[..=at].iter().map(|(name, keeps)| ((*name).to_owned(), *keeps)));
            (0..steps.len()).map(name).collect()
        };
        assert_eq!(names(&[("a", true), ("b", true), ("a", true)]), ["a", "b", "a-2"]);
        assert_eq!(names(&[("a", true), ("a-2", true), ("a", true), ("a", true)]), ["a", "a-2", "a-3", "a-4"]);
        assert_eq!(names(&[("a", true), ("a", true), ("a-2", true)]), ["a", "a-2", "a-2-2"]);
        // A filter keeps nothing, so its name is nobody's place.
        assert_eq!(names(&[("a", false), ("a", false), ("a-2", true)])[2], "a-2");
    }
}
