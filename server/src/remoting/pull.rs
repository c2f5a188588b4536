//! Pulling messages, and holding pulls that found none until there are.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sluice_broker::{ConsumeModel, Fetch, FetchStatus, Fetched, Filter, Pop, Position, Reader, SessionId, Token, Wait};
use sluice_model::{GroupName, Kind, QueueOffset, limits};
use sluice_protocol::{Body, Response, ResponseCode, reply, request::PullMessage};
use sluice_transport::{Responder, Session};

use super::{Door, codes::remark, failed, pop::WaitingPop};
use crate::failure::{Failure, Result};

/// Longest time a pull is held, whatever it asks for.
pub(super) const HOLD_LIMIT: Duration = Duration::from_secs(60);

/// Languages of expressions. Source: Apache RocketMQ `ExpressionType`.
pub(super) const TAG: &str = "TAG";
const SQL92: &str = "SQL92";

/// A pull that waits for a message.
pub(super) struct HeldPull {
    group: GroupName,
    fetch: Fetch,
    responder: Responder,
    session: u64,
    until: Instant,
}

/// A request that waits for a message.
pub(super) enum Held {
    Pull(HeldPull),
    Pop(WaitingPop),
}

impl Held {
    fn until(&self) -> Instant {
        match self {
            Self::Pull(pull) => pull.until,
            Self::Pop(pop) => pop.until,
        }
    }

    fn group(&self) -> &GroupName {
        match self {
            Self::Pull(pull) => &pull.group,
            Self::Pop(pop) => &pop.pop.group,
        }
    }

    /// What waits counts here, and no longer as a request in work.
    fn park(&mut self) {
        match self {
            Self::Pull(pull) => pull.responder.park(),
            Self::Pop(pop) => pop.responder.park(),
        }
    }

    fn session(&self) -> u64 {
        match self {
            Self::Pull(pull) => pull.session,
            Self::Pop(pop) => pop.session,
        }
    }

    fn stop_waiting(&self, reader: &Reader, token: Token) {
        match self {
            Self::Pull(pull) => reader.stop_waiting(&pull.fetch.topic, token),
            Self::Pop(pop) => reader.stop_waiting_to_pop(&pop.pop, token),
        }
    }
}

/// The pulls and pops that wait.
#[derive(Default)]
pub struct Pulls {
    next: AtomicU64,
    held: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    by_token: HashMap<Token, Held>,
    by_deadline: BTreeSet<(Instant, Token)>,
    of_session: HashMap<u64, usize>,
    of_group: HashMap<GroupName, usize>,
}

impl Waiting {
    /// Fails with `Busy` when so many wait that one more may not.
    fn check_room(&self, session: u64, group: &GroupName) -> Result<()> {
        let of_session = self.of_session.get(&session).copied().unwrap_or(0);
        let of_group = self.of_group.get(group).copied().unwrap_or(0);
        let (who, count) = if of_session >= limits::HELD_OF_CONNECTION {
            ("this connection".to_owned(), of_session)
        } else if of_group >= limits::HELD_OF_GROUP {
            (format!("group {group:?}"), of_group)
        } else if self.by_token.len() >= limits::HELD {
            ("this broker".to_owned(), self.by_token.len())
        } else {
            return Ok(());
        };
        let text = format!("{count} requests of {who} wait for messages already: let one be answered before the next");
        Err(Failure::new(Kind::Busy, text))
    }

    fn put(&mut self, token: Token, held: Held) {
        self.by_deadline.insert((held.until(), token));
        *self.of_session.entry(held.session()).or_default() += 1;
        *self.of_group.entry(held.group().clone()).or_default() += 1;
        self.by_token.insert(token, held);
    }

    fn take(&mut self, token: Token) -> Option<Held> {
        let held = self.by_token.remove(&token)?;
        self.by_deadline.remove(&(held.until(), token));
        one_less(&mut self.of_session, &held.session());
        one_less(&mut self.of_group, held.group());
        Some(held)
    }
}

fn one_less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Pulls {
    pub fn len(&self) -> usize {
        self.held.lock().by_token.len()
    }

    /// A number that no two calls get: where to begin among several queues.
    pub(super) fn turn(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed) as usize
    }

    /// Holds a pull. It is answered by whoever takes it out again: a message, the deadline, or the end of its session.
    fn hold(&self, reader: &Reader, held: HeldPull) -> Option<HeldPull> {
        let (topic, queue, from) = (held.fetch.topic.clone(), held.fetch.queue, held.fetch.from);
        let token = self.keep(Held::Pull(held));
        // Registered last: a wake that comes at once finds the pull here.
        if reader.wait(&topic, queue, from, token) {
            return None;
        }
        match self.held.lock().take(token)? {
            Held::Pull(held) => Some(held),
            Held::Pop(_) => None,
        }
    }

    /// Fails with `Busy` when so many requests wait that one more may not.
    fn check_room(&self, session: u64, group: &GroupName) -> Result<()> {
        self.held.lock().check_room(session, group)
    }

    /// [`Self::hold`] for a pop; one that is given back says why.
    pub(super) fn hold_pop(&self, reader: &Reader, held: WaitingPop) -> Option<(WaitingPop, Wait)> {
        if self.check_room(held.session, &held.pop.group).is_err() {
            return Some((held, Wait::Full));
        }
        let pop = held.pop.clone();
        let token = self.keep(Held::Pop(held));
        let wait = reader.wait_to_pop(&pop, token);
        if wait == Wait::Waits {
            return None;
        }
        match self.held.lock().take(token)? {
            Held::Pop(held) => Some((held, wait)),
            Held::Pull(_) => None,
        }
    }

    fn keep(&self, mut held: Held) -> Token {
        held.park();
        let token = Token(self.next.fetch_add(1, Ordering::Relaxed));
        self.held.lock().put(token, held);
        token
    }

    /// How many pops wait that `which` describes.
    pub(super) fn count_pops(&self, which: impl Fn(&Pop) -> bool) -> usize {
        let held = self.held.lock();
        held.by_token.values().filter(|held| matches!(held, Held::Pop(held) if which(&held.pop))).count()
    }

    pub(super) fn drop_session(&self, reader: &Reader, session: u64) {
        let mut waiting = self.held.lock();
        let gone: Vec<Token> =
            waiting.by_token.iter().filter(|(_, h)| h.session() == session).map(|(t, _)| *t).collect();
        let gone: Vec<_> = gone.into_iter().filter_map(|token| Some((token, waiting.take(token)?))).collect();
        drop(waiting);
        for (token, held) in gone {
            held.stop_waiting(reader, token);
        }
    }

    /// Takes out the requests whose time is up.
    fn expired(&self, reader: &Reader, now: Instant) -> Vec<Held> {
        let mut waiting = self.held.lock();
        let due: Vec<Token> = waiting.by_deadline.iter().take_while(|(at, _)| *at <= now).map(|(_, t)| *t).collect();
        let due: Vec<_> = due.into_iter().filter_map(|token| Some((token, waiting.take(token)?))).collect();
        drop(waiting);
        due.into_iter()
            .map(|(token, held)| {
                held.stop_waiting(reader, token);
                held
            })
            .collect()
    }
}

impl Door {
    pub(super) fn pull(&self, session: &Session, request: PullMessage, responder: Responder) {
        let fetch = match self.to_fetch(&request) {
            Ok(fetch) => fetch,
            Err(response) => return responder.send(*response),
        };
        if let Err(failure) = self.parts.flow.may_receive(&request.group) {
            return responder.send(over(&failure));
        }
        let wait = request.suspend_ms.map(|ms| Duration::from_millis(ms.max(0).unsigned_abs()).min(HOLD_LIMIT));
        let until = Instant::now() + wait.unwrap_or_default();
        self.serve(HeldPull { group: request.group, fetch, responder, session: session.id(), until });
    }

    /// A message has come for a held request, or may have.
    pub fn wake(&self, token: Token) {
        let held = self.parts.pulls.held.lock().take(token);
        if let Some(held) = held {
            // A pop waits for more than one topic.
            if matches!(held, Held::Pop(_)) {
                held.stop_waiting(&self.parts.shell.reader, token);
            }
            self.go_on(held);
        }
    }

    /// Answers held requests whose time is up.
    pub fn expire_pulls(&self) {
        for held in self.parts.pulls.expired(&self.parts.shell.reader, Instant::now()) {
            self.go_on(held);
        }
    }

    fn go_on(&self, held: Held) {
        match held {
            Held::Pull(held) => self.serve(held),
            Held::Pop(held) => self.serve_pop(held),
        }
    }

    fn serve(&self, held: HeldPull) {
        let mut next = Some(held);
        while let Some(held) = next {
            next = match self.parts.shell.reader.fetch(&held.fetch) {
                Err(error) => return held.responder.send(failed(&error.into())),
                Ok(found) if found.status == FetchStatus::Found && self.is_filtered(&held) => {
                    return self.look(held, found);
                }
                Ok(found) => self.settle(held, found),
            };
        }
    }

    fn is_filtered(&self, held: &HeldPull) -> bool {
        self.parts.filters.filters(&held.group, &held.fetch.topic)
    }

    /// Has the group's filter look at what was found, and goes on with what it leaves.
    fn look(&self, held: HeldPull, found: Fetched) {
        let door = Self { parts: self.parts.clone() };
        let (group, topic, queue) = (held.group.clone(), held.fetch.topic.clone(), held.fetch.queue);
        self.parts.filters.look(&group, &topic, queue, found, move |kept| match kept {
            Err(failure) => held.responder.send(over(&failure)),
            Ok(kept) => {
                let back = door.settle(held, kept.found);
                // Nobody reads on for a client that is gone.
                let back = back.filter(|held| door.parts.sessions.get(SessionId(held.session)).is_some());
                back.into_iter().for_each(|held| door.serve(held));
            }
        });
    }

    /// Answers with what was found, or holds the pull; gives it back to be served again behind what it does not want.
    fn settle(&self, mut held: HeldPull, found: Fetched) -> Option<HeldPull> {
        let empty = matches!(found.status, FetchStatus::AtEnd | FetchStatus::NoMatch);
        // A condition reads records: whoever asked asks again, and others get their turn.
        let costly = found.next < found.max && matches!(held.fetch.filter, Filter::Sql(_));
        if !empty || costly || held.until <= Instant::now() {
            self.parts.metrics.get(&held.group, found.count as usize);
            self.parts.flow.received(&held.group, found.count as usize);
            held.responder.send(to_response(found));
            return None;
        }
        // Not wanted: go on behind it, and wait for the next one there.
        held.fetch.from = found.next;
        if found.next < found.max {
            return Some(held);
        }
        if let Err(failure) = self.parts.pulls.check_room(held.session, &held.group) {
            held.responder.send(over(&failure));
            return None;
        }
        self.parts.pulls.hold(&self.parts.shell.reader, held)
    }

    fn to_fetch(&self, request: &PullMessage) -> std::result::Result<Fetch, Box<Response>> {
        let refuse = |failure: Failure| Box::new(failed(&failure));
        let reader = &self.parts.shell.reader;
        let topic = reader.topic(&request.topic).map_err(|error| refuse(error.into()))?;
        if !topic.permission.readable() {
            return Err(refuse(Failure::new(Kind::Denied, format!("topic {:?} may not be read", request.topic))));
        }
        if !reader.group(&request.group).enabled {
            let text = format!("group {:?} may not consume: it is disabled", request.group);
            return Err(refuse(Failure::new(Kind::Denied, text)));
        }
        let filter = self.filter(request)?;
        self.commit(request).map_err(refuse)?;
        let Ok(from) = u64::try_from(request.offset) else {
            // A negative offset is below every queue.
            let (min, max) = reader.bounds(&request.topic, request.queue);
            let nothing = Fetched { status: FetchStatus::TooSmall, next: min, min, max, records: Vec::new(), count: 0 };
            return Err(Box::new(to_response(nothing)));
        };
        Ok(Fetch {
            topic: request.topic.clone(),
            queue: request.queue,
            from: QueueOffset(from),
            max_messages: u32::try_from(request.max_messages).unwrap_or(1),
            max_bytes: request.max_bytes.and_then(|most| usize::try_from(most).ok()).unwrap_or(limits::PULL_BYTES),
            filter,
        })
    }

    /// What the request says it wants, or what the group's heartbeat said.
    fn filter(&self, request: &PullMessage) -> std::result::Result<Filter, Box<Response>> {
        if let Some(expression) = &request.subscription {
            return parse_filter(expression, request.expression_type.as_deref())
                .map_err(|failure| Box::new(failed(&failure)));
        }
        let missing = |code, what: &str| {
            let text =
                format!("group {:?} has not said what it wants of topic {:?}: {what}", request.group, request.topic);
            Err(Box::new(Response::error(code, text)))
        };
        let known = self.parts.shell.reader.members(|members| {
            let group = members.group(&request.group)?;
            Some(group.subscriptions.get(&request.topic).cloned())
        });
        match known {
            None => missing(ResponseCode::SubscriptionNotExist, "no member sent a heartbeat"),
            Some(None) => missing(ResponseCode::SubscriptionNotExist, "its heartbeats do not name the topic"),
            // The heartbeat that says what it wants now is still on its way.
            Some(Some(subscription)) if subscription.version < request.sub_version => {
                let tags = |language: Option<&str>| matches!(language, None | Some("" | TAG));
                if matches!(subscription.filter, Ok(Filter::All | Filter::Tags(_)))
                    && tags(request.expression_type.as_deref())
                {
                    // Everything is sent, and the client, which compares tags itself, takes what it wants.
                    return Ok(Filter::All);
                }
                // Clients do not evaluate conditions: this one tries again a moment later.
                let text = format!(
                    "group {:?}: its newest subscription of topic {:?} has not come yet",
                    request.group, request.topic
                );
                Err(Box::new(Response::error(ResponseCode::SubscriptionNotLatest, text)))
            }
            Some(Some(subscription)) => subscription.filter.clone().map_err(|text| {
                let text = format!("group {:?} cannot consume topic {:?}: {text}", request.group, request.topic);
                Box::new(Response::error(ResponseCode::FilterNotExist, text))
            }),
        }
    }

    /// Takes over the offset that came with the pull, if it is one of this queue; a pull is not refused for one that is not.
    ///
    /// Fails with `Conflict` when the group is a pipeline's.
    fn commit(&self, request: &PullMessage) -> Result<()> {
        let Some(offset) = request.commit.and_then(|offset| u64::try_from(offset).ok()) else { return Ok(()) };
        self.parts.not_pipelines(&request.group)?;
        let reader = &self.parts.shell.reader;
        let broadcasting = reader.members(|members| {
            members.group(&request.group).is_some_and(|group| group.model == ConsumeModel::Broadcasting)
        });
        if broadcasting {
            return Ok(());
        }
        let position = Position {
            group: request.group.clone(),
            topic: request.topic.clone(),
            queue: request.queue,
            offset: QueueOffset(offset),
        };
        if let Err(error) = reader.commit_offset(position) {
            tracing::debug!(group = %request.group, %error, "an offset that came with a pull was not taken");
        }
        Ok(())
    }
}

/// Fails with the field `subscription` for an expression that does not parse, or is in a language that nobody reads.
pub(super) fn parse_filter(expression: &str, language: Option<&str>) -> Result<Filter> {
    match language {
        None | Some("" | TAG) => Ok(Filter::parse(expression)?),
        Some(SQL92) => Ok(Filter::sql(expression)?),
        Some(other) => {
            let text = format!("subscription: expected an expression of type {TAG} or {SQL92}, got {other:?}");
            Err(Failure::invalid("subscription", text))
        }
    }
}

/// Flow control has a code of its own for pulls, at which clients try again soon.
fn over(failure: &Failure) -> Response {
    Response::error(ResponseCode::FlowControl, remark(failure))
}

fn to_response(found: Fetched) -> Response {
    let (code, remark) = match found.status {
        FetchStatus::Found => (ResponseCode::Success, "FOUND"),
        FetchStatus::NoMatch => (ResponseCode::PullRetryImmediately, "NO_MATCHED_MESSAGE"),
        FetchStatus::AtEnd => (ResponseCode::PullNotFound, "OFFSET_OVERFLOW_ONE"),
        FetchStatus::TooSmall => (ResponseCode::PullOffsetMoved, "OFFSET_TOO_SMALL"),
        FetchStatus::TooLarge => (ResponseCode::PullOffsetMoved, "OFFSET_OVERFLOW_BADLY"),
    };
    let signed = |offset: QueueOffset| i64::try_from(offset.0).unwrap_or(i64::MAX);
    let header = reply::PullReply {
        suggested_broker: 0,
        next_offset: signed(found.next),
        min_offset: signed(found.min),
        max_offset: signed(found.max),
        topic_sys_flag: None,
        group_sys_flag: None,
    };
    Response {
        code,
        remark: Some(remark.to_owned()),
        ext: header.encode(),
        body: found.records.into_iter().collect::<Body>(),
    }
}
