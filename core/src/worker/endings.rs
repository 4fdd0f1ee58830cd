//! How runs end: told to, given up, closed, and the terminal event at the very end.
//!
//! The terminal event leaves when the handler is closed, so that it can carry the slot and the next
//! holder of the node does not meet a handler that is still cleaning up.

use super::Worker;
use super::cancel::{ABANDON_AFTER_MS, CLEANUP_MS, Ending, event_of};
use super::io::{Effect, RunCommand, RunFailure, RunId};
use super::limits;
use super::run::Work;
use super::timers::Timer;
use crate::id::BatchUid;
use crate::message::{Body, CancelReason, RefusalReason};
use crate::planted::{Bug, is_planted};
use crate::report::ReportKind;
use crate::time::{Mono, Now};

impl Worker {
    /// A greater token was granted, or the store says that this one is not current.
    pub(super) fn supersede(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        let Some(run) = self.runs.get(&id) else {
            return;
        };
        if run.outgoing.has_terminal() {
            // Its end was folded, or does not matter any more.
            self.forget_run(id);
        } else {
            self.end_run(id, CancelReason::Fenced, now.mono, now, out);
        }
    }

    /// Tells a run to end, or to end sooner.
    pub(super) fn end_run(
        &mut self,
        id: RunId,
        reason: CancelReason,
        deadline: Mono,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        if run.outgoing.has_terminal() {
            return;
        }
        if reason == CancelReason::Fenced && is_planted(Bug::FencedIgnored) {
            return;
        }
        if matches!(run.work, Work::Checking) {
            self.end_unchecked(id, reason, now, out);
            return;
        }
        let ending = Ending::new(reason, deadline);
        let changed = match &mut run.ending {
            Some(known) => known.merge(ending),
            None => {
                run.ending = Some(ending);
                true
            }
        };
        if run.is_fenced() {
            let shard = run.shard;
            self.stop_beating(shard, id);
        }
        if changed {
            self.press_ending(id, now, out);
        }
    }

    /// A START that is still being looked into is to end: it never began.
    fn end_unchecked(&mut self, id: RunId, reason: CancelReason, now: Now, out: &mut Vec<Effect>) {
        let (node, token) = (self.runs[&id].node(), self.runs[&id].token);
        self.drop_unchecked(id);
        let refusal = match reason {
            CancelReason::Shutdown => RefusalReason::Draining,
            CancelReason::StoreUnreachable => RefusalReason::StoreUnreachable,
            CancelReason::Fenced | CancelReason::LeaseLapsed => RefusalReason::NotCurrent,
            CancelReason::UserRequest
            | CancelReason::UpstreamFailed
            | CancelReason::TaskFailed
            | CancelReason::Yield => {
                self.end_unknown(&node, token, reason, now, out);
                return;
            }
        };
        self.refuse(&node, token, refusal, now, out);
    }

    /// Does what an ending asks for now: tell the handler, or close it if it has nothing to do.
    pub(super) fn press_ending(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        let Some(ending) = run.ending else {
            return;
        };
        match run.work {
            Work::Checking | Work::Closed => {}
            Work::Accepting => self.wind_up(id, now, out),
            Work::Reading { .. } | Work::Pulling { .. } | Work::Crowded => {
                self.wind_up(id, now, out);
            }
            Work::Closing => {
                let deadline = ending.deadline.max(now.mono.after(ABANDON_AFTER_MS));
                self.timers.set_earlier(Timer::Deadline(id), deadline);
            }
            _ if ending.deadline <= now.mono => self.deadline(id, now, out),
            _ => {
                if !ending.waits_for_batch() {
                    self.tell(id, out);
                }
                if !self.runs[&id].aborted {
                    self.timers.set(Timer::Deadline(id), ending.deadline);
                }
            }
        }
    }

    /// Raises the handler's cancel flag.
    fn tell(&mut self, id: RunId, out: &mut Vec<Effect>) {
        if let Some(run) = self.runs.get_mut(&id)
            && let Some(ending) = run.ending.as_mut()
            && !ending.told
            && !run.work.before_begin()
        {
            ending.told = true;
            let command = RunCommand::Cancel {
                reason: ending.reason,
                deadline: ending.deadline,
            };
            out.push(Effect::Run { run: id, command });
        }
    }

    /// The handler's time is up: drop it; the second time, give it up.
    pub(super) fn deadline(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        if run.outgoing.has_terminal() && !run.abandoned {
            return;
        }
        if !run.work.handler_busy() {
            self.wind_up(id, now, out);
            return;
        }
        if run.aborted {
            if !run.abandoned {
                self.abandon(id, now, out);
            }
            return;
        }
        if is_planted(Bug::GraceIgnored) {
            return self.tell(id, out);
        }
        run.aborted = true;
        self.tell(id, out);
        let command = RunCommand::Abort;
        out.push(Effect::Run { run: id, command });
        let at = now.mono.after(ABANDON_AFTER_MS);
        self.timers.set(Timer::Deadline(id), at);
    }

    /// The run fails: the attempt ends.
    pub(super) fn fail(
        &mut self,
        id: RunId,
        batch_uid: Option<BatchUid>,
        failure: &RunFailure,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        let mut event = limits::failed_event(failure);
        event.batch_uid = batch_uid;
        run.verdict.get_or_insert(Body::TaskFailed(event));
        self.wind_up(id, now, out);
    }

    /// Closes the handler, which owes no answer now; without one, the run is over at once.
    pub(super) fn wind_up(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        self.tell(id, out);
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        assert!(!run.work.handler_busy() || run.verdict.is_some() || run.ending.is_some());
        if run.verdict.is_none() {
            let reason = run.ending.map_or(CancelReason::Shutdown, |e| e.reason);
            run.verdict = Some(event_of(reason));
        }
        run.saves.clear();
        run.puller = None;
        self.timers.cancel(Timer::Pull(id));
        self.timers.cancel(Timer::HeldBatch(id));
        if run.work.before_begin() {
            self.closed(id, now, out);
            return;
        }
        run.work = Work::Closing;
        let soon = now.mono.after(ABANDON_AFTER_MS);
        // The cleanup is another thing that may have to be cut short: only then is it given up.
        let aborted = std::mem::take(&mut run.aborted);
        let deadline = match (&run.ending, aborted) {
            (_, true) => soon,
            (Some(ending), false) => ending.deadline.max(soon),
            (None, false) => now.mono.after(CLEANUP_MS),
        };
        self.timers.set(Timer::Deadline(id), deadline);
        let command = RunCommand::Close;
        out.push(Effect::Run { run: id, command });
    }

    /// A handler that was given up answers after all: its end was told already, its cleanup is to come.
    pub(super) fn close_late(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        run.work = Work::Closing;
        run.aborted = false;
        let at = now.mono.after(ABANDON_AFTER_MS);
        self.timers.set(Timer::Deadline(id), at);
        let command = RunCommand::Close;
        out.push(Effect::Run { run: id, command });
    }

    /// Nothing of the handler is left: its slot is free.
    pub(super) fn closed(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        self.slots.give_back(id);
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        run.work = Work::Closed;
        if run.abandoned {
            // Its end was told when it was given up: nothing else says that the slot is free.
            run.abandoned = false;
            self.timers.cancel(Timer::Deadline(id));
            let Some(run) = self.runs.get_mut(&id) else {
                return;
            };
            if run.forgotten {
                self.forget_run(id);
            }
            self.announce(now, out);
        } else {
            self.send_end(id, now, out);
        }
        self.offer_slot(now, out);
    }

    /// The handler ignores its cancel and its abort: its slot stays taken, the run is over.
    fn abandon(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        let detail = "the handler does not end; its slot stays taken";
        self.report_run(id, ReportKind::Abandoned, detail, out);
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        run.abandoned = true;
        if is_planted(Bug::AbandonedFree) {
            self.slots.give_back(id);
        }
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        if run.verdict.is_none() {
            let ending = run.ending.expect("nobody is given up who need not end");
            run.verdict = Some(ending.event());
        }
        run.saves.clear();
        run.puller = None;
        self.send_end(id, now, out);
        // One that stops says the little that is left to say anyway.
        if self.drain.is_none() {
            self.announce(now, out);
        }
    }

    /// Queues the terminal event, with the last batch inside or before it.
    fn send_end(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        for timer in [
            Timer::Lease(id),
            Timer::Deadline(id),
            Timer::HeldBatch(id),
            Timer::Pull(id),
        ] {
            self.timers.cancel(timer);
        }
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        let mut verdict = run.verdict.clone().expect("a run closes for a reason");
        let mut held = run.held.take();
        if let (Body::TaskDone(done), Some(last)) = (&mut verdict, &held) {
            let bytes = limits::done_bytes(done) + limits::batch_bytes(last);
            done.last_batch = Some(last.clone());
            let event = || self.next_event(id, verdict.clone(), now);
            if limits::fits(bytes, event) {
                held = None;
            } else if let Body::TaskDone(done) = &mut verdict {
                done.last_batch = None;
            }
        }
        if let Some(last) = held {
            let envelope = self.next_event(id, Body::BatchOk(last), now);
            self.queue(id, envelope, false, out);
        }
        let detail = format!("ended: {}", verdict.kind());
        self.report_run(id, ReportKind::Run, &detail, out);
        let envelope = self.next_event(id, verdict, now);
        self.queue(id, envelope, true, out);
    }
}
