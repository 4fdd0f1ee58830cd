//! Reads: consumers that are kept while a stream is followed, and questions about the ends of logs.
//!
//! The port is stateless: a read names its offset. A consumer that stands at that offset is used
//! again, so following a stream costs no seek; any other read gets a consumer of its own. A read that
//! is dropped half way takes its consumer along, and with it everything that it had fetched.

use flowkit_core::id::Offset;
use flowkit_core::port::{Entry, ErrorKind, PortError, Stream};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use crate::error::{of_read, of_settings};
use crate::log::Context;
use crate::off_thread::OffThread;
use crate::reader::{Fetched, Reader};
use crate::transport::Place;
use crate::{KafkaSettings, OpenError};

/// Consumers that are kept for the next read.
const IDLE_MAX: usize = 64;
/// How long one is kept: a stream that is followed is read again within half a minute.
const IDLE_TIME: Duration = Duration::from_secs(120);
/// A message that was appended while nobody looked is fetched well within this.
const ARRIVAL_TIME: Duration = Duration::from_secs(1);

type Asker = OffThread<BaseConsumer<Context>>;

/// Makes, keeps and asks consumers.
pub(crate) struct Consumers {
    settings: KafkaSettings,
    context: Context,
    idle: Mutex<VecDeque<Reader>>,
    /// Answers questions about the ends of logs; it reads nothing.
    asker: Arc<Asker>,
}

/// A read that is asked for.
pub(crate) struct Wanted {
    pub(crate) stream: Stream,
    pub(crate) place: Place,
    pub(crate) from: Offset,
    pub(crate) limit: usize,
    pub(crate) wait: Duration,
}

fn config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = settings.client();
    // Assigned by hand; the client wants a name all the same. Nothing is ever committed under it.
    config.set("group.id", "flowkit-assigned-by-hand");
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    config.set("auto.offset.reset", "error");
    config.set("isolation.level", "read_committed");
    config.set("allow.auto.create.topics", "false");
    // Says that what lies before the end is no entry: marks of transactions, and what they undid.
    config.set("enable.partition.eof", "true");
    config.set("fetch.min.bytes", "1");
    config.set("fetch.error.backoff.ms", "50");
    config.set("queued.min.messages", "10000");
    config.set("queued.max.messages.kbytes", "4096");
    // How long a full queue is left alone. The default of a second limits a reader that catches up
    // to a few thousand messages a second.
    config.set("fetch.queue.backoff.ms", "5");
    config
}

impl Consumers {
    pub(crate) fn new(settings: &KafkaSettings, context: &Context) -> Result<Self, OpenError> {
        let mut asking = config(settings);
        // The end of everything that is acknowledged, even if an open transaction holds readers
        // back: leases expire by it.
        asking.set("isolation.level", "read_uncommitted");
        let asker = asking.create_with_context(context.clone());
        let asker = asker.map_err(|error: KafkaError| of_settings(settings, &error))?;
        Ok(Self {
            settings: settings.clone(),
            context: context.clone(),
            idle: Mutex::default(),
            asker: Arc::new(OffThread::new(asker)),
        })
    }

    pub(crate) fn asker(&self) -> &Arc<Asker> {
        &self.asker
    }

    /// Start and end of a log, asked from its broker.
    pub(crate) async fn bounds(&self, place: &Place) -> Result<(Offset, Offset), PortError> {
        let (asker, timeout) = (self.asker.clone(), self.settings.broker_timeout);
        watermarks(place.clone(), move |place| {
            let answer = asker.fetch_watermarks(&place.topic, place.partition, timeout);
            // Errors of the connection pile up in a queue that nobody else empties.
            while asker.poll(Duration::ZERO).is_some() {}
            answer
        })
        .await
    }

    /// The bounds, if a read may begin at `from`.
    async fn bounds_around(
        &self,
        place: &Place,
        from: Offset,
    ) -> Result<(Offset, Offset), PortError> {
        let (start, end) = self.bounds(place).await?;
        if from < start || from > end {
            let detail = format!("offset {from} is not in {start}..={end}");
            return Err(PortError::new(ErrorKind::Invalid, "read", detail));
        }
        Ok((start, end))
    }

    /// Entries from an offset on, and where to read on.
    pub(crate) async fn read(&self, wanted: Wanted) -> Result<(Vec<Entry>, Offset), PortError> {
        let Wanted { from, limit, .. } = wanted;
        let kept = self.take(wanted.stream, from);
        let mut end = None;
        if kept.is_none() || wanted.wait.is_zero() {
            end = Some(self.bounds_around(&wanted.place, from).await?.1);
        }
        let position = kept.as_ref().map_or(from, Reader::position);
        let is_there = end.is_some_and(|end| position < end);
        if wanted.wait.is_zero() && !is_there {
            if let Some(reader) = kept {
                self.keep(reader);
            }
            return Ok((Vec::new(), position));
        }
        let mut reader = match kept {
            Some(reader) => reader,
            None => {
                let reader = self.reader(&wanted, from)?;
                reader.assign()?;
                reader
            }
        };
        // What is there is waited for, however long the broker may take to hand it out.
        let wait = match is_there {
            true => wanted.wait.max(self.settings.broker_timeout),
            false => wanted.wait,
        };
        let mut entries = Vec::new();
        match reader.fetch(limit, wait, is_there).await? {
            Fetched::Entries(found) => entries = found,
            Fetched::Nothing | Fetched::End => {
                // A broker that is away gives nothing either: silence counts only if it answers.
                let (_, end) = self.bounds_around(&wanted.place, from).await?;
                if reader.position() < end {
                    entries = self.beyond_gap(&mut reader, &wanted).await?;
                }
            }
        }
        let next = match entries.last() {
            Some(entry) => entry.offset.next(),
            None => reader.position(),
        };
        self.keep(reader);
        Ok((entries, next))
    }

    /// The log goes on, and yet the reader was given nothing: a message came at this moment, a
    /// transaction is open, or what is there is no entry.
    async fn beyond_gap(
        &self,
        reader: &mut Reader,
        wanted: &Wanted,
    ) -> Result<Vec<Entry>, PortError> {
        if let Fetched::Entries(entries) = reader.fetch(wanted.limit, ARRIVAL_TIME, false).await? {
            return Ok(entries);
        }
        let mut fresh = self.reader(wanted, reader.position())?;
        // Asked before it fetches: where it then says that it is at the end, it has passed this.
        let end = fresh.readable_end(self.settings.broker_timeout).await?;
        if end <= reader.position() {
            return Ok(Vec::new());
        }
        fresh.assign()?;
        let fetched = fresh
            .fetch(wanted.limit, self.settings.broker_timeout, true)
            .await?;
        let entries = match fetched {
            Fetched::Entries(entries) => entries,
            Fetched::End => {
                fresh.pass_gap(wanted.from, end);
                Vec::new()
            }
            Fetched::Nothing => {
                let detail = "the broker does not hand out what it has";
                return Err(PortError::new(ErrorKind::Retry, "read", detail));
            }
        };
        *reader = fresh;
        Ok(entries)
    }

    fn reader(&self, wanted: &Wanted, from: Offset) -> Result<Reader, PortError> {
        let config = config(&self.settings);
        Reader::new(&config, &self.context, wanted.stream, &wanted.place, from)
    }

    /// An idle consumer that stands where the read begins.
    fn take(&self, stream: Stream, from: Offset) -> Option<Reader> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let at = idle.iter().position(|reader| reader.fits(stream, from))?;
        idle.remove(at)
    }

    fn keep(&self, mut reader: Reader) {
        if reader.is_spent() {
            return;
        }
        let now = Instant::now();
        reader.idle_since = now;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let is_stale = |oldest: &Reader| now.duration_since(oldest.idle_since) > IDLE_TIME;
        while idle.len() >= IDLE_MAX || idle.front().is_some_and(is_stale) {
            idle.pop_front();
        }
        idle.push_back(reader);
    }
}

/// Asks for the bounds of a log where it may block.
pub(crate) async fn watermarks(
    place: Place,
    ask: impl FnOnce(&Place) -> Result<(i64, i64), KafkaError> + Send + 'static,
) -> Result<(Offset, Offset), PortError> {
    let asked = tokio::task::spawn_blocking(move || ask(&place)).await;
    let asked =
        asked.map_err(|error| PortError::new(ErrorKind::Retry, "bounds", error.to_string()))?;
    let (low, high) = asked.map_err(|error| of_read("bounds", &error))?;
    match (u64::try_from(low), u64::try_from(high)) {
        (Ok(low), Ok(high)) => Ok((Offset(low), Offset(high))),
        // Not an offset: the broker did not say. A low guess would end leases too early.
        _ => {
            let detail = format!("the broker answered {low}..{high}");
            Err(PortError::new(ErrorKind::Retry, "bounds", detail))
        }
    }
}
