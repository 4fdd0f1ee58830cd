//! Reads: consumers that are assigned by hand, kept while a stream is followed.
//!
//! The port is stateless: a read names its offset. A consumer that stands at that offset is used
//! again, so following a stream costs no seek; any other read gets a consumer of its own. A read that
//! is dropped half way takes its consumer along, and with it everything that it had fetched.

use flowkit_core::id::Offset;
use flowkit_core::message::Envelope;
use flowkit_core::port::{Entry, PortError, Stream};
use futures_util::FutureExt;
use rdkafka::consumer::{BaseConsumer, Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, TopicPartitionList};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use crate::error::of_read;
use crate::transport::Place;
use crate::{KafkaSettings, OpenError};

/// Consumers that are kept for the next read.
const IDLE_MAX: usize = 64;
/// How long one is kept: a stream that is followed is read again within half a minute.
const IDLE_TIME: Duration = Duration::from_secs(120);
/// Pause after an error of the connection, which repeats itself in a tight sequence.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Makes, keeps and asks consumers.
pub(crate) struct Consumers {
    settings: KafkaSettings,
    idle: Mutex<VecDeque<Reader>>,
    /// Answers questions about the ends of logs; it reads nothing.
    asker: Arc<BaseConsumer>,
}

/// A consumer of one partition.
struct Reader {
    stream: Stream,
    /// Offset of the next message that it gives.
    position: Offset,
    /// Since when nobody reads with it.
    idle_since: Instant,
    /// Taken when it is dropped.
    consumer: Option<StreamConsumer>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            // Closing waits for the broker, for seconds if it is away.
            std::thread::spawn(move || drop(consumer));
        }
    }
}

fn config(settings: &KafkaSettings) -> rdkafka::ClientConfig {
    let mut config = settings.client();
    // Assigned by hand; the client wants a name all the same. Nothing is ever committed under it.
    config.set("group.id", "flowkit-assigned-by-hand");
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    config.set("auto.offset.reset", "error");
    config.set("isolation.level", "read_committed");
    config.set("allow.auto.create.topics", "false");
    config.set("fetch.min.bytes", "1");
    config.set("fetch.error.backoff.ms", "50");
    config.set("queued.min.messages", "1000");
    config.set("queued.max.messages.kbytes", "4096");
    config
}

impl Consumers {
    pub(crate) fn new(settings: &KafkaSettings) -> Result<Self, OpenError> {
        let asker = config(settings).create();
        let asker = asker.map_err(|error: KafkaError| OpenError::Settings(error.to_string()))?;
        Ok(Self {
            settings: settings.clone(),
            idle: Mutex::default(),
            asker: Arc::new(asker),
        })
    }

    pub(crate) fn asker(&self) -> &Arc<BaseConsumer> {
        &self.asker
    }

    /// Start and end of a log, asked from its broker.
    pub(crate) async fn bounds(&self, place: &Place) -> Result<(Offset, Offset), PortError> {
        let (asker, timeout) = (self.asker.clone(), self.settings.broker_timeout);
        let (topic, partition) = (place.topic.clone(), place.partition);
        let asked =
            tokio::task::spawn_blocking(move || asker.fetch_watermarks(&topic, partition, timeout));
        let bounds = asked.await.map_err(|error| {
            PortError::new(
                flowkit_core::port::ErrorKind::Retry,
                "bounds",
                error.to_string(),
            )
        })?;
        let (low, high) = bounds.map_err(|error| of_read("bounds", &error))?;
        let offset = |value: i64| Offset(u64::try_from(value).unwrap_or(0));
        Ok((offset(low), offset(high)))
    }

    /// Entries from an offset on.
    pub(crate) async fn read(
        &self,
        stream: Stream,
        place: &Place,
        from: Offset,
        limit: u32,
        wait_ms: u64,
    ) -> Result<Vec<Entry>, PortError> {
        let limit = limit.max(1) as usize;
        let kept = self.take(stream, from);
        let is_new = kept.is_none();
        if is_new || wait_ms == 0 {
            let (start, end) = self.bounds(place).await?;
            if from < start || from > end {
                let detail = format!("offset {from} is not in {start}..={end}");
                let kind = flowkit_core::port::ErrorKind::Invalid;
                return Err(PortError::new(kind, "read", detail));
            }
            if wait_ms == 0 && from == end {
                if let Some(reader) = kept {
                    self.keep(reader);
                }
                return Ok(Vec::new());
            }
        }
        let mut reader = match kept {
            Some(reader) => reader,
            None => self.assign(stream, place, from)?,
        };
        // What is there is waited for, however long the broker may take to hand it out.
        let wait = match wait_ms {
            0 => self.settings.broker_timeout,
            ms => Duration::from_millis(ms),
        };
        let entries = reader.fetch(limit, wait).await?;
        if entries.is_empty() {
            // A broker that is away gives nothing either: silence counts only if it answers.
            self.bounds(place).await?;
        }
        self.keep(reader);
        Ok(entries)
    }

    /// An idle consumer that stands where the read begins.
    fn take(&self, stream: Stream, from: Offset) -> Option<Reader> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |reader: &Reader| reader.stream == stream && reader.position == from;
        let at = idle.iter().position(fits)?;
        idle.remove(at)
    }

    fn keep(&self, mut reader: Reader) {
        let now = Instant::now();
        reader.idle_since = now;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let is_stale = |oldest: &Reader| now.duration_since(oldest.idle_since) > IDLE_TIME;
        while idle.len() >= IDLE_MAX || idle.front().is_some_and(is_stale) {
            idle.pop_front();
        }
        idle.push_back(reader);
    }

    fn assign(&self, stream: Stream, place: &Place, from: Offset) -> Result<Reader, PortError> {
        let failed = |error: KafkaError| of_read("read", &error);
        let consumer: StreamConsumer = config(&self.settings).create().map_err(failed)?;
        let mut at = TopicPartitionList::new();
        let offset = i64::try_from(from.0).unwrap_or(i64::MAX);
        at.add_partition_offset(
            &place.topic,
            place.partition,
            rdkafka::Offset::Offset(offset),
        )
        .map_err(failed)?;
        let reader = Reader {
            stream,
            position: from,
            idle_since: Instant::now(),
            consumer: Some(consumer),
        };
        if let Some(consumer) = &reader.consumer {
            consumer.assign(&at).map_err(failed)?;
        }
        Ok(reader)
    }
}

impl Reader {
    /// Waits for the first message, then takes what has arrived with it.
    async fn fetch(&mut self, limit: usize, wait: Duration) -> Result<Vec<Entry>, PortError> {
        let Some(consumer) = &self.consumer else {
            return Ok(Vec::new());
        };
        let deadline = Instant::now() + wait;
        let mut entries: Vec<Entry> = Vec::new();
        while entries.len() < limit {
            let received = if entries.is_empty() {
                match tokio::time::timeout_at(deadline, consumer.recv()).await {
                    Ok(received) => received,
                    Err(_) => break,
                }
            } else {
                match consumer.recv().now_or_never() {
                    Some(received) => received,
                    None => break,
                }
            };
            match received {
                // Fetched before a seek: not what was asked for.
                Ok(message) if offset_of(&message) < self.position => {}
                Ok(message) => {
                    let offset = offset_of(&message);
                    self.position = offset.next();
                    let payload = message.payload().unwrap_or_default();
                    let message = Envelope::decode(payload).map(Arc::new);
                    entries.push(Entry { offset, message });
                }
                Err(_) if !entries.is_empty() => break,
                Err(error) => {
                    let error = of_read("read", &error);
                    if error.kind == flowkit_core::port::ErrorKind::Invalid {
                        return Err(error);
                    }
                    tracing::debug!("the broker cannot be read: {error}");
                    let pause = Instant::now() + ERROR_PAUSE;
                    tokio::time::sleep_until(pause.min(deadline)).await;
                }
            }
        }
        Ok(entries)
    }
}

fn offset_of(message: &BorrowedMessage<'_>) -> Offset {
    Offset(u64::try_from(message.offset()).unwrap_or(0))
}
