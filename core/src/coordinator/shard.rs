//! An owned shard: its tasks, what changed since the last commit, and what waits for what.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::commit::{InFlight, OpenCommit, Outgoing, When};
use super::context::{Context, Purpose, ShardOp};
use super::gate::Gate;
use super::limits::Meters;
use super::ready::Ready;
use super::task::{Node, NodeKey, Task};
use crate::id::{DedupId, Incarnation, NodeId, Offset, ShardId, TaskId, Token, WorkerId};
use crate::message::{Body, Envelope};
use crate::port::{Entry, Stream, TransportRequest};
use crate::time::Mono;

/// Entries asked for at once.
pub(super) const FETCH_LIMIT: u32 = 512;
/// How long a read of the stream waits for the first entry.
const FETCH_WAIT_MS: u64 = 10_000;

/// A shard that this process owns.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Shard {
    pub(super) id: ShardId,
    /// Counts this process's ownerships; replies to an earlier one are dropped.
    pub(super) ownership: u64,
    pub(super) epoch: u64,

    /// First offset that is not folded.
    pub(super) next: Offset,
    pub(super) last_entry: Option<DedupId>,
    pub(super) backlog: VecDeque<Entry>,
    fetching: bool,
    fetch_at: Option<Mono>,
    fetch_backoff_ms: u64,
    /// When the stream last answered.
    pub(super) stream_ok_at: Mono,

    pub(super) tasks: BTreeMap<u64, Task>,
    pub(super) numbers: BTreeMap<TaskId, u64>,
    pub(super) task_newest: u64,
    /// Nodes granted to each worker.
    pub(super) held: BTreeMap<WorkerId, BTreeSet<NodeKey>>,

    /// Ready nodes, in the order in which they are granted.
    pub(super) ready: Ready,
    pub(super) meters: Meters,
    /// The meters are those of this very owner, from before it loaded the shard once more.
    pub(super) starts_known: bool,
    /// Granted readers with a source that is neither terminal nor granted.
    pub(super) starving: BTreeSet<NodeKey>,
    pub(super) timers: BTreeSet<(Mono, NodeKey)>,
    pub(super) gate: Gate,

    pub(super) open: OpenCommit,
    pub(super) in_flight: Option<InFlight>,
    /// Seq of the newest commit that was made.
    pub(super) commit_seq: u64,
    /// Applied, not yet durable: what waits for the sync.
    pub(super) unsynced: VecDeque<(u64, Vec<Outgoing>)>,
    pub(super) syncing: bool,
    pub(super) sync_at: Option<Mono>,
    /// First offset that a reader of the log still needs.
    pub(super) forgotten: Offset,

    pub(super) parked: super::parked::Parked,
    pub(super) lookup: Option<BTreeMap<TaskId, usize>>,
    /// Asked about in that lookup, and settled since: what the store answers may be older.
    pub(super) outdated: BTreeSet<TaskId>,
    pub(super) lookup_at: Option<Mono>,
    /// Reruns whose source is to be read.
    pub(super) reruns: super::rerun::Reruns,
    pub(super) sweeps: super::sweep::Sweeps,

    /// When a run was last told that it is fenced.
    pub(super) fenced_told: BTreeMap<(TaskId, NodeId, Token), Mono>,

    /// One event per commit until this offset: a commit up to it was refused.
    pub(super) careful_until: Offset,
    /// Commits still to be made with care.
    pub(super) careful_left: u32,
    /// Entries that were refused on their own.
    pub(super) poisoned: BTreeSet<(Offset, DedupId)>,
    /// Tasks that were left out when the shard was loaded.
    pub(super) left_out: BTreeSet<TaskId>,
    /// Tasks to set aside.
    pub(super) quarantine: BTreeSet<TaskId>,
    /// Submissions that the store refuses: the same again is answered so, another one is tried.
    pub(super) refused: BTreeMap<TaskId, u128>,
    /// Nothing new is looked up or begun: the process stops.
    pub(super) stopping: bool,
    /// It stops, and every worker has stopped before it.
    pub(super) workers_left: bool,
    pub(super) last_read: super::last_read::LastRead,
    #[serde(skip)]
    pub(super) plans: super::load::Plans,
}

impl Shard {
    pub(super) fn new(id: ShardId, ownership: u64, now: Mono, config: &super::Config) -> Self {
        Self {
            id,
            ownership,
            epoch: 0,
            next: Offset(0),
            last_entry: None,
            backlog: VecDeque::new(),
            fetching: false,
            fetch_at: None,
            fetch_backoff_ms: 0,
            stream_ok_at: now,
            tasks: BTreeMap::new(),
            numbers: BTreeMap::new(),
            task_newest: 0,
            held: BTreeMap::new(),
            ready: Ready::default(),
            meters: Meters::new(config),
            starts_known: false,
            starving: BTreeSet::new(),
            timers: BTreeSet::new(),
            gate: Gate::default(),
            open: OpenCommit::default(),
            in_flight: None,
            commit_seq: 0,
            unsynced: VecDeque::new(),
            syncing: false,
            sync_at: None,
            forgotten: Offset(0),
            parked: super::parked::Parked::default(),
            lookup: None,
            outdated: BTreeSet::new(),
            lookup_at: None,
            reruns: super::rerun::Reruns::default(),
            sweeps: super::sweep::Sweeps::default(),
            fenced_told: BTreeMap::new(),
            careful_until: Offset(0),
            careful_left: 0,
            poisoned: BTreeSet::new(),
            left_out: BTreeSet::new(),
            quarantine: BTreeSet::new(),
            refused: BTreeMap::new(),
            stopping: false,
            workers_left: false,
            last_read: super::last_read::LastRead::default(),
            plans: super::load::Plans::default(),
        }
    }

    pub(super) fn purpose(&self, op: ShardOp) -> Purpose {
        Purpose::Shard {
            shard: self.id,
            ownership: self.ownership,
            op,
        }
    }

    pub(super) fn stream(&self) -> Stream {
        Stream::Shard(self.id)
    }

    pub(super) fn task(&self, key: NodeKey) -> Option<&Task> {
        self.tasks.get(&key.task)
    }

    pub(super) fn node(&self, key: NodeKey) -> Option<&Node> {
        self.tasks.get(&key.task)?.nodes.get(key.node)
    }

    /// A node that is known to be in memory: its key was taken from memory in this very step.
    pub(super) fn node_mut(&mut self, key: NodeKey) -> &mut Node {
        let task = self
            .tasks
            .get_mut(&key.task)
            .expect("a key taken in this step names a task");
        &mut task.nodes[key.node]
    }

    /// What is done next is done for this node's task: should it break the machine, that is set aside.
    pub(super) fn blame_if_broken(&self, ctx: &mut Context<'_>, key: NodeKey) {
        ctx.subject.task_id = self.task(key).map(|task| task.id().clone());
    }

    pub(super) fn key_of(&self, task: &TaskId, node: &NodeId) -> Option<NodeKey> {
        let number = *self.numbers.get(task)?;
        let node = self.tasks.get(&number)?.plan.index(node)?;
        Some(NodeKey { task: number, node })
    }

    /// Marks a node's record as changed since the last commit.
    pub(super) fn touch(&mut self, ctx: &Context<'_>, key: NodeKey) {
        self.open.begin(ctx.now.mono);
        self.open.nodes.insert(key);
    }

    /// Marks a task's record as changed since the last commit.
    pub(super) fn touch_task(&mut self, ctx: &Context<'_>, task: u64) {
        self.open.begin(ctx.now.mono);
        self.open.tasks.insert(task);
    }

    /// Moves a node's entry in the timer queue.
    pub(super) fn set_due(&mut self, key: NodeKey, due: Option<Mono>) {
        let node = self.node_mut(key);
        let old = std::mem::replace(&mut node.due, due);
        if old == due {
            return;
        }
        if let Some(old) = old {
            self.timers.remove(&(old, key));
        }
        if let Some(due) = due {
            self.timers.insert((due, key));
        }
    }

    /// Sends a message once everything folded so far is in the store.
    pub(super) fn send(
        &mut self,
        ctx: &mut Context<'_>,
        when: When,
        stream: Stream,
        envelope: Envelope,
    ) {
        let outgoing = Outgoing {
            when,
            stream,
            envelope: Arc::new(envelope),
            start_of: None,
        };
        self.send_outgoing(ctx, outgoing);
    }

    pub(super) fn send_outgoing(&mut self, ctx: &mut Context<'_>, outgoing: Outgoing) {
        if !self.open.is_empty() {
            self.open.outbox.push(outgoing);
        } else if let Some(in_flight) = &mut self.in_flight {
            in_flight.outbox.push(outgoing);
        } else if outgoing.when == When::Durable
            && let Some((_, outbox)) = self.unsynced.back_mut()
        {
            outbox.push(outgoing);
        } else {
            self.release(ctx, outgoing);
        }
    }

    /// A command to the process that holds, or held, a grant.
    pub(super) fn command(
        &mut self,
        ctx: &mut Context<'_>,
        to: (&WorkerId, Incarnation, u32),
        about: (&TaskId, &NodeId, Token),
        nonce: u64,
        body: Body,
    ) {
        let (worker, incarnation, inbox) = to;
        let mut envelope = ctx.envelope(worker.as_str(), Some(incarnation), body);
        envelope.task_id = Some(about.0.clone());
        envelope.node_id = Some(about.1.clone());
        envelope.lease_no = Some(about.2);
        let envelope = envelope.identified(nonce);
        self.send(ctx, When::Applied, Stream::Inbox(inbox), envelope);
    }

    /// Asks for more of the stream unless enough is at hand.
    pub(super) fn fetch(&mut self, ctx: &mut Context<'_>) {
        let waiting = self.fetch_at.is_some_and(|at| at > ctx.now.mono);
        if self.fetching || waiting || !self.backlog.is_empty() {
            return;
        }
        self.fetching = true;
        self.fetch_at = None;
        let request = TransportRequest::Read {
            stream: self.stream(),
            from: self.next,
            limit: FETCH_LIMIT,
            wait_ms: FETCH_WAIT_MS.min(ctx.config.shard_lease_ttl_ms / 2),
        };
        ctx.transport(self.purpose(ShardOp::Fetch), request);
    }

    pub(super) fn fetched(&mut self, ctx: &Context<'_>, entries: Vec<Entry>) {
        self.fetching = false;
        self.fetch_backoff_ms = 0;
        self.stream_ok_at = ctx.now.mono;
        self.heard(entries);
    }

    /// A reply may repeat what is folded or at hand; it never skips (the log is ordered and complete).
    pub(super) fn heard(&mut self, entries: Vec<Entry>) {
        let from = self.read_to();
        let new = entries.into_iter().filter(|entry| entry.offset >= from);
        self.backlog.extend(new);
    }

    /// The first place that is neither folded nor at hand.
    pub(super) fn read_to(&self) -> Offset {
        let last = self.backlog.back();
        last.map_or(self.next, |entry| entry.offset.next())
    }

    pub(super) fn fetch_failed(&mut self, ctx: &mut Context<'_>) {
        self.fetching = false;
        self.fetch_backoff_ms =
            (self.fetch_backoff_ms * 2).clamp(ctx.config.retry_backoff_ms, 2_000);
        self.fetch_at = Some(ctx.now.mono.after(self.fetch_backoff_ms));
    }

    /// Everything folded is durable and every message is out.
    pub(super) fn is_quiet(&self) -> bool {
        self.open.is_empty() && self.in_flight.is_none() && self.unsynced.is_empty()
    }

    /// When this shard next has something to do by itself.
    pub(super) fn poll_timeout(&self, config: &super::Config) -> Option<Mono> {
        // With care nothing changes beside a commit in flight: its answer is the next occasion.
        let timers = self.timers.first().filter(|_| self.may_change());
        let timers = timers.map(|(at, _)| *at);
        let commit = self.commit_due(config);
        let limits = self.meters.poll_timeout().filter(|_| self.may_change());
        let in_flight = self.in_flight.as_ref().and_then(|c| c.retry_at);
        // A process that stops does none of these any more.
        let unless_stopping = |at: Option<Mono>| at.filter(|_| !self.stopping);
        let lookup = unless_stopping(self.lookup_at);
        let lookup = lookup.filter(|_| self.lookup.is_none() && self.parked.tasks() > 0);
        [
            timers,
            commit,
            limits.filter(|_| !self.stopping),
            in_flight,
            unless_stopping(self.fetch_at),
            self.sync_at,
            lookup.filter(|_| self.may_change()),
            unless_stopping(self.sweeps.due()).filter(|_| self.may_change()),
            self.gate.due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
