//! What stands in Kafka's topics: every message, where and since when.

use flowkit_core::id::{BatchUid, DedupId, Incarnation, NodeId, Offset, ShardId, TaskId, Token};
use flowkit_core::message::{
    BatchOk, Body, Counts, Envelope, Metrics, Sender, SenderRole, TaskDone,
};
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

/// Reads a stream from its beginning to its present end. Times are those of the broker.
pub(crate) fn read(kafka: &str, name: &str, stream: Stream) -> Result<Vec<(u64, Seen)>, String> {
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
    let (mut seen, mut next, began) = (Vec::new(), low, Instant::now());
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
        // What is no message of ours is nobody's word.
        if let Ok(envelope) = Envelope::decode(bytes) {
            let at_us = u64::try_from(at_ms).unwrap_or(0) * 1_000;
            let appended = Seen::Appended {
                stream,
                offset: Offset(u64::try_from(message.offset()).unwrap_or(0)),
                envelope: Arc::new(envelope),
            };
            seen.push((at_us, appended));
        }
    }
    Ok(seen)
}

/// Appends entries that no coordinator should trip over.
pub(crate) fn poison(kafka: &str, name: &str, shard: u32, task: &str) -> Result<(), String> {
    let failed = |e: rdkafka::error::KafkaError| format!("poison cannot be appended: {e}");
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .create()
        .map_err(failed)?;
    let (topic, partition) = place(name, Stream::Shard(ShardId(shard)));
    let sender = Sender {
        role: SenderRole::Worker,
        id: Arc::from("nobody"),
        incarnation: Incarnation(7),
    };
    let bodies = [
        Body::TaskDone(TaskDone {
            metrics: Metrics::new(),
            result: None,
            counts: Counts::default(),
            last_batch: None,
        }),
        Body::BatchOk(BatchOk {
            batch_uid: BatchUid::new("stray").map_err(|e| e.to_string())?,
            metrics: Metrics::new(),
            artifact: None,
            checkpoint: None,
            cursor: None,
        }),
    ];
    let mut entries = vec![
        b"not a message".to_vec(),
        Vec::new(),
        b"{\"v\":99}".to_vec(),
    ];
    for (nonce, body) in (1..).zip(bodies) {
        let mut envelope = Envelope::new(sender.clone(), 0, body);
        envelope.task_id = TaskId::new(task).ok();
        envelope.node_id = NodeId::new("scan").ok();
        envelope.lease_no = Some(Token(1_000_000));
        envelope.seq = Some(1);
        envelope.dedup_id = DedupId(nonce);
        entries.push(envelope.encode().map_err(|e| e.to_string())?);
    }
    for entry in &entries {
        let record = BaseRecord::<(), [u8]>::to(&topic)
            .partition(partition)
            .payload(entry);
        producer.send(record).map_err(|(e, _)| failed(e))?;
    }
    producer.flush(PATIENCE).map_err(failed)
}
