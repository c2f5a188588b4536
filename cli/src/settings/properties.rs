//! RocketMQ's own `broker.conf`: its keys are mapped, those that mean nothing here are warned about by name.

use std::{str::FromStr, time::Duration};

use anyhow::{Context, bail};

use super::{Flush, Layer, Size, Span};

/// Reads `key=value` lines. Source of the keys: Apache RocketMQ `BrokerConfig`, `MessageStoreConfig`, `NettyServerConfig`.
pub fn read(text: &str) -> anyhow::Result<Layer> {
    let mut layer = Layer::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let Some((key, value)) = line.split_once(['=', ':']) else {
            bail!("line {}: expected key=value, got {line:?}", number + 1);
        };
        set(&mut layer, key.trim(), value.trim())?;
    }
    Ok(layer)
}

fn set(layer: &mut Layer, key: &str, value: &str) -> anyhow::Result<()> {
    match key {
        "brokerName" => layer.name = Some(value.to_owned()),
        "brokerClusterName" => layer.cluster = Some(value.to_owned()),
        "namesrvAddr" => layer.namesrv = Some(value.to_owned()),
        "listenPort" => layer.port = Some(parse(key, value, "a port")?),
        "brokerIP1" => layer.advertise = Some(value.to_owned()),
        "storePathRootDir" => layer.data = Some(value.into()),
        "flushDiskType" => layer.flush = Some(flush(value)?),
        "autoCreateTopicEnable" => layer.auto_create_topics = Some(parse(key, value, "true or false")?),
        "defaultTopicQueueNums" => layer.default_queues = Some(parse(key, value, "a number")?),
        "maxMessageSize" => layer.max_message = Some(Size(parse(key, value, "bytes")?)),
        "fileReservedTime" => layer.retention = Some(seconds(parse::<u64>(key, value, "hours")?.saturating_mul(3600))),
        "mappedFileSizeCommitLog" => layer.segment_size = Some(Size(parse(key, value, "bytes")?)),
        "transactionTimeOut" => layer.transaction_timeout = Some(millis(parse(key, value, "milliseconds")?)),
        "transactionCheckInterval" => layer.transaction_interval = Some(millis(parse(key, value, "milliseconds")?)),
        "transactionCheckMax" => layer.transaction_checks = Some(parse(key, value, "a number")?),
        "brokerId" if value == "0" => {}
        _ => tracing::warn!(key, "this key of broker.conf means nothing here and is passed over"),
    }
    Ok(())
}

fn parse<T: FromStr>(key: &str, value: &str, expected: &str) -> anyhow::Result<T> {
    value.parse().ok().with_context(|| format!("{key}: expected {expected}, got {value:?}"))
}

fn flush(value: &str) -> anyhow::Result<Flush> {
    match value {
        "SYNC_FLUSH" => Ok(Flush::Sync),
        "ASYNC_FLUSH" => Ok(Flush::Async),
        _ => bail!("flushDiskType: expected SYNC_FLUSH or ASYNC_FLUSH, got {value:?}"),
    }
}

fn seconds(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

fn millis(millis: u64) -> Span {
    Span(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apache_names_are_mapped_and_others_passed_over() {
        let text = "# a comment\nbrokerName = broker-b\nlistenPort=10921\nflushDiskType = ASYNC_FLUSH\n\
                    fileReservedTime=48\ntransactionTimeOut=1500\nbrokerRole = ASYNC_MASTER\n";
        let layer = read(text).unwrap();
        assert_eq!(layer.name.as_deref(), Some("broker-b"));
        assert_eq!((layer.port, layer.flush), (Some(10_921), Some(Flush::Async)));
        assert_eq!(layer.retention.unwrap().to_string(), "2d");
        assert_eq!(layer.transaction_timeout.unwrap().to_string(), "1500ms");
    }

    #[test]
    fn a_bad_value_is_named_with_its_key() {
        for (text, key) in
            [("listenPort=x", "listenPort"), ("flushDiskType=LATER", "flushDiskType"), ("nonsense", "line 1")]
        {
            assert!(read(text).unwrap_err().to_string().contains(key), "{text}");
        }
    }
}
