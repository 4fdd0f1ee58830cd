//! What a batch and a run leave: artifacts, BATCH_OK, the result.

use super::Worker;
use super::calls::For;
use super::io::{Effect, RunId};
use super::limits;
use super::run::{Done, Work};
use super::timers::Timer;
use crate::json::Json;
use crate::message::{
    ARTIFACT_INLINE_BYTES_MAX, Artifact, BatchOk, Body, CancelReason, Metrics, TaskDone,
};
use crate::planted::{Bug, is_planted};
use crate::port::{ErrorKind, PortError, StoreReply, StoreRequest};
use crate::time::Now;

/// How long the last batch waits for `finalize`, to travel inside TASK_DONE: one event, and one
/// commit, for a node of one batch. A longer `finalize` does not hold it back.
const HELD_BATCH_MS: u64 = 50;

impl Worker {
    /// The batch succeeded.
    pub(super) fn processed(
        &mut self,
        id: RunId,
        metrics: Metrics,
        artifact: Option<Json>,
        result: Option<Json>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let values = [artifact.as_ref(), result.as_ref()];
        let fits = limits::check_output(&metrics, values);
        if let Err(failure) = fits.and_then(|()| limits::check_mark(result.as_ref())) {
            let uid = self.batch_in_work(id);
            self.fail(id, uid, &failure, now, out);
            return;
        }
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        if run.is_fenced() || run.abandoned {
            self.drop_result(id, now, out);
            return;
        }
        let Work::Processing(batch) = &run.work else {
            return;
        };
        let done = Done {
            uid: batch.uid.clone(),
            last: batch.last,
            cursor: batch.cursor.clone(),
            checkpoint: batch.checkpoint.clone(),
            metrics,
            result,
        };
        match artifact {
            Some(body) if body.len() > ARTIFACT_INLINE_BYTES_MAX => {
                let bytes = body.len() as u64;
                if is_planted(Bug::StagedUnsent) {
                    return self.batch_done(id, done, Some(Artifact::Staged(bytes)), now, out);
                }
                let request = StoreRequest::StageArtifact {
                    task_id: run.task_id.clone(),
                    node_id: run.node_id.clone(),
                    batch_uid: done.uid.clone(),
                    token: run.token,
                    body,
                };
                run.work = Work::Staging(Box::new((done.clone(), bytes)));
                self.call(For::Stage(id), request, now, out);
                if is_planted(Bug::StagedEarly) {
                    self.batch_done(id, done, Some(Artifact::Staged(bytes)), now, out);
                }
            }
            artifact => self.batch_done(id, done, artifact.map(Artifact::Inline), now, out),
        }
    }

    /// The token is not current, or the run's end was told: the result has no place.
    fn drop_result(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        if run.abandoned {
            self.close_late(id, now, out);
        } else {
            self.wind_up(id, now, out);
        }
    }

    pub(super) fn artifact_staged(
        &mut self,
        id: RunId,
        result: Result<StoreReply, PortError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        let Work::Staging(staged) = &run.work else {
            return;
        };
        let (done, bytes) = (staged.0.clone(), staged.1);
        match result {
            Ok(_) => self.batch_done(id, done, Some(Artifact::Staged(bytes)), now, out),
            Err(error) if error.kind == ErrorKind::Fenced => {
                self.end_run(id, CancelReason::Fenced, now.mono, now, out);
            }
            Err(error) => {
                let failure = limits::permanent("artifact_refused", &error.to_string());
                self.fail(id, Some(done.uid), &failure, now, out);
            }
        }
    }

    fn batch_done(
        &mut self,
        id: RunId,
        done: Done,
        artifact: Option<Artifact>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let ok = BatchOk {
            batch_uid: done.uid,
            metrics: done.metrics,
            artifact,
            checkpoint: done.checkpoint,
            cursor: done.cursor,
            result: done.result,
        };
        let bytes = limits::batch_bytes(&ok);
        let envelope = self.next_event(id, Body::BatchOk(ok.clone()), now);
        if !limits::fits(bytes, || envelope.clone()) {
            let text = "metrics, artifact, checkpoint and result of the batch do not fit into a \
                        message";
            let failure = limits::permanent("message_too_large", text);
            self.fail(id, Some(ok.batch_uid), &failure, now, out);
            return;
        }
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        run.tally.done(&ok.metrics);
        if done.last && !run.is_ending() {
            run.held = Some(ok);
            self.timers
                .set(Timer::HeldBatch(id), now.mono.after(HELD_BATCH_MS));
            self.finalize(id, out);
            return;
        }
        // Between batches until `proceed` decides what comes next.
        run.work = Work::Crowded;
        self.queue(id, envelope, false, out);
        self.proceed(id, now, out);
    }

    /// `finalize` takes long: the last batch goes ahead.
    pub(super) fn send_held(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        let held = self.runs.get_mut(&id).and_then(|run| run.held.take());
        if let Some(held) = held {
            let envelope = self.next_event(id, Body::BatchOk(held), now);
            self.queue(id, envelope, false, out);
        }
    }

    /// `finalize` succeeded: the work is done, even if the run was told to end meanwhile.
    pub(super) fn finalized(&mut self, id: RunId, done: TaskDone, now: Now, out: &mut Vec<Effect>) {
        if self.runs[&id].is_fenced() || self.runs[&id].abandoned {
            self.drop_result(id, now, out);
            return;
        }
        if let Err(failure) = limits::check_output(&done.metrics, [done.result.as_ref()]) {
            self.fail(id, None, &failure, now, out);
            return;
        }
        let bytes = limits::done_bytes(&done);
        let event = || self.next_event(id, Body::TaskDone(done.clone()), now);
        if !limits::fits(bytes, event) {
            let text = "metrics and result of `finalize` do not fit into a message";
            let failure = limits::permanent("message_too_large", text);
            self.fail(id, None, &failure, now, out);
            return;
        }
        if let Some(run) = self.runs.get_mut(&id) {
            run.verdict.get_or_insert(Body::TaskDone(done));
        }
        self.wind_up(id, now, out);
    }
}
