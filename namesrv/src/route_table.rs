use std::collections::{BTreeMap, BTreeSet, HashMap};

use sluice_model::Timestamp;
use sluice_protocol::{
    body::{ClusterBody, Members, RouteBody, RouteBroker, RouteQueues, VersionBody},
    request::RegisterBroker,
};

use crate::Error;

const WRITE: u32 = 2;
const READ_WRITE: u32 = 6;
const MASTER: u64 = 0;

/// Which brokers live and where every topic's queues are. Without a clock: time is an argument.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// By broker name.
    brokers: BTreeMap<String, RouteBroker>,
    /// By topic, then by broker name.
    topics: BTreeMap<String, BTreeMap<String, RouteQueues>>,
    /// By cluster and address.
    living: HashMap<(String, String), Living>,
}

#[derive(Debug)]
struct Living {
    broker: String,
    broker_id: u64,
    seen_at: Timestamp,
    timeout_ms: i64,
    version: VersionBody,
    ha_address: String,
    connection: u64,
}

/// What a broker that registered is told: where its master is, if it is a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    pub ha_address: Option<String>,
    pub master_address: Option<String>,
}

impl RouteTable {
    /// A broker registers over `connection`. Its topics are taken when it is a master and they changed since last time.
    ///
    /// Fails when the broker is unknown and sends one topic only: it changed a topic and thinks it is registered.
    pub fn register(
        &mut self,
        from: &RegisterBroker,
        connection: u64,
        timeout_ms: i64,
        now: Timestamp,
    ) -> Result<Registered, Error> {
        let key = (from.cluster.clone(), from.address.clone());
        let known = self.living.get(&key);
        if known.is_none() && from.body.topics.topics.len() == 1 && !self.brokers.contains_key(&from.broker) {
            return Err(Error::UnknownBroker { broker: from.broker.clone() });
        }
        let version = &from.body.topics.data_version;
        let changed = known.is_none_or(|known| known.version != *version || known.broker_id != from.broker_id);
        self.join(from);
        if from.broker_id == MASTER {
            self.take_topics(from, changed);
        }
        let living = Living {
            broker: from.broker.clone(),
            broker_id: from.broker_id,
            seen_at: now,
            timeout_ms: from.heartbeat_timeout_ms.filter(|ms| *ms > 0).unwrap_or(timeout_ms),
            version: version.clone(),
            ha_address: from.ha_address.clone(),
            connection,
        };
        self.living.insert(key, living);
        Ok(self.master_for(from))
    }

    fn join(&mut self, from: &RegisterBroker) {
        let entry = self.brokers.entry(from.broker.clone()).or_default();
        entry.broker_name.clone_from(&from.broker);
        entry.cluster.clone_from(&from.cluster);
        entry.enable_acting_master = from.acting_master;
        entry.zone_name.clone_from(&from.zone);
        // A replica that became master, or the other way round, has one id only.
        entry.broker_addrs.retain(|id, address| *id == from.broker_id || *address != from.address);
        entry.broker_addrs.insert(from.broker_id, from.address.clone());
    }

    /// Takes the topics of a registration. Under a version already seen only those that are new: two topics made at the same
    /// time may come one by one under one version.
    fn take_topics(&mut self, from: &RegisterBroker, changed: bool) {
        for (name, topic) in &from.body.topics.topics {
            if !changed && self.topics.get(name).is_some_and(|brokers| brokers.contains_key(&from.broker)) {
                continue;
            }
            let queues = RouteQueues {
                broker_name: from.broker.clone(),
                perm: topic.perm,
                read_queue_nums: topic.read_queue_nums,
                topic_sys_flag: topic.topic_sys_flag,
                write_queue_nums: topic.write_queue_nums,
            };
            self.topics.entry(name.clone()).or_default().insert(from.broker.clone(), queues);
        }
    }

    fn master_for(&self, from: &RegisterBroker) -> Registered {
        let master = self.brokers.get(&from.broker).and_then(RouteBroker::master);
        let Some(master) = master.filter(|_| from.broker_id != MASTER) else { return Registered::default() };
        let living = self.living.get(&(from.cluster.clone(), master.to_owned()));
        Registered {
            ha_address: living.map(|living| living.ha_address.clone()),
            master_address: Some(master.to_owned()),
        }
    }

    /// A sign of life of a registered broker; nothing for others.
    pub fn heartbeat(&mut self, cluster: &str, address: &str, now: Timestamp) {
        if let Some(living) = self.living.get_mut(&(cluster.to_owned(), address.to_owned())) {
            living.seen_at = now;
        }
    }

    /// The version of the topics that a broker registered last. Asking is a sign of life.
    pub fn version(&mut self, cluster: &str, address: &str, now: Timestamp) -> Option<VersionBody> {
        self.heartbeat(cluster, address, now);
        self.living.get(&(cluster.to_owned(), address.to_owned())).map(|living| living.version.clone())
    }

    /// Takes out a broker; its topics go when no other member of its name is left.
    pub fn unregister(&mut self, cluster: &str, address: &str) {
        if let Some(gone) = self.living.remove(&(cluster.to_owned(), address.to_owned())) {
            self.leave(&gone, address);
        }
    }

    fn leave(&mut self, gone: &Living, address: &str) {
        let Some(entry) = self.brokers.get_mut(&gone.broker) else { return };
        if entry.broker_addrs.get(&gone.broker_id).is_some_and(|current| current == address) {
            entry.broker_addrs.remove(&gone.broker_id);
        }
        if entry.broker_addrs.is_empty() {
            self.brokers.remove(&gone.broker);
            self.topics.retain(|_, brokers| {
                brokers.remove(&gone.broker);
                !brokers.is_empty()
            });
        }
    }

    /// Takes out all brokers that gave no sign of life in time; returns their addresses.
    pub fn expire(&mut self, now: Timestamp) -> Vec<String> {
        self.take_out(|living| now.ms_since(living.seen_at) > living.timeout_ms)
    }

    /// Takes out the brokers that registered over a connection that is gone; returns their addresses.
    pub fn disconnect(&mut self, connection: u64) -> Vec<String> {
        self.take_out(|living| living.connection == connection)
    }

    fn take_out(&mut self, gone: impl Fn(&Living) -> bool) -> Vec<String> {
        let keys: Vec<_> = self.living.iter().filter(|(_, living)| gone(living)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|(cluster, address)| self.unregister(cluster, address));
        keys.into_iter().map(|(_, address)| address).collect()
    }

    /// Where a topic's queues are; `None` when no living broker has it.
    pub fn route(&self, topic: &str) -> Option<RouteBody> {
        let queues: Vec<RouteQueues> = self.topics.get(topic)?.values().cloned().collect();
        let brokers: Vec<RouteBroker> =
            queues.iter().filter_map(|queues| self.brokers.get(&queues.broker_name).cloned()).collect();
        (!brokers.is_empty()).then(|| RouteBody { brokers, queues, ..RouteBody::default() })
    }

    /// All brokers and clusters.
    pub fn cluster(&self) -> ClusterBody {
        let mut clusters: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for broker in self.brokers.values() {
            clusters.entry(broker.cluster.clone()).or_default().insert(broker.broker_name.clone());
        }
        ClusterBody { brokers: self.brokers.clone(), clusters }
    }

    /// The brokers of one name; without addresses when there are none.
    pub fn members(&self, cluster: &str, broker: &str) -> Members {
        let found = self.brokers.get(broker).filter(|found| found.cluster == cluster);
        Members {
            broker_addrs: found.map(|found| found.broker_addrs.clone()).unwrap_or_default(),
            broker_name: broker.to_owned(),
            cluster: cluster.to_owned(),
        }
    }

    /// The names of all topics.
    pub fn topics(&self) -> BTreeSet<String> {
        self.topics.keys().cloned().collect()
    }

    /// The names of the topics that have queues in `cluster`.
    pub fn topics_of(&self, cluster: &str) -> BTreeSet<String> {
        let within = |broker: &String| self.brokers.get(broker).is_some_and(|broker| broker.cluster == cluster);
        self.topics.iter().filter(|(_, brokers)| brokers.keys().any(within)).map(|(topic, _)| topic.clone()).collect()
    }

    /// Forgets where a topic's queues are, in one cluster or all.
    pub fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        let Some(queues) = self.topics.get_mut(topic) else { return };
        queues.retain(|broker, _| {
            cluster.is_some_and(|cluster| self.brokers.get(broker).is_none_or(|broker| broker.cluster != cluster))
        });
        if queues.is_empty() {
            self.topics.remove(topic);
        }
    }

    /// Says where a topic's queues are; brokers that do not live are passed over.
    pub fn put_topic(&mut self, topic: &str, queues: &[RouteQueues]) {
        for queues in queues.iter().filter(|queues| self.brokers.contains_key(&queues.broker_name)) {
            self.topics.entry(topic.to_owned()).or_default().insert(queues.broker_name.clone(), queues.clone());
        }
    }

    /// Takes the permission to write from all of a broker's topics; returns how many there are.
    pub fn wipe_write(&mut self, broker: &str) -> usize {
        self.change_perm(broker, |perm| perm & !WRITE)
    }

    /// Lets all of a broker's topics be read and written; returns how many there are.
    pub fn add_write(&mut self, broker: &str) -> usize {
        self.change_perm(broker, |_| READ_WRITE)
    }

    fn change_perm(&mut self, broker: &str, change: impl Fn(u32) -> u32) -> usize {
        let queues = self.topics.values_mut().filter_map(|brokers| brokers.get_mut(broker));
        queues.map(|queues| queues.perm = change(queues.perm)).count()
    }
}

#[cfg(test)]
mod tests {
    use sluice_protocol::body::{RegisterBrokerBody, TopicConfigBody};

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);
    const TIMEOUT: i64 = 120_000;

    fn broker(name: &str, id: u64, port: u16, topics: &[&str]) -> RegisterBroker {
        let mut body = RegisterBrokerBody::default();
        let configs = topics.iter().map(|topic| ((*topic).to_owned(), TopicConfigBody::new(topic, 4)));
        body.topics.topics = configs.collect();
        RegisterBroker {
            cluster: "c".into(),
            broker: name.into(),
            address: format!("10.0.0.1:{port}"),
            broker_id: id,
            ha_address: format!("10.0.0.1:{}", port + 1),
            heartbeat_timeout_ms: None,
            acting_master: false,
            zone: None,
            body,
        }
    }

    fn table(brokers: &[RegisterBroker]) -> RouteTable {
        let mut table = RouteTable::default();
        for (broker, connection) in brokers.iter().zip(1..) {
            table.register(broker, connection, TIMEOUT, NOW).unwrap();
        }
        table
    }

    fn brokers_of(table: &RouteTable, topic: &str) -> Vec<String> {
        table.route(topic).unwrap_or_default().brokers.into_iter().map(|broker| broker.broker_name).collect()
    }

    #[test]
    fn a_topic_is_where_living_brokers_have_it() {
        let mut table = table(&[broker("a", 0, 1, &["t", "u"]), broker("b", 0, 3, &["t", "v"])]);
        assert_eq!(brokers_of(&table, "t"), ["a", "b"]);
        assert_eq!(brokers_of(&table, "u"), ["a"]);
        table.unregister("c", "10.0.0.1:1");
        assert_eq!(brokers_of(&table, "t"), ["b"]);
        assert_eq!(table.route("u"), None);
        assert_eq!(table.topics(), BTreeSet::from(["t".to_owned(), "v".to_owned()]));
    }

    #[test]
    fn a_broker_without_signs_of_life_expires_and_one_with_them_does_not() {
        let quick = RegisterBroker { heartbeat_timeout_ms: Some(10), ..broker("a", 0, 1, &["t", "u"]) };
        let mut table = table(&[quick, broker("b", 0, 3, &["t", "u"]), broker("d", 0, 5, &["t", "u"])]);
        assert!(table.expire(NOW.plus_ms(10)).is_empty());
        assert_eq!(table.expire(NOW.plus_ms(11)), ["10.0.0.1:1"]);
        table.heartbeat("c", "10.0.0.1:3", NOW.plus_ms(TIMEOUT));
        assert_eq!(table.expire(NOW.plus_ms(TIMEOUT + 1)), ["10.0.0.1:5"]);
        assert_eq!(brokers_of(&table, "t"), ["b"]);
    }

    #[test]
    fn a_lost_connection_takes_its_brokers_out_unless_they_registered_again() {
        let mut table = table(&[broker("a", 0, 1, &["t", "u"]), broker("b", 0, 3, &["t", "u"])]);
        table.register(&broker("b", 0, 3, &["t", "u"]), 9, TIMEOUT, NOW).unwrap();
        assert_eq!(table.disconnect(1), ["10.0.0.1:1"]);
        assert!(table.disconnect(2).is_empty());
        assert_eq!(brokers_of(&table, "t"), ["b"]);
    }

    #[test]
    fn a_replica_learns_its_master_and_adds_no_topics() {
        let mut table = table(&[broker("a", 0, 1, &["t", "u"])]);
        let told = table.register(&broker("a", 1, 3, &["t", "w"]), 2, TIMEOUT, NOW).unwrap();
        assert_eq!(told.master_address.as_deref(), Some("10.0.0.1:1"));
        assert_eq!(told.ha_address.as_deref(), Some("10.0.0.1:2"));
        assert_eq!(table.route("w"), None);
        table.unregister("c", "10.0.0.1:1");
        let route = table.route("t").unwrap();
        assert_eq!((route.brokers[0].master(), route.brokers[0].broker_addrs.len()), (None, 1));
        table.register(&broker("a", 0, 3, &["t", "u"]), 2, TIMEOUT, NOW).unwrap();
        let members = table.members("c", "a").broker_addrs;
        assert_eq!(members, BTreeMap::from([(0, "10.0.0.1:3".to_owned())]), "one id per address");
    }

    #[test]
    fn one_topic_of_an_unknown_broker_is_refused_and_of_a_known_one_added() {
        let mut table = RouteTable::default();
        let refused = table.register(&broker("a", 0, 1, &["t"]), 1, TIMEOUT, NOW).unwrap_err();
        assert!(refused.to_string().contains("broker a"), "{refused}");
        table.register(&broker("a", 0, 1, &["t", "u"]), 1, TIMEOUT, NOW).unwrap();
        let mut more = broker("a", 0, 1, &["v"]);
        more.body.topics.data_version.counter = 1;
        table.register(&more, 1, TIMEOUT, NOW).unwrap();
        assert_eq!(table.topics().len(), 3);
        let mut same_version = broker("a", 0, 1, &["w"]);
        same_version.body.topics.data_version.counter = 1;
        table.register(&same_version, 1, TIMEOUT, NOW).unwrap();
        assert_eq!(table.topics().len(), 4, "a new topic under a version already seen");
    }

    #[test]
    fn topics_are_deleted_in_a_cluster_or_everywhere() {
        let other = RegisterBroker { cluster: "d".into(), ..broker("b", 0, 3, &["t", "u"]) };
        let mut table = table(&[broker("a", 0, 1, &["t", "u"]), other]);
        table.delete_topic("t", Some("d"));
        assert_eq!(brokers_of(&table, "t"), ["a"]);
        table.delete_topic("u", None);
        assert_eq!(table.route("u"), None);
        assert_eq!((table.topics_of("c").len(), table.topics_of("d").len()), (1, 0));
    }

    #[test]
    fn write_is_taken_and_given_back() {
        let mut table = table(&[broker("a", 0, 1, &["t", "u"]), broker("b", 0, 3, &["t", "u"])]);
        let perms = |table: &RouteTable| table.route("t").unwrap().queues.iter().map(|q| q.perm).collect::<Vec<_>>();
        assert_eq!(table.wipe_write("a"), 2);
        assert_eq!(perms(&table), [4, 6]);
        assert_eq!((table.add_write("a"), table.add_write("nobody")), (2, 0));
        assert_eq!(perms(&table), [6, 6]);
    }
}
