//! A transport and the model of the broker, side by side.

mod steps;

use flowkit_core::id::Offset;
use flowkit_core::message::Envelope;
use flowkit_core::port::{Entry, ErrorKind, PortError, Stream, TransportReply, TransportRequest};
use flowkit_memory::{BrokerModel, Outcome};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use proptest::collection::vec;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::explore::{Budget, Compared, Difference, explore};
use crate::TransportInstance;
use steps::{Foreign, INBOXES, Message, SHARDS, STREAMS, Step};

/// Most steps of a sequence: opening a broker's topics costs as much as a hundred requests.
const STEPS_MAX: usize = 200;
/// How long a read that is to be dropped is let wait.
const DROP_AFTER: Duration = Duration::from_millis(2);

/// Shards and inboxes that an instance must have: no more, no fewer.
pub const DEPLOYMENT: (u32, u32) = (SHARDS, INBOXES);

/// Runs sequences on the model of the broker and on the transport, each on fresh streams. A message
/// that a read waits for must come within `patience`.
///
/// # Errors
/// The first difference, as short as it could be made.
///
/// # Panics
/// If the instance cannot be used at all.
pub fn compare(
    budget: Budget,
    patience: Duration,
    open: impl AsyncFn() -> TransportInstance + Sync,
) -> Result<Compared, Difference> {
    explore(
        budget,
        || vec(steps::step(), 1..STEPS_MAX),
        |steps| crate::run(async { Pair::new(open().await, patience).run(steps).await }),
    )
}

struct Pair {
    transport: TransportInstance,
    model: BrokerModel,
    /// A wait that no step sees the end of.
    patience_ms: u64,
    /// Where the last read of a stream ended.
    next: BTreeMap<Stream, Offset>,
    /// Answers compared.
    compared: u64,
}

type Outcomes = Vec<(TransportRequest, Result<TransportReply, PortError>)>;

impl Pair {
    fn new(transport: TransportInstance, patience: Duration) -> Self {
        let mut model = BrokerModel::of_deployment(SHARDS, INBOXES);
        model.keep_forgotten(!transport.caps.forgets);
        Self {
            transport,
            model,
            patience_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
            next: BTreeMap::new(),
            compared: 0,
        }
    }

    /// How many operations were compared.
    async fn run(&mut self, steps: &[Step]) -> Result<u64, String> {
        for (number, step) in steps.iter().enumerate() {
            let done = self.step(step).await;
            done.map_err(|error| format!("step {number}, {step:.300?}: {error}"))?;
        }
        let compared = self.compared;
        for stream in STREAMS {
            let all = async {
                self.both(TransportRequest::Bounds { stream }).await?;
                let (start, _) = self.bounds(stream);
                self.read(stream, start, u32::MAX, 0).await
            };
            let all = all.await;
            all.map_err(|error| format!("all of {stream:?} at the end: {error}"))?;
        }
        Ok(compared)
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Append(stream, message) => self.both(append(*stream, message)).await,
            Step::Burst(appends) => self.burst(appends).await,
            Step::Foreign(stream, foreign) => self.foreign(*stream, foreign).await,
            Step::Read {
                stream,
                from,
                limit,
                wait_ms,
            } => {
                let from = from.offset(self.bounds(*stream));
                self.read(*stream, from, *limit, *wait_ms).await
            }
            Step::Follow { stream, limit } => {
                let start = self.bounds(*stream).0;
                let from = self.next.get(stream).copied().unwrap_or(start).max(start);
                self.read(*stream, from, *limit, 0).await
            }
            Step::Awaited(stream, message) => self.awaited(*stream, message).await,
            Step::Dropped(stream) => self.dropped(*stream).await,
            Step::Bounds(stream) => {
                self.both(TransportRequest::Bounds { stream: *stream })
                    .await
            }
            Step::Forget(stream, from) => {
                let before = from.offset(self.bounds(*stream));
                let stream = *stream;
                self.both(TransportRequest::Forget { stream, before }).await
            }
            Step::Reopen => {
                if self.transport.caps.durable {
                    self.transport.reopen().await;
                }
                Ok(())
            }
        }
    }

    /// As the model has them; of a stream that is not there, any.
    fn bounds(&mut self, stream: Stream) -> (Offset, Offset) {
        match self.model(&TransportRequest::Bounds { stream }) {
            Ok(TransportReply::Bounds { start, end }) => (start, end),
            _ => (Offset(0), Offset(0)),
        }
    }

    fn model(&mut self, request: &TransportRequest) -> Result<TransportReply, PortError> {
        match self.model.apply(0, request) {
            Outcome::Done(reply) => reply,
            Outcome::Wait => unreachable!("the model is not asked to wait"),
        }
    }

    /// Asks both for something that has one answer.
    async fn both(&mut self, request: TransportRequest) -> Result<(), String> {
        let found = self.transport.call(request.clone()).await;
        self.same(&request, found)
    }

    fn same(
        &mut self,
        request: &TransportRequest,
        found: Result<TransportReply, PortError>,
    ) -> Result<(), String> {
        self.compared += 1;
        let expected = self.model(request).map_err(|error| error.kind);
        let told = found.as_ref().err().map(ToString::to_string);
        let found = found.map_err(|error| error.kind);
        if expected == found {
            return Ok(());
        }
        Err(format!(
            "{request:.300?}\n  transport {found:.2000?} {}\n  model     {expected:.2000?}",
            told.unwrap_or_default()
        ))
    }

    /// The order of first polls is the order in each stream.
    async fn burst(&mut self, appends: &[(Stream, Message)]) -> Result<(), String> {
        let mut calls: Vec<BoxFuture<'_, _>> = Vec::new();
        let mut requests = Vec::new();
        for (stream, message) in appends {
            let request = append(*stream, message);
            let transport = self.transport.transport();
            let asked = request.clone();
            let mut call: BoxFuture<'_, _> = async move { transport.call(asked).await }.boxed();
            // A fast broker answers before the poll ends.
            calls.push(match (&mut call).now_or_never() {
                Some(answer) => std::future::ready(answer).boxed(),
                None => call,
            });
            requests.push(request);
        }
        let answers = join_all(calls).await;
        let outcomes: Outcomes = requests.into_iter().zip(answers).collect();
        for (request, found) in outcomes {
            self.same(&request, found)?;
        }
        Ok(())
    }

    async fn foreign(&mut self, stream: Stream, foreign: &Foreign) -> Result<(), String> {
        let bytes = foreign.bytes();
        if !self.transport.append_foreign(stream, &bytes).await {
            return Err("another program cannot append".to_owned());
        }
        self.compared += 1;
        match Envelope::decode(&bytes) {
            Ok(envelope) => {
                let envelope = Arc::new(envelope);
                let appended = self.model(&TransportRequest::Append { stream, envelope });
                appended.map(|_| ()).map_err(|error| error.to_string())
            }
            Err(error) => {
                self.model.append_undecodable(0, stream, error);
                Ok(())
            }
        }
    }

    /// Reads what the model gives to one request, in as many answers as it comes in.
    async fn read(
        &mut self,
        stream: Stream,
        from: Offset,
        limit: u32,
        wait_ms: u64,
    ) -> Result<(), String> {
        let request = |from, limit, wait_ms| TransportRequest::Read {
            stream,
            from,
            limit,
            wait_ms,
        };
        let expected = self.model(&request(from, limit, 0));
        let found = self.transport.call(request(from, limit, wait_ms)).await;
        self.compared += 1;
        let Ok(TransportReply::Entries { entries, next }) = &expected else {
            let told = format!("{found:.300?}");
            let (expected, found) = (kind(expected), kind(found));
            return match expected == found {
                true => Ok(()),
                false => Err(format!("from {from}: {told}, the model: {expected:?}")),
            };
        };
        self.next.insert(stream, *next);
        let mut rest = &entries[..];
        let mut answer = found;
        let mut at = from;
        loop {
            (rest, at) = after(rest, at, answer)?;
            if rest.is_empty() {
                return match at == *next {
                    true => Ok(()),
                    false => Err(format!("from {from}: read on at {at}, the model: {next}")),
                };
            }
            let left = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            answer = self.transport.call(request(at, left, 0)).await;
        }
    }

    async fn awaited(&mut self, stream: Stream, message: &Message) -> Result<(), String> {
        let (_, end) = self.bounds(stream);
        let transport = self.transport.transport();
        let wait = TransportRequest::Read {
            stream,
            from: end,
            limit: 9,
            wait_ms: if matches!(message, Message::Above(_)) {
                5
            } else {
                self.patience_ms
            },
        };
        let waiting = tokio::spawn(async move { transport.call(wait).await });
        // Sometimes it waits already when the message comes.
        if end.0 % 2 == 0 {
            tokio::task::yield_now().await;
        }
        self.both(append(stream, message)).await?;
        let found = waiting.await.map_err(|error| error.to_string())?;
        self.compared += 1;
        let entries: Vec<Entry> = self.model.entries(stream).collect();
        let added: Vec<Entry> = entries.into_iter().filter(|e| e.offset >= end).collect();
        after(&added, end, found).map(|_| ())
    }

    async fn dropped(&mut self, stream: Stream) -> Result<(), String> {
        let (_, end) = self.bounds(stream);
        let read = TransportRequest::Read {
            stream,
            from: end,
            limit: 9,
            wait_ms: self.patience_ms,
        };
        self.compared += 1;
        match tokio::time::timeout(DROP_AFTER, self.transport.call(read)).await {
            Ok(answer) => Err(format!("nothing is there, and yet {answer:.300?}")),
            Err(_) => Ok(()),
        }
    }
}

fn append(stream: Stream, message: &Message) -> TransportRequest {
    TransportRequest::Append {
        stream,
        envelope: message.envelope(),
    }
}

fn kind(reply: Result<TransportReply, PortError>) -> Result<(), ErrorKind> {
    reply.map(|_| ()).map_err(|error| error.kind)
}

/// What is left of the expected entries after an answer, and where to read on: the answer must
/// begin as they do, and with at least one of them.
fn after(
    expected: &[Entry],
    from: Offset,
    answer: Result<TransportReply, PortError>,
) -> Result<(&[Entry], Offset), String> {
    let (entries, next) = match answer {
        Ok(TransportReply::Entries { entries, next }) => (entries, next),
        other => return Err(format!("from {from}: {other:.300?}")),
    };
    let last = entries.last().map_or(from, |entry| entry.offset.next());
    let begins = expected.get(..entries.len()) == Some(&entries[..]);
    let progresses = entries.is_empty() == expected.is_empty();
    if begins && progresses && next == last {
        return Ok((&expected[entries.len()..], next));
    }
    Err(format!(
        "from {from}: transport, read on at {next}: {entries:.2000?}\n  model: {expected:.2000?}"
    ))
}
