//! Who is connected: members of consumer groups with their subscriptions, and producers by group. Nothing of this is
//! recorded; clients say it again with every heartbeat.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use sluice_model::{GroupName, Timestamp, TopicName};

use crate::filter::Filter;

/// One connection of the shell's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumeModel {
    Clustering,
    Broadcasting,
}

/// How members get their messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumeType {
    Pull,
    Push,
    Pop,
}

/// What a group wants of one topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    pub topic: TopicName,
    /// The expression as the client wrote it.
    pub expression: String,
    /// The language of the expression, as the client named it; empty means tags.
    pub language: String,
    /// What it means, or why it means nothing: a heartbeat is not refused for it, a pull is.
    pub filter: Result<Filter, String>,
    /// The client's version of this subscription: the newer one wins.
    pub version: i64,
}

/// What a heartbeat says about one consumer group.
#[derive(Clone, Debug)]
pub struct Joined {
    pub group: GroupName,
    pub model: ConsumeModel,
    pub consume_type: ConsumeType,
    /// `CONSUME_FROM_…`, as the client wrote it.
    pub consume_from: String,
    /// `None`: the client left them out, as unchanged.
    pub subscriptions: Option<Vec<Subscription>>,
}

/// What a heartbeat says.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    pub client: String,
    pub address: String,
    pub language: String,
    pub version: i32,
    pub producers: Vec<GroupName>,
    pub consumers: Vec<Joined>,
}

/// A connected client as a member of a group.
#[derive(Clone, Debug)]
pub struct Member {
    pub client: String,
    pub session: SessionId,
    pub address: String,
    pub language: String,
    pub version: i32,
    seen: Timestamp,
}

#[derive(Clone, Debug)]
pub struct ConsumerGroup {
    pub model: ConsumeModel,
    pub consume_type: ConsumeType,
    pub consume_from: String,
    pub members: BTreeMap<String, Member>,
    pub subscriptions: HashMap<TopicName, Arc<Subscription>>,
}

/// A consumer group whose set of members changed, and who is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub group: GroupName,
    pub sessions: Vec<SessionId>,
}

#[derive(Default)]
pub struct Members {
    consumers: HashMap<GroupName, ConsumerGroup>,
    producers: HashMap<GroupName, BTreeMap<String, Member>>,
}

impl Members {
    pub fn group(&self, group: &GroupName) -> Option<&ConsumerGroup> {
        self.consumers.get(group)
    }

    pub fn groups(&self) -> impl Iterator<Item = (&GroupName, &ConsumerGroup)> {
        self.consumers.iter()
    }

    pub fn producers(&self, group: &GroupName) -> impl Iterator<Item = &Member> {
        self.producers.get(group).into_iter().flat_map(BTreeMap::values)
    }

    /// The connection of a client that is a producer of any group.
    pub fn producer_session(&self, client: &str) -> Option<SessionId> {
        self.producers.values().find_map(|members| members.get(client)).map(|member| member.session)
    }

    /// The connection of a member of a consumer group.
    pub fn consumer_session(&self, group: &GroupName, client: &str) -> Option<SessionId> {
        self.consumers.get(group)?.members.get(client).map(|member| member.session)
    }

    /// Takes in a heartbeat; answers with the consumer groups whose members or subscriptions changed by it.
    pub fn heartbeat(&mut self, session: SessionId, heartbeat: Heartbeat, now: Timestamp) -> Vec<Changed> {
        let member = Member {
            client: heartbeat.client,
            session,
            address: heartbeat.address,
            language: heartbeat.language,
            version: heartbeat.version,
            seen: now,
        };
        for group in heartbeat.producers {
            self.producers.entry(group).or_default().insert(member.client.clone(), member.clone());
        }
        let mut changed = Vec::new();
        for joined in heartbeat.consumers {
            let group = joined.group.clone();
            if self.join(joined, member.clone()) {
                changed.push(group);
            }
        }
        self.told(changed)
    }

    fn join(&mut self, joined: Joined, member: Member) -> bool {
        let group = self.consumers.entry(joined.group).or_insert_with(|| ConsumerGroup {
            model: joined.model,
            consume_type: joined.consume_type,
            consume_from: joined.consume_from.clone(),
            members: BTreeMap::new(),
            subscriptions: HashMap::new(),
        });
        group.model = joined.model;
        group.consume_type = joined.consume_type;
        group.consume_from = joined.consume_from;
        let session = member.session;
        let was = group.members.insert(member.client.clone(), member);
        let subscribed = joined.subscriptions.is_some_and(|fresh| subscribe(&mut group.subscriptions, fresh));
        was.is_none_or(|was| was.session != session) || subscribed
    }

    /// A client leaves a producer group, a consumer group, or both.
    pub fn leave(&mut self, client: &str, producer: Option<&GroupName>, consumer: Option<&GroupName>) -> Vec<Changed> {
        if let Some(members) = producer.and_then(|group| self.producers.get_mut(group)) {
            members.remove(client);
        }
        let mut changed = Vec::new();
        if let Some(group) = consumer
            && self.consumers.get_mut(group).is_some_and(|of| of.members.remove(client).is_some())
        {
            changed.push(group.clone());
        }
        self.told(changed)
    }

    /// A connection is gone: every client on it leaves everything.
    pub fn closed(&mut self, session: SessionId) -> Vec<Changed> {
        self.retain(|member| member.session != session)
    }

    /// Clients that were not heard of for `timeout_ms` leave everything.
    pub fn expire(&mut self, now: Timestamp, timeout_ms: i64) -> Vec<Changed> {
        self.retain(|member| now.ms_since(member.seen) <= timeout_ms)
    }

    fn retain(&mut self, keep: impl Fn(&Member) -> bool) -> Vec<Changed> {
        for members in self.producers.values_mut() {
            members.retain(|_, member| keep(member));
        }
        let mut changed = Vec::new();
        for (name, group) in &mut self.consumers {
            let before = group.members.len();
            group.members.retain(|_, member| keep(member));
            if group.members.len() != before {
                changed.push(name.clone());
            }
        }
        self.told(changed)
    }

    fn told(&mut self, changed: Vec<GroupName>) -> Vec<Changed> {
        self.producers.retain(|_, members| !members.is_empty());
        let told = changed.into_iter().map(|group| {
            let members = self.consumers.get(&group).map(|of| of.members.values().map(|m| m.session).collect());
            Changed { group, sessions: members.unwrap_or_default() }
        });
        let told = told.collect();
        self.consumers.retain(|_, group| !group.members.is_empty());
        told
    }
}

/// Takes over what is newer and drops what is no longer wanted; answers whether the topics or filters changed.
fn subscribe(held: &mut HashMap<TopicName, Arc<Subscription>>, fresh: Vec<Subscription>) -> bool {
    let before = held.len();
    held.retain(|topic, _| fresh.iter().any(|subscription| subscription.topic == *topic));
    let mut changed = held.len() != before;
    for subscription in fresh {
        match held.get(&subscription.topic) {
            Some(known) if known.version >= subscription.version => {}
            known => {
                let alike = |known: &Arc<Subscription>| {
                    known.expression == subscription.expression && known.language == subscription.language
                };
                changed |= !known.is_some_and(alike);
                held.insert(subscription.topic.clone(), Arc::new(subscription));
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> GroupName {
        GroupName::parse(name).unwrap()
    }

    fn beat(client: &str) -> Heartbeat {
        Heartbeat {
            client: client.to_owned(),
            address: "127.0.0.1:1".to_owned(),
            language: "JAVA".to_owned(),
            version: 1,
            producers: vec![group("p")],
            consumers: vec![Joined {
                group: group("c"),
                model: ConsumeModel::Clustering,
                consume_type: ConsumeType::Push,
                consume_from: String::new(),
                subscriptions: Some(Vec::new()),
            }],
        }
    }

    #[test]
    fn every_member_is_told_of_a_change_and_of_nothing_else() {
        let mut members = Members::default();
        let changed = members.heartbeat(SessionId(1), beat("a"), Timestamp(0));
        assert_eq!(changed, [Changed { group: group("c"), sessions: vec![SessionId(1)] }]);
        assert_eq!(members.heartbeat(SessionId(1), beat("a"), Timestamp(1)), []);
        let changed = members.heartbeat(SessionId(2), beat("b"), Timestamp(2));
        assert_eq!(changed[0].sessions, [SessionId(1), SessionId(2)]);
        assert_eq!(members.producers(&group("p")).count(), 2);
        let changed = members.closed(SessionId(1));
        assert_eq!(changed, [Changed { group: group("c"), sessions: vec![SessionId(2)] }]);
        assert_eq!(members.producers(&group("p")).count(), 1);
        assert_eq!(members.expire(Timestamp(2 + 1001), 1000).len(), 1);
        assert!(members.group(&group("c")).is_none());
    }

    #[test]
    fn a_subscription_that_changes_its_language_is_another() {
        let mut members = Members::default();
        let mut say = |language: &str, filter: Result<Filter, String>, version| {
            let mut beat = beat("a");
            beat.consumers[0].subscriptions = Some(vec![Subscription {
                topic: TopicName::parse("t").unwrap(),
                expression: "a".to_owned(),
                language: language.to_owned(),
                filter,
                version,
            }]);
            members.heartbeat(SessionId(1), beat, Timestamp(0)).len()
        };
        assert_eq!(say("TAG", Ok(Filter::parse("a").unwrap()), 1), 1);
        assert_eq!(say("TAG", Ok(Filter::parse("a").unwrap()), 2), 0);
        assert_eq!(say("SQL92", Ok(Filter::sql("a").unwrap()), 3), 1);
        assert_eq!(say("SQL92", Err("not served".to_owned()), 4), 0);
    }

    #[test]
    fn a_client_may_leave_one_group_and_stay_in_another() {
        let mut members = Members::default();
        members.heartbeat(SessionId(1), beat("a"), Timestamp(0));
        assert_eq!(members.leave("a", None, Some(&group("c"))).len(), 1);
        assert_eq!(members.producers(&group("p")).count(), 1);
        members.leave("a", Some(&group("p")), None);
        assert_eq!(members.producers(&group("p")).count(), 0);
    }
}
