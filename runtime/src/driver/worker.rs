//! The worker's driver: one task that feeds the machine and carries out its effects.

use flowkit_core::id::WorkerId;
use flowkit_core::message::CancelReason;
use flowkit_core::planted::{Bug, is_planted};
use flowkit_core::report::{Report, ReportKind};
use flowkit_core::worker::{
    Config, Effect, Input, RunCommand, RunEvent, RunFailure, RunId, Worker as Machine,
};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use tokio::sync::{mpsc, watch};

use super::calls::{Answer, Calls};
use super::{INPUTS_PER_TURN, log};
use crate::RunContext;
use crate::clock::Clock;
use crate::context::Outlet;
use crate::engine::Engine;
use crate::mailbox::{Commands, mailbox};
use crate::run::{ErasedHandler, RunSeat, panic_text};
use crate::vitals::{Asked, WorkerVitals, WorkerWatch};
use crate::worker::WorkerError;

/// Handlers by role.
pub(crate) type Handlers = BTreeMap<Arc<str>, Arc<dyn ErasedHandler>>;
/// The runs of a worker, as its status shows them.
pub(crate) type Running = Arc<Mutex<BTreeMap<RunId, RunContext>>>;

/// What a worker's driver needs.
pub(crate) struct WorkerDrive {
    pub(crate) engine: Engine,
    pub(crate) config: Config,
    pub(crate) handlers: Handlers,
    pub(crate) running: Running,
    pub(crate) shutdown_grace_ms: u64,
    /// Becomes true when the worker is to stop.
    pub(crate) stop: watch::Receiver<bool>,
    /// Who asks how it is.
    pub(crate) asked: Asked<WorkerVitals>,
}

/// Drives a worker until it has stopped.
pub(crate) async fn drive_worker(drive: WorkerDrive) -> Result<(), WorkerError> {
    let WorkerDrive {
        engine,
        config,
        handlers,
        running,
        shutdown_grace_ms,
        mut stop,
        mut asked,
    } = drive;
    let (clock, pace) = (engine.clock().clone(), engine.pace());
    let worker_id = config.worker_id.clone();
    let (events, mut from_runs) = mpsc::unbounded_channel();
    let mut runs = Runs {
        worker_id,
        clock: clock.clone(),
        handlers,
        running,
        commands: BTreeMap::new(),
        events,
        answers: VecDeque::new(),
    };
    let mut calls = Calls::new(engine.store(), engine.transport(), engine.rpc_timeout());
    let mut watch = WorkerWatch::new(config.announce_interval_ms);
    let mut machine = Machine::new(config);
    let mut out = Vec::new();
    let mut next = Some(Input::Wake);
    let mut stopping = false;
    let mut turn = 0;
    loop {
        pace.ready().await;
        // Everything at hand first, then the clock, then sleep.
        let input = match next.take() {
            Some(input) => input,
            None => {
                let deadline = machine.poll_timeout().map(|at| clock.instant_of(at));
                let deadline = deadline.filter(|_| !is_planted(Bug::TimersIgnored));
                tokio::select! {
                    biased;
                    input = poll_fn(|cx| {
                        if let Some((run, event)) = runs.answers.pop_front() {
                            return Poll::Ready(Input::Run { run, event });
                        }
                        if let Poll::Ready(answer) = calls.poll_ready(cx) {
                            return Poll::Ready(Input::from(answer));
                        }
                        from_runs.poll_recv(cx).map(|event| match event {
                            Some((run, event)) => Input::Run { run, event },
                            None => unreachable!("`runs` keeps a sender"),
                        })
                    }) => input,
                    () = sleep_until(deadline) => Input::Wake,
                    () = raised(&mut stop), if !stopping => {
                        stopping = true;
                        Input::Shutdown { grace_ms: shutdown_grace_ms }
                    }
                    Some(answer) = asked.recv() => {
                        let now = clock.now().mono;
                        let _ = answer.send(watch.vitals(&machine, &runs.worker_id, now));
                        continue;
                    }
                }
            }
        };
        if let Input::Run {
            run,
            event: RunEvent::Closed,
        } = &input
        {
            runs.closed(*run);
        }
        let handled = catch_unwind(AssertUnwindSafe(|| {
            let now = clock.now();
            watch.input(&input, now.mono);
            machine.handle(now, input, &mut out);
            now
        }));
        let now = match handled {
            Ok(now) => now,
            Err(panic) => {
                let text = panic_text(&*panic);
                tracing::error!(worker = %runs.worker_id, "the worker machine panicked: {text}");
                return Err(WorkerError::Panicked(text));
            }
        };
        for effect in out.drain(..) {
            watch.effect(&effect, now.mono);
            match effect {
                Effect::Store { op, request } => calls.store(op, request),
                Effect::Transport { op, request } => calls.transport(op, request),
                Effect::Run { run, command } => runs.command(run, command),
                Effect::Report(report) => {
                    runs.reported(&report);
                    log::log(&report);
                }
                Effect::Stopped { superseded: true } => return Err(WorkerError::Superseded),
                Effect::Stopped { superseded: false } => return Ok(()),
                Effect::Unregistered(error) => {
                    let worker_id = runs.worker_id.clone();
                    return Err(WorkerError::Unregistered { worker_id, error });
                }
            }
        }
        turn += 1;
        if turn == INPUTS_PER_TURN {
            turn = 0;
            tokio::task::yield_now().await;
            if let Ok(answer) = asked.try_recv() {
                let _ = answer.send(watch.vitals(&machine, &runs.worker_id, clock.now().mono));
            }
            // A stream of inputs must starve neither the timers nor a shutdown.
            let due = machine.poll_timeout();
            if due.is_some_and(|at| at <= clock.now().mono) {
                next = Some(Input::Wake);
            } else if !stopping && *stop.borrow() {
                stopping = true;
                next = Some(Input::Shutdown {
                    grace_ms: shutdown_grace_ms,
                });
            }
        }
    }
}

pub(super) async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Returns when the flag is true, or when nobody is left who could raise it.
pub(super) async fn raised(flag: &mut watch::Receiver<bool>) {
    if is_planted(Bug::StopLost) {
        flag.borrow_and_update();
        let _ = flag.changed().await;
        return;
    }
    let _ = flag.wait_for(|stop| *stop).await;
}

impl From<Answer> for Input {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Store(op, result) => Self::StoreDone { op, result },
            Answer::Transport(op, result) => Self::TransportDone { op, result },
        }
    }
}

/// The tasks that run handlers. Dropped with the driver: their command channels close and they end.
struct Runs {
    worker_id: WorkerId,
    clock: Clock,
    handlers: Handlers,
    running: Running,
    commands: BTreeMap<RunId, (RunContext, Commands)>,
    events: mpsc::UnboundedSender<(RunId, RunEvent)>,
    /// Answers in place of a run whose task is gone.
    answers: VecDeque<(RunId, RunEvent)>,
}

impl Drop for Runs {
    /// The worker ends: what abandoned handlers still hold goes before anybody hears of it.
    fn drop(&mut self) {
        for (cx, _) in self.commands.values() {
            cx.resources().abandon();
        }
    }
}

impl Runs {
    fn command(&mut self, run: RunId, command: RunCommand) {
        if let RunCommand::Begin(spec) = &command {
            let outlet = Outlet::Worker {
                run,
                events: self.events.clone(),
            };
            let cx = RunContext::new(spec, self.worker_id.clone(), self.clock.clone(), outlet);
            let (sender, commands) = mailbox();
            if let Some(handler) = self.handlers.get(spec.role.as_str()) {
                let seat = RunSeat::new(run, cx.clone(), commands, self.events.clone());
                tokio::spawn(handler.clone().run(seat));
            }
            // Without a handler the channel is closed, and the command is answered below.
            self.running
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(run, cx.clone());
            self.commands.insert(run, (cx, sender));
        }
        let Some((cx, sender)) = self.commands.get(&run) else {
            return self.answer_for(run, &command);
        };
        match command {
            // Set from here, so that a handler that blocks its thread sees it too.
            RunCommand::Cancel { .. } if is_planted(Bug::CancelUnraised) => {}
            RunCommand::Cancel { reason, deadline } => {
                let mut deadline = self.clock.instant_of(deadline);
                if is_planted(Bug::DeadlineNow) {
                    deadline = tokio::time::Instant::now();
                }
                let reason = if is_planted(Bug::ReasonUnsaid) {
                    CancelReason::UserRequest
                } else {
                    reason
                };
                cx.raise_cancel(reason, deadline);
            }
            RunCommand::Abort if is_planted(Bug::AbortLost) => {}
            RunCommand::CheckpointSaved(answer) => cx.checkpoint_answered(answer),
            command => {
                if let Err(command) = sender.send(command) {
                    self.answer_for(run, &command);
                }
            }
        }
    }

    /// The answer of a run without a task: no handler for its role, or a panic outside of it.
    fn answer_for(&mut self, run: RunId, command: &RunCommand) {
        let event = match command {
            RunCommand::Cancel { .. } | RunCommand::CheckpointSaved(_) | RunCommand::Abort => {
                return;
            }
            RunCommand::Close => RunEvent::Closed,
            _ => RunEvent::Failed(RunFailure {
                reason_code: Arc::from("no_handler"),
                permanent: false,
                error: Arc::from("no handler runs for this role here"),
                retry_after_ms: None,
                cancelled: false,
            }),
        };
        self.answers.push_back((run, event));
    }

    /// A handler that was given up stays in the worker's status, marked.
    fn reported(&self, report: &Report) {
        if report.kind != ReportKind::Abandoned {
            return;
        }
        let about = |cx: &&RunContext| {
            let info = cx.info();
            report.task_id.as_ref() == Some(&info.task_id)
                && report.node_id.as_ref() == Some(&info.node_id)
                && report.token == Some(info.token)
        };
        if let Some(cx) = self.commands.values().map(|(cx, _)| cx).find(about) {
            cx.set_abandoned();
        }
    }

    fn closed(&mut self, run: RunId) {
        self.commands.remove(&run);
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&run);
    }
}
