//! `single_owner`, the part that needs the whole life of a token: a run begins only under a token
//! that its own process saw as current, goes on only while it may (its lease lives, nobody told it
//! that it is fenced), and is taken from its holder only for a reason that the streams show.

use std::collections::{BTreeMap, BTreeSet};

use flowkit_core::id::{DedupId, Incarnation, NodeId, Offset, TaskId, Token, WorkerId};
use flowkit_core::message::{Body, Envelope};
use flowkit_core::port::Stream;

use super::{Judge, View};
use crate::history::{Change, Life, NodeFact, Place, Run, Step, What};

const NAME: &str = "single_owner";
/// Clocks show milliseconds, and a machine acts on its clock at its next input.
const SLACK_US: u64 = 5_000;

type Key = (TaskId, NodeId, Token);

#[derive(Debug, Default)]
pub(super) struct Tokens {
    grants: BTreeMap<Key, Granted>,
    /// Process starts that a place registered.
    registered: BTreeMap<Place, BTreeSet<Incarnation>>,
    newest: BTreeMap<WorkerId, Incarnation>,
    /// Tokens that a read of a process showed as current.
    seen_current: BTreeSet<(Place, Key)>,
    /// Tokens that a process was told to be over, and when.
    fenced: BTreeMap<(Place, Key), u64>,
    /// When a frozen host went on.
    resumed: BTreeMap<u32, u64>,
    /// Runs whose one late step after that has been seen.
    late: BTreeSet<(Place, Key, u64)>,
    /// When a process died last.
    died_at: Option<u64>,
    /// Up to where the offsets of a stream are given out again: nobody may ever read what comes to
    /// stand there, because an owner believed to have read it.
    given_again: BTreeMap<Stream, Offset>,
}

/// A token since its grant.
#[derive(Debug)]
struct Granted {
    at: u64,
    holder: (WorkerId, Incarnation),
    /// When a message of its holder named it last (a late copy is one, too).
    named_at: u64,
    longest_silence: u64,
    /// When a heartbeat named it last, copies aside.
    beat_at: Option<u64>,
    beats: BTreeSet<DedupId>,
    seq_max: u64,
    /// Some message of its is missing: by `seq`, or with the log that it stood in.
    gap: bool,
    /// Where its messages stand.
    places: BTreeSet<(Stream, Offset)>,
    /// A message that ends the run stands in the stream: it is to be read before anything is lost.
    ended: bool,
    /// That message says that the lease was lost.
    released: bool,
}

impl Judge for Tokens {
    fn event(&mut self, view: &mut View<'_>) {
        let at = view.event.at;
        match &view.event.what {
            What::Appended {
                stream: stream @ Stream::Shard(_),
                offset,
                envelope,
            } => self.appended(at, (*stream, *offset), envelope),
            What::LogLost { shard, from, end } => self.log_lost(Stream::Shard(*shard), *from, *end),
            What::Committed { changes, .. } => {
                for change in changes {
                    if let Change::Node {
                        task,
                        node,
                        old,
                        new,
                    } = change
                    {
                        self.node(view, (task, node), old.as_deref(), new);
                    }
                }
            }
            What::Undone { changes } => {
                // A token that a crash took back may be given out again.
                for change in changes {
                    if let Change::Node {
                        task, node, new, ..
                    } = change
                    {
                        let key = (task.clone(), node.clone(), new.token);
                        self.grants.remove(&key);
                        self.fenced.retain(|(_, other), _| *other != key);
                        self.seen_current.retain(|(_, other)| *other != key);
                    }
                }
            }
            What::Registered {
                place,
                worker,
                incarnation,
            } => {
                self.registered
                    .entry(*place)
                    .or_default()
                    .insert(*incarnation);
                let newest = self.newest.entry(worker.clone()).or_default();
                *newest = (*newest).max(*incarnation);
            }
            What::GrantsRead { place, nodes } => {
                for (task, node) in nodes.iter() {
                    if let Some(fact) = view.ledger.fact(task, node)
                        && fact.holder.is_some()
                    {
                        let key = (task.clone(), node.clone(), fact.token);
                        self.seen_current.insert((*place, key));
                    }
                }
            }
            What::ToldFenced {
                place,
                task,
                node,
                token,
            } => {
                let key = (task.clone(), node.clone(), *token);
                self.fenced.entry((*place, key)).or_insert(at);
            }
            What::Handler { run, step } => match step {
                Step::Begin => {
                    self.begins(view, run);
                    self.goes_on(view, run, "began");
                }
                Step::Process { .. } => self.goes_on(view, run, "began a batch"),
                Step::Finalize => self.goes_on(view, run, "began to finalize"),
                _ => {}
            },
            What::Process { place, what } => match what {
                Life::Crashed | Life::Stopped => self.died_at = Some(at),
                Life::Resumed => {
                    self.resumed.insert(place.host, at);
                }
                Life::Started | Life::Stalled | Life::Asked { .. } => {}
            },
            _ => {}
        }
    }
}

impl Tokens {
    /// A token of which a message is gone may be lost for that.
    fn log_lost(&mut self, stream: Stream, from: Offset, end: Offset) {
        for granted in self.grants.values_mut() {
            let mut gone = granted.places.range((stream, from)..(stream, end));
            granted.gap |= gone.next().is_some();
        }
        let up_to = self.given_again.entry(stream).or_default();
        *up_to = end.max(*up_to);
    }

    fn appended(&mut self, at: u64, place: (Stream, Offset), envelope: &Envelope) {
        let unread = self.given_again.get(&place.0);
        let unread = unread.is_some_and(|up_to| place.1 < *up_to);
        let from = (&*envelope.sender.id, envelope.sender.incarnation);
        let holds = |granted: &Granted| (granted.holder.0.as_str(), granted.holder.1) == from;
        if let Body::Heartbeat(heartbeat) = &envelope.body {
            for beat in &heartbeat.runs {
                let key = (beat.task_id.clone(), beat.node_id.clone(), beat.token);
                if let Some(granted) = self.grants.get_mut(&key).filter(|g| holds(g)) {
                    granted.named(at);
                    granted.stands(place, unread);
                    if granted.beats.insert(envelope.dedup_id) {
                        granted.beat_at = Some(at);
                    }
                }
            }
            return;
        }
        let (Some(task), Some(node), Some(token), Some(seq)) = (
            &envelope.task_id,
            &envelope.node_id,
            envelope.lease_no,
            envelope.seq,
        ) else {
            return;
        };
        let key = (task.clone(), node.clone(), token);
        if let Some(granted) = self.grants.get_mut(&key).filter(|g| holds(g)) {
            granted.named(at);
            granted.stands(place, unread);
            granted.gap |= seq > granted.seq_max + 1;
            granted.seq_max = granted.seq_max.max(seq);
            granted.ended |= !matches!(envelope.body, Body::BatchOk(_));
            granted.released |= matches!(envelope.body, Body::TaskReleased(_));
        }
    }

    fn node(
        &mut self,
        view: &mut View<'_>,
        (task, node): (&TaskId, &NodeId),
        old: Option<&NodeFact>,
        new: &NodeFact,
    ) {
        let at = view.event.at;
        let old_token = old.map_or(Token(0), |old| old.token);
        if let Some(old) = old
            && old.holder.is_some()
            && new.losses > old.losses
            && (new.token == old.token || new.holder.is_some() && new.token == old.token.next())
        {
            // (With more tokens in one commit the loss may be of one that nobody ever saw.)
            self.lost(view, (task.clone(), node.clone(), old.token));
        }
        if let Some(holder) = new.holder.as_ref().filter(|_| new.token > old_token) {
            self.grants.insert(
                (task.clone(), node.clone(), new.token),
                Granted {
                    at,
                    holder: holder.clone(),
                    named_at: at,
                    longest_silence: 0,
                    beat_at: None,
                    beats: BTreeSet::new(),
                    seq_max: 0,
                    gap: false,
                    places: BTreeSet::new(),
                    ended: false,
                    released: false,
                },
            );
        }
    }

    /// A grant was counted as lost: its holder fell silent for a lease, left a gap, let go, or died.
    fn lost(&mut self, view: &mut View<'_>, key: Key) {
        let Some(granted) = self.grants.get_mut(&key) else {
            return;
        };
        granted.named(view.event.at);
        let world = &view.plan.world;
        let lease = world.lease_ttl_ms * 1_000;
        let drift = lease * 2 * world.clock_rate_error_ppm / 1_000_000 + SLACK_US;
        let drift = drift + world.reading_us();
        let newest = self.newest.get(&granted.holder.0);
        let replaced = newest.is_some_and(|newest| *newest > granted.holder.1);
        // A process may die in the very instant of the commit that grants.
        let died = world.embedded && self.died_at.is_some_and(|died| died >= granted.at);
        let silent = granted.longest_silence + drift >= lease;
        // An owner that left the task alone for a while passed over what stood in the stream then.
        let gap = granted.gap || view.ledger.was_refused(&key.0);
        if !(replaced || died || silent || gap || granted.released) {
            let what = format!(
                "{}/{}: token {} was taken from {}, which was silent for {} ms at most (its end \
                 stands in the stream: {})",
                key.0,
                key.1,
                key.2,
                granted.holder.0,
                granted.longest_silence / 1_000,
                granted.ended
            );
            view.broken(NAME, what);
        }
    }

    fn begins(&self, view: &mut View<'_>, run: &Run) {
        let key = (run.task.clone(), run.node.clone(), run.token);
        if !self.seen_current.contains(&(run.place, key.clone())) {
            let what = format!(
                "{}/{}: token {} began, no read of its process showed it as current",
                run.task, run.node, run.token
            );
            view.broken(NAME, what);
        }
        let (Some(granted), Some(registered)) =
            (self.grants.get(&key), self.registered.get(&run.place))
        else {
            return;
        };
        if !registered.contains(&granted.holder.1) {
            let what = format!(
                "{}/{}: token {} began in process {registered:?} of {}, granted to {}",
                run.task, run.node, run.token, run.worker, granted.holder.1
            );
            view.broken(NAME, what);
        }
    }

    fn goes_on(&mut self, view: &mut View<'_>, run: &Run, did: &str) {
        let key = (run.task.clone(), run.node.clone(), run.token);
        let (world, at) = (&view.plan.world, view.event.at);
        // Between what a process knew when it said "go on" and the handler doing so it may have
        // been frozen, or others had the processor.
        let slack = world.slack_us();
        let resumed = self.resumed.get(&run.place.host).copied();
        if slack > 0
            && let Some(resumed) = resumed.filter(|resumed| at <= resumed + slack)
            && self.late.insert((run.place, key.clone(), resumed))
        {
            return; // The one that was on its way.
        }
        let told = self.fenced.get(&(run.place, key.clone()));
        if told.is_some_and(|told| at >= told + slack) {
            let what = format!(
                "{}/{}: token {} {did} after its process was told that it is fenced",
                run.task, run.node, run.token
            );
            view.broken(NAME, what);
        }
        let Some(granted) = self.grants.get(&key) else {
            return;
        };
        let lease = world.lease_ttl_ms * 1_000;
        let drift = lease * 2 * world.clock_rate_error_ppm / 1_000_000 + SLACK_US;
        let lapsed = granted
            .beat_at
            .is_none_or(|beat| at > beat + lease + drift + slack);
        if lapsed {
            let what = format!(
                "{}/{}: token {} {did} without a live lease; its last heartbeat stood in the \
                 stream {:?} ms before",
                run.task,
                run.node,
                run.token,
                granted
                    .beat_at
                    .map(|beat| view.event.at.saturating_sub(beat) / 1_000)
            );
            view.broken(NAME, what);
        }
    }
}

impl Granted {
    /// A message of it stands in a stream, where it may never be read.
    fn stands(&mut self, place: (Stream, Offset), unread: bool) {
        self.places.insert(place);
        self.gap |= unread;
    }

    fn named(&mut self, at: u64) {
        if self.ended {
            return; // Nothing more is to be said.
        }
        let silence = at.saturating_sub(self.named_at);
        self.longest_silence = self.longest_silence.max(silence);
        self.named_at = at;
    }
}
