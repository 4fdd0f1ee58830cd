//! What stands in Kafka's topics: every message, where and since when.

use flowkit_core::id::Offset;
use flowkit_core::message::Envelope;
use flowkit_core::port::Stream;
use flowkit_sim::judge::Seen;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset as Position, TopicPartitionList};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// Topic and partition of a stream.
fn place(name: &str, stream: Stream) -> (String, i32) {
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    match stream {
        Stream::Shard(shard) => (format!("{name}.shards.v1"), number(shard.0)),
        Stream::Inbox(inbox) => (format!("{name}.inboxes.v1"), number(inbox)),
        Stream::Announcements => (format!("{name}.announcements.v1"), 0),
    }
}

/// A stream from its beginning to its present end.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// Its messages, with the broker's times.
    pub(crate) messages: Vec<(u64, Seen)>,
    /// Entries that are no messages of ours.
    pub(crate) foreign: usize,
}

/// Reads a stream.
pub(crate) fn read(kafka: &str, name: &str, stream: Stream) -> Result<Read, String> {
    let failed = |e: rdkafka::error::KafkaError| format!("{stream:?} cannot be read: {e}");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", "flowkit-chaos")
        .set("enable.auto.commit", "false")
        .create()
        .map_err(failed)?;
    let (topic, partition) = place(name, stream);
    let (low, high) = consumer
        .fetch_watermarks(&topic, partition, PATIENCE)
        .map_err(failed)?;
    let mut assigned = TopicPartitionList::new();
    let begin = Position::Offset(low);
    assigned
        .add_partition_offset(&topic, partition, begin)
        .map_err(failed)?;
    consumer.assign(&assigned).map_err(failed)?;
    let (mut read, mut next, began) = (Read::default(), low, Instant::now());
    while next < high {
        if began.elapsed() > PATIENCE {
            return Err(format!("{stream:?}: {next} of {high} messages came"));
        }
        let message = match consumer.poll(Duration::from_millis(200)) {
            None => continue,
            Some(message) => message.map_err(failed)?,
        };
        next = message.offset() + 1;
        let at_ms = message.timestamp().to_millis().unwrap_or(0);
        let bytes = message.payload().unwrap_or_default();
        if let Ok(envelope) = Envelope::decode(bytes) {
            let at_us = u64::try_from(at_ms).unwrap_or(0) * 1_000;
            let appended = Seen::Appended {
                stream,
                offset: Offset(u64::try_from(message.offset()).unwrap_or(0)),
                envelope: Arc::new(envelope),
            };
            read.messages.push((at_us, appended));
        } else {
            read.foreign += 1;
        }
    }
    Ok(read)
}

/// Appends entries that nobody should trip over.
pub(crate) fn poison(
    kafka: &str,
    name: &str,
    all: Vec<(Stream, Vec<Envelope>)>,
) -> Result<(), String> {
    let failed = |e: rdkafka::error::KafkaError| format!("poison cannot be appended: {e}");
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .create()
        .map_err(failed)?;
    for (stream, strays) in all {
        let (topic, partition) = place(name, stream);
        let mut entries = vec![
            b"not a message".to_vec(),
            Vec::new(),
            b"{\"v\":99}".to_vec(),
        ];
        for stray in strays {
            entries.push(stray.encode().map_err(|e| e.to_string())?);
        }
        for entry in &entries {
            let record = BaseRecord::<(), [u8]>::to(&topic)
                .partition(partition)
                .payload(entry);
            producer.send(record).map_err(|(e, _)| failed(e))?;
        }
    }
    producer.flush(PATIENCE).map_err(failed)
}
