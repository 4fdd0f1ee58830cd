//! A host as the run knows it: what runs there, whether it is frozen, when it comes back.

use std::collections::BTreeMap;

use flowkit_core::id::{Incarnation, WorkerId};
use flowkit_core::port::Stream;
use tokio::sync::watch;

use super::gate::Gate;
use crate::clock::HostClock;
use crate::history::Place;
use crate::plan::{Lost, Plan, Server};

/// What a host runs.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Coordinator,
    /// A worker of the plan.
    Worker {
        /// Its index there.
        plan: usize,
        /// The id that it has now.
        id: WorkerId,
    },
    /// A coordinator and every worker of the plan in one process, over a store of its own.
    Embedded,
    /// It submits tasks and waits for them.
    Client,
}

/// How a process ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Stopped,
    Superseded,
    /// It could not go on; its supervisor starts it again.
    Failed,
}

/// More requests of one process in an instant than any has a reason for.
const ASKED_AT_ONCE_MAX: u32 = 20_000;

/// Numbers of clients' hosts start here.
const CLIENTS: u32 = 10_000;

pub(super) const fn is_client(host: u32) -> bool {
    host >= CLIENTS
}

/// The number of the client whose host it is, if it is one's.
pub(super) const fn client_of(host: u32) -> Option<u32> {
    host.checked_sub(CLIENTS)
}

/// The host of a client.
pub(super) const fn client_host(number: u32) -> u32 {
    CLIENTS.saturating_add(number)
}

/// One host.
#[derive(Debug)]
pub(super) struct HostState {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) clock: HostClock,
    /// Counts process starts.
    pub(super) generation: u32,
    /// A process runs here.
    pub(super) alive: bool,
    /// Shut while its process is frozen.
    pub(super) gate: Gate,
    pub(super) stalled_until: u64,
    /// Since when it was frozen last.
    pub(super) stalled_since: u64,
    /// Its machine breaks at its next input.
    pub(super) panics: bool,
    /// Its driver is about to take an input.
    pub(super) takes_input: bool,
    /// Tells its process to stop.
    pub(super) stop: Option<watch::Sender<bool>>,
    pub(super) ended: Option<Ended>,
    /// Nothing starts here any more.
    pub(super) retired: bool,
    /// When its next process starts.
    pub(super) starts_at: Option<u64>,
    /// Shards into whose stream something stray is to get, where the streams are the process's own.
    pub(super) strays: Vec<u32>,
    /// It was asked to stop, and its next process starts so long after its end.
    pub(super) back_in_ms: Option<u64>,
    /// What its processes asked servers for.
    pub(super) effects: u64,
    /// What was asked for last, and how often without time passing.
    asked: (u64, u32),
    /// Calls of all its processes by kind, which key their luck.
    pub(super) calls: [u64; 4],
    pub(super) paces: u64,
    /// Appends on their way that later ones of their stream may overtake.
    pub(super) overtaken: BTreeMap<Stream, u32>,
    pub(super) cuts: Vec<Cut>,
    /// Newest incarnation that its process registered.
    pub(super) incarnation: Incarnation,
    /// Time that the workers of its process have when they are told to stop.
    pub(super) grace_ms: u64,
}

/// A disturbed way between a host and a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) until: u64,
    pub(super) from: Server,
    pub(super) lost: CutKind,
}

/// What becomes of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CutKind {
    Lost(Lost),
    /// They come once the way is free.
    Held,
}

impl HostState {
    pub(super) fn new(name: String, kind: Kind, clock: HostClock) -> Self {
        Self {
            name,
            kind,
            clock,
            generation: 0,
            alive: false,
            gate: Gate::default(),
            stalled_until: 0,
            stalled_since: 0,
            panics: false,
            takes_input: false,
            stop: None,
            ended: None,
            retired: false,
            starts_at: None,
            back_in_ms: None,
            strays: Vec::new(),
            effects: 0,
            asked: (0, 0),
            calls: [0; 4],
            paces: 0,
            overtaken: BTreeMap::new(),
            cuts: Vec::new(),
            incarnation: Incarnation(0),
            grace_ms: Plan::PROCESS_GRACE_MS,
        }
    }

    /// Its process asks a server for something; which one of all that is.
    ///
    /// # Panics
    /// It asks without end while no time passes: in the real world, as fast as its machine can.
    pub(super) fn asks(&mut self, now: u64) -> u64 {
        self.effects += 1;
        let times = if self.asked.0 == now {
            self.asked.1 + 1
        } else {
            1
        };
        self.asked = (now, times);
        assert!(
            times < ASKED_AT_ONCE_MAX,
            "{} asks servers again and again",
            self.name
        );
        self.effects
    }

    /// Its process now.
    pub(super) fn place(&self, host: u32) -> Place {
        Place {
            host,
            generation: self.generation,
            machine: 0,
        }
    }
}
