//! Who was heard, when, and what has not been folded: read from the tails of the streams, which any
//! process may read. For people and diagnosis; nothing decides by it.

use flowkit_core::graph::Graph;
use flowkit_core::id::{DedupId, Incarnation, NodeId, Offset, ShardId, TaskId, Token, WorkerId};
use flowkit_core::message::{Body, Envelope, RunBeat, SenderRole};
use flowkit_core::port::{
    ErrorKind, PortError, StoreReply, StoreRequest, Stream, TransportReply, TransportRequest,
};
use flowkit_core::why::silent_after_ms;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Client;
use crate::engine::unexpected;

/// Newest entries that are read of each stream.
const TAIL: u64 = 2_000;
/// Entries of a shard that are held against the store.
const LOOKED_AT_MAX: usize = 64;
const READ_LIMIT: u32 = 512;
/// How long a read waits for entries that are there already.
const READ_WAIT_MS: u64 = 1_000;

/// Who was heard, and how far shards are folded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    /// Workers that are heard in the newest entries of the streams.
    pub workers: BTreeMap<WorkerId, Heard>,
    /// Every shard, in order.
    pub shards: Vec<ShardLag>,
    /// Entries that are no messages.
    pub unreadable: u64,
}

/// When and how a worker was heard last. Ages are by the clocks of both machines, for people only.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Heard {
    /// The process that spoke last.
    pub incarnation: Incarnation,
    /// How long ago, in milliseconds.
    pub age_ms: u64,
    /// `online`, `draining` or `offline`, as it last announced itself.
    pub status: String,
    /// Silent for longer than this, in milliseconds, it counts as gone; from the time between its
    /// announcements, as it tells it.
    pub silent_after_ms: u64,
    /// Handlers that ignore that they were told to end, as it last announced; each holds a slot.
    pub abandoned: u32,
    /// Free slots as of its newest message.
    pub free_slots: Option<u32>,
    /// How long ago it sent its newest heartbeat, in milliseconds; idle workers send none.
    pub heartbeat_age_ms: Option<u64>,
    /// Its runs, as of its newest heartbeats.
    pub beats: BTreeMap<(TaskId, NodeId), RunBeat>,
    /// The longest that a batch was in work in any of its heartbeats, in milliseconds.
    pub batch_ms_max: u64,
    /// Its events that wait to be folded, of those that were looked at.
    pub lag: u64,
    /// How often the process that speaks went back to an older one: two live processes share the id.
    pub conflicts: u32,
}

/// How far a shard is folded.
///
/// The place that its owner has committed says little: heartbeats and whatever changes nothing are
/// folded without a commit. So what lies behind it is held against the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardLag {
    /// The shard.
    pub shard: ShardId,
    /// Submissions that the store knows nothing of, and events of current grants, which an owner
    /// would have committed: at least so many wait to be folded.
    pub lag: u64,
    /// How long the oldest of them has waited, in milliseconds.
    pub oldest_ms: Option<u64>,
    /// First offset that is not committed.
    pub next: Offset,
}

impl Heard {
    /// It was silent for so long that it counts as gone.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        self.age_ms > self.silent_after_ms
    }
}

impl Presence {
    fn hear(&mut self, envelope: &Envelope, now_ms: i64) {
        if envelope.sender.role != SenderRole::Worker {
            return;
        }
        let Ok(id) = WorkerId::new(&envelope.sender.id) else {
            return;
        };
        let age_ms = age(now_ms, envelope.ts_ms);
        let heard = self.workers.entry(id).or_insert_with(|| Heard {
            incarnation: envelope.sender.incarnation,
            age_ms,
            status: "online".to_owned(),
            silent_after_ms: silent_after_ms(0),
            abandoned: 0,
            free_slots: None,
            heartbeat_age_ms: None,
            beats: BTreeMap::new(),
            batch_ms_max: 0,
            lag: 0,
            conflicts: 0,
        });
        if envelope.sender.incarnation < heard.incarnation {
            return;
        }
        if envelope.sender.incarnation > heard.incarnation {
            heard.incarnation = envelope.sender.incarnation;
            heard.age_ms = age_ms;
            "online".clone_into(&mut heard.status);
            heard.abandoned = 0;
            heard.beats.clear();
        }
        if age_ms <= heard.age_ms {
            heard.age_ms = age_ms;
            heard.free_slots = envelope.free_slots;
        }
        match &envelope.body {
            Body::WorkerOnline(online) => {
                heard.status = online.status.chars().take(32).collect();
                heard.abandoned = online.abandoned;
                heard.silent_after_ms = silent_after_ms(online.announce_interval_ms);
            }
            Body::WorkerOffline(_) => "offline".clone_into(&mut heard.status),
            Body::Heartbeat(heartbeat) => {
                let newest = heard.heartbeat_age_ms.unwrap_or(u64::MAX);
                heard.heartbeat_age_ms = Some(newest.min(age_ms));
                for beat in &heartbeat.runs {
                    heard.batch_ms_max = heard.batch_ms_max.max(beat.in_batch_ms);
                    let key = (beat.task_id.clone(), beat.node_id.clone());
                    let known = heard.beats.get(&key);
                    if known.is_none_or(|known| known.token <= beat.token) {
                        heard.beats.insert(key, beat.clone());
                    }
                }
            }
            _ => {}
        }
    }
}

/// Which processes of a worker spoke, and when.
#[derive(Default)]
struct Speakers {
    /// The newest process of each worker in the stream that is read.
    in_stream: BTreeMap<WorkerId, Incarnation>,
    said: BTreeMap<WorkerId, Vec<Said>>,
}

/// One message.
struct Said {
    incarnation: Incarnation,
    ts_ms: i64,
    /// It stands behind one of a newer process in its stream.
    is_behind: bool,
}

/// Clocks of two machines may be so far apart.
const CLOCKS_APART_MS: i64 = 5_000;

impl Speakers {
    fn begin_stream(&mut self) {
        self.in_stream.clear();
    }

    fn note(&mut self, envelope: &Envelope) {
        if envelope.sender.role != SenderRole::Worker {
            return;
        }
        let Ok(id) = WorkerId::new(&envelope.sender.id) else {
            return;
        };
        let incarnation = envelope.sender.incarnation;
        let newest = self.in_stream.entry(id.clone()).or_insert(incarnation);
        let is_behind = incarnation < *newest;
        *newest = incarnation.max(*newest);
        self.said.entry(id).or_default().push(Said {
            incarnation,
            ts_ms: envelope.ts_ms,
            is_behind,
        });
    }

    /// How often an older process of the worker spoke after a newer one. A late copy is one; a process
    /// that goes on is many. Of two streams nobody knows which entry came first: there time decides.
    fn conflicts(&self, id: &WorkerId) -> u32 {
        let said = self.said.get(id).map_or(&[][..], Vec::as_slice);
        let newest = said.iter().map(|said| said.incarnation).max();
        let of_newest = said.iter().filter(|s| Some(s.incarnation) == newest);
        let begins_ms = of_newest.map(|said| said.ts_ms).min().unwrap_or(i64::MAX);
        let goes_on = |said: &&Said| {
            let later = said.ts_ms > begins_ms.saturating_add(CLOCKS_APART_MS);
            Some(said.incarnation) < newest && (said.is_behind || later)
        };
        u32::try_from(said.iter().filter(goes_on).count()).unwrap_or(u32::MAX)
    }
}

/// Entries behind a shard's committed place that an owner would have committed.
struct Behind {
    next: Offset,
    /// What was folded before, for copies of it.
    seen: BTreeSet<DedupId>,
    entries: Vec<Arc<Envelope>>,
}

impl Behind {
    fn new(next: Offset) -> Self {
        Self {
            next,
            seen: BTreeSet::new(),
            entries: Vec::new(),
        }
    }

    fn note(&mut self, offset: Offset, envelope: Arc<Envelope>) {
        let is_copy = !self.seen.insert(envelope.dedup_id);
        let counts = match &envelope.body {
            // A faulty one leaves nothing behind but its answer.
            // Which functions there are only its coordinator knows.
            Body::Submit(submit) => Graph::parse_stored(&submit.graph).is_ok(),
            _ => envelope.seq.is_some(),
        };
        if offset >= self.next && !is_copy && counts && self.entries.len() < LOOKED_AT_MAX {
            self.entries.push(envelope);
        }
    }
}

/// It is not folded: a submission of a task that the store does not know, or an event under the
/// token that is current by the store.
fn waits(
    envelope: &Envelope,
    known: &BTreeSet<TaskId>,
    current: &BTreeMap<(TaskId, NodeId), Token>,
) -> bool {
    let Some(task_id) = envelope.task_id.clone() else {
        return false;
    };
    if matches!(envelope.body, Body::Submit(_)) {
        return !known.contains(&task_id);
    }
    let Some(node_id) = envelope.node_id.clone() else {
        return false;
    };
    let token = current.get(&(task_id, node_id)).copied();
    token.is_some() && token == envelope.lease_no
}

fn nobody() -> WorkerId {
    match WorkerId::new("nobody") {
        Ok(id) => id,
        Err(error) => unreachable!("a word is an id: {error}"),
    }
}

fn age(now_ms: i64, ts_ms: i64) -> u64 {
    u64::try_from(now_ms.saturating_sub(ts_ms)).unwrap_or(0)
}

impl Client {
    /// Who was heard lately and how far shards are folded: reads the newest entries (2,000 of each)
    /// of the announcements and of every shard's stream.
    ///
    /// # Errors
    /// The store or the transport cannot be read.
    pub async fn presence(&self) -> Result<Presence, PortError> {
        let engine = &self.inner.engine;
        let now_ms = engine.clock().wall_ms();
        let shards = engine.deployment().await?.shards;
        let mut presence = Presence::default();
        let mut speakers = Speakers::default();
        // First what is said on shards, so that the newest status, which is announced, comes last.
        for shard in (0..shards).map(ShardId) {
            let next = match self.read(StoreRequest::ReadShard { shard }).await? {
                StoreReply::Shard(record) => record.next,
                other => return Err(unexpected("read shard", &other)),
            };
            let mut behind = Behind::new(next);
            speakers.begin_stream();
            self.tail(Stream::Shard(shard), &mut |offset, message| {
                let Ok(envelope) = message else {
                    presence.unreadable += 1;
                    return;
                };
                presence.hear(&envelope, now_ms);
                speakers.note(&envelope);
                behind.note(offset, envelope);
            })
            .await?;
            let waiting = self.not_folded(behind).await?;
            for envelope in &waiting {
                if let Ok(id) = WorkerId::new(&envelope.sender.id)
                    && let Some(heard) = presence.workers.get_mut(&id)
                {
                    heard.lag += 1;
                }
            }
            let oldest = waiting.first();
            presence.shards.push(ShardLag {
                shard,
                lag: waiting.len() as u64,
                oldest_ms: oldest.map(|envelope| age(now_ms, envelope.ts_ms)),
                next,
            });
        }
        speakers.begin_stream();
        self.tail(Stream::Announcements, &mut |_, message| match message {
            Ok(envelope) => {
                presence.hear(&envelope, now_ms);
                speakers.note(&envelope);
            }
            Err(()) => presence.unreadable += 1,
        })
        .await?;
        for (id, heard) in &mut presence.workers {
            heard.conflicts = speakers.conflicts(id);
        }
        Ok(presence)
    }

    /// Those of the entries behind a shard's committed place that no owner has folded, in order.
    async fn not_folded(&self, behind: Behind) -> Result<Vec<Arc<Envelope>>, PortError> {
        let Some(first) = behind.entries.first() else {
            return Ok(Vec::new());
        };
        let tasks = behind.entries.iter().filter_map(|e| e.task_id.clone());
        let tasks: Vec<TaskId> = tasks.collect();
        let nodes = behind.entries.iter().filter_map(|e| {
            let node_id = e.node_id.clone().filter(|_| e.seq.is_some())?;
            Some((e.task_id.clone()?, node_id))
        });
        let nodes: Vec<(TaskId, NodeId)> = nodes.collect();
        let worker_id = WorkerId::new(&first.sender.id).unwrap_or_else(|_| nobody());
        let lookup = StoreRequest::LookupTasks {
            tasks: tasks.clone(),
        };
        let known: BTreeSet<TaskId> = match self.read(lookup).await? {
            StoreReply::Answers(answers) => {
                let answered = tasks.iter().zip(answers);
                answered
                    .filter_map(|(id, a)| a.map(|_| id.clone()))
                    .collect()
            }
            other => return Err(unexpected("look tasks up", &other)),
        };
        let grants = StoreRequest::ReadGrants {
            worker_id,
            nodes: nodes.clone(),
        };
        let current: BTreeMap<(TaskId, NodeId), Token> = match self.read(grants).await? {
            StoreReply::Grants { grants, .. } => {
                let granted = nodes.into_iter().zip(grants);
                granted
                    .filter_map(|(key, g)| Some((key, g?.token?)))
                    .collect()
            }
            other => return Err(unexpected("read grants", &other)),
        };
        let entries = behind.entries.into_iter();
        Ok(entries.filter(|e| waits(e, &known, &current)).collect())
    }

    /// Reads the newest entries of a stream, in order; returns its end.
    async fn tail(
        &self,
        stream: Stream,
        each: &mut (dyn FnMut(Offset, Result<Arc<Envelope>, ()>) + Send),
    ) -> Result<Offset, PortError> {
        let (start, end) = match self.ask(TransportRequest::Bounds { stream }).await? {
            TransportReply::Bounds { start, end } => (start, end),
            other => return Err(unexpected("look a stream up", &other)),
        };
        let mut from = start.max(Offset(end.0.saturating_sub(TAIL)));
        while from < end {
            let read = TransportRequest::Read {
                stream,
                from,
                limit: READ_LIMIT,
                wait_ms: READ_WAIT_MS,
            };
            match self.ask(read).await {
                Ok(TransportReply::Entries { entries, next }) => {
                    if entries.is_empty() || next <= from {
                        break;
                    }
                    for entry in entries {
                        each(entry.offset, entry.message.map_err(|_| ()));
                    }
                    from = next;
                }
                Ok(other) => return Err(unexpected("read a stream", &other)),
                // What was to be read is gone already: the log moves on.
                Err(error) if error.kind == ErrorKind::Invalid => break,
                Err(error) => return Err(error),
            }
        }
        Ok(end)
    }

    async fn ask(&self, request: TransportRequest) -> Result<TransportReply, PortError> {
        let engine = &self.inner.engine;
        let call = engine.transport().call(request);
        let patience = engine.rpc_timeout() + std::time::Duration::from_millis(READ_WAIT_MS);
        tokio::time::timeout(patience, call)
            .await
            .unwrap_or_else(|_| {
                let detail = "the transport did not answer in time";
                Err(PortError::new(ErrorKind::Unknown, "read", detail))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowkit_core::message::{
        Capabilities, Capacity, Heartbeat, Sender, WorkerOffline, WorkerOnline,
    };

    fn said(incarnation: u64, ts_ms: i64, body: Body) -> Envelope {
        let sender = Sender {
            role: SenderRole::Worker,
            id: "w".into(),
            incarnation: Incarnation(incarnation),
        };
        Envelope::new(sender, ts_ms, body)
    }

    fn beat(token: u64, in_batch_ms: u64) -> Body {
        Body::Heartbeat(Heartbeat {
            runs: vec![RunBeat {
                task_id: TaskId::new("t").unwrap(),
                node_id: NodeId::new("n").unwrap(),
                token: Token(token),
                batches: 1,
                in_batch_ms,
            }],
        })
    }

    #[test]
    fn the_newest_heartbeat_counts_and_the_longest_batch_is_kept() {
        let mut presence = Presence::default();
        presence.hear(&said(1, 1_000, beat(1, 700)), 10_000);
        presence.hear(&said(1, 4_000, beat(2, 10)), 10_000);
        let heard = &presence.workers[&WorkerId::new("w").unwrap()];
        assert_eq!((heard.age_ms, heard.heartbeat_age_ms), (6_000, Some(6_000)));
        assert_eq!(heard.batch_ms_max, 700);
        assert_eq!(heard.beats.values().next().unwrap().token, Token(2));
    }

    #[test]
    fn an_older_process_that_still_speaks_is_a_conflict_and_changes_nothing_else() {
        let mut presence = Presence::default();
        presence.hear(&said(2, 1_000, beat(1, 0)), 10_000);
        let worker_id = WorkerId::new("w").unwrap();
        let offline = Body::WorkerOffline(WorkerOffline {
            worker_id: worker_id.clone(),
            incarnation: Incarnation(1),
        });
        presence.hear(&said(1, 2_000, offline), 10_000);
        let heard = &presence.workers[&worker_id];
        assert_eq!((heard.status.as_str(), heard.age_ms), ("online", 9_000));
    }

    /// Streams one after the other: what the processes of `w` said in each, and when.
    fn conflicts(streams: &[&[(u64, i64)]]) -> u32 {
        let mut speakers = Speakers::default();
        for stream in streams {
            speakers.begin_stream();
            for (incarnation, ts_ms) in *stream {
                speakers.note(&said(*incarnation, *ts_ms, beat(1, 0)));
            }
        }
        speakers.conflicts(&WorkerId::new("w").unwrap())
    }

    #[test]
    fn an_older_process_that_goes_on_is_a_conflict_in_whichever_stream_it_speaks() {
        assert_eq!(conflicts(&[&[(1, 0), (2, 10), (1, 20), (1, 30)]]), 2);
        let late = [(1, 0), (1, 20_000), (1, 40_000)];
        assert_eq!(conflicts(&[&late, &[(1, 0), (2, 10_000)]]), 2);
        assert_eq!(conflicts(&[&[(2, 10_000)], &late]), 2);
    }

    #[test]
    fn a_restart_is_no_conflict_whichever_stream_is_read_first() {
        let (one, other) = ([(1, 0), (1, 900), (2, 1_000)], [(1, 100), (1, 950)]);
        assert_eq!(conflicts(&[&one, &other]), 0);
        assert_eq!(conflicts(&[&other, &one]), 0);
    }

    fn event(task: &str, token: u64, seq: u64) -> Arc<Envelope> {
        let body = Body::Cancelled(flowkit_core::message::Cancelled {
            reason: flowkit_core::message::CancelReason::Shutdown,
        });
        let mut envelope = said(1, 0, body);
        envelope.task_id = TaskId::new(task).ok();
        envelope.node_id = NodeId::new("n").ok();
        envelope.lease_no = Some(Token(token));
        envelope.seq = Some(seq);
        Arc::new(envelope.identified(0))
    }

    #[test]
    fn only_what_an_owner_would_have_committed_waits() {
        let mut behind = Behind::new(Offset(10));
        behind.note(Offset(9), event("t", 1, 1));
        behind.note(Offset(10), event("t", 1, 1)); // a copy of what is folded
        behind.note(Offset(11), Arc::new(said(1, 0, beat(1, 0)).identified(1)));
        behind.note(Offset(12), event("t", 1, 2));
        behind.note(Offset(13), event("t", 2, 1));
        behind.note(Offset(14), event("u", 1, 1));
        assert_eq!(behind.entries.len(), 3);
        let key = |task: &str| (TaskId::new(task).unwrap(), NodeId::new("n").unwrap());
        let current = BTreeMap::from([(key("t"), Token(2))]);
        let waiting: Vec<bool> = behind
            .entries
            .iter()
            .map(|e| waits(e, &BTreeSet::new(), &current))
            .collect();
        // Of an older token; of the current one; of a node that nobody holds.
        assert_eq!(waiting, [false, true, false]);
    }

    #[test]
    fn an_announcement_says_what_is_abandoned_and_when_silence_means_gone() {
        let online = |abandoned, announce_interval_ms| {
            Body::WorkerOnline(WorkerOnline {
                worker_id: WorkerId::new("w").unwrap(),
                kind: "r".into(),
                capabilities: Capabilities::default(),
                version: "1".into(),
                capacity: Capacity { tasks: 2 },
                status: "online".into(),
                incarnation: Incarnation(1),
                inbox: 0,
                abandoned,
                announce_interval_ms,
            })
        };
        let mut presence = Presence::default();
        let worker_id = WorkerId::new("w").unwrap();
        presence.hear(&said(1, 1_000, beat(1, 0)), 100_000);
        let heard = &presence.workers[&worker_id];
        assert_eq!((heard.silent_after_ms, heard.is_silent()), (90_000, true));
        presence.hear(&said(1, 2_000, online(1, 600_000)), 100_000);
        let heard = &presence.workers[&worker_id];
        assert_eq!((heard.abandoned, heard.silent_after_ms), (1, 900_000));
        assert!(!heard.is_silent());
        // Another process of it has none of those handlers.
        presence.hear(&said(2, 3_000, beat(2, 0)), 100_000);
        assert_eq!(presence.workers[&worker_id].abandoned, 0);
    }

    #[test]
    fn a_clock_that_is_ahead_gives_no_negative_age() {
        let mut presence = Presence::default();
        presence.hear(&said(1, 20_000, beat(1, 0)), 10_000);
        let heard = presence.workers.values().next().unwrap();
        assert_eq!(heard.age_ms, 0);
    }
}
