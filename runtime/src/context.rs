//! What a handler knows of its run, and what it can ask for.

use flowkit_core::hash::stable128;
use flowkit_core::id::{BatchUid, Epoch, NodeId, Role, TaskId, Token, WorkerId};
use flowkit_core::json::Json;
use flowkit_core::message::{CancelReason, MARK_BYTES_MAX, Metrics};
use flowkit_core::planted::{Bug, is_planted};
use flowkit_core::record::{Totals, add_metrics};
use flowkit_core::time::Now;
use flowkit_core::worker::{
    RunEvent, RunFailure, RunId, RunSpec, checkpoint_too_large, mark_too_large,
};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::batch::no_json;
use crate::cancel::{CancelFlag, CancelInfo};
use crate::checkpoint::CheckpointQueue;
use crate::clock::Clock;
use crate::resources::{Refused, Resources};
use crate::{ArtifactRef, ChildProcess, HandlerError, TaskInput};

/// Who and what a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunInfo {
    /// The task.
    pub task_id: TaskId,
    /// The node.
    pub node_id: NodeId,
    /// The role that it runs under.
    pub role: Role,
    /// The worker that runs it.
    pub worker_id: WorkerId,
    /// The attempt, counted from 1.
    pub epoch: Epoch,
    /// The fencing token: grows with every grant of the node. Give it to outside systems that can
    /// refuse an older holder.
    pub token: Token,
    /// Batches accepted before this run.
    pub accepted: u64,
}

/// How far the batch in work is, as the handler says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all, if known.
    pub total: Option<u64>,
}

/// A handler's view of its run. Cheap to clone; clones speak of the same run.
///
/// ```
/// use flowkit_runtime::RunContext;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let (cx, control) = RunContext::for_test();
/// control.begin_batch("page-7");
/// cx.save_checkpoint(&7).await.unwrap();
/// assert_eq!(control.checkpoints(), ["7"]);
/// assert!(!cx.is_cancelled());
/// # }
/// ```
#[derive(Clone)]
pub struct RunContext {
    shared: Arc<Shared>,
}

/// Where a context's requests go.
#[derive(Debug)]
pub(crate) enum Outlet {
    /// To the worker machine.
    Worker {
        run: RunId,
        events: mpsc::UnboundedSender<(RunId, RunEvent)>,
    },
    /// Nowhere: checkpoints are kept and acknowledged at once, unless they are too large.
    Test(Mutex<Vec<Json>>),
}

struct Shared {
    info: RunInfo,
    checkpoint: Option<Json>,
    vars: Json,
    input: Json,
    clock: Clock,
    cancel: CancelFlag,
    outlet: Outlet,
    checkpoints: CheckpointQueue,
    state: Mutex<State>,
    resources: Resources,
}

#[derive(Default)]
struct State {
    batch: Option<BatchUid>,
    batch_checkpoint: Option<Json>,
    partial: Option<Json>,
    /// The node's result as the batch in work, or `finalize`, marked it.
    marked: Option<Json>,
    /// `finalize` is called.
    finalizing: bool,
    totals: Totals,
    progress: Progress,
    /// The worker has given the handler up.
    abandoned: bool,
    cleanups: Vec<BoxFuture<'static, ()>>,
}

impl RunContext {
    pub(crate) fn new(spec: &RunSpec, worker_id: WorkerId, clock: Clock, outlet: Outlet) -> Self {
        let info = RunInfo {
            task_id: spec.task_id.clone(),
            node_id: spec.node_id.clone(),
            role: spec.role.clone(),
            worker_id,
            epoch: spec.epoch,
            token: spec.token,
            accepted: spec.accepted,
        };
        Self {
            shared: Arc::new(Shared {
                info,
                checkpoint: spec.checkpoint.clone(),
                vars: spec.vars.clone(),
                input: spec.input.clone(),
                clock,
                cancel: CancelFlag::default(),
                outlet,
                checkpoints: CheckpointQueue::default(),
                state: Mutex::new(State {
                    totals: spec.totals.clone(),
                    ..State::default()
                }),
                resources: Resources::default(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Who and what this run is.
    #[must_use]
    pub fn info(&self) -> &RunInfo {
        &self.shared.info
    }

    /// The task's vars as of the start of the run: a JSON object, or `null`.
    #[must_use]
    pub fn vars(&self) -> &Json {
        &self.shared.vars
    }

    /// The run was told to end. Look at it between steps of long work.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared.cancel.info().is_some()
    }

    /// Waits until the run is told to end. Cancel safe.
    pub async fn cancelled(&self) -> CancelInfo {
        self.shared.cancel.raised().await
    }

    /// Why the run is to end and by when; `None` while it is not.
    #[must_use]
    pub fn cancel_info(&self) -> Option<CancelInfo> {
        self.shared.cancel.info()
    }

    /// `Err` once the run was told to end, for use with `?`.
    ///
    /// # Errors
    /// [`HandlerError::cancelled`].
    pub fn check_cancelled(&self) -> Result<(), HandlerError> {
        if self.is_cancelled() {
            Err(HandlerError::cancelled())
        } else {
            Ok(())
        }
    }

    /// Keeps a checkpoint of the batch in work: how far it is. Returns once the store has it.
    ///
    /// It belongs to the batch. When the batch is accepted, its newest checkpoint becomes the
    /// node's, from which the source resumes; until then only another attempt of the *same batch*
    /// sees it ([`RunContext::batch_checkpoint`]). A slow store makes this wait; it is no failure.
    ///
    /// # Errors
    /// Over 64 KiB of JSON: permanent, `checkpoint_too_large`. Outside of `process`: permanent,
    /// `no_batch`. The run ended: cancelled.
    ///
    /// # Cancel safety
    /// If dropped while waiting, the checkpoint may or may not be kept.
    pub async fn save_checkpoint<T: Serialize + ?Sized + Sync>(
        &self,
        value: &T,
    ) -> Result<(), HandlerError> {
        let value = Json::encode(value).map_err(|error| no_json(&error))?;
        if self.state().batch.is_none() {
            let text = "a checkpoint belongs to a batch; none is in work";
            return Err(HandlerError::permanent("no_batch", text));
        }
        if let Outlet::Test(kept) = &self.shared.outlet {
            if let Some(failure) = checkpoint_too_large(value.len()) {
                return Err(HandlerError::machine(failure));
            }
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push(value);
            return Ok(());
        }
        let (send, answer) = self.shared.checkpoints.push(value);
        self.send_checkpoint(send);
        if is_planted(Bug::CheckpointAckedEarly) {
            return Ok(());
        }
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(HandlerError::machine(failure)),
            Err(_) => Err(HandlerError::cancelled()),
        }
    }

    /// The uid of the batch in work; `None` outside of `process`.
    #[must_use]
    pub fn batch_uid(&self) -> Option<BatchUid> {
        self.state().batch.clone()
    }

    /// The node's checkpoint: the newest one of an accepted batch, where the source resumes.
    ///
    /// # Errors
    /// Permanent, `bad_checkpoint`: it does not have the shape of `T`.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, HandlerError> {
        decode_checkpoint(self.shared.checkpoint.as_ref())
    }

    /// The newest checkpoint that an earlier attempt saved while the batch now in work was in work.
    ///
    /// # Errors
    /// Permanent, `bad_checkpoint`: it does not have the shape of `T`.
    pub fn batch_checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, HandlerError> {
        decode_checkpoint(self.state().batch_checkpoint.as_ref())
    }

    /// Writes the artifact of the batch in work.
    #[must_use]
    pub fn artifacts(&self) -> ArtifactWriter<'_> {
        ArtifactWriter { cx: self }
    }

    /// Totals of the numeric metrics over the batches of all attempts: the accepted ones, and those
    /// that this run has done. In `finalize` every one of them is accepted or will be with it.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.state().totals.clone()
    }

    /// A key for effects outside of the engine: the same in every attempt of the batch in work (of
    /// the node, outside of `process`), and different for every other. 32 hexadecimal digits.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        let info = self.info();
        let state = self.state();
        let batch = state.batch.as_ref().map_or("", BatchUid::as_str);
        let of_grant;
        let batch = if is_planted(Bug::KeyPerGrant) {
            of_grant = format!("{batch} {}", info.token);
            &of_grant
        } else {
            batch
        };
        let parts = [info.task_id.as_str(), info.node_id.as_str(), batch];
        format!("{:032x}", stable128(&parts.map(str::as_bytes)))
    }

    /// Both clocks: monotonic time of this process, and wall time.
    #[must_use]
    pub fn now(&self) -> Now {
        self.shared.clock.now()
    }

    /// Waits. Ends early, as cancelled, when the run is told to end. Cancel safe.
    ///
    /// # Errors
    /// [`HandlerError::cancelled`].
    pub async fn sleep(&self, duration: Duration) -> Result<(), HandlerError> {
        if is_planted(Bug::SleepsOn) {
            tokio::time::sleep(duration).await;
            return self.check_cancelled();
        }
        tokio::select! {
            biased;
            _ = self.cancelled() => Err(HandlerError::cancelled()),
            () = tokio::time::sleep(duration) => Ok(()),
        }
    }

    /// Says how far the batch in work is; shown by `WorkerHandle::status`. Never stored.
    pub fn report_progress(&self, done: u64, total: Option<u64>) {
        self.state().progress = Progress { done, total };
    }

    /// What [`RunContext::report_progress`] said last about the batch in work.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.state().progress
    }

    pub(crate) fn set_abandoned(&self) {
        self.state().abandoned = true;
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.state().abandoned
    }

    /// A folder of the run's own, made at the first call (below the system's one for temporary
    /// files, for this user only) and deleted with everything in it when the run ends, however it
    /// ends. A worker that is killed (`kill -9`) cannot delete it; the next worker of this user that
    /// starts on the machine does.
    ///
    /// # Errors
    /// Transient, `no_temp_dir`: it cannot be made. Cancelled: the run is over.
    pub fn temp_dir(&self) -> Result<PathBuf, HandlerError> {
        self.shared.resources.folder().map_err(|why| match why {
            Refused::Ended => HandlerError::cancelled(),
            Refused::System(error) => HandlerError::transient(
                "no_temp_dir",
                format_args!("no temporary folder can be made: {error}"),
            ),
        })
    }

    /// Starts a process that ends with the run, however that ends: done, failed, cancelled,
    /// panicked, lapsed, or with its worker.
    ///
    /// * It leads a process group of its own. At the end of the run the group gets SIGTERM, and
    ///   SIGKILL after 5 s, or by the deadline of a cancel where that is nearer (500 ms after it at
    ///   the latest). Then the run's cleanups begin.
    /// * When the process itself ends, what it left of its group is killed. (What left the group, a
    ///   daemon in a session of its own, is out of reach.)
    /// * Its standard input is always a pipe: a worker that dies without a word (`kill -9`) cannot
    ///   kill, but its children read the end of file. Programs should end on it.
    /// * It inherits the worker's environment without the variables `FLOWKIT_…`, which may hold
    ///   passwords, unless the command sets them itself.
    ///
    /// ```
    /// use flowkit_runtime::{HandlerError, RunContext};
    /// use std::process::Stdio;
    /// use tokio::io::AsyncReadExt;
    /// use tokio::process::Command;
    ///
    /// async fn sorted(cx: &RunContext, text: &str) -> Result<String, HandlerError> {
    ///     let file = cx.temp_dir()?.join("words.txt");
    ///     std::fs::write(&file, text)?;
    ///     let mut sort = cx.spawn(Command::new("sort").arg(&file).stdout(Stdio::piped()))?;
    ///     let mut out = String::new();
    ///     if let Some(mut stdout) = sort.stdout.take() {
    ///         stdout.read_to_string(&mut out).await?;
    ///     }
    ///     match sort.wait().await {
    ///         status if status.success() => Ok(out),
    ///         status => Err(HandlerError::transient("sort", status)),
    ///     }
    /// }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let (cx, control) = RunContext::for_test();
    /// assert_eq!(sorted(&cx, "b\na\n").await.unwrap(), "a\nb\n");
    /// control.run_cleanups().await; // ends what the run started, deletes its folder
    /// # }
    /// ```
    ///
    /// # Errors
    /// Transient, `spawn_failed`: it cannot be started. Permanent, `simulated`: in the simulator no
    /// real process is started. Cancelled: the run is over.
    pub fn spawn(&self, command: &mut Command) -> Result<ChildProcess, HandlerError> {
        let program = command.as_std().get_program().to_owned();
        self.start(command).map_err(|error| match error {
            StartRefused::Simulated => HandlerError::permanent(
                "simulated",
                format_args!(
                    "{program:?} is not started: in the simulator there are no real processes; give \
                     the handler a stand-in for it there"
                ),
            ),
            StartRefused::Run(Refused::Ended) => HandlerError::cancelled(),
            StartRefused::Run(Refused::System(error)) => HandlerError::transient(
                "spawn_failed",
                format_args!("{program:?} cannot be started: {error}"),
            ),
        })
    }

    pub(crate) fn start(&self, command: &mut Command) -> Result<ChildProcess, StartRefused> {
        if self.shared.clock.is_simulated() {
            return Err(StartRefused::Simulated);
        }
        let started = self.shared.resources.spawn(command);
        started.map_err(StartRefused::Run)
    }

    /// The node's input as the graph gives it, before [`Handler::load_input`](crate::Handler::load_input).
    ///
    /// # Errors
    /// Permanent, `bad_input`: the node's `io` is not as it should be.
    pub fn input(&self) -> Result<TaskInput, HandlerError> {
        TaskInput::of_spec(&self.shared.input)
    }

    pub(crate) fn raw_input(&self) -> &Json {
        &self.shared.input
    }

    pub(crate) fn resources(&self) -> &Resources {
        &self.shared.resources
    }

    /// Runs a future when the run ends, however it ends; the newest first. Child processes have
    /// ended by then; the temporary folder is still there.
    pub fn on_cleanup(&self, cleanup: impl Future<Output = ()> + Send + 'static) {
        self.state().cleanups.push(Box::pin(cleanup));
    }

    pub(crate) fn raise_cancel(&self, reason: CancelReason, deadline: Instant) {
        self.shared.cancel.raise(reason, deadline);
    }

    pub(crate) fn begin_batch(&self, uid: BatchUid, checkpoint: Option<Json>) {
        if self.is_cancelled() && is_planted(Bug::CancelCleared) {
            self.shared.cancel.clear();
        }
        let mut state = self.state();
        state.batch = Some(uid);
        state.batch_checkpoint = checkpoint;
        state.partial = None;
        state.marked = None;
        state.progress = Progress::default();
    }

    /// Ends the batch; returns the artifact and the node's result that the handler wrote beside what
    /// it returned.
    pub(crate) fn end_batch(&self) -> (Option<Json>, Option<Json>) {
        self.shared.checkpoints.clear();
        let mut state = self.state();
        state.batch = None;
        state.batch_checkpoint = None;
        (state.partial.take(), state.marked.take())
    }

    pub(crate) fn count(&self, metrics: &Metrics) {
        if !metrics.is_empty() {
            add_metrics(&mut self.state().totals, metrics);
        }
    }

    pub(crate) fn begin_finalize(&self, totals: Totals) {
        let mut state = self.state();
        state.totals = totals;
        state.finalizing = true;
    }

    /// Ends `finalize`; returns what it marked.
    pub(crate) fn end_finalize(&self) -> Option<Json> {
        let mut state = self.state();
        state.finalizing = false;
        state.marked.take()
    }

    /// The next cleanup to run; call until `None`.
    pub(crate) fn pop_cleanup(&self) -> Option<BoxFuture<'static, ()>> {
        let cleanups = &mut self.state().cleanups;
        if cleanups.len() > 1 && is_planted(Bug::HooksInOrder) {
            return Some(cleanups.remove(0));
        }
        cleanups.pop()
    }

    pub(crate) fn checkpoint_answered(&self, answer: Result<(), RunFailure>) {
        let next = self.shared.checkpoints.answered(answer);
        self.send_checkpoint(next);
    }

    fn send_checkpoint(&self, value: Option<Json>) {
        if let (Some(value), Outlet::Worker { run, events }) = (value, &self.shared.outlet) {
            // Fails only when the worker is gone; the run is dropped then.
            let _ = events.send((*run, RunEvent::Checkpoint(value)));
        }
    }

    pub(crate) fn outlet(&self) -> &Outlet {
        &self.shared.outlet
    }
}

/// Why a run cannot start a process.
#[derive(Debug)]
pub(crate) enum StartRefused {
    /// There are none in the simulator.
    Simulated,
    Run(Refused),
}

fn decode_checkpoint<T: DeserializeOwned>(value: Option<&Json>) -> Result<Option<T>, HandlerError> {
    value.map(Json::decode).transpose().map_err(|error| {
        HandlerError::permanent(
            "bad_checkpoint",
            format_args!("the checkpoint does not decode: {error}"),
        )
    })
}

impl fmt::Debug for RunContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.info();
        write!(
            f,
            "RunContext({}/{} {})",
            info.task_id, info.node_id, info.token
        )
    }
}

/// Writes the artifact of the batch in work; it becomes visible when the batch is accepted.
#[derive(Debug)]
pub struct ArtifactWriter<'a> {
    cx: &'a RunContext,
}

impl ArtifactWriter<'_> {
    /// Sets the artifact of the batch in work, replacing what was written before. An artifact in
    /// the [`BatchResult`](crate::BatchResult) wins over it.
    ///
    /// # Errors
    /// Permanent: the value has no JSON form (`bad_output`), or no batch is in work (`no_batch`).
    pub fn upsert_partial<T: Serialize + ?Sized>(
        &self,
        value: &T,
    ) -> Result<ArtifactRef, HandlerError> {
        let value = Json::encode(value).map_err(|error| no_json(&error))?;
        let info = self.cx.info();
        let mut state = self.cx.state();
        let Some(batch_uid) = state.batch.clone() else {
            let text = "an artifact belongs to a batch; none is in work";
            return Err(HandlerError::permanent("no_batch", text));
        };
        state.partial = Some(value);
        Ok(ArtifactRef {
            task_id: info.task_id.clone(),
            node_id: info.node_id.clone(),
            batch_uid,
        })
    }

    /// Sets the node's result; the last one counts, and one that `finalize` returns wins.
    ///
    /// It belongs to the batch in work: kept when the batch is accepted, whatever becomes of the run,
    /// and dropped when the batch fails. In `finalize` it is the result, unless that returns one.
    ///
    /// # Errors
    /// Permanent: the value has no JSON form (`bad_output`) or more than 256 KiB of it
    /// (`result_too_large`), or it is called outside of `process` and `finalize` (`no_batch`).
    pub fn mark_complete<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), HandlerError> {
        let value = Json::encode(value).map_err(|error| no_json(&error))?;
        if value.len() > MARK_BYTES_MAX {
            return Err(HandlerError::machine(mark_too_large(value.len())));
        }
        let mut state = self.cx.state();
        if state.batch.is_none() && !state.finalizing {
            // A later run's `init` would replace what an earlier run's batch has marked.
            let text = "a node's result is marked in `process` or `finalize`; neither is called";
            return Err(HandlerError::permanent("no_batch", text));
        }
        state.marked = Some(value);
        Ok(())
    }
}
