//! Scopes: how much of the world is explored.

use flowkit_core::id::WorkerId;
use flowkit_core::json::Json;

/// How often each thing that may go wrong still may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Crashes of anybody.
    pub crashes: u8,
    /// Crashes of workers.
    pub worker_crashes: u8,
    /// Crashes of coordinators.
    pub coordinator_crashes: u8,
    /// Starts of workers that crashed.
    pub restarts: u8,
    /// Takeovers from a coordinator that lives; from a dead one they are free.
    pub takeovers: u8,
    /// Messages that arrive twice.
    pub doubles: u8,
    /// Messages that are lost.
    pub losses: u8,
    /// Messages and commits without an answer; they arrive late or never.
    pub delays: u8,
    /// Leases that lapse under a holder that lives: a takeover, or a pause in which a worker's does.
    pub expiries: u8,
    /// Times that a lease's length passes while everything under way stays where it is.
    pub pauses: u8,
    /// Cancels by the client.
    pub cancels: u8,
}

impl Budget {
    /// One number for all of it, a digit for each thing.
    pub(crate) fn packed(&self) -> u64 {
        let counts = [
            self.crashes,
            self.worker_crashes,
            self.coordinator_crashes,
            self.restarts,
            self.takeovers,
            self.doubles,
            self.losses,
            self.delays,
            self.expiries,
            self.pauses,
            self.cancels,
        ];
        counts.iter().fold(0, |packed, count| {
            assert!(*count < 16, "a scope's budgets are small");
            packed << 4 | u64::from(*count)
        })
    }

    /// Is there at least as much of everything in one budget as in the other?
    pub(crate) fn covers(one: u64, other: u64) -> bool {
        (0..16).all(|digit| (one >> (4 * digit)) & 15 >= (other >> (4 * digit)) & 15)
    }

    /// Takes one from what is for this kind of thing, or else from what is for more than one kind.
    pub(crate) fn spend(own: &mut u8, shared: &mut u8) {
        let from = if *own > 0 { own } else { shared };
        *from -= 1;
    }

    pub(crate) const fn crash_of_worker(&self) -> bool {
        self.worker_crashes + self.crashes > 0
    }

    pub(crate) const fn crash_of_coordinator(&self) -> bool {
        self.coordinator_crashes + self.crashes > 0
    }

    pub(crate) const fn takeover(&self) -> bool {
        self.takeovers + self.expiries > 0
    }

    /// A pause, at any moment or when a lease lapses in it.
    pub(crate) const fn pause(&self) -> bool {
        self.pauses + self.expiries > 0
    }
}

/// A scope.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Visited whole within a minute.
    pub is_small: bool,
    /// Batches of each node of the task; each node comes after the one before.
    pub batches: &'static [u32],
    /// Workers, each with one slot.
    pub workers: usize,
    /// Starts of coordinators; the first one owns the shard at the beginning.
    pub coordinators: usize,
    /// Batches with an even number save a checkpoint.
    pub checkpoints: bool,
    /// The source says of its last batch that it is the last one: it travels inside TASK_DONE.
    pub knows_last: bool,
    /// Handlers take their time to finalize, too.
    pub slow_finalize: bool,
    /// A handler that is told to end may do so at once; otherwise it ends its batch first.
    pub obeys_at_once: bool,
    /// How long a pause may be, in milliseconds.
    pub pauses_ms: &'static [u64],
    /// What may go wrong.
    pub budget: Budget,
}

/// Just past the end of a lease at its owner's.
const LONG_PAUSE_MS: u64 = LEASE_TTL_MS + 1_001;
/// Length of a worker's lease.
pub(crate) const LEASE_TTL_MS: u64 = 60_000;

const NOTHING: Budget = Budget {
    crashes: 0,
    losses: 0,
    expiries: 0,
    worker_crashes: 0,
    coordinator_crashes: 0,
    restarts: 0,
    takeovers: 0,
    doubles: 0,
    delays: 0,
    pauses: 0,
    cancels: 0,
};

const PLAIN: Scope = Scope {
    name: "plain",
    about: "nothing goes wrong",
    is_small: true,
    batches: &[3],
    workers: 1,
    coordinators: 1,
    checkpoints: true,
    knows_last: false,
    slow_finalize: false,
    obeys_at_once: true,
    pauses_ms: &[LONG_PAUSE_MS],
    budget: NOTHING,
};

/// Every scope.
pub const SCOPES: &[Scope] = &[
    PLAIN,
    Scope {
        name: "cancel",
        about: "a cancel at any moment",
        budget: Budget {
            cancels: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "crash",
        about: "a worker crashes at any moment, another one lives",
        workers: 2,
        budget: Budget {
            worker_crashes: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "restart",
        about: "the only worker crashes at any moment and is started again",
        is_small: false,
        budget: Budget {
            worker_crashes: 1,
            restarts: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "owner-crash",
        about: "the coordinator crashes at any moment, another one takes over",
        coordinators: 2,
        budget: Budget {
            coordinator_crashes: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "chain",
        about: "two nodes, one after the other, a cancel, and a message twice",
        batches: &[1, 1],
        workers: 2,
        knows_last: true,
        budget: Budget {
            cancels: 1,
            doubles: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "pause",
        about: "everything under way is late by more than a lease",
        is_small: false,
        batches: &[1],
        workers: 2,
        budget: Budget {
            pauses: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "takeover",
        about: "another coordinator takes over from a living one, at any moment",
        is_small: false,
        coordinators: 2,
        budget: Budget {
            takeovers: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "delay",
        about: "a message or a commit has no answer, and happens late or never",
        budget: Budget {
            delays: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "double",
        about: "a message arrives twice",
        budget: Budget {
            doubles: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "cancel-takeover",
        about: "a cancel, and a takeover from a living coordinator",
        is_small: false,
        batches: &[2],
        coordinators: 2,
        budget: Budget {
            cancels: 1,
            takeovers: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "crash-takeover",
        about: "a worker crashes, and another coordinator takes over from a living one",
        is_small: false,
        batches: &[2],
        workers: 2,
        coordinators: 2,
        budget: Budget {
            worker_crashes: 1,
            takeovers: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "delay-double",
        about: "one message or commit without an answer, one message twice, a cancel",
        is_small: false,
        batches: &[2],
        budget: Budget {
            cancels: 1,
            delays: 1,
            doubles: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "delay-takeover",
        about: "one message or commit without an answer, and a takeover",
        is_small: false,
        batches: &[1],
        coordinators: 2,
        budget: Budget {
            delays: 1,
            takeovers: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "asked",
        about: "two nodes of three batches in all, two workers, two coordinators; a crash of anybody, a message twice, a message lost, an expiry, a cancel",
        is_small: false,
        batches: &[2, 1],
        workers: 2,
        coordinators: 2,
        budget: Budget {
            crashes: 1,
            doubles: 1,
            losses: 1,
            expiries: 1,
            cancels: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "crash+double",
        about: "a crash of anybody, and a message twice",
        is_small: false,
        batches: &[1, 1],
        workers: 2,
        coordinators: 2,
        budget: Budget {
            crashes: 1,
            doubles: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "crash+loss",
        about: "a crash of anybody, and a message lost",
        is_small: false,
        batches: &[1, 1],
        workers: 2,
        coordinators: 2,
        budget: Budget {
            crashes: 1,
            losses: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "crash+cancel",
        about: "a crash of anybody, and a cancel",
        is_small: false,
        batches: &[1, 1],
        workers: 2,
        coordinators: 2,
        budget: Budget {
            crashes: 1,
            cancels: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "double+loss",
        about: "a message twice, and a message lost",
        is_small: false,
        batches: &[2, 1],
        workers: 2,
        budget: Budget {
            doubles: 1,
            losses: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "double+cancel",
        about: "a message twice, and a cancel",
        is_small: false,
        batches: &[2, 1],
        workers: 2,
        budget: Budget {
            doubles: 1,
            cancels: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "loss+cancel",
        about: "a message lost, and a cancel",
        is_small: false,
        batches: &[2, 1],
        workers: 2,
        budget: Budget {
            losses: 1,
            cancels: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "crash+expiry",
        about: "a crash of anybody, and the shard's lease that lapses under a living owner",
        is_small: false,
        batches: &[1],
        workers: 2,
        coordinators: 2,
        budget: Budget {
            crashes: 1,
            takeovers: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "double+expiry",
        about: "a message twice, and the shard's lease that lapses under a living owner",
        is_small: false,
        batches: &[1],
        coordinators: 2,
        budget: Budget {
            doubles: 1,
            takeovers: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "loss+expiry",
        about: "a message lost, and the shard's lease that lapses under a living owner",
        is_small: false,
        batches: &[1],
        coordinators: 2,
        budget: Budget {
            losses: 1,
            takeovers: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "cancel+expiry",
        about: "a cancel, and the shard's lease that lapses under a living owner",
        is_small: false,
        batches: &[1],
        coordinators: 2,
        budget: Budget {
            cancels: 1,
            takeovers: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "crash+lapse",
        about: "a crash of anybody, and a worker's lease that lapses under a living holder",
        is_small: false,
        batches: &[1],
        workers: 2,
        coordinators: 2,
        budget: Budget {
            crashes: 1,
            expiries: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "double+lapse",
        about: "a message twice, and a worker's lease that lapses under a living holder",
        is_small: false,
        batches: &[1],
        budget: Budget {
            doubles: 1,
            expiries: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "loss+lapse",
        about: "a message lost, and a worker's lease that lapses under a living holder",
        is_small: false,
        batches: &[1],
        budget: Budget {
            losses: 1,
            expiries: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "cancel+lapse",
        about: "a cancel, and a worker's lease that lapses under a living holder",
        is_small: false,
        batches: &[1],
        budget: Budget {
            cancels: 1,
            expiries: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "full",
        about: "two nodes, two workers, two coordinators, and one of everything that goes wrong",
        is_small: false,
        batches: &[3, 3],
        workers: 2,
        coordinators: 2,
        knows_last: true,
        slow_finalize: true,
        budget: Budget {
            worker_crashes: 1,
            coordinator_crashes: 1,
            restarts: 1,
            takeovers: 1,
            doubles: 1,
            delays: 1,
            pauses: 1,
            cancels: 1,
            ..NOTHING
        },
        ..PLAIN
    },
];

impl Scope {
    /// The scope of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SCOPES.iter().find(|scope| scope.name == name)
    }

    /// Id of a node.
    pub(crate) fn node_id(node: usize) -> String {
        format!("n{}", node + 1)
    }

    /// Id of a worker.
    pub(crate) fn worker_id(worker: usize) -> WorkerId {
        WorkerId::new(format!("w{}", worker + 1)).expect("a short plain text is an id")
    }

    /// The graph of the task.
    pub(crate) fn graph(&self) -> Json {
        let nodes: Vec<String> = (0..self.batches.len())
            .map(|node| {
                let after = if node == 0 {
                    String::new()
                } else {
                    format!(r#","depends_on":["{}"]"#, Self::node_id(node - 1))
                };
                format!(
                    r#"{{"node_id":"{}","type":"work"{after}}}"#,
                    Self::node_id(node)
                )
            })
            .collect();
        let text = format!(r#"{{"nodes":[{}]}}"#, nodes.join(","));
        Json::parse(&text).expect("the graph is JSON")
    }
}
