//! What is due, by time and then by order of scheduling.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use flowkit_core::coordinator;
use flowkit_core::id::OpId;
use flowkit_core::message::Envelope;
use flowkit_core::port::{
    PortError, StoreReply, StoreRequest, Stream, TransportReply, TransportRequest,
};
use flowkit_core::worker::{self, RunEvent, RunId};

use crate::history::Place;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Due {
    /// An input reaches a machine.
    Give(Place, Given),
    /// A machine's timer.
    Timer(Place),
    /// A handler gets on with its outstanding command.
    Handler {
        place: Place,
        run: RunId,
        ticket: u64,
    },
    /// A request reaches the store.
    Store(Box<StoreCall>),
    /// A request reaches the broker.
    Broker(Box<BrokerCall>),
    /// The broker no longer lets a read wait.
    ReadExpires { parked: u64 },
    /// A message appears in a stream without anyone waiting for it: a late copy, or a client's.
    Append {
        stream: Stream,
        envelope: Arc<Envelope>,
    },
    /// A reply reaches a client.
    ClientGets {
        client: u32,
        envelope: Arc<Envelope>,
    },
    /// A client looks whether it has to ask again.
    ClientRetries { client: u32, ask: u64 },
    /// A client that paused a task wants it to go on.
    ClientResumes { client: u32, task: u32 },
    /// A host starts its process.
    Start { host: u32 },
    /// A stalled process goes on.
    Resume { host: u32, generation: u32 },
    /// A probe finds a process with a handler that cannot be ended.
    Probe { place: Place },
    /// A timed fault of the plan.
    Fault { index: usize },
    /// A timed action of a client.
    Action { index: usize },
    /// Faults are over.
    Heal,
}

/// An input of either machine.
#[derive(Debug)]
pub(crate) enum Given {
    Wake,
    Idle,
    Store(OpId, Result<StoreReply, PortError>),
    Transport(OpId, Result<TransportReply, PortError>),
    Run(RunId, RunEvent),
    Shutdown {
        grace_ms: u64,
    },
    /// To the coordinator of an engine, once every worker of it has stopped.
    ShutdownLast,
}

/// A store request under way.
#[derive(Debug)]
pub(crate) struct StoreCall {
    pub(crate) from: Place,
    pub(crate) op: OpId,
    pub(crate) request: StoreRequest,
    /// How many commits there were when it was asked: what a sync covers.
    pub(crate) commits: u64,
    /// How its reply travels.
    pub(crate) back: Back,
}

/// A broker request under way.
#[derive(Debug)]
pub(crate) struct BrokerCall {
    pub(crate) from: Place,
    pub(crate) op: OpId,
    pub(crate) request: TransportRequest,
    pub(crate) back: Back,
}

/// How a reply travels back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Back {
    /// It takes so many microseconds.
    After(u64),
    /// It is lost, or the caller has given up already: the caller was told otherwise.
    Lost,
}

impl Given {
    pub(crate) fn for_coordinator(self) -> Option<coordinator::Input> {
        Some(match self {
            Self::Wake => coordinator::Input::Wake,
            Self::Idle => coordinator::Input::Idle,
            Self::Store(op, result) => coordinator::Input::StoreDone { op, result },
            Self::Transport(op, result) => coordinator::Input::TransportDone { op, result },
            Self::Shutdown { .. } => coordinator::Input::Shutdown {
                workers_left: false,
            },
            Self::ShutdownLast => coordinator::Input::Shutdown { workers_left: true },
            Self::Run(..) => return None,
        })
    }

    pub(crate) fn for_worker(self) -> Option<worker::Input> {
        Some(match self {
            Self::Wake => worker::Input::Wake,
            Self::Store(op, result) => worker::Input::StoreDone { op, result },
            Self::Transport(op, result) => worker::Input::TransportDone { op, result },
            Self::Run(run, event) => worker::Input::Run { run, event },
            Self::Shutdown { grace_ms } => worker::Input::Shutdown { grace_ms },
            Self::Idle | Self::ShutdownLast => return None,
        })
    }
}

/// The heap: earliest first, then first scheduled first. What is due lies beside it, so that little
/// is moved about.
#[derive(Debug, Default)]
pub(crate) struct Heap {
    heap: BinaryHeap<Reverse<Item>>,
    scheduled: u32,
    due: Vec<Option<Due>>,
    free: Vec<u32>,
}

/// When, in which order, and where it lies; one number, so that two are compared at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Item(u128);

impl Item {
    const fn new(at: u64, order: u32, slot: u32) -> Self {
        Self((at as u128) << 64 | (order as u128) << 32 | slot as u128)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the parts it was made of")]
    const fn parts(self) -> (u64, u32) {
        ((self.0 >> 64) as u64, self.0 as u32)
    }
}

impl Heap {
    pub(crate) fn push(&mut self, at: u64, due: Due) {
        self.scheduled += 1;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.due[slot as usize] = Some(due);
                slot
            }
            None => {
                self.due.push(Some(due));
                u32::try_from(self.due.len() - 1).expect("a run has fewer events at once")
            }
        };
        self.heap.push(Reverse(Item::new(at, self.scheduled, slot)));
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, Due)> {
        let Reverse(item) = self.heap.pop()?;
        let (at, slot) = item.parts();
        let due = self.due[slot as usize].take()?;
        self.free.push(slot);
        Some((at, due))
    }
}
