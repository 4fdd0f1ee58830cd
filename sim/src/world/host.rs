//! Hosts: a place with clocks where processes start, freeze and die.

use std::collections::{BTreeMap, VecDeque};

use flowkit_core::coordinator::Coordinator;
use flowkit_core::id::{Incarnation, WorkerId};
use flowkit_core::port::Stream;
use flowkit_core::time::Mono;
use flowkit_core::worker::Worker;

use super::heap::Due;
use crate::clock::HostClock;
use crate::plan::{Clock, Lost, Server};

/// A place where one process runs at a time.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) clock: HostClock,
    /// What runs here.
    pub(crate) kind: Kind,
    /// Counts process starts.
    pub(crate) generation: u32,
    pub(crate) process: Option<Process>,
    /// The process is frozen until then.
    pub(crate) stalled_until: u64,
    /// Since when it was frozen last.
    pub(crate) stalled_since: u64,
    /// What reached it meanwhile.
    pub(crate) waiting: VecDeque<Due>,
    /// Effects of all its processes.
    pub(crate) effects: u64,
    /// Calls of all its processes, by kind, which key their luck.
    pub(crate) calls: [u64; 4],
    /// Latest arrival of an append by stream: appends of a process keep their order.
    pub(crate) last_append: BTreeMap<Stream, u64>,
    /// Arrival of an append that later ones of its stream may overtake.
    pub(crate) overtaken: BTreeMap<Stream, u64>,
    pub(crate) partitions: Vec<Cut>,
    /// Ways to servers on which messages are held back, and until when.
    pub(crate) holds: Vec<(u64, Server)>,
    /// Nothing starts here any more: a newer process has the worker id.
    pub(crate) retired: bool,
    /// A restart is scheduled.
    pub(crate) restarting: bool,
    /// When its next process starts; a start of another time was replaced.
    pub(crate) starts_at: Option<u64>,
    /// It was asked to stop, and its next process starts so long after its end.
    pub(crate) back_in_ms: Option<u64>,
}

/// What a host runs.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Coordinator,
    /// Index into the plan's workers, and the id it has now.
    Worker(usize, WorkerId),
    /// One coordinator and every worker of the plan.
    Embedded,
}

/// A partition in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) until: u64,
    pub(crate) from: Server,
    pub(crate) lost: Lost,
}

/// One process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) machines: Vec<Machine>,
    /// It was told to stop.
    pub(crate) asked: bool,
}

/// One machine in a process.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) inner: Inner,
    /// When its timer is set to fire.
    pub(crate) timer: Option<u64>,
    /// When timers of it are due on the heap; those that it no longer wants are let pass.
    pub(crate) armed: Vec<u64>,
    /// An `Idle` input is on its way.
    pub(crate) idle_due: bool,
    /// Wakes in a row at one and the same time.
    pub(crate) wakes: (u64, u32),
    pub(crate) stopped: bool,
    /// Newest incarnation that this process registered (workers).
    pub(crate) incarnation: Incarnation,
    pub(crate) worker_id: Option<WorkerId>,
}

#[derive(Debug)]
pub(crate) enum Inner {
    Coordinator(Box<Coordinator>),
    Worker(Box<Worker>),
}

impl Inner {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Coordinator(_) => "coordinator",
            Self::Worker(_) => "worker",
        }
    }
}

impl Machine {
    pub(crate) fn new(inner: Inner, worker_id: Option<WorkerId>) -> Self {
        Self {
            inner,
            timer: None,
            armed: Vec::new(),
            idle_due: false,
            wakes: (0, 0),
            stopped: false,
            incarnation: Incarnation(0),
            worker_id,
        }
    }

    pub(crate) fn wants_idle(&self) -> bool {
        match &self.inner {
            Inner::Coordinator(machine) => machine.wants_idle(),
            Inner::Worker(_) => false,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Mono> {
        match &self.inner {
            Inner::Coordinator(machine) => machine.poll_timeout(),
            Inner::Worker(machine) => machine.poll_timeout(),
        }
    }
}

impl Host {
    pub(crate) fn new(kind: Kind, clock: Clock) -> Self {
        Self {
            clock: HostClock::new(clock),
            kind,
            generation: 0,
            process: None,
            stalled_until: 0,
            stalled_since: 0,
            waiting: VecDeque::new(),
            effects: 0,
            calls: [0; 4],
            last_append: BTreeMap::new(),
            overtaken: BTreeMap::new(),
            partitions: Vec::new(),
            holds: Vec::new(),
            retired: false,
            restarting: false,
            starts_at: None,
            back_in_ms: None,
        }
    }

    /// When messages to and from a server come through.
    pub(crate) fn held_until(&self, server: Server) -> u64 {
        let holds = self.holds.iter().filter(|(_, from)| *from == server);
        holds.map(|(until, _)| *until).max().unwrap_or(0)
    }

    /// The partition that swallows requests to (or replies from) a server now, if one does.
    pub(crate) fn cut(&self, now: u64, from: Server, replies: bool) -> Option<Lost> {
        let one_way = if replies {
            Lost::Replies
        } else {
            Lost::Requests
        };
        let cuts = self.partitions.iter();
        let cuts = cuts.filter(|cut| cut.until > now && cut.from == from);
        let mut swallow = cuts
            .map(|cut| cut.lost)
            .filter(|lost| *lost == Lost::Both || *lost == one_way);
        let first = swallow.next()?;
        Some(swallow.fold(
            first,
            |one, other| if other == Lost::Both { other } else { one },
        ))
    }
}
