//! Whether topics that were found fit the deployment.

use flowkit_core::message::MESSAGE_BYTES_MAX;
use std::collections::BTreeMap;

use crate::topics::{OVERHEAD_BYTES, Topics};
use crate::{KafkaSettings, OpenError};

/// Whether an existing topic keeps what is written to it.
pub(crate) fn check_config(
    settings: &KafkaSettings,
    topic: &str,
    values: &BTreeMap<&str, &str>,
) -> Result<(), OpenError> {
    let differs = |what, found: &str, wanted: String, cure| {
        Err(OpenError::Topic {
            topic: topic.to_owned(),
            what,
            found: found.to_owned(),
            wanted,
            cure,
        })
    };
    let policy = values.get("cleanup.policy").copied().unwrap_or("delete");
    if policy.contains("compact") {
        let cure = "compaction would drop messages; set cleanup.policy=delete";
        return differs("cleanup.policy", policy, "delete".to_owned(), cure);
    }
    let retention = values
        .get("retention.ms")
        .and_then(|v| v.parse::<i64>().ok());
    let wanted = i64::try_from(settings.retention.as_millis()).unwrap_or(i64::MAX);
    if let Some(found) = retention
        && found >= 0
        && found < wanted
    {
        let cure = "messages must outlive the longest outage; raise it";
        return differs(
            "retention.ms",
            &found.to_string(),
            format!("at least {wanted}"),
            cure,
        );
    }
    let size = values.get("retention.bytes").copied().unwrap_or("-1");
    if !size.starts_with('-') {
        let cure = "what nobody has read yet would be cut off; set retention.bytes=-1";
        return differs("retention.bytes", size, "-1".to_owned(), cure);
    }
    let bytes = values
        .get("max.message.bytes")
        .and_then(|v| v.parse::<usize>().ok());
    if let Some(found) = bytes
        && found < MESSAGE_BYTES_MAX + OVERHEAD_BYTES
    {
        let cure = "large messages would be refused; raise it";
        let wanted = format!("at least {}", MESSAGE_BYTES_MAX + OVERHEAD_BYTES);
        return differs("max.message.bytes", &found.to_string(), wanted, cure);
    }
    let time = values.get("message.timestamp.type").copied();
    if let Some(time) = time.filter(|time| *time != "LogAppendTime") {
        let cure = "a sender whose clock is behind would make the broker drop what nobody has read yet; \
                    set message.timestamp.type=LogAppendTime";
        return differs(
            "message.timestamp.type",
            time,
            "LogAppendTime".to_owned(),
            cure,
        );
    }
    Ok(())
}

/// Whether a topic has the partitions that the deployment was created with.
pub(crate) fn check_partitions(
    settings: &KafkaSettings,
    topics: &Topics,
    found: &BTreeMap<String, usize>,
) -> Result<(), OpenError> {
    for (topic, wanted) in topics.with_partitions(settings) {
        let found = found.get(topic).copied().unwrap_or(0);
        if found != wanted as usize {
            return Err(OpenError::Topic {
                topic: topic.to_owned(),
                what: "partitions",
                found: found.to_string(),
                wanted: wanted.to_string(),
                cure: "the number is fixed when a deployment is created; use another topic_prefix, \
                       or the deployment's own database",
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_would_forget_is_refused_with_the_cure() {
        let settings = KafkaSettings::new("k:1");
        for (name, value, part) in [
            ("cleanup.policy", "compact", "cleanup.policy=delete"),
            ("retention.ms", "1000", "longest outage"),
            ("retention.bytes", "1000000000", "retention.bytes=-1"),
            ("message.timestamp.type", "CreateTime", "clock is behind"),
            ("max.message.bytes", "1000", "raise it"),
            // The brokers' own default: a message of the largest size would not fit with its frame.
            ("max.message.bytes", "1048588", "raise it"),
        ] {
            let values = BTreeMap::from([(name, value)]);
            let error = check_config(&settings, "t", &values).expect_err(name);
            assert!(error.to_string().contains(part), "{error}");
        }
        let values = BTreeMap::from([("cleanup.policy", "delete"), ("retention.ms", "-1")]);
        assert!(check_config(&settings, "t", &values).is_ok());
    }

    #[test]
    fn partitions_must_be_those_of_the_deployment() {
        let settings = KafkaSettings::new("k:1").shards(4);
        let topics = Topics::new("p");
        let found = BTreeMap::from([
            ("p.shards.v1".to_owned(), 2),
            ("p.inboxes.v1".to_owned(), 16),
            ("p.announcements.v1".to_owned(), 1),
        ]);
        let text = check_partitions(&settings, &topics, &found).expect_err("2, not 4");
        assert!(text.to_string().contains("partitions 2, but 4"), "{text}");
    }
}
