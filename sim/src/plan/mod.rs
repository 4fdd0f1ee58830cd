//! A plan: one run of the simulation as data. World, workload, client actions and faults.
//!
//! A plan is made from a seed ([`Plan::from_seed`]) or written by hand; it serialises to JSON, so
//! that a run that ever failed outlives every change of the generator. Times are in milliseconds
//! of true time since the start of the run, unless a name says otherwise.

mod adapters;
mod bounds;
mod call;
mod corners;
mod fault;
mod flow;
mod form;
mod graph;
mod hooks;
mod hosts;
mod large;
mod limits;
mod operated;
mod processes;
mod rare;
mod reruns;
mod swarm;
mod workload;

pub use call::{Call, CallKind};
pub use fault::{ClientFault, Fault, Leaving, Rotten};
pub use graph::{
    FanIn, FunctionPlan, GraphPlan, Hook, Link, NodePlan, Reader, Script, Trouble, TroubleKind,
};
pub use reruns::RerunPlan;
pub(crate) use reruns::fit as fit_reruns;

use flowkit_core::control::TaskOptions;
use flowkit_core::coordinator::Limits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Late calls and copies happen within this many times of the caller's patience.
pub(crate) const LATE_TIMEOUTS_MAX: u64 = 6;

/// One run as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Keys every draw made during the run (latencies, the fate of each call).
    pub seed: u64,
    /// The processes and their settings.
    pub world: World,
    /// The tasks that clients submit.
    pub tasks: Vec<TaskPlan>,
    /// What clients do.
    pub actions: Vec<Action>,
    /// Faults keyed by times or logical events.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// How often single calls go wrong until the faults heal.
    #[serde(default)]
    pub rates: Rates,
    /// Only these calls go wrong, as `rates` would have them; all of them may if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<BTreeSet<Call>>,
    /// When faults heal: every process is up, the network is fine.
    pub heal_ms: u64,
}

/// The processes and their settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct World {
    /// Coordinator processes; 1 when embedded.
    pub coordinators: u32,
    /// Worker processes (or workers of the one process, when embedded).
    pub workers: Vec<WorkerPlan>,
    /// Everything lives in one process, with a store that applies before it syncs.
    pub embedded: bool,
    /// Shards of the deployment.
    pub shards: u32,
    /// Inbox partitions of the deployment.
    pub inboxes: u32,
    /// Clients.
    pub clients: u32,
    /// Length of a worker's lease.
    pub lease_ttl_ms: u64,
    /// Time between heartbeats.
    pub hb_interval_ms: u64,
    /// Time between announcements.
    pub announce_interval_ms: u64,
    /// Length of the lease on a shard.
    pub shard_lease_ttl_ms: u64,
    /// A START without an answer for so long is granted anew.
    pub accept_timeout_ms: u64,
    /// Time for cancelled handlers to end.
    pub cancel_grace_ms: u64,
    /// How often a worker reads the grants of its runs.
    pub db_cancel_poll_ms: u64,
    /// Declared clock rate error in parts per million.
    pub clock_rate_error_ppm: u64,
    /// Clock of each host, by index, those of clients with hosts of their own last; hosts beyond the
    /// list have a perfect one.
    pub clocks: Vec<Clock>,
    /// Shortest time of one message between two processes, in microseconds.
    pub latency_us_min: u64,
    /// Longest usual time of one message, in microseconds.
    pub latency_us_max: u64,
    /// One message in 1,000 takes up to 20 times as long, this many times.
    pub slow_permille: u32,
    /// Time of a sync of the embedded store, in microseconds.
    pub sync_us: u64,
    /// How often in 1,000 turns a driver, a handler or a client lets others of its host go first
    /// (tier 1).
    #[serde(default = "usual_yields")]
    pub yield_permille: u32,
    /// A driver gives a call up after so long.
    pub call_timeout_ms: u64,
    /// How late a process may be to act on what it knows, beside stalls: 0 in a simulation. On a
    /// real machine others have the processor meanwhile, and clocks are read at another moment
    /// than things happen.
    #[serde(default)]
    pub slack_ms: u64,
    /// What may run at once, and how often something may start.
    #[serde(default)]
    pub limits: Limits,
    /// A process that was asked to stop is back as soon as it was to be away after its end: messages of
    /// the old one may be under way. Without, five seconds later than all of it could have taken.
    #[serde(default)]
    pub prompt_restarts: bool,
    /// Most tasks that are not settled, per shard; the engine's default if absent.
    #[serde(default)]
    pub tasks_in_flight_max: Option<u32>,
    /// Most message identities that a worker remembers; the engine's default if absent.
    #[serde(default)]
    pub dedup_cache_size: Option<u32>,
    /// How long it remembers one; the engine's default if absent.
    #[serde(default)]
    pub dedup_ttl_ms: Option<u64>,
    /// Workers take no adapter that leaves open what it cuts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict_adapters: bool,
    /// How long finished tasks are kept; for ever if absent.
    #[serde(default)]
    pub retention_finished_ms: Option<u64>,
    /// How long other tasks are kept; for ever if absent.
    #[serde(default)]
    pub retention_failed_ms: Option<u64>,
    /// How often an owner looks for tasks that are to go.
    #[serde(default = "a_minute")]
    pub sweep_interval_ms: u64,
}

/// What plans had before it was theirs to say.
const fn usual_yields() -> u32 {
    120
}

const fn a_minute() -> u64 {
    60_000
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerPlan {
    /// Its id.
    pub id: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Nodes it runs at once.
    pub capacity: u32,
}

/// The clock of one host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Clock {
    /// Where its monotonic clock starts.
    pub mono_offset_ms: u64,
    /// How fast it runs: parts per million too fast (or too slow).
    pub drift_ppm: i64,
    /// How far its wall clock is off.
    pub wall_offset_ms: i64,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskPlan {
    /// Its id.
    pub id: String,
    /// It is submitted under this idempotency key, to which its id belongs; else under its id.
    #[serde(default)]
    pub key: Option<String>,
    /// What its submission asks for beside the graph.
    #[serde(default)]
    pub options: TaskOptions,
    /// Its graph, with what the handlers do.
    pub graph: GraphPlan,
    /// Its vars at its submission.
    #[serde(default)]
    pub vars: serde_json::Value,
    /// It runs another task again.
    #[serde(default)]
    pub rerun: Option<RerunPlan>,
}

/// Something a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// When.
    pub when: When,
    /// Which client.
    pub client: u32,
    /// What.
    pub kind: ActionKind,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionKind {
    /// Submits a task (a rerun once the other task is settled) and waits until it is settled.
    Submit {
        /// Index into the plan's tasks.
        task: u32,
    },
    /// Submits another graph under the same task id.
    SubmitOther {
        /// Index into the plan's tasks.
        task: u32,
    },
    /// Cancels a task (if the submission was acknowledged by then).
    Cancel {
        /// Index into the plan's tasks.
        task: u32,
        /// Time for handlers to end; the deployment's if absent.
        grace_ms: Option<u64>,
    },
    /// Pauses a task (if the submission was acknowledged by then), and resumes it after a while.
    Pause {
        /// Index into the plan's tasks.
        task: u32,
        /// Time from the answer until it asks for the resume, which it does before faults heal.
        for_ms: u64,
    },
    /// Looks at a task (if the submission was acknowledged by then), in each way that there is; where
    /// the library's clients are.
    Look {
        /// Index into the plan's tasks.
        task: u32,
    },
}

impl ActionKind {
    /// The task that it is about, as an index into the plan's tasks.
    #[must_use]
    pub const fn task(self) -> u32 {
        let (Self::Submit { task }
        | Self::SubmitOther { task }
        | Self::Cancel { task, .. }
        | Self::Pause { task, .. }
        | Self::Look { task }) = self;
        task
    }

    /// The same about another task.
    pub(crate) const fn about(self, number: u32) -> Self {
        let mut kind = self;
        let (Self::Submit { task }
        | Self::SubmitOther { task }
        | Self::Cancel { task, .. }
        | Self::Pause { task, .. }
        | Self::Look { task }) = &mut kind;
        *task = number;
        kind
    }
}

/// A point in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// At a time.
    At {
        /// True time.
        ms: u64,
    },
    /// Right after the n-th effect of the fault's host (from 1, over all its processes).
    Effect {
        /// Which one.
        nth: u64,
    },
    /// Right after the n-th event of a kind (from 1).
    Event {
        /// Its kind.
        what: Logical,
        /// Which one.
        nth: u64,
    },
}

/// Events of a run that faults and actions can be tied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Logical {
    /// A commit granted a node.
    Granted,
    /// A handler began a run.
    Began,
    /// A handler began a batch.
    Processing,
    /// A BATCH_OK stands in a stream.
    BatchSent,
    /// A commit accepted a batch.
    Accepted,
    /// A TASK_DONE stands in a stream.
    DoneSent,
    /// A commit ended a node.
    NodeEnded,
    /// A commit marked a task as being cancelled.
    Cancelling,
    /// A coordinator raised a shard epoch.
    Takeover,
    /// A commit was applied.
    Committed,
    /// A heartbeat stands in a stream.
    Beat,
}

/// The two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Server {
    /// The store.
    Store,
    /// The transport.
    Broker,
}

/// What a partition swallows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lost {
    /// Requests: nothing happens.
    Requests,
    /// Replies: it happened, nobody says so.
    Replies,
    /// Both.
    Both,
}

/// How often a single call goes wrong, in 1,000 calls each, until the faults heal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rates {
    /// An append is refused; it surely did not happen.
    pub append_refused: u32,
    /// An append is lost; nobody can say so.
    pub append_lost: u32,
    /// An append happens twice.
    pub append_twice: u32,
    /// An append happens later, others of the same stream overtake it.
    pub append_overtaken: u32,
    /// An append happens, its confirmation comes late.
    pub confirm_late: u32,
    /// An append happens, its confirmation never comes.
    pub confirm_lost: u32,
    /// A read of a stream fails or its reply is lost.
    pub read_lost: u32,
    /// A store call is refused; it surely did not happen.
    pub store_refused: u32,
    /// A store call is lost; nobody can say so.
    pub store_lost: u32,
    /// A store call happens, its reply is lost.
    pub store_reply_lost: u32,
    /// A store call happens after the caller gave it up.
    pub store_late: u32,
    /// A reply to a client is lost on its last stretch.
    pub client_reply_lost: u32,
}

impl Lost {
    /// The family of faults that a call which meets such a partition counts for.
    pub(crate) const fn family(self, from: Server) -> &'static str {
        match (self, from) {
            (Self::Requests, _) => "partition_requests",
            (Self::Replies, _) => "partition_replies",
            (Self::Both, Server::Store) => "partition_store",
            (Self::Both, Server::Broker) => "partition_broker",
        }
    }
}

impl Rates {
    /// No call goes wrong.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        *self == Self::default()
    }
}

impl Plan {
    /// The plan of a seed: whole families of faults off, weights that vary widely.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        swarm::plan(seed)
    }

    /// The plan of a seed for simulated hosts.
    #[must_use]
    pub fn for_hosts(seed: u64) -> Self {
        swarm::for_hosts(seed).fit_hosts()
    }

    /// The plan of a seed for real processes and servers (`cargo xtask chaos`): only faults that can
    /// be made there, at times instead of events. It can be simulated as well.
    #[must_use]
    pub fn for_processes(seed: u64) -> Self {
        processes::plan(seed)
    }

    /// A small, faultless plan: two coordinators, two workers, one task that streams through three
    /// nodes. Scenarios change what they are about.
    #[must_use]
    pub fn small() -> Self {
        let worker = |id: &str| WorkerPlan {
            id: id.to_owned(),
            roles: vec![
                "scan".to_owned(),
                "measure".to_owned(),
                "summarize".to_owned(),
            ],
            capacity: 2,
        };
        Self {
            seed: 1,
            world: World {
                workers: vec![worker("w0"), worker("w1")],
                ..World::default()
            },
            tasks: vec![TaskPlan {
                id: "task-0".to_owned(),
                key: None,
                options: TaskOptions::default(),
                graph: GraphPlan::three_streaming_nodes(),
                vars: serde_json::Value::Null,
                rerun: None,
            }],
            actions: vec![Action {
                when: When::At { ms: 100 },
                client: 0,
                kind: ActionKind::Submit { task: 0 },
            }],
            faults: Vec::new(),
            rates: Rates::default(),
            calls: None,
            heal_ms: 4_000,
        }
    }

    /// [`Plan::small`] in one process.
    #[must_use]
    pub fn small_embedded() -> Self {
        let mut plan = Self::small();
        plan.world.embedded = true;
        plan.world.coordinators = 1;
        plan.world.latency_us_min = 1;
        plan.world.latency_us_max = 20;
        plan
    }

    /// Adds a fault.
    #[must_use]
    pub fn with(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Hosts that run processes: coordinators first, then workers; one when embedded.
    #[must_use]
    pub fn hosts(&self) -> u32 {
        if self.world.embedded {
            1
        } else {
            let workers = u32::try_from(self.world.workers.len()).unwrap_or(u32::MAX);
            self.world.coordinators.saturating_add(workers)
        }
    }
}

impl World {
    /// How late a process may be to act, in microseconds.
    pub(crate) const fn slack_us(&self) -> u64 {
        self.slack_ms * 1_000
    }

    /// How far the time of a thing that is written down may lie before it, in microseconds.
    pub(crate) const fn reading_us(&self) -> u64 {
        if self.slack_ms > 50 {
            50_000
        } else {
            self.slack_us()
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self {
            coordinators: 2,
            workers: Vec::new(),
            embedded: false,
            shards: 1,
            inboxes: 2,
            clients: 1,
            lease_ttl_ms: 3_000,
            hb_interval_ms: 800,
            announce_interval_ms: 5_000,
            shard_lease_ttl_ms: 2_000,
            accept_timeout_ms: 2_000,
            cancel_grace_ms: 1_000,
            db_cancel_poll_ms: 500,
            clock_rate_error_ppm: 500,
            clocks: Vec::new(),
            latency_us_min: 200,
            latency_us_max: 2_000,
            slow_permille: 0,
            sync_us: 2_000,
            yield_permille: usual_yields(),
            call_timeout_ms: 1_000,
            slack_ms: 0,
            limits: Limits::default(),
            prompt_restarts: false,
            tasks_in_flight_max: None,
            dedup_cache_size: None,
            dedup_ttl_ms: None,
            strict_adapters: false,
            retention_finished_ms: None,
            retention_failed_ms: None,
            sweep_interval_ms: a_minute(),
        }
    }
}
