//! Verbs: what runs under a pipeline's name is changed. Another version takes over at an exact offset of each queue, which the log says in
//! one unit with the pipeline's document.

use sluice_broker::Position;
use sluice_model::{GroupName, Kind, TopicName};

use super::{
    Description, KIND, PIPELINES_LIMIT, Pipeline, Pipelines, Status, Unread,
    queue::{first_positions, standing},
    revision::{Candidate, Mode, Offsets, Reason, Revision, Stored, new_incarnation},
    run::Unserved,
    spec::{Checked, Spec, parse_start},
    state::Place,
};
use crate::failure::{Failure, Result};

impl Pipelines {
    /// Makes a pipeline or replaces what runs under its name. The same text with the same plugins makes no revision. One whose document cannot be read goes on where it stood, with nothing kept.
    ///
    /// With `expected`, fails with `Conflict` unless that is the version in place (0: none); fails with it as well while a version is tried.
    pub fn apply(&self, spec: Spec, expected: Option<u64>) -> Result<Description> {
        let _changing = self.changing.lock();
        let _using = self.plugins.using();
        let name = spec.name.clone();
        let known = self.by_name.lock().get(&name).map(|known| (known.version, known.stored.clone()));
        let unread = self.unread.lock().get(&name).map(|known| known.version);
        check_version(&name, expected, known.as_ref().map(|(version, _)| *version).or(unread))?;
        if known.is_none() && self.by_name.lock().len() >= PIPELINES_LIMIT {
            return Err(Failure::new(Kind::Full, format!("there are {PIPELINES_LIMIT} pipelines already")));
        }
        // Everything that can be refused is refused before the old one is touched.
        let checked = spec.check(None, &self.shell, &self.plugins)?;
        match known {
            None => {
                if unread.is_none() {
                    self.expect_no_positions(&checked.group)?;
                }
                self.check_share(&checked.spec, None)?;
                self.cut_over(&name, &checked, None, |from| {
                    Ok(Stored::new(Revision::new(1, &checked, Reason::Applied, from)))
                })
            }
            Some((version, stored)) => {
                stored.expect_no_candidate()?;
                if stored.live.is(&checked) {
                    return self.apply_again(stored, version);
                }
                self.take_over(stored, &checked, Reason::Applied)
            }
        }
    }

    /// Fails with `Conflict` when somebody else keeps positions under the name of a new pipeline's group: it would go on from them, and move them.
    fn expect_no_positions(&self, group: &GroupName) -> Result<()> {
        if self.shell.reader.offsets_of(group).is_empty() {
            return Ok(());
        }
        let text = format!(
            "group \"{group}\" has positions already, which are not this pipeline's: give it another name, or delete the group"
        );
        Err(Failure { field: Some("name".to_owned()), ..Failure::new(Kind::Conflict, text) })
    }

    /// What runs is applied once more: its stages start anew if one of them stopped or its plugins may have other secrets by now.
    fn apply_again(&self, stored: Stored, version: u64) -> Result<Description> {
        let name = stored.name().to_owned();
        let has_secrets = stored.live.spec.steps.iter().any(|step| !step.grants.secrets.is_empty());
        let stopped = self.describe(&name)?.status != Status::Running;
        if !stored.paused && (stopped || has_secrets) {
            self.stop(&name);
            self.start(stored, version)?;
        }
        self.describe(&name)
    }

    /// Has a version tried: beside the live one, or in its place in some queues.
    ///
    /// Fails with `Conflict` when one is tried already, and as [`Self::apply`].
    pub fn try_out(&self, spec: Spec, mode: Mode, expected: Option<u64>) -> Result<Description> {
        let _changing = self.changing.lock();
        let _using = self.plugins.using();
        let stored = self.stored_at(&spec.name, expected)?;
        stored.expect_no_candidate()?;
        let source = &stored.live.spec.source;
        if spec.source.topic != source.topic {
            let text = format!("source.topic: expected {:?}, which the live version reads", source.topic);
            return Err(Failure::invalid("source.topic", text));
        }
        if matches!(mode, Mode::Shadow { .. }) && spec.source.filter != source.filter {
            let text = "source.where: expected that of the live version: a shadow runs on the records that it gets";
            return Err(Failure::invalid("source.where", text));
        }
        let checked = spec.check(None, &self.shell, &self.plugins)?;
        // A shadow runs the live version once more as well.
        let live = stored.live.check(&self.shell, &self.plugins)?;
        self.check_mode(&mode, &live)?;
        self.check_mode(&mode, &checked)?;
        if !stored.paused {
            self.check_share(&stored.live.spec, Some((&mode, &checked.spec)))?;
        }
        self.cut_over(stored.name(), &checked, None, |standing| {
            let from = match &mode {
                Mode::Shadow { .. } => Offsets::new(),
                Mode::Canary { queues } => of_these(&standing, queues),
            };
            let revision = Revision::new(stored.next_number(), &checked, Reason::Tried, from);
            Ok(Stored { candidate: Some(Candidate { revision, mode }), ..stored.clone() })
        })
    }

    fn check_mode(&self, mode: &Mode, checked: &Checked) -> Result<()> {
        match mode {
            Mode::Shadow { start } => {
                if let Some(at) = checked.steps.iter().position(|step| step.grants.asks_servers()) {
                    let field = format!("steps[{at}].grants.http");
                    let text = "a shadow would send its requests besides those of the live version; try it as a canary";
                    return Err(Failure::invalid(&field, format!("{field}: {text}")));
                }
                start.as_deref().map_or(Ok(()), |text| parse_start("start", text).map(drop))
            }
            Mode::Canary { queues } => {
                let topic = self.shell.reader.topic(&checked.topic)?;
                let count = topic.read_queues.max(topic.write_queues);
                let once = queues.iter().enumerate().all(|(at, queue)| !queues[..at].contains(queue));
                if queues.is_empty() || !once || queues.iter().any(|queue| *queue >= count) {
                    let text = format!("queues: expected some of 0 to {}, each once, got {queues:?}", count - 1);
                    return Err(Failure::invalid("queues", text));
                }
                Ok(())
            }
        }
    }

    /// Fails with `Busy` when there are not so many plugin instances as a pipeline would need.
    fn check_share(&self, live: &Spec, candidate: Option<(&Mode, &Spec)>) -> Result<()> {
        let topic = self.shell.reader.topic(&TopicName::parse(&live.source.topic)?)?;
        let (queues, each) = (topic.read_queues.max(topic.write_queues) as usize, live.steps.len());
        let count = match candidate {
            None => queues * each,
            Some((Mode::Shadow { .. }, of)) => queues * (2 * each + of.steps.len()),
            Some((Mode::Canary { queues: its }, of)) => {
                queues.saturating_sub(its.len()) * each + its.len() * of.steps.len()
            }
        };
        self.share.check(&live.name, count)
    }

    /// Lets the version that is tried take over everywhere; fails with `NotFound` when there is none.
    ///
    /// With `expected`, fails with `Conflict` unless that is the version in place; so do the other changes that take it. It is another one
    /// when another version is tried.
    pub fn promote(&self, name: &str, expected: Option<u64>) -> Result<Description> {
        let _changing = self.changing.lock();
        let stored = self.stored_at(name, expected)?;
        let Candidate { revision, .. } = tried(&stored)?.clone();
        let checked = revision.check(&self.shell, &self.plugins)?;
        if !stored.paused {
            self.check_share(&checked.spec, None)?;
        }
        self.cut_over(name, &checked, None, |standing| {
            let until = self.offsets(&stored)?;
            // Where it runs already it took over before.
            let from = standing.into_iter().chain(revision.from.clone()).collect();
            let live = Revision::new(revision.number, &checked, Reason::Promoted, from);
            Ok(Stored { candidate: None, ..stored.clone() }.followed_by(live, until))
        })
    }

    /// Gives up the version that is tried; the live one goes on where it was. Fails with `NotFound` when there is none.
    pub fn discard(&self, name: &str, expected: Option<u64>) -> Result<Description> {
        let _changing = self.changing.lock();
        let stored = self.stored_at(name, expected)?;
        let tried = tried(&stored)?.revision.from.keys().copied().collect::<Vec<u32>>();
        let checked = stored.live.check(&self.shell, &self.plugins)?;
        self.cut_over(name, &checked, None, |standing| {
            Ok(stored.clone().without_candidate(of_these(&standing, &tried)))
        })
    }

    /// Lets an earlier revision run again, with exactly the plugins that it had; the last one when `to` is left out.
    ///
    /// Fails with `NotFound` when there is no such revision or one of its plugins was deleted, and with `Conflict` while a version is tried.
    pub fn roll_back(&self, name: &str, to: Option<u64>, expected: Option<u64>) -> Result<Description> {
        let _changing = self.changing.lock();
        let _using = self.plugins.using();
        let stored = self.stored_at(name, expected)?;
        stored.expect_no_candidate()?;
        let earlier = stored.earlier(to)?;
        let (number, checked) = (earlier.number, earlier.check(&self.shell, &self.plugins)?);
        self.take_over(stored, &checked, Reason::RolledBack(number))
    }

    /// Stops a pipeline behind a whole unit. It stays stopped over restarts.
    pub fn pause(&self, name: &str, expected: Option<u64>) -> Result<Description> {
        self.set_paused(name, true, expected)
    }

    /// Lets a paused or stopped pipeline go on from where it stands.
    pub fn resume(&self, name: &str, expected: Option<u64>) -> Result<Description> {
        self.set_paused(name, false, expected)
    }

    fn set_paused(&self, name: &str, paused: bool, expected: Option<u64>) -> Result<Description> {
        let _changing = self.changing.lock();
        let stored = Stored { paused, ..self.stored_at(name, expected)? };
        if !paused {
            let candidate = stored.candidate.as_ref().map(|of| (&of.mode, &of.revision.spec));
            self.check_share(&stored.live.spec, candidate)?;
        }
        self.stop(name);
        let begun = self.begin(stored, Vec::new());
        self.or_go_on(name, begun)
    }

    /// Lets a pipeline begin anew: what its processors kept is gone, and it reads each queue from where `start` says. What it wrote stays.
    ///
    /// Without `start` it begins where its source says. Fails with `Conflict` while a version is tried.
    pub fn reset(&self, name: &str, start: Option<&str>, expected: Option<u64>) -> Result<Description> {
        let _changing = self.changing.lock();
        let before = self.stored_at(name, expected)?;
        before.expect_no_candidate()?;
        let old = self.place(&before)?;
        let checked = before.live.check(&self.shell, &self.plugins)?;
        let start = start.map(|text| parse_start("start", text)).transpose()?.unwrap_or(checked.start);
        let positions = || first_positions(&self.shell, &checked, start);
        self.cut_over(name, &checked, Some(&positions), |from| {
            let until = self.offsets(&before)?;
            let live = Revision::new(before.next_number(), &checked, Reason::Reset, from);
            let incarnation = new_incarnation().max(before.incarnation + 1);
            Ok(Stored { incarnation, ..before.clone().followed_by(live, until) })
        })?;
        self.drop_state(&old);
        self.describe(name)
    }

    /// Deletes a pipeline and its positions, both or neither; what it wrote stays. When that cannot be written down, it goes on.
    ///
    /// With `expected`, fails with `Conflict` unless that is the version in place.
    pub fn delete(&self, name: &str, expected: Option<u64>) -> Result<()> {
        let _changing = self.changing.lock();
        let stored = match self.stored(name) {
            // What it keeps is not known; the next start finds it.
            Err(failure) if failure.kind == Kind::Corrupt => None,
            stored => Some(stored?),
        };
        let known = stored.as_ref().map(|(version, _)| *version);
        check_version(name, expected, known.or_else(|| self.unread.lock().get(name).map(|unread| unread.version)))?;
        let place = stored.as_ref().map(|(_, stored)| self.place(stored)).transpose()?;
        let (document, group) = (name.to_owned(), GroupName::parse(&format!("pipeline-{name}"))?);
        self.stop(name);
        let deleted = self
            .shell
            .ask_blocking(move |broker, now| broker.delete_document_and_positions((KIND, &document), &group, now));
        deleted.inspect_err(|_| {
            stored.into_iter().for_each(|(version, stored)| self.revive(stored, version));
        })?;
        self.by_name.lock().remove(name);
        self.unread.lock().remove(name);
        place.iter().for_each(|place| self.drop_state(place));
        Ok(())
    }

    /// Another version in the place of the live one.
    fn take_over(&self, stored: Stored, checked: &Checked, reason: Reason) -> Result<Description> {
        if !stored.paused {
            self.check_share(&checked.spec, None)?;
        }
        self.cut_over(stored.name(), checked, None, |from| {
            let until = self.offsets(&stored)?;
            let live = Revision::new(stored.next_number(), checked, reason, from);
            Ok(stored.clone().followed_by(live, until))
        })
    }

    /// Stops what runs behind a whole unit, opens what is to run, and when that stands, writes down what it is and from where. When it does
    /// not stand or cannot be written down, nothing is changed, and what ran goes on.
    ///
    /// Without `positions` each queue goes on where it stands, and one that is new begins where the source says.
    fn cut_over(
        &self,
        name: &str,
        checked: &Checked,
        positions: Option<&dyn Fn() -> Result<Vec<Position>>>,
        next: impl FnOnce(Offsets) -> Result<Stored>,
    ) -> Result<Description> {
        self.stop(name);
        let begin = || {
            let positions = positions.map_or_else(|| standing(&self.shell, checked), |positions| positions())?;
            self.begin(next(by_queue(&positions))?, positions)
        };
        let begun = begin();
        self.or_go_on(name, begun)
    }

    /// The pipeline as it was changed. When it was not, what was stopped for it goes on.
    fn or_go_on(&self, name: &str, begun: Result<()>) -> Result<Description> {
        if begun.is_err()
            && let Ok((version, stored)) = self.stored(name)
        {
            self.revive(stored, version);
        }
        begun?;
        self.describe(name)
    }

    /// Opens what `stored` says, unless it is paused, writes that down with `positions`, and lets it go. What ran before must have been stopped.
    fn begin(&self, mut stored: Stored, positions: Vec<Position>) -> Result<()> {
        let (name, body, place) = (stored.name().to_owned(), stored.encode()?, self.place(&stored)?);
        let mut pipeline = self.pipeline(stored, 0);
        let from = by_queue(&positions);
        let open = |pipeline: &mut Pipeline| self.open(pipeline, &from, Unserved::Refuse);
        let opened = if pipeline.stored.paused { Ok(()) } else { open(&mut pipeline) };
        // One that was tried before is no reason to change nothing.
        let tried_before = || self.stored(&name).is_ok_and(|(_, before)| before.candidate == pipeline.stored.candidate);
        let opened = opened.and_then(|()| match &pipeline.untried {
            Some(failure) if !tried_before() => Err(failure.clone()),
            _ => Ok(()),
        });
        let document = name.clone();
        let written = opened.and_then(|()| {
            self.shell.ask_blocking(move |broker, now| broker.put_document_at((KIND, &document), body, &positions, now))
        });
        match written {
            Ok(at) => {
                pipeline.version = at.0;
                self.install(pipeline);
                Ok(())
            }
            Err(failure) => {
                // Its files are closed before they go.
                drop(pipeline);
                let before = self.stored(&name).and_then(|(_, before)| self.place(&before));
                if !before.is_ok_and(|before| before.topic == place.topic) {
                    self.drop_state(&place);
                }
                Err(failure)
            }
        }
    }

    /// What a pipeline's document holds, with its version; fails with `NotFound`, and with `Corrupt` when it cannot be read.
    pub(super) fn stored(&self, name: &str) -> Result<(u64, Stored)> {
        if let Some(known) = self.by_name.lock().get(name) {
            return Ok((known.version, known.stored.clone()));
        }
        Err(match self.unread.lock().get(name) {
            Some(Unread { reason, .. }) => Failure::new(Kind::Corrupt, format!("pipeline \"{name}\": {reason}")),
            None => Failure::not_found("pipeline", name),
        })
    }

    /// What a pipeline's document holds; fails with `Conflict` unless `expected`, if it is given, is its version.
    fn stored_at(&self, name: &str, expected: Option<u64>) -> Result<Stored> {
        let (version, stored) = self.stored(name)?;
        check_version(name, expected, Some(version))?;
        Ok(stored)
    }

    /// Where the live version stands in each queue, or left it to a canary.
    fn offsets(&self, stored: &Stored) -> Result<Offsets> {
        let spec = &stored.live.spec;
        let all = self.shell.reader.offsets_of(&spec.group()?);
        let own = all.into_iter().filter(|position| position.topic.as_str() == spec.source.topic);
        let stands = own.map(|position| (position.queue.0, position.offset.0));
        let canary = stored.candidate.iter().flat_map(|candidate| candidate.revision.from.clone());
        Ok(stands.chain(canary).collect())
    }

    /// Deletes what processors kept. What is left of it goes at the next start.
    fn drop_state(&self, place: &Place) {
        let topic = place.topic.clone();
        if let Err(failure) = self.shell.ask_blocking(move |broker, now| broker.delete_state_topic(&topic, now)) {
            tracing::warn!(topic = %place.topic, %failure, "what a pipeline kept that is gone stays until the next start");
        }
        place.remove_file();
    }
}

fn tried(stored: &Stored) -> Result<&Candidate> {
    stored.candidate.as_ref().ok_or_else(|| Failure::not_found("candidate", stored.name()))
}

fn by_queue(positions: &[Position]) -> Offsets {
    positions.iter().map(|position| (position.queue.0, position.offset.0)).collect()
}

fn of_these(offsets: &Offsets, queues: &[u32]) -> Offsets {
    offsets.iter().filter(|(queue, _)| queues.contains(queue)).map(|(queue, offset)| (*queue, *offset)).collect()
}

/// Fails with `Conflict` when a version is expected that is not in place; 0 stands for none.
pub fn check_version(name: &str, expected: Option<u64>, known: Option<u64>) -> Result<()> {
    match expected {
        Some(expected) if known.unwrap_or(0) != expected => {
            let text = format!("\"{name}\" is at version {}, not {expected}", known.unwrap_or(0));
            Err(Failure { field: Some("If-Match".to_owned()), ..Failure::new(Kind::Conflict, text) })
        }
        _ => Ok(()),
    }
}
