//! Numbers of requests and answers. Source: Apache RocketMQ `RequestCode`, `ResponseCode`, `RemotingSysResponseCode`.

macro_rules! codes {
    ($(#[$doc:meta])* $type:ident { $($name:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type {
            $($name,)*
            /// A number that this table does not know.
            Other(i32),
        }

        impl From<i32> for $type {
            fn from(code: i32) -> Self {
                match code { $($code => Self::$name,)* other => Self::Other(other) }
            }
        }

        impl From<$type> for i32 {
            fn from(code: $type) -> i32 {
                match code { $($type::$name => $code,)* $type::Other(other) => other }
            }
        }
    };
}

codes! {
    /// What a request asks for.
    RequestCode {
        SendMessage = 10,
        PullMessage = 11,
        QueryMessage = 12,
        QueryConsumerOffset = 14,
        UpdateConsumerOffset = 15,
        CreateTopic = 17,
        CreateTopics = 18,
        AllTopicConfigs = 21,
        UpdateBrokerConfig = 25,
        BrokerConfig = 26,
        BrokerRuntime = 28,
        SearchOffset = 29,
        MaxOffset = 30,
        MinOffset = 31,
        EarliestStoreTime = 32,
        ViewMessage = 33,
        Heartbeat = 34,
        UnregisterClient = 35,
        SendBack = 36,
        EndTransaction = 37,
        ConsumerList = 38,
        CheckTransaction = 39,
        ConsumersChanged = 40,
        LockQueues = 41,
        UnlockQueues = 42,
        AllConsumerOffsets = 43,
        CheckClientConfig = 46,
        PutKv = 100,
        GetKv = 101,
        DeleteKv = 102,
        RegisterBroker = 103,
        UnregisterBroker = 104,
        Route = 105,
        Cluster = 106,
        UpdateGroup = 200,
        AllGroups = 201,
        TopicStats = 202,
        ConsumerConnections = 203,
        ProducerConnections = 204,
        WipeWrite = 205,
        AllTopics = 206,
        DeleteGroup = 207,
        ConsumeStats = 208,
        DeleteTopic = 215,
        DeleteTopicRoute = 216,
        RegisterTopicRoute = 217,
        KvList = 219,
        ResetConsumer = 220,
        ResetOffset = 222,
        TopicsOfCluster = 224,
        UpdateGroups = 225,
        GroupsOfTopic = 300,
        ConsumeTimeSpan = 303,
        SystemTopicsOfNames = 304,
        SystemTopics = 305,
        ConsumerRunning = 307,
        ConsumeDirectly = 309,
        SendMessageShort = 310,
        CloneOffsets = 314,
        UpdateNamesConfig = 318,
        NamesConfig = 319,
        SendBatch = 320,
        QueryDataVersion = 322,
        SendReply = 324,
        SendReplyShort = 325,
        PushReply = 326,
        AddWrite = 327,
        TopicsOfConsumer = 343,
        SubscriptionOfConsumer = 345,
        TopicConfig = 351,
        GroupConfig = 352,
        LitePull = 361,
        RecallMessage = 370,
        QueryAssignment = 400,
        SetRequestMode = 401,
        MemberGroup = 901,
        BrokerHeartbeat = 904,
        PopMessage = 200_050,
        AckMessage = 200_051,
        ChangeInvisible = 200_053,
        Notification = 200_054,
        PollingCount = 200_055,
        BatchAck = 200_151,
    }
}

codes! {
    /// How a request ended.
    ResponseCode {
        Success = 0,
        SystemError = 1,
        SystemBusy = 2,
        RequestCodeNotSupported = 3,
        TransactionFailed = 4,
        FlushDiskTimeout = 10,
        SlaveNotAvailable = 11,
        FlushSlaveTimeout = 12,
        MessageIllegal = 13,
        ServiceNotAvailable = 14,
        VersionNotSupported = 15,
        NoPermission = 16,
        TopicNotExist = 17,
        TopicExistAlready = 18,
        PullNotFound = 19,
        PullRetryImmediately = 20,
        PullOffsetMoved = 21,
        QueryNotFound = 22,
        SubscriptionParseFailed = 23,
        SubscriptionNotExist = 24,
        SubscriptionNotLatest = 25,
        SubscriptionGroupNotExist = 26,
        FilterNotExist = 27,
        FilterNotLatest = 28,
        InvalidParameter = 29,
        TransactionShouldCommit = 200,
        TransactionShouldRollback = 201,
        TransactionStateUnknown = 202,
        TransactionStateGroupWrong = 203,
        NoBuyerId = 204,
        NotInCurrentUnit = 205,
        ConsumerNotOnline = 206,
        ConsumeMessageTimeout = 207,
        NoMessage = 208,
        PollingFull = 209,
        PollingTimeout = 210,
        BrokerNotExist = 211,
        BrokerDispatchNotComplete = 212,
        BroadcastConsumption = 213,
        FlowControl = 215,
        NotLeaderForQueue = 501,
        IllegalOperation = 604,
        GoAway = 1500,
    }
}
