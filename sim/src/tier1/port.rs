//! The ports of a simulated process: requests to a server over a connection that may be slow, cut
//! or gone, with time-outs and reconnects.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::time::Duration;

use async_trait::async_trait;
use flowkit_core::message::{Body, CancelReason};
use flowkit_core::port::{
    ErrorKind, PortError, Store, StoreReply, StoreRequest, Transport, TransportReply,
    TransportRequest,
};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use turmoil::net::TcpStream;

use super::stage::{self, Luck};
use super::wire::{FRAME, Frames, Parcel, frame};
use crate::history::{Place, What};
use crate::plan::Server;

/// A read that waits asks anew this often, so that a dead connection shows.
const SLICE_MS: u64 = 1_000;

/// A request on its way.
struct Ask {
    parcel: Parcel,
    /// How long the server may take on top of a usual call.
    patience: Duration,
    answer: oneshot::Sender<Result<Parcel, ErrorKind>>,
}

/// A process's door to one server.
#[derive(Debug)]
pub(super) struct Port {
    place: Place,
    server: Server,
    asks: mpsc::UnboundedSender<Ask>,
}

impl Port {
    /// Connects when it is first used, and again when a connection is lost.
    pub(super) fn open(place: Place, server: Server, call_timeout: Duration) -> Self {
        let (asks, asked) = mpsc::unbounded_channel();
        let line = Line {
            place,
            server,
            call_timeout,
            asked,
            waiting: BTreeMap::new(),
            calls: 0,
        };
        tokio::spawn(line.run());
        Self {
            place,
            server,
            asks,
        }
    }

    async fn ask(&self, parcel: Parcel, patience: Duration) -> Result<Parcel, PortError> {
        stage::with(|stage| {
            stage.effect(self.place);
            stage.strike(self.place, self.server);
        });
        let (answer, answered) = oneshot::channel();
        let ask = Ask {
            parcel,
            patience,
            answer,
        };
        let _ = self.asks.send(ask);
        let what = match self.server {
            Server::Store => "store",
            Server::Broker => "transport",
        };
        match answered.await {
            Ok(Ok(parcel)) => Ok(parcel),
            Ok(Err(kind)) => Err(PortError::new(kind, what, "simulated network")),
            Err(_) => Err(PortError::new(ErrorKind::Unknown, what, "the line is gone")),
        }
    }
}

#[async_trait]
impl Store for Port {
    async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
        let parcel = self.ask(Parcel::AskStore(request), Duration::ZERO).await?;
        let Parcel::StoreSays(result) = parcel else {
            unreachable!("the store answers as a store");
        };
        if let Ok(StoreReply::Registered(incarnation)) = &result {
            stage::with(|stage| {
                if let Some(host) = stage.host(self.place) {
                    host.incarnation = *incarnation;
                }
            });
        }
        result
    }
}

#[async_trait]
impl Transport for Port {
    async fn call(&self, request: TransportRequest) -> Result<TransportReply, PortError> {
        let mut request = request;
        let mut left = match &request {
            TransportRequest::Read { wait_ms, .. } => *wait_ms,
            _ => 0,
        };
        loop {
            let slice = left.min(SLICE_MS);
            if let TransportRequest::Read { wait_ms, .. } = &mut request {
                *wait_ms = slice;
            }
            let patience = Duration::from_millis(slice);
            let parcel = self
                .ask(Parcel::AskBroker(request.clone()), patience)
                .await?;
            let Parcel::BrokerSays(result) = parcel else {
                unreachable!("the broker answers as a broker");
            };
            if let Ok(TransportReply::Entries { entries, .. }) = &result {
                left -= slice;
                if entries.is_empty() && left > 0 {
                    continue;
                }
            }
            self.told_fenced(&result);
            return result;
        }
    }
}

impl Port {
    /// What a worker's process learns at this moment about tokens of its that are over.
    fn told_fenced(&self, result: &Result<TransportReply, PortError>) {
        let Ok(TransportReply::Entries { entries, .. }) = result else {
            return;
        };
        stage::with(|stage| {
            let Some(host) = stage.host(self.place) else {
                return;
            };
            let super::host::Kind::Worker { id, .. } = &host.kind else {
                return;
            };
            let (id, incarnation) = (id.clone(), Some(host.incarnation));
            for entry in entries {
                if let Ok(message) = &entry.message
                    && message.to.as_deref() == Some(id.as_str())
                    && message.to_incarnation == incarnation
                    && matches!(&message.body, Body::TaskCancel(cancel)
                        if cancel.reason == CancelReason::Fenced)
                    && let (Some(task), Some(node), Some(token)) =
                        (&message.task_id, &message.node_id, message.lease_no)
                {
                    stage.note(What::ToldFenced {
                        place: self.place,
                        task: task.clone(),
                        node: node.clone(),
                        token,
                    });
                }
            }
        });
    }
}

/// A call that was sent.
struct Waiting {
    answer: oneshot::Sender<Result<Parcel, ErrorKind>>,
    sent: Instant,
    deadline: Instant,
}

/// The process's end of the connections to one server.
struct Line {
    place: Place,
    server: Server,
    call_timeout: Duration,
    asked: mpsc::UnboundedReceiver<Ask>,
    waiting: BTreeMap<u64, Waiting>,
    calls: u64,
}

impl Line {
    async fn run(mut self) {
        loop {
            // No connection without need.
            let Some(first) = self.asked.recv().await else {
                return;
            };
            self.pace().await;
            match self.connect().await {
                Some(stream) => {
                    if self.serve(stream, first).await.is_none() {
                        return;
                    }
                    // What was sent may have been carried out.
                    for waiting in std::mem::take(&mut self.waiting).into_values() {
                        let _ = waiting.answer.send(Err(ErrorKind::Unknown));
                    }
                }
                None => {
                    // What was never sent surely did not happen.
                    let _ = first.answer.send(Err(ErrorKind::Retry));
                    while let Ok(ask) = self.asked.try_recv() {
                        let _ = ask.answer.send(Err(ErrorKind::Retry));
                    }
                }
            }
        }
    }

    /// Nothing leaves a frozen process.
    async fn pace(&self) {
        poll_fn(|cx| stage::with(|stage| stage.poll_pace(self.place, Luck::Pace, cx))).await;
    }

    async fn connect(&self) -> Option<TcpStream> {
        let address = super::servers::address(self.server);
        let connected = timeout(self.call_timeout, TcpStream::connect(address)).await;
        let mut stream = connected.ok()?.ok()?;
        // That it connects proves nothing; who asks is said first.
        let hello = frame(u64::from(self.place.host), u64::from(self.place.generation));
        stream.write_all(&hello).await.ok()?;
        Some(stream)
    }

    /// Carries requests and answers until the connection is lost; `None` when nobody asks any more.
    async fn serve(&mut self, stream: TcpStream, first: Ask) -> Option<()> {
        let (read, mut write) = stream.into_split();
        let mut frames = Frames::new(read);
        let mut next = Some(first);
        let mut heard = Instant::now();
        loop {
            if let Some(ask) = next.take() {
                let frame = self.note_sent(ask);
                if write.write_all(&frame).await.is_err() {
                    return Some(());
                }
            }
            self.pace().await;
            let overdue = self.waiting.values().map(|waiting| waiting.deadline).min();
            tokio::select! {
                biased;
                frame = frames.next() => {
                    let Ok(Some((call, slot))) = frame else {
                        return Some(());
                    };
                    heard = Instant::now();
                    let parcel = stage::with(|stage| stage.take(slot));
                    if let (Some(waiting), Some(parcel)) = (self.waiting.remove(&call), parcel) {
                        let _ = waiting.answer.send(Ok(parcel));
                    }
                }
                ask = self.asked.recv() => next = Some(ask?),
                () = until(overdue) => {
                    // The first call leaves in the instant of the connection itself.
                    if self.expire().is_some_and(|sent| sent >= heard) {
                        // Nothing was heard since that call was sent: the connection is dead.
                        return Some(());
                    }
                }
            }
        }
    }

    fn note_sent(&mut self, ask: Ask) -> [u8; FRAME] {
        self.calls += 1;
        let sent = Instant::now();
        let waiting = Waiting {
            answer: ask.answer,
            sent,
            deadline: sent + self.call_timeout + ask.patience,
        };
        self.waiting.insert(self.calls, waiting);
        let slot = stage::with(|stage| stage.put(ask.parcel));
        frame(self.calls, slot)
    }

    /// Gives up what took too long; when the newest of it was sent.
    fn expire(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let over: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.deadline <= now)
            .map(|(call, _)| *call)
            .collect();
        let mut newest = None;
        for call in over {
            if let Some(waiting) = self.waiting.remove(&call) {
                newest = newest.max(Some(waiting.sent));
                let _ = waiting.answer.send(Err(ErrorKind::Unknown));
            }
        }
        newest
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
