//! Heartbeats: one message per shard and interval names all its runs. The first one that names a
//! token accepts its START; every confirmed one moves the leases of the runs it names.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

use super::Worker;
use super::calls::Sent;
use super::cancel::LAPSE_GRACE_MS;
use super::io::{Effect, RunCommand, RunId};
use super::run::Work;
use super::timers::Timer;
use crate::id::ShardId;
use crate::message::{Body, CancelReason, Envelope, Heartbeat, RunBeat};
use crate::planted::{Bug, is_planted};
use crate::port::{PortError, Stream, TransportReply};
use crate::report::ReportKind;
use crate::time::{Mono, Now};

/// Runs named by one message, so that it stays below the message limit.
const RUNS_PER_BEAT: usize = 512;

/// The runs that are named, by shard.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Beats {
    shards: BTreeMap<ShardId, ShardBeats>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct ShardBeats {
    runs: BTreeSet<RunId>,
    failures: u32,
}

impl Beats {
    pub(super) fn names(&self, shard: ShardId, run: RunId) -> bool {
        let beats = self.shards.get(&shard);
        beats.is_some_and(|beats| beats.runs.contains(&run))
    }

    pub(super) fn len(&self) -> usize {
        self.shards.values().map(|beats| beats.runs.len()).sum()
    }
}

impl Worker {
    /// The grants of these runs are current: one heartbeat per shard accepts their STARTs.
    pub(super) fn accept(&mut self, runs: Vec<RunId>, now: Now, out: &mut Vec<Effect>) {
        let mut by_shard: BTreeMap<ShardId, Vec<RunId>> = BTreeMap::new();
        for id in runs {
            let Some(run) = self.runs.get_mut(&id) else {
                continue;
            };
            run.work = Work::Accepting;
            let until = run.lease.ask(now.mono);
            self.timers.set(Timer::Lease(id), until);
            by_shard.entry(run.shard).or_default().push(id);
        }
        for (shard, runs) in by_shard {
            let beats = self.beats.shards.entry(shard).or_default();
            if beats.runs.is_empty() {
                let every_ms = beat_every_ms(self.config.hb_interval_ms, self.ttl_ms);
                self.timers
                    .set(Timer::Beat(shard), now.mono.after(every_ms));
            }
            beats.runs.extend(&runs);
            self.send_beats(shard, runs, now, out);
        }
    }

    /// The regular heartbeat of a shard.
    pub(super) fn beat(&mut self, shard: ShardId, now: Now, out: &mut Vec<Effect>) {
        let Some(beats) = self.beats.shards.get(&shard) else {
            return;
        };
        let runs: Vec<_> = beats.runs.iter().copied().collect();
        let every_ms = beat_every_ms(self.config.hb_interval_ms, self.ttl_ms);
        self.timers
            .set(Timer::Beat(shard), now.mono.after(every_ms));
        self.send_beats(shard, runs, now, out);
    }

    /// Sends heartbeats that name the given runs.
    pub(super) fn send_beats(
        &mut self,
        shard: ShardId,
        runs: Vec<RunId>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        for part in runs.chunks(RUNS_PER_BEAT) {
            let beats = part.iter().filter_map(|id| {
                let run = self.runs.get(id)?;
                let in_batch_ms = match &run.work {
                    Work::Processing(batch) => now.mono.since(batch.since),
                    _ => 0,
                };
                Some(RunBeat {
                    task_id: run.task_id.clone(),
                    node_id: run.node_id.clone(),
                    token: run.token,
                    batches: run.tally.counts().new,
                    in_batch_ms,
                })
            });
            let body = Body::Heartbeat(Heartbeat {
                runs: beats.collect(),
            });
            let nonce = self.nonce();
            let envelope = Envelope::new(self.sender.clone(), now.wall_ms, body).identified(nonce);
            let why = Sent::Beat {
                shard,
                at: now.mono,
                runs: part.to_vec(),
            };
            self.send(Stream::Shard(shard), envelope, why, out);
        }
    }

    pub(super) fn beat_sent(
        &mut self,
        shard: ShardId,
        sent: Mono,
        runs: &[RunId],
        result: &Result<TransportReply, PortError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if result.is_err() && !is_planted(Bug::BeatAssumed) {
            let Some(beats) = self.beats.shards.get_mut(&shard) else {
                return;
            };
            beats.failures += 1;
            let failures = beats.failures;
            let wait_ms = self.backoff_ms(failures);
            self.timers
                .set_earlier(Timer::Beat(shard), now.mono.after(wait_ms));
            return;
        }
        if let Some(beats) = self.beats.shards.get_mut(&shard) {
            beats.failures = 0;
        }
        for id in runs {
            let Some(run) = self.runs.get_mut(id) else {
                continue;
            };
            // A lapsed run is not revived: it is ending already.
            let Some(until) = run.lease.confirm(sent, now.mono) else {
                continue;
            };
            if !run.outgoing.has_terminal() {
                self.timers.set(Timer::Lease(*id), until);
            }
            if matches!(run.work, Work::Accepting) && !run.is_ending() {
                run.work = Work::Loading;
                let spec = Box::new(run.spec());
                self.report_run(*id, ReportKind::Run, "started", out);
                let command = RunCommand::Begin(spec);
                out.push(Effect::Run { run: *id, command });
            }
        }
    }

    /// The lease ran out on this worker's own clock.
    pub(super) fn lease_lapsed(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        if is_planted(Bug::LeaseIgnored) {
            return;
        }
        let deadline = now.mono.after(LAPSE_GRACE_MS);
        self.end_run(id, CancelReason::LeaseLapsed, deadline, now, out);
    }

    /// The run is not named any more: its end is confirmed, or its token is not current.
    pub(super) fn stop_beating(&mut self, shard: ShardId, id: RunId) {
        if let Some(beats) = self.beats.shards.get_mut(&shard) {
            beats.runs.remove(&id);
            if beats.runs.is_empty() {
                self.beats.shards.remove(&shard);
                self.timers.cancel(Timer::Beat(shard));
            }
        }
    }
}

/// A lease must survive two lost heartbeats.
fn beat_every_ms(hb_interval_ms: u64, ttl_ms: u64) -> u64 {
    hb_interval_ms.min(ttl_ms / 3).max(1)
}
