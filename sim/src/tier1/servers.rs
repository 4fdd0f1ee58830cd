//! The two servers on hosts of their own: they take connections, and carry out what reaches them
//! as the plan lets them.

use std::future::poll_fn;
use std::time::Duration;

use flowkit_core::port::{
    ErrorKind, PortError, StoreRequest, Stream, TransportReply, TransportRequest,
};
use flowkit_memory::Outcome;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use turmoil::net::tcp::OwnedReadHalf;
use turmoil::net::{TcpListener, TcpStream};

use super::gate::Gate;
use super::host::is_client;
use super::stage::{self, Luck, Stage};
use super::wire::{FRAME, Frames, Parcel, frame};
use crate::dice::Dice;
use crate::history::Place;
use crate::plan::{Call, CallKind, LATE_TIMEOUTS_MAX, Server};

const PORT: u16 = 9_000;
/// Most artifacts in one reply to a client.
const ARTIFACTS_MAX: u32 = 2;

/// Name of a server's host.
pub(super) const fn name(server: Server) -> &'static str {
    match server {
        Server::Store => "store",
        Server::Broker => "broker",
    }
}

pub(super) const fn address(server: Server) -> (&'static str, u16) {
    (name(server), PORT)
}

/// A server as the run knows it.
#[derive(Debug, Default)]
pub(super) struct ServerState {
    /// Shut while it is frozen.
    pub(super) gate: Gate,
    /// It is gone until then, and comes back with what it had acknowledged.
    pub(super) down_until: Option<u64>,
    pub(super) frozen_until: u64,
    /// It is slow until then, by so many microseconds at most.
    pub(super) slow: (u64, u64),
}

/// A server's process.
pub(super) async fn serve(server: Server) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A connection that breaks concerns nobody but its ends.
        tokio::spawn(connection(server, stream));
    }
}

/// Both directions are one task: which of two halves falls first in a crash decides what the other
/// end hears, and tokio drops tasks in no order that could be repeated.
async fn connection(server: Server, stream: TcpStream) {
    let (read, mut write) = stream.into_split();
    let (replies, mut to_send) = mpsc::unbounded_channel::<[u8; FRAME]>();
    let writing = async move {
        while let Some(frame) = to_send.recv().await {
            if write.write_all(&frame).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        _ = requests(server, Frames::new(read), replies) => {}
        () = writing => {}
    }
}

/// Takes the requests of a connection until it is lost.
async fn requests(
    server: Server,
    mut frames: Frames<OwnedReadHalf>,
    replies: mpsc::UnboundedSender<[u8; FRAME]>,
) -> Option<()> {
    let (host, generation) = frames.next().await.ok()??;
    let caller = Caller {
        server,
        place: Place {
            host: u32::try_from(host).ok()?,
            generation: u32::try_from(generation).ok()?,
            machine: 0,
        },
        replies,
    };
    while let Ok(Some((call, slot))) = frames.next().await {
        gate(server).await;
        let mut request = stage::with(|stage| stage.take(slot))?;
        if let Parcel::AskStore(StoreRequest::ReadArtifacts { limit, .. }) = &mut request
            && is_client(caller.place.host)
        {
            // A reply may hold less than was asked for: people read in several pages, then.
            *limit = (*limit).min(ARTIFACTS_MAX);
        }
        match request {
            Parcel::AskStore(_) => {
                let fate = stage::with(|stage| fate(stage, caller.place, &request));
                let caller = caller.clone();
                // A store carries its clients' calls out side by side.
                if fate.before == Duration::ZERO {
                    caller.store(call, request, fate);
                } else {
                    tokio::spawn(async move {
                        sleep(fate.before).await;
                        gate(server).await;
                        caller.store(call, request, fate);
                    });
                }
            }
            Parcel::AskBroker(TransportRequest::Append { stream, .. }) => {
                let fate = stage::with(|stage| fate(stage, caller.place, &request));
                if fate.overtaken {
                    stage::with(|stage| stage.falls_behind(caller.place, stream));
                    let caller = caller.clone();
                    tokio::spawn(async move {
                        sleep(fate.before).await;
                        gate(server).await;
                        caller.append(call, request, fate);
                    });
                } else {
                    // Appends of one process keep their order.
                    if fate.before > Duration::ZERO {
                        sleep(fate.before).await;
                    }
                    caller.append(call, request, fate);
                }
            }
            Parcel::AskBroker(_) => {
                let fate = stage::with(|stage| fate(stage, caller.place, &request));
                tokio::spawn(caller.clone().read(call, request, fate));
            }
            Parcel::StoreSays(_) | Parcel::BrokerSays(_) => return None,
        }
    }
    Some(())
}

/// Nothing happens in a frozen server.
async fn gate(server: Server) {
    poll_fn(|cx| stage::with(|stage| stage.server(server).gate.poll_pass(cx))).await;
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug)]
struct Fate {
    /// How long it takes until it is carried out.
    before: Duration,
    /// It never is; what its caller is told, if anything.
    lost: Option<Option<ErrorKind>>,
    /// Its answer never leaves.
    silent: bool,
    /// How much later its answer leaves.
    after: Duration,
    /// It is carried out once more, so much later.
    again: Option<Duration>,
    /// Later calls go first.
    overtaken: bool,
}

fn fate(stage: &mut Stage, place: Place, request: &Parcel) -> Fate {
    let (kind, server) = match request {
        Parcel::AskStore(_) => (CallKind::Store, Server::Store),
        Parcel::AskBroker(TransportRequest::Append { .. }) => (CallKind::Append, Server::Broker),
        _ => (CallKind::Read, Server::Broker),
    };
    let nth = stage.calls(place, kind as usize);
    let call = Call {
        host: place.host,
        kind,
        nth,
    };
    let key = u64::from(place.host) * 8 + kind as u64;
    let mut dice = stage.dice(Luck::Network, key, nth);
    let mut fate = Fate {
        before: stage.slowed(server, &mut dice),
        lost: None,
        silent: false,
        after: Duration::ZERO,
        again: None,
        overtaken: false,
    };
    match kind {
        CallKind::Store => store_fate(stage, call, &mut dice, &mut fate),
        CallKind::Append => append_fate(stage, call, &mut dice, &mut fate),
        _ => {
            let (rates, named) = (stage.rates(), stage.plan.strikes(call));
            if is_client(place.host) && dice.permille(rates.client_reply_lost) && named {
                stage.seen.strike(call, "client_reply_lost");
                fate.silent = true;
            } else if dice.permille(rates.read_lost) && named {
                stage.seen.strike(call, "read_lost");
                fate.silent = true;
            }
        }
    }
    stage.way_is_slow(key, nth, &mut fate);
    fate
}

fn store_fate(stage: &mut Stage, call: Call, dice: &mut Dice, fate: &mut Fate) {
    let (rates, timeout) = (stage.rates(), stage.plan.world.call_timeout_ms);
    let named = stage.plan.strikes(call);
    if dice.permille(rates.store_refused) && named {
        stage.seen.strike(call, "store_refused");
        fate.lost = Some(Some(ErrorKind::Retry));
    } else if dice.permille(rates.store_lost) && named {
        stage.seen.strike(call, "store_lost");
        fate.lost = Some(None);
    } else if dice.permille(rates.store_reply_lost) && named {
        stage.seen.strike(call, "store_reply_lost");
        fate.silent = true;
    } else if dice.permille(rates.store_late) && named {
        stage.seen.strike(call, "store_late");
        fate.silent = true;
        fate.before = Duration::from_millis(dice.between(timeout, LATE_TIMEOUTS_MAX * timeout));
    } else if fate.before == Duration::ZERO && dice.permille(100) {
        // Calls of one process overtake each other.
        fate.before = Duration::from_millis(dice.between(1, 15));
    }
}

fn append_fate(stage: &mut Stage, call: Call, dice: &mut Dice, fate: &mut Fate) {
    let (rates, timeout) = (stage.rates(), stage.plan.world.call_timeout_ms);
    let named = stage.plan.strikes(call);
    if dice.permille(rates.append_refused) && named {
        stage.seen.strike(call, "append_refused");
        fate.lost = Some(Some(ErrorKind::Retry));
    } else if dice.permille(rates.append_lost) && named {
        stage.seen.strike(call, "append_lost");
        fate.lost = Some(None);
    } else if dice.permille(rates.append_overtaken) && named {
        stage.seen.call_goes_wrong(call, "append_overtaken");
        fate.overtaken = true;
        fate.before = Duration::from_millis(dice.between(1, 2 * timeout));
    } else if dice.permille(rates.confirm_late) && named {
        stage.seen.strike(call, "confirm_late");
        fate.after = Duration::from_millis(dice.between(1, timeout * 9 / 10));
    } else if dice.permille(rates.confirm_lost) && named {
        stage.seen.strike(call, "confirm_lost");
        fate.silent = true;
    }
    if dice.permille(rates.append_twice) && named {
        stage.seen.strike(call, "append_twice");
        fate.again = Some(Duration::from_millis(dice.between(0, 3 * timeout)));
    }
}

impl Stage {
    /// Counts the calls of a host.
    fn calls(&mut self, place: Place, kind: usize) -> u64 {
        match self.state(place.host) {
            Some(host) => {
                host.calls[kind] += 1;
                host.calls[kind]
            }
            None => self.next_number(),
        }
    }

    /// One message in so many takes up to 20 times as long as usual.
    fn way_is_slow(&mut self, key: u64, nth: u64, fate: &mut Fate) {
        let world = &self.plan.world;
        let (slow, shortest, longest) = (
            world.slow_permille,
            world.latency_us_min,
            world.latency_us_max,
        );
        if self.healed || slow == 0 {
            return;
        }
        let mut dice = self.dice(Luck::Slow, key, nth);
        for way in [&mut fate.before, &mut fate.after] {
            if dice.permille(slow) {
                let usual = dice.between(shortest, longest);
                *way += Duration::from_micros(usual * dice.between(1, 19));
                self.seen.fire("message_slow");
            }
        }
    }

    /// An append of a host will be made later; what is appended meanwhile overtakes it.
    fn falls_behind(&mut self, place: Place, stream: Stream) {
        if let Some(host) = self.host(place) {
            *host.overtaken.entry(stream).or_default() += 1;
        }
    }

    /// An append of a host is made.
    fn overtakes(&mut self, place: Place, stream: Stream, fell_behind: bool) {
        let Some(host) = self.host(place) else { return };
        let behind = host.overtaken.entry(stream).or_default();
        if fell_behind {
            *behind = behind.saturating_sub(1);
        } else if *behind > 0 {
            self.seen.fire("append_overtaken");
        }
    }

    fn slowed(&mut self, server: Server, dice: &mut Dice) -> Duration {
        let now = self.now;
        let (until, extra) = self.server(server).slow;
        if until <= now {
            return Duration::ZERO;
        }
        self.seen.fire(match server {
            Server::Store => "store_slow",
            Server::Broker => "broker_slow",
        });
        Duration::from_millis(dice.between(0, extra) / 1_000)
    }
}

/// Who asks on a connection.
#[derive(Clone, Debug)]
struct Caller {
    server: Server,
    place: Place,
    replies: mpsc::UnboundedSender<[u8; FRAME]>,
}

impl Caller {
    fn answer(&self, call: u64, answer: Parcel, fate: Fate) {
        if fate.silent {
            return;
        }
        let slot = stage::with(|stage| stage.put(answer));
        let (replies, frame) = (self.replies.clone(), frame(call, slot));
        if fate.after == Duration::ZERO {
            let _ = replies.send(frame);
        } else {
            tokio::spawn(async move {
                sleep(fate.after).await;
                let _ = replies.send(frame);
            });
        }
    }

    fn store(&self, call: u64, request: Parcel, fate: Fate) {
        let Parcel::AskStore(request) = request else {
            return;
        };
        if let Some(told) = fate.lost {
            if let Some(kind) = told {
                let error = Err(PortError::new(kind, "store", "simulated"));
                self.answer(call, Parcel::StoreSays(error), fate);
            }
            return;
        }
        let result = stage::with(|stage| {
            let result = stage
                .servers
                .store(stage.now, self.place, request, &mut stage.seen);
            stage.triggered();
            result
        });
        self.answer(call, Parcel::StoreSays(result), fate);
    }

    fn append(&self, call: u64, request: Parcel, fate: Fate) {
        let Parcel::AskBroker(TransportRequest::Append { stream, envelope }) = request else {
            return;
        };
        if let Some(later) = fate.again {
            let (server, envelope) = (self.server, envelope.clone());
            tokio::spawn(async move {
                sleep(later).await;
                gate(server).await;
                stage::with(|stage| stage.append(stream, &envelope)).ok();
            });
        }
        if let Some(told) = fate.lost {
            if let Some(kind) = told {
                let error = Err(PortError::new(kind, "append", "simulated"));
                self.answer(call, Parcel::BrokerSays(error), fate);
            }
            return;
        }
        let result = stage::with(|stage| {
            stage.overtakes(self.place, stream, fate.overtaken);
            stage.append(stream, &envelope)
        });
        self.answer(call, Parcel::BrokerSays(result), fate);
    }

    async fn read(self, call: u64, request: Parcel, fate: Fate) {
        let Parcel::AskBroker(request) = request else {
            return;
        };
        if fate.before > Duration::ZERO {
            sleep(fate.before).await;
        }
        let (stream, from, wait_ms) = match &request {
            TransportRequest::Read {
                stream,
                from,
                wait_ms,
                ..
            } => (*stream, *from, *wait_ms),
            TransportRequest::Bounds { stream }
            | TransportRequest::Forget { stream, .. }
            | TransportRequest::Append { stream, .. } => (*stream, Default::default(), 0),
        };
        let until = Instant::now() + Duration::from_millis(wait_ms);
        let grown = stage::with(|stage| stage.grown(stream));
        let result = loop {
            gate(self.server).await;
            let mut more = std::pin::pin!(grown.notified());
            more.as_mut().enable();
            let outcome =
                stage::with(|stage| stage.servers.broker(stage.now, &request, &mut stage.seen));
            match outcome {
                Outcome::Done(result) => break result,
                Outcome::Wait => {
                    if timeout_at(until, more).await.is_err() {
                        break Ok(TransportReply::Entries {
                            entries: Vec::new(),
                            next: from,
                        });
                    }
                }
            }
        };
        self.answer(call, Parcel::BrokerSays(result), fate);
    }
}

impl Stage {
    /// A message comes to stand in a stream, and its readers are told.
    pub(super) fn append(
        &mut self,
        stream: Stream,
        envelope: &std::sync::Arc<flowkit_core::message::Envelope>,
    ) -> Result<TransportReply, PortError> {
        let result = self
            .servers
            .append(self.now, stream, envelope, &mut self.seen);
        self.triggered();
        self.grown(stream).notify_waiters();
        result
    }
}
