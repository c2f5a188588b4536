//! Topics, groups, configuration and statistics of a broker.

use sluice_model::{GroupName, TopicName};

use crate::{
    body::{GroupConfigBody, GroupConfigListBody, TopicConfigListBody},
    field::requests,
};

requests! {
    /// Create a topic or change it.
    CreateTopic = CreateTopic {
        topic: TopicName = must "topic",
        default_topic: String = must "defaultTopic",
        read_queues: u32 = must "readQueueNums",
        write_queues: u32 = must "writeQueueNums",
        /// Bits: 4 read, 2 write, 1 inherit, 8 priority.
        perm: u32 = must "perm",
        filter_type: String = must "topicFilterType",
        sys_flag: i32 = or(0) "topicSysFlag",
        order: bool = or(false) "order",
        /// Comma-separated changes, `+key=value` or `-key`.
        attributes: Option<String> = may "attributes",
        force: bool = or(false) "force",
    }

    /// Create several topics.
    CreateTopics = CreateTopics (body: TopicConfigListBody) {}

    /// All topics of the broker; newer tools ask page by page.
    AllTopicConfigs = AllTopicConfigs {
        from: Option<i32> = may "topicSeq",
        max: Option<i32> = may "maxTopicNum",
    }

    /// One topic of the broker.
    TopicConfig = TopicConfig {
        topic: TopicName = must "topic",
    }

    /// Delete a topic.
    DeleteTopic = DeleteTopic {
        topic: TopicName = must "topic",
    }

    /// Offsets and times of a topic's queues.
    TopicStats = TopicStats {
        topic: TopicName = must "topic",
    }

    /// The broker's own topics.
    SystemTopics = SystemTopics {}

    /// Which groups have consumed a topic.
    GroupsOfTopic = GroupsOfTopic {
        topic: TopicName = must "topic",
    }

    /// Change the broker's configuration: lines of `key=value`.
    UpdateBrokerConfig = UpdateBrokerConfig (body: String) {}

    /// The broker's configuration.
    BrokerConfig = BrokerConfig {}

    /// The broker's counters.
    BrokerRuntime = BrokerRuntime {}

    /// Create a group or change it.
    UpdateGroup = UpdateGroup (body: GroupConfigBody) {}

    /// Create several groups or change them.
    UpdateGroups = UpdateGroups (body: GroupConfigListBody) {}

    /// All groups of the broker; newer tools ask page by page.
    AllGroups = AllGroups {
        from: Option<i32> = may "groupSeq",
        max: Option<i32> = may "maxGroupNum",
    }

    /// One group of the broker.
    GroupConfig = GroupConfig {
        group: GroupName = must "group",
    }

    /// Delete a group.
    DeleteGroup = DeleteGroup {
        group: GroupName = must "groupName",
        clean_offsets: bool = or(false) "cleanOffset",
    }

    /// A group's progress in its topics.
    ConsumeStats = ConsumeStats {
        group: GroupName = must "consumerGroup",
        topic: Option<TopicName> = may "topic",
        /// Several topics, separated by semicolons.
        topics: Option<String> = may "topicList",
    }

    /// Times between which a group has messages of a topic to consume.
    ConsumeTimeSpan = ConsumeTimeSpan {
        topic: TopicName = must "topic",
        group: GroupName = must "group",
    }

    /// Who consumes in a group now.
    ConsumerConnections = ConsumerConnections {
        group: GroupName = must "consumerGroup",
    }

    /// Who produces in a group now.
    ProducerConnections = ProducerConnections {
        group: GroupName = must "producerGroup",
    }

    /// Which topics a group has consumed.
    TopicsOfConsumer = TopicsOfConsumer {
        group: GroupName = must "group",
    }

    /// What a group subscribes to in a topic.
    SubscriptionOfConsumer = SubscriptionOfConsumer {
        group: GroupName = must "group",
        topic: TopicName = must "topic",
    }
}
