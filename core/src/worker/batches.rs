//! A run's batches: begin, draw, skip or process, checkpoint, finalize.

use super::Worker;
use super::adapter::{Args, Puller, is_known};
use super::calls::For;
use super::io::{Effect, RunCommand, RunEvent, RunFailure, RunId};
use super::limits;
use super::outgoing::UNCONFIRMED_MAX;
use super::run::{Drawn, InWork, Work};
use super::tally::Meeting;
use crate::id::BatchUid;
use crate::message::{AdapterSpec, CancelReason, TaskDone};
use crate::planted::{Bug, is_planted};
use crate::port::{ErrorKind, PortError, StoreReply, StoreRequest};
use crate::time::Now;

/// Accepted uids asked for at once.
const ACCEPTED_PAGE: u32 = 1_000;

impl Worker {
    /// Something happened in a handler.
    pub(super) fn run_event(
        &mut self,
        id: RunId,
        event: RunEvent,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else {
            self.rejected("an event of a run that is over", out);
            return;
        };
        match (&run.work, event) {
            (Work::Loading, RunEvent::Loaded { adapter }) => self.loaded(id, adapter, now, out),
            (
                Work::Drawing,
                RunEvent::Batch {
                    batch_uid,
                    payload,
                    last,
                },
            ) => {
                let drawn = Drawn {
                    uid: batch_uid,
                    payload,
                    last,
                    cursor: None,
                };
                self.drawn(id, drawn, now, out);
            }
            (Work::Drawing, RunEvent::BatchesEnded) => self.batches_ended(id, now, out),
            (
                Work::Processing(_),
                RunEvent::Processed {
                    metrics,
                    artifact,
                    result,
                },
            ) => {
                self.processed(id, metrics, artifact, result, now, out);
            }
            (_, RunEvent::Checkpoint(checkpoint)) => self.save(id, checkpoint, now, out),
            (Work::Finalizing, RunEvent::Finalized { metrics, result }) => {
                let done = TaskDone {
                    metrics,
                    result,
                    counts: run.tally.counts(),
                    last_batch: None,
                };
                self.finalized(id, done, now, out);
            }
            (Work::Closing, RunEvent::Closed | RunEvent::Failed(_)) => self.closed(id, now, out),
            (work, RunEvent::Failed(failure)) if work.handler_busy() => {
                self.handler_failed(id, &failure, now, out);
            }
            (work, event) => {
                let why = format!("{} of a run that is {}", event.name(), work.name());
                self.rejected(&why, out);
            }
        }
    }

    fn handler_failed(&mut self, id: RunId, failure: &RunFailure, now: Now, out: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        if run.abandoned {
            return self.close_late(id, now, out);
        }
        // What a handler answers after it was told to end is no failure of its own.
        if run.ending.is_some_and(|ending| ending.told) {
            self.wind_up(id, now, out);
            return;
        }
        let uid = match &run.work {
            Work::Processing(batch) => Some(batch.uid.clone()),
            _ => None,
        };
        self.fail(id, uid, failure, now, out);
    }

    /// The handler is ready. Only now it is known what drives the node: the graph's adapter, else
    /// one that the handler proposes, else its own batches. So only now it is known behind how many
    /// accepted batches the source resumes.
    fn loaded(
        &mut self,
        id: RunId,
        proposed: Option<AdapterSpec>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        if run.is_ending() {
            self.wind_up(id, now, out);
            return;
        }
        let proposed = proposed.filter(is_known);
        let proposed = proposed.filter(|_| !is_planted(Bug::ProposalIgnored));
        let spec = if proposed.is_some() && is_planted(Bug::ProposalFirst) {
            proposed
        } else {
            run.start.adapter.clone().or(proposed)
        };
        let mut behind = run.start.checkpoint_batches;
        if let Some(spec) = spec {
            let puller = Args::parse(&spec, &self.config)
                .and_then(|args| Puller::new(args, &run.start.cursor, &run.start.sources));
            match puller {
                Ok(puller) => run.puller = Some(puller),
                Err((reason_code, text)) => {
                    let failure = limits::permanent(reason_code, &text);
                    self.fail(id, None, &failure, now, out);
                    return;
                }
            }
            behind = run.start.cursor_batches;
        }
        run.tally.resumes_behind(behind);
        if !run.has_predecessor() {
            self.proceed(id, now, out);
            return;
        }
        let accepted = run.start.accepted > behind && !is_planted(Bug::AcceptedAgain);
        run.work = Work::Reading {
            scratch: true,
            accepted,
        };
        let request = StoreRequest::TakeScratch {
            task_id: run.task_id.clone(),
            node_id: run.node_id.clone(),
            token: run.token,
        };
        self.call(For::Scratch(id), request, now, out);
        if accepted {
            self.read_accepted(id, behind, now, out);
        }
    }

    fn read_accepted(&mut self, id: RunId, after: u64, now: Now, out: &mut Vec<Effect>) {
        let run = &self.runs[&id];
        let request = StoreRequest::ReadAccepted {
            task_id: run.task_id.clone(),
            node_id: run.node_id.clone(),
            after,
            limit: ACCEPTED_PAGE,
        };
        self.call(For::Accepted(id), request, now, out);
    }

    pub(super) fn scratch_taken(
        &mut self,
        id: RunId,
        result: Result<StoreReply, PortError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        let Work::Reading { scratch, accepted } = &mut run.work else {
            return;
        };
        match result {
            Ok(StoreReply::Scratch(found)) => {
                *scratch = false;
                let ready = !*accepted;
                // Saves that an earlier process made under this token (a crash took its grant
                // back) are older than every save of this run.
                if let Some(own) = found.as_ref().filter(|found| found.token == run.token) {
                    run.saves_newest = run.saves_newest.max(own.save_no);
                }
                run.scratch = found;
                if ready {
                    self.proceed(id, now, out);
                }
            }
            Err(error) if error.kind == ErrorKind::Fenced => {
                self.end_run(id, CancelReason::Fenced, now.mono, now, out);
            }
            other => self.store_refused(id, other, now, out),
        }
    }

    pub(super) fn accepted_read(
        &mut self,
        id: RunId,
        result: Result<StoreReply, PortError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        let Work::Reading { scratch, accepted } = &mut run.work else {
            return;
        };
        let page = match result {
            Ok(StoreReply::Accepted(page)) => page,
            other => {
                self.store_refused(id, other, now, out);
                return;
            }
        };
        if !run.tally.add_accepted(page.iter().map(|(_, uid)| uid)) {
            let text = "too many accepted batches lie after the last checkpoint; save checkpoints";
            let failure = limits::permanent("too_many_accepted", text);
            self.fail(id, None, &failure, now, out);
            return;
        }
        let last = page.last().map(|(number, _)| *number);
        match last {
            Some(last) if last < run.start.accepted => self.read_accepted(id, last, now, out),
            _ => {
                *accepted = false;
                if !*scratch {
                    self.proceed(id, now, out);
                }
            }
        }
    }

    /// A read that cannot succeed: the attempt fails, another one may meet a better store.
    pub(super) fn store_refused(
        &mut self,
        id: RunId,
        result: Result<StoreReply, PortError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let text = match result {
            Err(error) => error.to_string(),
            Ok(_) => "the store's answer is of another kind".to_owned(),
        };
        let failure = limits::transient("store_refused", &text);
        self.fail(id, None, &failure, now, out);
    }

    /// Between batches: end, wait for confirmations, or draw the next batch.
    pub(super) fn proceed(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        if run.is_ending() {
            self.wind_up(id, now, out);
        } else if run.outgoing.len() >= UNCONFIRMED_MAX {
            run.work = Work::Crowded;
        } else if run.puller.is_some() {
            self.pull(id, now, out);
        } else {
            run.work = Work::Drawing;
            let command = RunCommand::NextBatch;
            out.push(Effect::Run { run: id, command });
        }
    }

    /// The handler's own source yields a batch.
    fn drawn(&mut self, id: RunId, drawn: Drawn, now: Now, out: &mut Vec<Effect>) {
        let last = drawn.last;
        if self.runs.get(&id).is_some_and(super::run::Run::is_ending) {
            self.wind_up(id, now, out);
            return;
        }
        if !self.meet(id, drawn, now, out) {
            return;
        }
        if last {
            self.finalize(id, out);
        } else {
            self.proceed(id, now, out);
        }
    }

    /// Processes a batch that the source yields. True if it is to be skipped.
    pub(super) fn meet(
        &mut self,
        id: RunId,
        drawn: Drawn,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(run) = self.runs.get_mut(&id) else {
            return false;
        };
        match run.tally.meet(&drawn.uid) {
            Meeting::Skip => return true,
            Meeting::Duplicate => {
                let text = format!("batch uid `{}` came twice in one attempt", drawn.uid);
                let failure = limits::permanent("duplicate_batch_uid", &text);
                self.fail(id, Some(drawn.uid), &failure, now, out);
                return false;
            }
            Meeting::New => {}
        }
        // Only the very batch that was in work gets what an earlier holder saved in it.
        let checkpoint = run
            .scratch
            .take_if(|scratch| scratch.batch_uid.as_ref() == Some(&drawn.uid))
            .filter(|_| !is_planted(Bug::SavedLost))
            .map(|scratch| scratch.checkpoint);
        // A cursor says that every batch accepted so far lies behind it. An earlier holder may have
        // left an artifact of another source half done: until those batches are met, it is kept back.
        let cursor = drawn
            .cursor
            .filter(|_| run.tally.met_all_accepted() || is_planted(Bug::CursorOverAccepted));
        run.work = Work::Processing(InWork {
            uid: drawn.uid.clone(),
            last: drawn.last,
            cursor,
            checkpoint: checkpoint.clone(),
            since: now.mono,
        });
        let command = RunCommand::Process {
            batch_uid: drawn.uid,
            payload: drawn.payload,
            checkpoint,
        };
        out.push(Effect::Run { run: id, command });
        false
    }

    /// The source is at its end.
    pub(super) fn batches_ended(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        if self.runs.get(&id).is_some_and(super::run::Run::is_ending) {
            self.wind_up(id, now, out);
        } else {
            self.finalize(id, out);
        }
    }

    /// Every batch is done.
    pub(super) fn finalize(&mut self, id: RunId, out: &mut Vec<Effect>) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.work = Work::Finalizing;
            let totals = run.tally.totals().clone();
            let command = RunCommand::Finalize { totals };
            out.push(Effect::Run { run: id, command });
        }
    }

    /// Keeps a checkpoint of the batch in work.
    fn save(&mut self, id: RunId, checkpoint: crate::json::Json, now: Now, out: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        match limits::check_save(run, &checkpoint) {
            Ok(uid) => {
                run.saves.push_back((uid, checkpoint));
                if run.saves.len() == 1 {
                    self.put_checkpoint(id, now, out);
                }
            }
            Err(failure) => {
                let command = RunCommand::CheckpointSaved(Err(failure));
                out.push(Effect::Run { run: id, command });
            }
        }
    }

    fn put_checkpoint(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        if let Some((batch_uid, checkpoint)) = run.saves.front().cloned() {
            run.saves_newest += 1;
            let request = StoreRequest::PutScratch {
                task_id: run.task_id.clone(),
                node_id: run.node_id.clone(),
                token: run.token,
                save_no: run.saves_newest,
                batch_uid,
                checkpoint,
            };
            self.call(For::Save(id), request, now, out);
        }
    }

    pub(super) fn checkpoint_put(
        &mut self,
        id: RunId,
        result: Result<StoreReply, PortError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        let Some((uid, checkpoint)) = run.saves.pop_front() else {
            return;
        };
        let saved = match result {
            Ok(_) => {
                if let Work::Processing(batch) = &mut run.work
                    && batch.uid == uid
                {
                    batch.checkpoint = Some(checkpoint);
                }
                Ok(())
            }
            Err(error) if error.kind == ErrorKind::Fenced => {
                self.end_run(id, CancelReason::Fenced, now.mono, now, out);
                return;
            }
            Err(error) => Err(limits::transient("checkpoint_refused", &error.to_string())),
        };
        let command = RunCommand::CheckpointSaved(saved);
        out.push(Effect::Run { run: id, command });
        self.put_checkpoint(id, now, out);
    }

    /// The batch that `fail` is about, if one is in work.
    pub(super) fn batch_in_work(&self, id: RunId) -> Option<BatchUid> {
        match &self.runs.get(&id)?.work {
            Work::Processing(batch) => Some(batch.uid.clone()),
            Work::Staging(staged) => Some(staged.0.uid.clone()),
            _ => None,
        }
    }
}

impl RunEvent {
    /// For people.
    const fn name(&self) -> &'static str {
        match self {
            Self::Loaded { .. } => "`Loaded`",
            Self::Batch { .. } => "`Batch`",
            Self::BatchesEnded => "`BatchesEnded`",
            Self::Checkpoint(_) => "`Checkpoint`",
            Self::Processed { .. } => "`Processed`",
            Self::Finalized { .. } => "`Finalized`",
            Self::Failed(_) => "`Failed`",
            Self::Closed => "`Closed`",
        }
    }
}
