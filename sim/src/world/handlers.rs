//! Handlers: they answer a worker's commands as the script of their node says.

use std::rc::Rc;
use std::sync::Arc;

use flowkit_core::id::BatchUid;
use flowkit_core::json::Json;
use flowkit_core::message::{AdapterSpec, Metrics};
use flowkit_core::record::Totals;
use flowkit_core::worker::{RunCommand, RunEvent, RunFailure, RunId, RunSpec};
use serde_json::{Value, json};

use super::heap::{Due, Given};
use super::{Luck, World};
use crate::checkers::Broken;
use crate::dice::Dice;
use crate::history::{Place, Run, Step, What};
use crate::plan::{Hook, NodePlan, Reader, TroubleKind};
use crate::script;

/// A probe ends a process whose handler cannot be ended after so long.
const PROBE_US: u64 = 5_000_000;

/// What a handler does as it begins.
const LOAD: [Hook; 2] = [Hook::Init, Hook::LoadInput];

/// A handler at work on one run.
#[derive(Debug)]
pub(super) struct HandlerRun<'p> {
    pub(super) info: Rc<Run>,
    node: &'p NodePlan,
    /// Next batch of its own source (from 0).
    next: u32,
    /// Its source is.
    opened: bool,
    phase: Phase,
    /// Answers with an older ticket are void.
    ticket: u64,
    cancelled: bool,
    /// Batches that it has done.
    done: u32,
    /// As the worker says when every batch is done.
    totals: Totals,
    dice: Dice,
    /// The family of the trouble that has just ended it.
    struck: Option<&'static str>,
}

#[derive(Debug)]
enum Phase {
    /// No command is outstanding.
    Idle,
    Loading,
    Drawing,
    Working(Work),
    /// It waits until its checkpoint is safe.
    Saving(Work),
    Finalizing,
    /// It was told to end, and does.
    Ending,
    Closing,
}

#[derive(Debug)]
struct Work {
    uid: BatchUid,
    payload: Json,
    /// Place in its own source, if it has one.
    index: Option<u32>,
    saves_left: u32,
    saved: u32,
    value: Option<Json>,
}

fn failure(code: &str, permanent: bool, cancelled: bool) -> RunFailure {
    RunFailure {
        reason_code: Arc::from(code),
        permanent,
        error: Arc::from("as the script says"),
        retry_after_ms: None,
        cancelled,
    }
}

impl<'p> World<'p> {
    fn handler_at(&mut self, place: Place, run: RunId, after_us: u64) {
        let ticket = self.next_number();
        if let Some(handler) = self.runs.get_mut(&(place, run)) {
            handler.ticket = ticket;
            let due = Due::Handler { place, run, ticket };
            self.heap.push(self.now + after_us, due);
        }
    }

    fn step(&mut self, place: Place, run: RunId, step: Step) {
        if let Some(handler) = self.runs.get(&(place, run)) {
            let run = handler.info.clone();
            self.note(What::Handler { run, step });
        }
    }

    /// The worker tells a handler something.
    pub(super) fn command(&mut self, place: Place, run: RunId, command: RunCommand) {
        if let RunCommand::Begin(spec) = command {
            self.begin(place, run, *spec);
            return;
        }
        let (now, plan) = (self.now, self.plan);
        let Some(handler) = self.runs.get_mut(&(place, run)) else {
            // The run's last word may be on its way to the machine while this is on its way back.
            let late = matches!(
                command,
                RunCommand::Cancel { .. } | RunCommand::Abort | RunCommand::CheckpointSaved(_)
            );
            if !late {
                let what = format!("{place:?} commands run {run:?}, which does not exist");
                let broken = Broken::new("run_protocol", now, what);
                self.seen.broken.push(broken);
            }
            return;
        };
        let busy = !matches!(handler.phase, Phase::Idle);
        let needs_idle = matches!(
            command,
            RunCommand::NextBatch
                | RunCommand::Process { .. }
                | RunCommand::Finalize { .. }
                | RunCommand::Close
        );
        if busy && needs_idle {
            let what = format!(
                "{} {:?} got {command:?} while {:?}",
                handler.info.node, handler.info.token, handler.phase
            );
            self.seen
                .broken
                .push(Broken::new("run_protocol", now, what));
            return;
        }
        match command {
            RunCommand::Begin(_) => {}
            RunCommand::NextBatch => {
                let hooks: &[Hook] = if handler.opened {
                    &[]
                } else {
                    &[Hook::Batches]
                };
                handler.phase = Phase::Drawing;
                let after = handler.dice.between(50, 500);
                self.hook_at(place, run, hooks, after);
            }
            RunCommand::Process {
                batch_uid,
                payload,
                checkpoint,
            } => self.process(place, run, batch_uid, payload, checkpoint),
            RunCommand::CheckpointSaved(result) => self.saved(place, run, result.is_ok()),
            RunCommand::Finalize { totals } => {
                handler.totals = totals;
                let mut after = handler.node.script.finalize_ms * 1_000;
                for kind in script::final_troubles(handler.node, handler.info.epoch.0) {
                    match kind {
                        TroubleKind::Slow { ms } => after = after.saturating_add(ms * 1_000),
                        TroubleKind::Hangs => after = u64::MAX,
                        _ => {}
                    }
                    if let Some(family) = script::lasting(kind) {
                        self.seen.fire(family);
                    }
                }
                handler.phase = Phase::Finalizing;
                self.step(place, run, Step::Finalize);
                if after < u64::MAX {
                    self.handler_at(place, run, after);
                }
            }
            RunCommand::Cancel { reason, deadline } => {
                let ignores = handler.node.script.ignores_cancel || handler.node.script.blocks;
                handler.cancelled = true;
                let waiting = matches!(
                    handler.phase,
                    Phase::Loading
                        | Phase::Drawing
                        | Phase::Working(_)
                        | Phase::Saving(_)
                        | Phase::Finalizing
                );
                // Some look at the flag at once, some end their batch first; what hangs must look.
                let hangs = handler.hangs();
                // Those of real processes do what `cancel_seen` says of them: they look.
                let real = plan.world.slack_ms > 0;
                let ends = waiting && !ignores && (hangs || handler.dice.permille(600) || real);
                let after = handler.dice.between(200, 20_000);
                let mono = self.hosts[place.host as usize].clock.now(now).mono;
                let grace_ms = deadline.since(mono);
                if waiting && handler.node.script.ignores_cancel {
                    self.seen.fire(script::IGNORES_CANCEL);
                }
                self.step(place, run, Step::Cancel { reason, grace_ms });
                if ends && let Some(handler) = self.runs.get_mut(&(place, run)) {
                    handler.phase = Phase::Ending;
                    self.handler_at(place, run, after);
                }
            }
            RunCommand::Abort => {
                let blocks = handler.node.script.blocks;
                // A cleanup that is cut short still ends as one.
                if !blocks && busy && !matches!(handler.phase, Phase::Closing) {
                    handler.phase = Phase::Ending;
                }
                self.step(place, run, Step::Abort);
                if blocks {
                    self.seen.fire("handler_blocks");
                    self.heap.push(now + PROBE_US, Due::Probe { place });
                } else if busy {
                    self.handler_at(place, run, 500);
                }
            }
            RunCommand::Close => {
                handler.phase = Phase::Closing;
                let lasts = |kind: TroubleKind| script::lasting(kind).is_some();
                if handler
                    .hook_troubles(&[Hook::Cleanup])
                    .into_iter()
                    .any(lasts)
                {
                    self.step(place, run, Step::CleansUp);
                }
                self.hook_at(place, run, &[Hook::Cleanup], 300);
            }
        }
    }

    /// A handler is done with hooks after so long, or longer, or never.
    fn hook_at(&mut self, place: Place, run: RunId, hooks: &[Hook], after_us: u64) {
        let Some(handler) = self.runs.get(&(place, run)) else {
            return;
        };
        let mut after = Some(after_us);
        for kind in handler.hook_troubles(hooks) {
            self.seen.fire(script::IN_HOOK);
            match kind {
                TroubleKind::Slow { ms } => after = after.map(|after| after + ms * 1_000),
                TroubleKind::Hangs => after = None,
                // What it says behind its end nobody hears.
                _ if hooks == [Hook::Cleanup] => {}
                _ => break,
            }
            if let Some(family) = script::lasting(kind) {
                self.seen.fire(family);
            }
        }
        if let Some(after) = after {
            self.handler_at(place, run, after);
        }
    }

    fn begin(&mut self, place: Place, run: RunId, spec: RunSpec) {
        let plan = self.plan;
        let node = plan
            .tasks
            .iter()
            .find(|task| task.id == spec.task_id.as_str())
            .and_then(|task| task.graph.node(spec.node_id.as_str()));
        let (Some(node), Some(worker)) = (node, self.worker_of(place)) else {
            let what = format!("a run of {}/{} began", spec.task_id, spec.node_id);
            let broken = Broken::new("run_protocol", self.now, what);
            self.seen.broken.push(broken);
            return;
        };
        let input: Value = spec.input.decode().unwrap_or_default();
        if input.get("input_ref") != node.input_ref.as_ref() {
            let what = format!("{}/{}: its input is {input}", spec.task_id, spec.node_id);
            let broken = Broken::new("run_protocol", self.now, what);
            self.seen.broken.push(broken);
        }
        let checkpoint = spec.checkpoint.as_ref();
        let checkpoint = checkpoint.and_then(|value| value.decode::<Value>().ok());
        let next = script::resumes_at(checkpoint.as_ref());
        let number = self.next_number();
        let handler = HandlerRun {
            info: Rc::new(Run {
                place,
                worker,
                run_id: run.0,
                task: spec.task_id,
                node: spec.node_id,
                token: spec.token,
                epoch: spec.epoch,
                checkpoint: spec.checkpoint,
                accepted: spec.accepted,
            }),
            node,
            next,
            opened: false,
            phase: Phase::Loading,
            ticket: 0,
            cancelled: false,
            done: 0,
            totals: Totals::default(),
            dice: self.dice(Luck::Handler, number, u64::from(place.host)),
            struck: None,
        };
        let after = node.script.init_ms * 1_000;
        if self.runs.insert((place, run), handler).is_some() {
            let what = format!("run {run:?} at {place:?} began twice");
            let broken = Broken::new("run_protocol", self.now, what);
            self.seen.broken.push(broken);
        }
        self.step(place, run, Step::Begin);
        self.hook_at(place, run, &LOAD, after);
    }

    fn process(
        &mut self,
        place: Place,
        run: RunId,
        uid: BatchUid,
        payload: Json,
        checkpoint: Option<Json>,
    ) {
        let Some(handler) = self.runs.get_mut(&(place, run)) else {
            return;
        };
        let script = &handler.node.script;
        let index = payload
            .decode::<Value>()
            .ok()
            .and_then(|value| value["i"].as_u64())
            .and_then(|i| u32::try_from(i).ok());
        let saves = script::checkpoints(handler.node, index);
        let mut after = script.batch_ms * 1_000 / u64::from(saves + 1);
        let mut hangs = false;
        for trouble in handler.troubles(index) {
            match trouble {
                TroubleKind::Slow { ms } => after += ms * 1_000,
                TroubleKind::Hangs => hangs = true,
                _ => {}
            }
            if let Some(family) = script::lasting(trouble) {
                self.seen.fire(family);
            }
        }
        handler.phase = Phase::Working(Work {
            uid: uid.clone(),
            payload,
            index,
            saves_left: saves,
            saved: 0,
            value: None,
        });
        self.step(place, run, Step::Process { uid, checkpoint });
        if !hangs {
            self.handler_at(place, run, after);
        }
    }

    /// The worker says whether a checkpoint is safe.
    fn saved(&mut self, place: Place, run: RunId, ok: bool) {
        let Some(handler) = self.runs.get_mut(&(place, run)) else {
            return;
        };
        let phase = std::mem::replace(&mut handler.phase, Phase::Idle);
        let Phase::Saving(mut work) = phase else {
            // It ended meanwhile (cancelled); nobody waits for this any more.
            handler.phase = phase;
            return;
        };
        let value = work.value.take().unwrap_or_default();
        let uid = work.uid.clone();
        let after =
            handler.node.script.batch_ms * 1_000 / u64::from(work.saves_left + work.saved + 1);
        handler.phase = if ok {
            Phase::Working(work)
        } else {
            Phase::Ending
        };
        self.step(place, run, Step::CheckpointSaved { uid, value, ok });
        self.handler_at(place, run, after);
    }

    /// A handler gets on.
    pub(super) fn handler(&mut self, place: Place, run: RunId, ticket: u64) {
        let stalled_until = self.hosts[place.host as usize].stalled_until;
        let Some(handler) = self.runs.get_mut(&(place, run)) else {
            return;
        };
        if handler.ticket != ticket {
            return;
        }
        if stalled_until > self.now {
            // It wakes with its process, which may be sooner than planned.
            let due = Due::Handler { place, run, ticket };
            self.hosts[place.host as usize].waiting.push_back(due);
            return;
        }
        let phase = std::mem::replace(&mut handler.phase, Phase::Idle);
        let (step, event) = handler.advance(phase);
        if let Some(family) = handler.struck.take() {
            self.seen.fire(family);
        }
        let Some(event) = event else {
            return;
        };
        if step == Some(Step::Closed) {
            for number in (1..=script::HOOKS).rev() {
                self.step(place, run, Step::Hook { number });
            }
        }
        if let Some(step) = step {
            self.step(place, run, step);
        }
        if matches!(event, RunEvent::Closed) {
            self.runs.remove(&(place, run));
        }
        self.give(place, Given::Run(run, event));
    }

    /// A probe found a handler that blocks its process: its supervisor starts the process anew.
    pub(super) fn probe(&mut self, place: Place) {
        if self.hosts[place.host as usize].generation == place.generation {
            self.seen.fire("probe_restart");
            self.crash(place.host, 200);
        }
    }
}

impl HandlerRun<'_> {
    fn troubles(&self, index: Option<u32>) -> Vec<TroubleKind> {
        script::troubles(self.node, self.info.epoch.0, index)
    }

    fn hook_troubles(&self, hooks: &[Hook]) -> Vec<TroubleKind> {
        let epoch = self.info.epoch.0;
        let troubles = |hook: &Hook| script::hook_troubles(self.node, epoch, *hook);
        hooks.iter().flat_map(troubles).collect()
    }

    fn hangs(&self) -> bool {
        let index = match &self.phase {
            Phase::Loading => return self.hook_troubles(&LOAD).contains(&TroubleKind::Hangs),
            Phase::Drawing if !self.opened => {
                return self
                    .hook_troubles(&[Hook::Batches])
                    .contains(&TroubleKind::Hangs);
            }
            Phase::Working(work) => work.index,
            Phase::Finalizing => {
                return script::final_troubles(self.node, self.info.epoch.0)
                    .contains(&TroubleKind::Hangs);
            }
            _ => return false,
        };
        self.troubles(index).contains(&TroubleKind::Hangs)
    }

    /// What it says next, and what that means for the history.
    fn advance(&mut self, phase: Phase) -> (Option<Step>, Option<RunEvent>) {
        match phase {
            Phase::Idle => (None, None),
            Phase::Saving(work) => {
                self.phase = Phase::Saving(work);
                (None, None)
            }
            Phase::Loading => {
                let reader = self.node.reader.as_ref();
                let proposal = reader.and_then(Reader::proposal);
                let adapter = proposal.map(|(name, args)| AdapterSpec {
                    name: Arc::from(name),
                    args: Json::from(args),
                });
                self.unless_failed(&LOAD, |_| RunEvent::Loaded { adapter })
            }
            Phase::Drawing if self.opened => (None, Some(self.draw())),
            Phase::Drawing => {
                self.opened = true;
                self.unless_failed(&[Hook::Batches], Self::draw)
            }
            Phase::Working(work) => self.work(work),
            Phase::Finalizing => {
                let epoch = self.info.epoch.0;
                let kinds = script::final_troubles(self.node, epoch);
                if let Some((kind, step, event)) = failed(&kinds) {
                    self.struck = Some(script::family(kind));
                    return (Some(step), Some(event));
                }
                let metrics = Metrics::from([(Arc::from("finals"), Json::from(json!(1)))]);
                let totals = std::mem::take(&mut self.totals);
                let result = script::result(self.node, &totals).map(Json::from);
                let event = RunEvent::Finalized { metrics, result };
                (Some(Step::Finalized), Some(event))
            }
            Phase::Ending => {
                let step = Step::Failed {
                    permanent: false,
                    cancelled: true,
                    retry_after_ms: None,
                };
                let event = RunEvent::Failed(failure("cancelled", false, true));
                (Some(step), Some(event))
            }
            Phase::Closing => (Some(Step::Closed), Some(RunEvent::Closed)),
        }
    }

    fn unless_failed(
        &mut self,
        hooks: &[Hook],
        event: impl FnOnce(&mut Self) -> RunEvent,
    ) -> (Option<Step>, Option<RunEvent>) {
        if let Some((kind, step, event)) = failed(&self.hook_troubles(hooks)) {
            self.struck = Some(script::family(kind));
            return (Some(step), Some(event));
        }
        (None, Some(event(self)))
    }

    fn draw(&mut self) -> RunEvent {
        let len = script::source_len(self.node, self.info.epoch.0);
        if self.next >= len || self.node.reader.is_some() {
            return RunEvent::BatchesEnded;
        }
        let index = self.next;
        self.next += 1;
        RunEvent::Batch {
            batch_uid: BatchUid::new(script::source_uid(self.node, index)).expect("a valid uid"),
            payload: Json::from(json!({ "i": index })),
            last: self.node.script.says_last && self.next == len,
        }
    }

    fn work(&mut self, mut work: Work) -> (Option<Step>, Option<RunEvent>) {
        if work.saves_left > 0 {
            work.saves_left -= 1;
            work.saved += 1;
            let (index, part, token) = (work.index, work.saved, self.info.token);
            let value = Json::from(script::checkpoint(index, work.uid.as_str(), part, token));
            work.value = Some(value.clone());
            let uid = work.uid.clone();
            self.phase = Phase::Saving(work);
            let step = Step::Checkpoint {
                uid,
                value: value.clone(),
            };
            return (Some(step), Some(RunEvent::Checkpoint(value)));
        }
        if let Some((kind, step, event)) = failed(&self.troubles(work.index)) {
            self.struck = Some(script::family(kind));
            return (Some(step), Some(event));
        }
        let payload: Value = work.payload.decode().unwrap_or_default();
        let (artifact, count) = script::artifact(self.node, work.index, &payload);
        self.done += 1;
        let nth = script::nth(self.info.token, self.done);
        let metrics = Metrics::from([
            (Arc::from("items"), Json::from(json!(count))),
            (Arc::from("nth"), Json::from(nth)),
            (Arc::from("label"), Json::from(json!(work.uid.as_str()))),
        ]);
        let marked = script::marked(self.node, work.uid.as_str());
        let step = Step::Processed { uid: work.uid };
        let event = RunEvent::Processed {
            metrics,
            artifact: Some(Json::from(artifact)),
            result: marked.map(Json::from),
        };
        (Some(step), Some(event))
    }
}

/// The trouble that ends a handler, if one does.
fn failed(kinds: &[TroubleKind]) -> Option<(TroubleKind, Step, RunEvent)> {
    kinds.iter().find_map(|kind| {
        let (mut failure, permanent) = match kind {
            TroubleKind::Transient => (failure("flaky", false, false), false),
            TroubleKind::Panics | TroubleKind::PanicsNaming => {
                (failure("panic", false, false), false)
            }
            TroubleKind::RetryAfter { .. } => (failure("busy", false, false), false),
            TroubleKind::Permanent => (failure("hopeless", true, false), true),
            TroubleKind::Classified { permanent } => {
                (failure("named", *permanent, false), *permanent)
            }
            TroubleKind::Hangs | TroubleKind::Slow { .. } => return None,
        };
        if let TroubleKind::RetryAfter { ms } = kind {
            failure.retry_after_ms = Some(*ms);
        }
        let step = Step::Failed {
            permanent,
            cancelled: false,
            retry_after_ms: failure.retry_after_ms,
        };
        Some((*kind, step, RunEvent::Failed(failure)))
    })
}
