//! A broker on a disk, driven one step at a time as its shell would, with the oracle looking on.

use std::sync::Arc;

use sluice_broker::{
    Back, Broker, Config, Decider, Draft, Durability, Effect, Error, Fetch, FetchStatus, Filter, Group, HalfCheck,
    LEVELS_MS, Leased, Opened, Pop, Position, Retention, Send, StageUnit, StoreConfig, Topic, Verdict, Written, open,
};
use sluice_model::{
    GroupName, Kind, LogOffset, Message, Properties, QueueId, QueueOffset, RecordView, Timestamp, TopicName,
    Transaction,
};
use sluice_storage::fake::FakeDisk;

use crate::{
    oracle::{Ack, HandedBack, Oracle, Place, Said, Sort, Thing},
    pipeline,
    script::{ASYNC, QUEUES, RANKS, SINK, SYNC, Step},
};

/// A mistake of the shell, to see that the checks find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// Senders are told before the disk has their messages.
    AcknowledgesTooEarly,
    /// The pipeline's outputs and its position are two units.
    PositionApart,
    /// A rollback is carried out as a commit.
    CommitsRollbacks,
    /// Delayed messages are delivered by a clock that is a second fast.
    FastClock,
    /// Consumers' offsets are said to be recorded when they are only committed.
    RecordsTooEarly,
    /// A consumer is told that a popped message is acknowledged, and nothing is done.
    ForgetsAcknowledgements,
    /// Whatever is popped counts as acknowledged.
    AcknowledgesPops,
}

pub fn store_config() -> StoreConfig {
    StoreConfig {
        segment_len: 8 * 1024,
        allocate_step: 8 * 1024,
        reserve_bytes: 0,
        checkpoint_bytes: 4096,
        pending_bytes: 1 << 20,
        index_run_entries: 64,
        ..StoreConfig::default()
    }
}

pub fn config() -> Config {
    Config { transaction_timeout_ms: 2_000, transaction_checks: 1_000, ..Config::default() }
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

fn group_name(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

/// A stored message, as read.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub id: u64,
    pub offset: u64,
    pub at: LogOffset,
    pub stored_at: Timestamp,
    pub reconsume_times: i32,
    pub body: Vec<u8>,
}

pub struct World {
    disk: FakeDisk,
    pub opened: Opened,
    pub oracle: Oracle,
    pub now: Timestamp,
    pub mistake: Mistake,
    /// What happened, a line a step.
    pub trace: Vec<String>,
    /// Half messages that were asked about.
    pub asked: Vec<HalfCheck>,
    /// How many of them were counted.
    counted: usize,
    staged: Vec<Ack>,
    written: Vec<(Written, Vec<Ack>)>,
    draft: Option<Draft>,
}

impl World {
    pub fn open(disk: &FakeDisk, oracle: Oracle, now: Timestamp, mistake: Mistake) -> Result<Self, Error> {
        let opened = open(Arc::new(disk.clone()), store_config(), config())?;
        let (trace, asked, counted, staged, written, draft) = Default::default();
        Ok(Self { disk: disk.clone(), opened, oracle, now, mistake, trace, asked, counted, staged, written, draft })
    }

    /// Takes steps until the disk dies; whatever else fails is an answer to a client.
    pub fn play(&mut self, steps: &[Step]) -> Result<(), Error> {
        for step in steps {
            if self.disk.is_dead() {
                return Err(Error::Busy("the process is dead".to_owned()));
            }
            self.now = self.now.plus_ms(1);
            let outcome = self.step(step);
            let answer = outcome.as_ref().map_or_else(|error| format!("{:?}", error.kind()), |()| "ok".to_owned());
            self.trace.push(format!("{step:?}: {answer}"));
            match outcome {
                Err(error) if error.kind() == Kind::Unavailable => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), Error> {
        let now = self.now;
        match *step {
            Step::Send(topic, queue, count, size) => self.send(topic, queue, count, size, &[], Sort::Plain),
            Step::Timed(topic, ms) => {
                let due = now.plus_ms(ms.into());
                self.send(topic, 0, 1, 16, &[("TIMER_DELAY_MS", &ms.to_string())], Sort::Delayed { due })
            }
            Step::Delayed(topic, level) => {
                let due = now.plus_ms(LEVELS_MS[usize::from(level) - 1]);
                self.send(topic, 0, 1, 16, &[("DELAY", &level.to_string())], Sort::Delayed { due })
            }
            Step::Half(topic) => self.send(topic, 0, 1, 16, &[("PGROUP", "p")], Sort::Half { decision: None }),
            Step::Decide(which, verdict) => self.decide(which, verdict),
            Step::CheckHalves => self.check_halves(),
            Step::Back(topic, which, level) => self.back(topic, which, level),
            Step::Commit(group, topic, queue, tenths) => self.commit(group, topic, queue, tenths),
            Step::RecordOffsets => self.record_offsets(),
            Step::Pipe(queue) => self.pipe(queue),
            Step::Deliver => self.deliver().map(drop),
            Step::Pop(group, count) => self.pop(group, count.into()).map(drop),
            Step::Acknowledge(group, which) => self.acknowledge(group, which),
            Step::Keep(group, which, ms) => self.keep(group, which, ms),
            Step::Revive => self.opened.broker.revive(now).map(drop),
            Step::Wait(ms) => {
                self.now = now.plus_ms(ms.into());
                Ok(())
            }
            Step::Write => self.write(),
            Step::Settle => self.settle(),
            Step::Draft => self.draft(),
            Step::Checkpoint => self.checkpoint(),
            Step::Mark => {
                self.opened.checkpointer.mark_durable()?;
                Ok(self.opened.checkpointer.work_ahead()?)
            }
            Step::Retain(bytes) => {
                let policy = Retention { max_age_ms: None, max_bytes: Some(bytes.into()) };
                if self.draft.is_some() {
                    self.checkpoint()?;
                }
                self.opened.applier.retain(now, &policy).map(drop)
            }
            Step::FillDisk => {
                self.disk.set_capacity(Some(self.disk.used_bytes() + 4096));
                Ok(())
            }
            Step::FreeDisk => {
                self.disk.set_capacity(None);
                self.opened.applier.retry()
            }
            Step::CarryDocuments => self.opened.broker.carry_documents(now).map(drop),
            _ => self.administer(step),
        }
    }

    fn administer(&mut self, step: &Step) -> Result<(), Error> {
        let now = self.now;
        match *step {
            Step::PutTopic(name) => self.put_topic(name),
            Step::DeleteTopic(name) => {
                let verb = |broker: &mut Broker| broker.delete_topic(&topic_name(name), now);
                let outcome = self.change(Thing::Topic(name.to_owned()), None, verb);
                self.forget_positions(outcome, |(_, topic, _)| topic == name)
            }
            Step::PutGroup(name) => {
                self.oracle.last_life += 1;
                let retries = 1 + (self.oracle.last_life % 2) as u32;
                let group = Group { retries, ..Group::new(group_name(name)) };
                let value = Some(format!("{retries}"));
                self.change(Thing::Group(name.to_owned()), value, |broker| broker.put_group(group, now))
            }
            Step::DeleteGroup(name) => {
                let verb = |broker: &mut Broker| broker.delete_group(&group_name(name), now);
                let outcome = self.change(Thing::Group(name.to_owned()), None, verb);
                self.forget_positions(outcome, |(group, _, _)| group == name)
            }
            Step::PutDocument(which, size) => {
                self.oracle.last_life += 1;
                let body = format!("{}:{}", self.oracle.last_life, ".".repeat(size.into()));
                let (name, value) = (which.to_string(), Some(body.clone()));
                self.change(Thing::Document(name.clone()), value, |broker| {
                    broker.put_document("kind", &name, "label", body.into(), now).map(drop)
                })
            }
            Step::DeleteDocument(which) => {
                let name = which.to_string();
                self.change(Thing::Document(name.clone()), None, |broker| broker.delete_document("kind", &name, now))
            }
            _ => unreachable!("{step:?} is no administrator's"),
        }
    }

    fn put_topic(&mut self, name: &str) -> Result<(), Error> {
        let life = self.life(name).unwrap_or(self.oracle.last_life + 1);
        self.oracle.last_life = self.oracle.last_life.max(life);
        let mut topic = Topic::new(topic_name(name), QUEUES);
        topic.durability = (name == ASYNC).then_some(Durability::Async);
        topic.attributes.insert("life".to_owned(), life.to_string());
        let now = self.now;
        self.change(Thing::Topic(name.to_owned()), Some(life.to_string()), |broker| broker.put_topic(topic, now))
    }

    /// Changes a named thing. After a failure that is not plainly a refusal nobody knows whether it changed.
    fn change(
        &mut self,
        thing: Thing,
        value: Option<String>,
        verb: impl FnOnce(&mut Broker) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let outcome = verb(&mut self.opened.broker);
        if outcome.as_ref().is_err_and(is_refusal) {
            return outcome;
        }
        let ack = self.oracle.ask(thing, value);
        outcome?;
        self.staged.push(ack);
        Ok(())
    }

    /// A deletion takes positions along; one that failed half-way may have, and the broker shows whether.
    fn forget_positions(&mut self, outcome: Result<(), Error>, of: impl Fn(&Place) -> bool) -> Result<(), Error> {
        if outcome.as_ref().is_err_and(is_refusal) {
            return outcome;
        }
        let reader = &self.opened.reader;
        let is_gone = |(group, topic, queue): &Place| {
            reader.offset(&group_name(group), &topic_name(topic), QueueId(*queue)).is_none()
        };
        let forgotten = self.oracle.forget_positions(|place| of(place) && (outcome.is_ok() || is_gone(place)));
        if outcome.is_ok() {
            self.staged.extend(forgotten);
        }
        outcome
    }

    /// Which topic of that name is there.
    pub fn life(&self, name: &str) -> Option<u64> {
        let topic = self.opened.reader.topic(&topic_name(name)).ok()?;
        topic.attributes.get("life")?.parse().ok()
    }

    fn send(
        &mut self,
        topic: &str,
        queue: u32,
        count: u8,
        size: u16,
        pairs: &[(&str, &str)],
        sort: Sort,
    ) -> Result<(), Error> {
        let first = self.oracle.last_id + 1;
        self.oracle.last_id += u64::from(count);
        let ids = first..=self.oracle.last_id;
        let properties = Properties::from_pairs(pairs.iter().copied())?;
        let message = |id: u64| {
            let body = format!("{id}:{}", ".".repeat(size.into()));
            let mut message =
                Message::new(topic_name(topic), QueueId(0), self.now, properties.clone(), body.into_bytes().into());
            if matches!(sort, Sort::Half { .. }) {
                message.sys_flag = message.sys_flag.with_transaction(Transaction::Prepared);
            }
            message
        };
        let messages: Vec<Message> = ids.clone().map(message).collect();
        let bodies: Vec<Vec<u8>> = messages.iter().map(|message| message.body.to_vec()).collect();
        let send = Send { messages, queue: Some(QueueId(queue)), template: None, max_reconsume_times: None };
        let sent = self.opened.broker.send(send, self.now).inspect_err(|_| self.oracle.refused.extend(ids.clone()))?;
        let life = self.life(topic).unwrap_or_default();
        for (index, body) in bodies.into_iter().enumerate() {
            if sent.durability == Durability::Sync {
                self.staged.push(Ack::Said(self.oracle.said.len()));
            }
            self.oracle.said.push(Said {
                id: first + index as u64,
                sort: sort.clone(),
                topic: topic.to_owned(),
                life,
                queue,
                offset: sent.queue_offset.0 + index as u64,
                at: sent.ids[index].log_offset,
                body,
                acknowledged: false,
                lost: false,
            });
        }
        Ok(())
    }

    fn decide(&mut self, which: u8, verdict: Verdict) -> Result<(), Error> {
        // A client knows of a half message, and decides it, once it is acknowledged.
        let is_open =
            |said: &Said| said.acknowledged && !said.lost && matches!(said.sort, Sort::Half { decision: None });
        let open: Vec<usize> = (0..self.oracle.said.len()).filter(|index| is_open(&self.oracle.said[*index])).collect();
        let Some(&index) = open.get(usize::from(which) % open.len().max(1)) else { return Ok(()) };
        let (offset, at) = (QueueOffset(self.oracle.said[index].offset), self.oracle.said[index].at);
        let carried_out = if self.mistake == Mistake::CommitsRollbacks { Verdict::Commit } else { verdict };
        self.opened.broker.decide(&group_name("p"), offset, at, &[], (carried_out, Decider::Producer), self.now)?;
        self.oracle.said[index].sort = Sort::Half { decision: Some((verdict, false)) };
        self.staged.push(Ack::Decided(index));
        Ok(())
    }

    fn back(&mut self, topic: &str, which: u8, level: i8) -> Result<(), Error> {
        let seen: Vec<Seen> = self.contents(topic).into_iter().flatten().collect();
        let Some(seen) = seen.get(usize::from(which) % seen.len().max(1)) else { return Ok(()) };
        let group = group_name("keeper");
        let retries = self.opened.reader.group(&group).retries;
        let dead = level < 0 || seen.reconsume_times >= retries as i32;
        let to = if dead { TopicName::dead_letter_of(&group) } else { TopicName::retry_of(&group) };
        let back = Back { group, at: seen.at, delay_level: level.into(), max_reconsume_times: None };
        self.oracle.backs.push(HandedBack { id: seen.id, to: to.to_string(), acknowledged: false });
        self.opened.broker.send_back(back, self.now)?;
        self.staged.push(Ack::Back(self.oracle.backs.len() - 1));
        Ok(())
    }

    fn commit(&mut self, group: &str, topic: &str, queue: u32, tenths: u8) -> Result<(), Error> {
        let (_, end) = self.opened.reader.bounds(&topic_name(topic), QueueId(queue));
        let offset = QueueOffset(end.0 * u64::from(tenths) / 10);
        let position = Position { group: group_name(group), topic: topic_name(topic), queue: QueueId(queue), offset };
        self.opened.reader.commit_offset(position)?;
        let commits = self.oracle.commits.entry((group.to_owned(), topic.to_owned(), queue)).or_default();
        if commits.values.is_empty() {
            commits.values.push(None);
        }
        commits.values.push(Some(offset.0));
        if self.mistake == Mistake::RecordsTooEarly {
            commits.least = commits.values.len() - 1;
        }
        Ok(())
    }

    fn record_offsets(&mut self) -> Result<(), Error> {
        self.opened.broker.record_offsets(self.now)?;
        let commits = self.oracle.commits.iter();
        let newest = commits.map(|(place, commits)| Ack::Recorded(place.clone(), commits.values.len() - 1));
        self.staged.extend(newest);
        Ok(())
    }

    pub fn deliver(&mut self) -> Result<bool, Error> {
        let fast = if self.mistake == Mistake::FastClock { 1_000 } else { 0 };
        let now = self.now.plus_ms(fast);
        Ok(self.opened.broker.deliver_due(now)? | self.opened.broker.deliver_timers(now)?)
    }

    /// A group takes messages; answers which.
    pub fn pop(&mut self, group: &str, max_messages: u32) -> Result<Vec<u64>, Error> {
        let pop = Pop {
            group: group_name(group),
            topic: topic_name(SYNC),
            queue: None,
            max_messages,
            invisible_ms: 2_000,
            filter: Filter::All,
            from_start: true,
            order: group == RANKS,
        };
        let popped = self.opened.broker.pop(&pop, self.now)?;
        let retry = TopicName::pop_retry_of(&pop.group, &pop.topic)?;
        let mut ids = Vec::new();
        for piece in &popped.records {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let record = RecordView::parse(rest)?;
                ids.push(id_of(record.body()));
                rest = &rest[record.bytes().len()..];
            }
        }
        let places = popped.queues.iter().flat_map(|of| of.offsets.iter().map(move |offset| (of, *offset)));
        let held = places.map(|(of, offset)| Leased {
            group: pop.group.clone(),
            topic: if of.retry { retry.clone() } else { pop.topic.clone() },
            queue: of.queue,
            offsets: vec![offset],
            taken_at: popped.taken_at,
        });
        let known = self.oracle.popping.entry(group.to_owned()).or_default();
        if self.mistake == Mistake::AcknowledgesPops {
            let held: Vec<Leased> = held.clone().collect();
            self.opened.broker.ack(&held, self.now)?;
        }
        known.again.extend(ids.iter().filter(|id| known.acknowledged.get(id) == Some(&true)));
        known.held.extend(ids.iter().copied().zip(held));
        Ok(ids)
    }

    /// A message that a group popped, counted round from the last.
    fn popped(&self, group: &str, which: u8) -> Option<(u64, Leased)> {
        let held = &self.oracle.popping.get(group)?.held;
        held.iter().rev().nth(usize::from(which) % held.len().max(1)).cloned()
    }

    fn acknowledge(&mut self, group: &str, which: u8) -> Result<(), Error> {
        let Some((id, leased)) = self.popped(group, which) else { return Ok(()) };
        let forgets = self.mistake == Mistake::ForgetsAcknowledgements;
        if forgets || self.opened.broker.ack(&[leased], self.now)? > 0 {
            let known = self.oracle.popping.entry(group.to_owned()).or_default();
            known.acknowledged.entry(id).or_insert(false);
            self.staged.push(Ack::Popped(group.to_owned(), id));
        }
        Ok(())
    }

    fn keep(&mut self, group: &str, which: u8, ms: u16) -> Result<(), Error> {
        let Some((id, leased)) = self.popped(group, which) else { return Ok(()) };
        if self.opened.broker.keep(&leased, ms.into(), self.now)? > 0 {
            let known = self.oracle.popping.entry(group.to_owned()).or_default();
            known.held.push((id, Leased { taken_at: self.now, ..leased }));
        }
        Ok(())
    }

    /// One turn of the pipeline over one queue; reads on where its position is.
    fn pipe(&mut self, queue: u32) -> Result<(), Error> {
        let (source, sink, queue) = (topic_name(SYNC), topic_name(SINK), QueueId(queue));
        let min = self.opened.reader.bounds(&source, queue).0;
        let from = match self.opened.reader.offset(&pipeline::group(), &source, queue) {
            Some(from) => from,
            None => {
                let start = Position { group: pipeline::group(), topic: source.clone(), queue, offset: min };
                self.opened.reader.commit_offset(start)?;
                min
            }
        };
        let (status, next, seen) = self.read(&source, queue, from, pipeline::TURN)?;
        if matches!(status, FetchStatus::AtEnd | FetchStatus::TooLarge) {
            return Ok(());
        }
        let like = |sink: &TopicName, body| Message::new(sink.clone(), queue, self.now, Properties::default(), body);
        let outputs: Vec<Message> = seen.iter().filter_map(|seen| pipeline::output(seen, &sink, like)).collect();
        let group = pipeline::group();
        let mut unit = StageUnit { group, topic: source, queue, from, next, outputs, state: None, document: None };
        if self.mistake == Mistake::PositionApart && !unit.outputs.is_empty() {
            let messages = std::mem::take(&mut unit.outputs);
            let send = Send { messages, queue: Some(queue), template: None, max_reconsume_times: None };
            self.opened.broker.send(send, self.now)?;
        }
        self.opened.broker.commit_stage(unit, self.now)
    }

    fn draft(&mut self) -> Result<(), Error> {
        if self.draft.is_none() {
            self.draft = self.opened.applier.draft()?;
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Error> {
        self.draft()?;
        Ok(self.draft.take().map_or(Ok(()), |draft| self.opened.checkpointer.write(draft))?)
    }

    pub fn write(&mut self) -> Result<(), Error> {
        if let Some(written) = self.opened.broker.write()? {
            let mut acks = std::mem::take(&mut self.staged);
            if self.mistake == Mistake::AcknowledgesTooEarly {
                acks.drain(..).for_each(|ack| self.oracle.acknowledge(ack));
            }
            self.written.push((written, acks));
        }
        Ok(())
    }

    /// Counts the questions of the last time, and looks what is to be asked now.
    fn check_halves(&mut self) -> Result<(), Error> {
        for check in &self.asked[self.counted..] {
            match self.opened.broker.asked(&check.half, None, self.now) {
                // It was decided meanwhile.
                Err(error) if error.kind() == Kind::NotFound => {}
                counted => counted?,
            }
        }
        self.counted = self.asked.len();
        self.opened.broker.check_halves(self.now)
    }

    /// Writes, syncs, applies, acknowledges.
    pub fn settle(&mut self) -> Result<(), Error> {
        self.write()?;
        self.opened.applier.sync()?;
        let mut effects = self.opened.broker.take_effects();
        for (written, acks) in std::mem::take(&mut self.written) {
            self.opened.applier.apply(&written, &mut effects)?;
            self.opened.broker.recycle(written.bytes);
            acks.into_iter().for_each(|ack| self.oracle.acknowledge(ack));
        }
        let checks = effects.into_iter().filter_map(|effect| match effect {
            Effect::CheckHalf(check) => Some(check),
            _ => None,
        });
        self.asked.extend(checks);
        Ok(())
    }

    fn read(
        &self,
        topic: &TopicName,
        queue: QueueId,
        from: QueueOffset,
        max_messages: u32,
    ) -> Result<(FetchStatus, QueueOffset, Vec<Seen>), Error> {
        let fetch = Fetch { topic: topic.clone(), queue, from, max_messages, max_bytes: 1 << 20, filter: Filter::All };
        let fetched = self.opened.reader.fetch(&fetch)?;
        let mut seen = Vec::new();
        for piece in &fetched.records {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let record = RecordView::parse(rest)?;
                record.verify()?;
                assert_eq!((record.topic(), record.queue()), (topic.as_str(), queue), "a record of another queue");
                seen.push(Seen {
                    id: id_of(record.body()),
                    offset: record.queue_offset().0,
                    at: record.log_offset(),
                    stored_at: record.stored_at(),
                    reconsume_times: record.reconsume_times(),
                    body: record.body().to_vec(),
                });
                rest = &rest[record.bytes().len()..];
            }
        }
        Ok((fetched.status, fetched.next, seen))
    }

    /// All messages of a topic that can be read, by queue; none of a topic that is not there.
    pub fn contents(&self, name: &str) -> Vec<Vec<Seen>> {
        let topic = topic_name(name);
        let Ok(found) = self.opened.reader.topic(&topic) else { return Vec::new() };
        (0..found.read_queues).map(|queue| self.contents_of(&topic, QueueId(queue))).collect()
    }

    fn contents_of(&self, topic: &TopicName, queue: QueueId) -> Vec<Seen> {
        let mut from = self.opened.reader.bounds(topic, queue).0;
        let mut all = Vec::new();
        loop {
            let (status, next, seen) = self.read(topic, queue, from, 32).expect("a queue can be read");
            if status != FetchStatus::Found {
                return all;
            }
            all.extend(seen);
            from = next;
        }
    }

    pub fn start(&self) -> LogOffset {
        self.opened.reader.store().start()
    }

    pub fn end(&self) -> LogOffset {
        self.opened.reader.store().readable()
    }
}

/// Whether an error says that nothing was changed.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::Invalid | Kind::Denied)
}

/// The number of the message that a body belongs to.
pub fn id_of(body: &[u8]) -> u64 {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let text = text.strip_prefix("even:").unwrap_or(text);
    text.split(':').next().and_then(|id| id.parse().ok()).unwrap_or_default()
}
