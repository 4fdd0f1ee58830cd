//! The comparison finds transports that are wrong in one thing each, and nothing in a right one.

mod broker;

use async_trait::async_trait;
use broker::{Broker, ModelBackend};
use flowkit_core::id::Offset;
use flowkit_core::port::{PortError, Stream, Transport, TransportReply, TransportRequest};
use flowkit_memory::BrokerModel;
use flowkit_tests::fidelity::{Budget, Compared, Difference, transport};
use flowkit_tests::{TransportBackend, TransportCaps, TransportInstance};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is wrong with a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// Every fifth append is acknowledged and not there.
    Loses,
    /// Every fifth append is there twice.
    Doubles,
    /// Appends to an inbox land in the other one.
    Mixes,
    /// The end counts one entry too few.
    EndIsBehind,
    /// Reading goes on behind an entry that was not given.
    SkipsOne,
    /// A read beyond the end is empty instead of invalid.
    HidesAnotherLog,
    /// A message loses its `seq`.
    Rewrites,
    /// A read that may not wait finds nothing.
    IsLate,
    /// Two entries of an answer are out of order.
    Swaps,
}

#[derive(Debug)]
struct Planted {
    wrong: Wrong,
    broker: Arc<Broker>,
    appends: AtomicU64,
}

impl Planted {
    fn is_fifth(&self) -> bool {
        self.appends.fetch_add(1, Ordering::Relaxed) % 5 == 4
    }

    async fn bounds(&self, stream: Stream) -> Result<(Offset, Offset), PortError> {
        match self
            .broker
            .call(TransportRequest::Bounds { stream })
            .await?
        {
            TransportReply::Bounds { start, end } => Ok((start, end)),
            other => panic!("not bounds: {other:?}"),
        }
    }
}

#[async_trait]
impl Transport for Planted {
    async fn call(&self, mut request: TransportRequest) -> Result<TransportReply, PortError> {
        match (&mut request, self.wrong) {
            (TransportRequest::Append { stream, .. }, Wrong::Loses) if self.is_fifth() => {
                let (_, offset) = self.bounds(*stream).await?;
                return Ok(TransportReply::Appended { offset });
            }
            (TransportRequest::Append { .. }, Wrong::Doubles) if self.is_fifth() => {
                self.broker.call(request.clone()).await?;
            }
            (
                TransportRequest::Append {
                    stream: Stream::Inbox(inbox),
                    ..
                },
                Wrong::Mixes,
            ) => {
                *inbox ^= 1;
            }
            (TransportRequest::Append { envelope, .. }, Wrong::Rewrites) => {
                Arc::make_mut(envelope).seq = None;
            }
            (TransportRequest::Read { stream, from, .. }, Wrong::HidesAnotherLog) => {
                *from = (*from).min(self.bounds(*stream).await?.1);
            }
            (
                TransportRequest::Read {
                    from, wait_ms: 0, ..
                },
                Wrong::IsLate,
            ) => {
                let (entries, next) = (vec![], *from);
                return Ok(TransportReply::Entries { entries, next });
            }
            _ => {}
        }
        let mut reply = self.broker.call(request).await?;
        match (&mut reply, self.wrong) {
            (TransportReply::Bounds { end, .. }, Wrong::EndIsBehind) if end.0 > 0 => end.0 -= 1,
            (TransportReply::Entries { entries, .. }, Wrong::SkipsOne) if entries.len() > 2 => {
                entries.pop();
            }
            (TransportReply::Entries { entries, .. }, Wrong::Swaps) if entries.len() > 1 => {
                entries.swap(0, 1);
            }
            _ => {}
        }
        Ok(reply)
    }
}

struct Backend {
    wrong: Wrong,
    model: ModelBackend,
}

impl Backend {
    fn open(&self) -> Arc<dyn Transport> {
        Arc::new(Planted {
            wrong: self.wrong,
            broker: self.model.0.clone(),
            appends: AtomicU64::default(),
        })
    }
}

#[async_trait]
impl TransportBackend for Backend {
    async fn reopen(&mut self) -> Arc<dyn Transport> {
        self.open()
    }

    async fn append_foreign(&mut self, stream: Stream, bytes: &[u8]) -> bool {
        self.model.append_foreign(stream, bytes).await
    }
}

fn compare(wrong: Wrong, forgets: bool) -> Result<Compared, Difference> {
    let budget = Budget {
        operations: 3_000,
        seed: 0,
        at_once: 2,
        shrink_ms: 1_000,
    };
    transport::compare(budget, Duration::from_millis(300), async || {
        let (shards, inboxes) = transport::DEPLOYMENT;
        let mut model = BrokerModel::of_deployment(shards, inboxes);
        model.keep_forgotten(!forgets);
        let model = ModelBackend(Broker::new(model));
        let backend = Backend { wrong, model };
        let caps = TransportCaps {
            forgets,
            durable: true,
            foreign: true,
        };
        TransportInstance::new(backend.open(), caps, Box::new(backend))
    })
}

#[test]
fn a_right_transport_shows_no_difference() {
    for forgets in [false, true] {
        let compared = compare(Wrong::Nothing, forgets).unwrap_or_else(|found| panic!("{found}"));
        assert!(compared.operations >= 3_000);
    }
}

#[test]
fn a_transport_that_is_wrong_in_one_thing_is_found_and_the_seed_named() {
    for wrong in [
        Wrong::Loses,
        Wrong::Doubles,
        Wrong::Mixes,
        Wrong::EndIsBehind,
        Wrong::SkipsOne,
        Wrong::HidesAnotherLog,
        Wrong::Rewrites,
        Wrong::IsLate,
        Wrong::Swaps,
    ] {
        let found = match compare(wrong, false) {
            Ok(compared) => panic!("{wrong:?} was not found in {compared:?}"),
            Err(found) => found.to_string(),
        };
        assert!(found.contains("cargo xtask fidelity --seed"), "{found}");
    }
}
