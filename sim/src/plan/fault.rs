//! Faults of a plan.

use serde::{Deserialize, Serialize};

use super::{Lost, Server, When};

/// A fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fault {
    /// A process dies without a word and is started again.
    Crash {
        /// Its host.
        host: u32,
        /// When.
        when: When,
        /// How long it is down.
        down_ms: u64,
        /// The worker comes back under another id.
        new_id: bool,
    },
    /// The machine under a process loses its power: nobody is told that its connections are gone.
    PowerLoss {
        /// Its host.
        host: u32,
        /// When.
        when: When,
        /// How long it is down.
        down_ms: u64,
    },
    /// What a process and a server say to each other is held back, and comes late.
    Hold {
        /// Its host.
        host: u32,
        /// When.
        when: When,
        /// For how long.
        for_ms: u64,
        /// Which server.
        from: Server,
    },
    /// A process freezes: its inputs queue up, its clock runs on.
    Stall {
        /// Its host.
        host: u32,
        /// When.
        when: When,
        /// For how long.
        for_ms: u64,
    },
    /// A process cannot reach a server.
    Partition {
        /// Its host.
        host: u32,
        /// When.
        when: When,
        /// For how long.
        for_ms: u64,
        /// From what.
        from: Server,
        /// What gets lost.
        lost: Lost,
    },
    /// A server answers nobody.
    Away {
        /// Which.
        server: Server,
        /// When.
        when: When,
        /// For how long.
        for_ms: u64,
        /// How it goes. For a simulation all are the same: what a server has acknowledged outlives
        /// each of them.
        #[serde(default)]
        how: Leaving,
    },
    /// A server takes longer.
    Slow {
        /// Which.
        server: Server,
        /// When.
        when: When,
        /// For how long.
        for_ms: u64,
        /// How much longer each call takes, at most.
        extra_ms: u64,
    },
    /// The store refuses one commit as `Invalid`.
    RefuseCommit {
        /// Which, counted from 1 over the run.
        nth: u64,
    },
    /// The store refuses every commit that accepts a batch of this node.
    RefuseBatches {
        /// Index of the task.
        task: u32,
        /// The node.
        node: String,
    },
    /// The store refuses every commit that would create this task.
    RefuseTask {
        /// Index of the task.
        task: u32,
    },
    /// The store refuses every commit that holds a record of this task, even the one that would set it
    /// aside.
    RefuseWrites {
        /// Index of the task.
        task: u32,
        /// When.
        when: When,
        /// For how long, at most until faults are over.
        for_ms: u64,
    },
    /// An entry that is no message, and messages that make no sense, appear in a shard's stream, in every
    /// inbox and among the announcements.
    Poison {
        /// When.
        when: When,
        /// The shard.
        shard: u32,
    },
    /// A process is asked to stop, and is started again later.
    Shutdown {
        /// Its host.
        host: u32,
        /// When.
        when: When,
        /// Time for running batches to end.
        grace_ms: u64,
        /// How long it stays away.
        down_ms: u64,
    },
    /// The wall clock of a host jumps.
    WallStep {
        /// The host.
        host: u32,
        /// When.
        when: When,
        /// By how much.
        by_ms: i64,
    },
    /// The store's clock jumps, as at a failover: shard leases lapse sooner, or later.
    StoreClock {
        /// When.
        when: When,
        /// By how much.
        by_ms: i64,
    },
    /// The log of an inbox is lost, and goes on further up: who reads it falls out of it.
    InboxLost {
        /// When.
        when: When,
        /// The inbox.
        inbox: u32,
    },
    /// The log of a shard is lost: created anew and empty, or without its newest entries. Whoever
    /// follows it finds another log than the one that the shard record speaks of.
    LogLost {
        /// When.
        when: When,
        /// The shard.
        shard: u32,
        /// So many of its newest entries are lost; all of it if absent.
        #[serde(default)]
        newest: Option<u64>,
    },
    /// The machine of a process breaks one of its invariants (tier 1).
    MachinePanic {
        /// Its host.
        host: u32,
        /// When.
        when: When,
    },
    /// Something befalls a client on a host of its own (tier 1).
    Client {
        /// Which client.
        client: u32,
        /// When; its effects are counted like those of a host.
        when: When,
        /// What.
        what: ClientFault,
    },
    /// The host of a worker is gone for good.
    Gone {
        /// The host.
        host: u32,
        /// When.
        when: When,
    },
    /// Another process is started under the id of a running worker.
    Twin {
        /// Host of the worker.
        host: u32,
        /// When.
        when: When,
    },
    /// A stored record can no longer be read, until it is written again.
    Rot {
        /// When.
        when: When,
        /// Which.
        what: Rotten,
    },
}

/// A record that can no longer be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rotten {
    /// That of a task.
    Task {
        /// Index of the task.
        task: u32,
    },
    /// That of a node.
    Node {
        /// Index of the task.
        task: u32,
        /// The node.
        node: String,
    },
    /// That of a worker.
    Worker {
        /// Index of the worker.
        worker: u32,
    },
}

impl Rotten {
    /// The task that it belongs to, as an index into the plan's tasks.
    #[must_use]
    pub const fn task(&self) -> Option<u32> {
        match self {
            Self::Task { task } | Self::Node { task, .. } => Some(*task),
            Self::Worker { .. } => None,
        }
    }
}

/// What befalls a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientFault {
    /// It dies without a word. Who takes its place does everything again that had no last answer.
    Crash {
        /// How long nobody takes its place.
        down_ms: u64,
    },
    /// Nothing reaches it and nothing leaves it; its clock runs on.
    Stall {
        /// For how long.
        for_ms: u64,
    },
    /// It cannot reach a server.
    Partition {
        /// For how long.
        for_ms: u64,
        /// From what.
        from: Server,
        /// What gets lost.
        lost: Lost,
    },
    /// What it and a server say to each other is held back, and comes late.
    Hold {
        /// For how long.
        for_ms: u64,
        /// Which server.
        from: Server,
    },
    /// Its wall clock jumps.
    WallStep {
        /// By how much.
        by_ms: i64,
    },
}

/// How a server goes away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leaving {
    /// It freezes, and goes on later.
    #[default]
    Frozen,
    /// It is stopped in order, and started again.
    Stopped,
    /// It is killed, and started again.
    Killed,
}

impl Fault {
    /// When it is due; `None` for those that wait for a call.
    #[must_use]
    pub fn when(&self) -> Option<When> {
        Some(match self {
            Self::Crash { when, .. }
            | Self::PowerLoss { when, .. }
            | Self::Hold { when, .. }
            | Self::Stall { when, .. }
            | Self::Partition { when, .. }
            | Self::Away { when, .. }
            | Self::Slow { when, .. }
            | Self::Poison { when, .. }
            | Self::Shutdown { when, .. }
            | Self::WallStep { when, .. }
            | Self::StoreClock { when, .. }
            | Self::InboxLost { when, .. }
            | Self::LogLost { when, .. }
            | Self::MachinePanic { when, .. }
            | Self::Client { when, .. }
            | Self::Gone { when, .. }
            | Self::Twin { when, .. }
            | Self::RefuseWrites { when, .. }
            | Self::Rot { when, .. } => *when,
            Self::RefuseCommit { .. } | Self::RefuseBatches { .. } | Self::RefuseTask { .. } => {
                return None;
            }
        })
    }

    /// The task of which the store refuses something, if it is about one.
    #[must_use]
    pub(crate) fn refused_task(&self) -> Option<u32> {
        match self {
            Self::RefuseBatches { task, .. }
            | Self::RefuseTask { task }
            | Self::RefuseWrites { task, .. } => Some(*task),
            _ => None,
        }
    }

    /// The store refuses a commit for good.
    #[must_use]
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::RefuseCommit { .. }) || self.refused_task().is_some()
    }

    /// Makes it about another host.
    pub(crate) fn rehost(&mut self, other: impl Fn(u32) -> u32) {
        match self {
            Self::Crash { host, .. }
            | Self::PowerLoss { host, .. }
            | Self::Hold { host, .. }
            | Self::Stall { host, .. }
            | Self::Partition { host, .. }
            | Self::Shutdown { host, .. }
            | Self::WallStep { host, .. }
            | Self::MachinePanic { host, .. }
            | Self::Gone { host, .. }
            | Self::Twin { host, .. } => *host = other(*host),
            _ => {}
        }
    }

    /// The host that it is about, if it is about one.
    #[must_use]
    pub fn host(&self) -> Option<u32> {
        match self {
            Self::Crash { host, .. }
            | Self::PowerLoss { host, .. }
            | Self::Hold { host, .. }
            | Self::Stall { host, .. }
            | Self::Partition { host, .. }
            | Self::Shutdown { host, .. }
            | Self::WallStep { host, .. }
            | Self::MachinePanic { host, .. }
            | Self::Gone { host, .. }
            | Self::Twin { host, .. } => Some(*host),
            _ => None,
        }
    }
}
