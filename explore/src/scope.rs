//! Scopes: how much of the world is explored.

use flowkit_core::id::WorkerId;
use flowkit_core::json::Json;
use serde::Serialize;

/// How often each thing that may go wrong still may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Budget {
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
    /// Messages and commits without an answer; they arrive late or never.
    pub delays: u8,
    /// Times that a lease's length passes while everything under way stays where it is.
    pub pauses: u8,
    /// Cancels by the client.
    pub cancels: u8,
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
    /// Nodes of the task, each after the one before.
    pub nodes: usize,
    /// Batches of each node.
    pub batches: u32,
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
    nodes: 1,
    batches: 3,
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
        nodes: 2,
        batches: 1,
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
        batches: 1,
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
        batches: 2,
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
        batches: 2,
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
        batches: 2,
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
        batches: 1,
        coordinators: 2,
        budget: Budget {
            delays: 1,
            takeovers: 1,
            ..NOTHING
        },
        ..PLAIN
    },
    Scope {
        name: "full",
        about: "two nodes, two workers, two coordinators, and one of everything that goes wrong",
        is_small: false,
        nodes: 2,
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
        let nodes: Vec<String> = (0..self.nodes)
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
