//! A consumer of one partition, assigned by hand at an offset.

use flowkit_core::id::Offset;
use flowkit_core::message::Envelope;
use flowkit_core::port::{Entry, ErrorKind, PortError, Stream};
use futures_util::FutureExt;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, TopicPartitionList};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use crate::consumer::watermarks;
use crate::error::of_read;
use crate::log::Context;
use crate::off_thread::OffThread;
use crate::transport::Place;

/// Pause after an error of the connection, which repeats itself in a tight sequence.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Payload in one answer, beyond which it is not filled up further.
const ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// What a fetch came to.
pub(crate) enum Fetched {
    /// At least one entry.
    Entries(Vec<Entry>),
    /// Nothing in the time given.
    Nothing,
    /// Everything that there was has been looked at, and held no entry.
    End,
}

/// A consumer and where it stands.
pub(crate) struct Reader {
    stream: Stream,
    place: Place,
    /// Offset behind the last entry that it gave.
    given: Offset,
    /// Offset that it reads on from; between `given` and this there is no entry.
    position: Offset,
    /// It has met an error after which it fetches no more.
    spent: bool,
    /// Since when nobody reads with it.
    pub(crate) idle_since: Instant,
    consumer: Arc<OffThread<StreamConsumer<Context>>>,
}

impl Reader {
    /// A consumer that is not assigned yet.
    pub(crate) fn new(
        config: &ClientConfig,
        context: &Context,
        stream: Stream,
        place: &Place,
        from: Offset,
    ) -> Result<Self, PortError> {
        let consumer = config.create_with_context(context.clone());
        let consumer = consumer.map_err(|error| of_read("read", &error))?;
        Ok(Self {
            stream,
            place: place.clone(),
            given: from,
            position: from,
            spent: false,
            idle_since: Instant::now(),
            consumer: Arc::new(OffThread::new(consumer)),
        })
    }

    /// Starts to fetch.
    pub(crate) fn assign(&self) -> Result<(), PortError> {
        let failed = |error: KafkaError| of_read("read", &error);
        let mut at = TopicPartitionList::new();
        let offset = rdkafka::Offset::Offset(i64::try_from(self.position.0).unwrap_or(i64::MAX));
        at.add_partition_offset(&self.place.topic, self.place.partition, offset)
            .map_err(failed)?;
        self.consumer.assign(&at).map_err(failed)
    }

    /// Whether what it gives next is what a read from an offset wants next.
    pub(crate) fn fits(&self, stream: Stream, from: Offset) -> bool {
        self.stream == stream && self.given <= from && from <= self.position
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.spent
    }

    pub(crate) fn position(&self) -> Offset {
        self.position
    }

    /// It has been shown that there is no entry from `from` to `end`.
    pub(crate) fn pass_gap(&mut self, from: Offset, end: Offset) {
        self.given = self.given.min(from);
        self.position = self.position.max(end);
    }

    /// The end up to which this consumer may read: an open transaction holds it back.
    pub(crate) async fn readable_end(&self, timeout: Duration) -> Result<Offset, PortError> {
        let consumer = self.consumer.clone();
        let ask =
            move |place: &Place| consumer.fetch_watermarks(&place.topic, place.partition, timeout);
        let (_, end) = watermarks(self.place.clone(), ask).await?;
        Ok(end)
    }

    /// Waits for the first entry, then takes what has arrived with it. With `to_end`, it does not
    /// wait beyond the end of what may be read.
    pub(crate) async fn fetch(
        &mut self,
        limit: usize,
        wait: Duration,
        to_end: bool,
    ) -> Result<Fetched, PortError> {
        let deadline = Instant::now().checked_add(wait);
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        while entries.len() < limit && bytes < ANSWER_BYTES {
            let received = if entries.is_empty() {
                let receive = self.consumer.recv();
                match deadline {
                    Some(deadline) => match tokio::time::timeout_at(deadline, receive).await {
                        Ok(received) => received,
                        Err(_) => return Ok(Fetched::Nothing),
                    },
                    None => receive.await,
                }
            } else {
                match self.consumer.recv().now_or_never() {
                    Some(received) => received,
                    None => break,
                }
            };
            match received {
                Ok(message) => {
                    let offset = offset_of(&message);
                    self.given = offset.next();
                    self.position = offset.next();
                    let payload = message.payload().unwrap_or_default();
                    bytes += payload.len();
                    let message = Envelope::decode(payload).map(Arc::new);
                    entries.push(Entry { offset, message });
                }
                Err(KafkaError::PartitionEOF(_)) if entries.is_empty() && to_end => {
                    return Ok(Fetched::End);
                }
                Err(KafkaError::PartitionEOF(_)) => {}
                Err(error) => {
                    let error = of_read("read", &error);
                    self.spent |= error.kind == ErrorKind::Invalid;
                    if !entries.is_empty() {
                        break;
                    }
                    if self.spent {
                        return Err(error);
                    }
                    let pause = Instant::now() + ERROR_PAUSE;
                    tokio::time::sleep_until(deadline.map_or(pause, |at| at.min(pause))).await;
                }
            }
        }
        Ok(Fetched::Entries(entries))
    }
}

fn offset_of(message: &BorrowedMessage<'_>) -> Offset {
    Offset(u64::try_from(message.offset()).unwrap_or(0))
}
