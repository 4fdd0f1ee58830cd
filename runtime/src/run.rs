//! One run of a handler: answers the machine's commands, one at a time, in a task of its own.

use flowkit_core::id::BatchUid;
use flowkit_core::json::Json;
use flowkit_core::message::AdapterSpec;
use flowkit_core::planted::{Bug, is_planted};
use flowkit_core::record::Totals;
use flowkit_core::worker::{RunCommand, RunEvent, RunId, RunSpec};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::mpsc;
use tracing::{Instrument, Span};

use crate::batch::no_json;
use crate::error::{PANIC, Source, panicked};
use crate::mailbox::Mailbox;
use crate::{Batch, BatchStream, Handler, HandlerError, RunContext, TaskInput};

mod span;

/// What a run's task is given by the worker's driver.
pub(crate) struct RunSeat {
    run: RunId,
    cx: RunContext,
    commands: Mailbox,
    events: mpsc::UnboundedSender<(RunId, RunEvent)>,
    owes: Owes,
}

/// What the machine waits for.
enum Owes {
    Nothing,
    Answer,
    Closed,
}

impl RunSeat {
    pub(crate) fn new(
        run: RunId,
        cx: RunContext,
        commands: Mailbox,
        events: mpsc::UnboundedSender<(RunId, RunEvent)>,
    ) -> Self {
        Self {
            run,
            cx,
            commands,
            events,
            owes: Owes::Nothing,
        }
    }

    fn answer(&mut self, event: RunEvent) {
        self.owes = Owes::Nothing;
        // Fails only when the worker is gone; then `recv` ends the loop.
        let _ = self.events.send((self.run, event));
    }
}

/// A handler without its types.
pub(crate) trait ErasedHandler: Send + Sync {
    fn run(self: Arc<Self>, seat: RunSeat) -> BoxFuture<'static, ()>;
}

impl<H: Handler> ErasedHandler for H {
    fn run(self: Arc<Self>, seat: RunSeat) -> BoxFuture<'static, ()> {
        Box::pin(within_span(self, seat))
    }
}

/// What a run holds goes, too, when nobody closes it: its worker is gone. And should its task end
/// without a word, the machine hears of it all the same.
impl Drop for RunSeat {
    fn drop(&mut self) {
        drop_cleanups(&self.cx);
        self.cx.resources().abandon();
        let event = match self.owes {
            Owes::Nothing => return,
            Owes::Answer => RunEvent::Failed(panicked("its task ended")),
            Owes::Closed => RunEvent::Closed,
        };
        self.answer(event);
    }
}

fn within_span<H: Handler>(handler: Arc<H>, seat: RunSeat) -> impl Future<Output = ()> {
    let span = span::of_run(&seat.cx);
    run(handler, seat).instrument(span)
}

async fn run<H: Handler>(handler: Arc<H>, mut seat: RunSeat) {
    let mut body = Body {
        handler,
        cx: seat.cx.clone(),
        input: None,
        source: None,
        drawn: None,
        state: None,
        hook: "init",
    };
    while let Some(command) = seat.commands.recv().await {
        match command {
            RunCommand::Abort => {} // what it was meant for has answered already
            RunCommand::Close => {
                seat.owes = Owes::Closed;
                span::closing(&seat.cx);
                close(body, &mut seat.commands).await;
                if is_planted(Bug::ClosedUnsaid) {
                    seat.owes = Owes::Nothing;
                    return;
                }
                return seat.answer(RunEvent::Closed);
            }
            command => {
                seat.owes = Owes::Answer;
                // Pinned here and passed on by reference: passed by value, a future is stored
                // once per function that it goes through.
                let (outcome, batch) = {
                    let (batch, command) = span::of_batch(command);
                    let mut step = pin!(Some(body.step(command).instrument(batch)));
                    let outcome = unless_aborted(caught(step.as_mut()), &mut seat.commands).await;
                    let batch = step.as_ref().as_pin_ref().map(|step| step.span().clone());
                    unharmed("a step that is dropped", || step.set(None));
                    (outcome, batch.unwrap_or_else(Span::none))
                };
                if matches!(outcome, Some(Err(_))) && is_planted(Bug::PanicUnanswered) {
                    continue;
                }
                let returned = matches!(outcome, Some(Ok(_)));
                // The future is dropped by now, whatever the outcome.
                let event = body.answer(outcome);
                if returned && is_panic(&event) && is_planted(Bug::ClassifyUnanswered) {
                    continue;
                }
                span::answered(&batch, &event);
                seat.answer(event);
            }
        }
    }
}

/// `None`: the run was aborted, or its worker is gone; the future is dropped.
async fn unless_aborted<T>(step: impl Future<Output = T>, commands: &mut Mailbox) -> Option<T> {
    let aborted = async {
        while let Some(command) = commands.recv().await {
            if command == RunCommand::Abort {
                return;
            }
            // Its kind alone: it may carry a payload.
            tracing::error!(
                command = command.name(),
                "a command came while another was in work; dropped"
            );
        }
    };
    tokio::select! {
        biased;
        outcome = step => Some(outcome),
        () = aborted => None,
    }
}

async fn close<H: Handler>(body: Body<H>, commands: &mut Mailbox) {
    let Body {
        handler,
        cx,
        input,
        source,
        drawn,
        state,
        hook: _,
    } = body;
    drop(input);
    // Each by itself: of two panics at once the process would die.
    unharmed("the source of batches", || drop(source));
    unharmed("a batch", || drop(drawn));
    unharmed("the state of the run", || drop(state));
    let mut cleanup = pin!(Some(clean_up(&*handler, &cx)));
    unless_aborted(caught(cleanup.as_mut()), commands).await;
    unharmed("a cleanup that is dropped", || cleanup.set(None));
    drop_cleanups(&cx);
    // A run that is told to have ended holds nothing.
    cx.resources().abandon();
}

async fn clean_up<H: Handler>(handler: &H, cx: &RunContext) {
    if !cx.resources().is_empty() {
        Box::pin(cx.resources().end_processes(cx.cancel_info())).await;
    }
    while let Some(cleanup) = cx.pop_cleanup()
        && !is_planted(Bug::HooksSkipped)
    {
        let mut cleanup = Some(cleanup);
        if let Err(text) = caught(Pin::new(&mut cleanup)).await {
            tracing::warn!(run = ?cx, "a cleanup panicked: {text}");
        }
        unharmed("a cleanup that is dropped", || drop(cleanup.take()));
    }
    if is_planted(Bug::CleanupSkipped) {
        return;
    }
    // Within a block of its own: it may panic before it is a future.
    if let Err(text) = caught(pin!(Some(async { handler.cleanup(cx).await }))).await {
        tracing::warn!(run = ?cx, "the handler's cleanup panicked: {text}");
    }
    if !cx.resources().is_empty() {
        Box::pin(cx.resources().end()).await;
    }
}

/// Drops what nobody will run any more: not later, in whoever holds the context last.
fn drop_cleanups(cx: &RunContext) {
    while let Some(cleanup) = cx.pop_cleanup() {
        unharmed("a cleanup that is dropped", || drop(cleanup));
    }
}

/// Runs what belongs to the handler and is over; a panic in it changes nothing.
fn unharmed(what: &str, over: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(over)) {
        tracing::warn!("{what} panicked: {}", panic_text(&*panic));
    }
}

fn is_panic(event: &RunEvent) -> bool {
    matches!(event, RunEvent::Failed(failure) if *failure.reason_code == *PANIC)
}

/// Runs a future to its end; a panic in it is its outcome.
fn caught<F: Future>(
    mut future: Pin<&mut Option<F>>,
) -> impl Future<Output = Result<F::Output, String>> {
    std::future::poll_fn(move |cx| {
        let Some(future) = future.as_mut().as_pin_mut() else {
            unreachable!("dropped only when this is");
        };
        // After a panic the future is not polled again, only dropped.
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic_text(&*panic))),
        }
    })
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

struct Body<H: Handler> {
    handler: Arc<H>,
    cx: RunContext,
    input: Option<TaskInput>,
    source: Option<BatchStream<H::Input>>,
    /// The batch drawn last, as its type: the machine carries only its uid, so nothing is encoded.
    drawn: Option<Batch<H::Input>>,
    state: Option<H::Run>,
    /// Which one is asked, for errors.
    hook: &'static str,
}

impl<H: Handler> Body<H> {
    async fn step(&mut self, command: RunCommand) -> Result<RunEvent, HandlerError> {
        match command {
            RunCommand::Begin(spec) => self.begin(&spec).await,
            RunCommand::NextBatch => self.next_batch().await,
            RunCommand::Process {
                batch_uid,
                payload,
                checkpoint,
            } => self.process(batch_uid, &payload, checkpoint).await,
            RunCommand::Finalize { totals } => self.finalize(totals).await,
            // The driver delivers these itself; `run` takes the last two.
            RunCommand::CheckpointSaved(_)
            | RunCommand::Cancel { .. }
            | RunCommand::Abort
            | RunCommand::Close => unreachable!("not a command for a handler"),
        }
    }

    async fn begin(&mut self, spec: &RunSpec) -> Result<RunEvent, HandlerError> {
        self.state = Some(self.handler.init(&self.cx).await?);
        let input = TaskInput::of_spec(&spec.input)?;
        self.hook = "load_input";
        let mut input = self.handler.load_input(&self.cx, input).await?;
        let adapter = input.adapter.take().or_else(|| adapter_of(&input));
        let adapter = adapter.filter(|_| !is_planted(Bug::ProposalUnsaid));
        self.input = Some(input);
        Ok(RunEvent::Loaded { adapter })
    }

    async fn next_batch(&mut self) -> Result<RunEvent, HandlerError> {
        self.hook = "batches";
        let source = match &mut self.source {
            Some(source) => source,
            none => {
                let input = self.input.take().unwrap_or_default();
                none.insert(self.handler.batches(&self.cx, input).await?)
            }
        };
        let Some((batch, last)) = source.next().await? else {
            return Ok(RunEvent::BatchesEnded);
        };
        let batch_uid = batch.checked_uid()?;
        if self.drawn.is_none() || !is_planted(Bug::BatchStale) {
            self.drawn = Some(batch);
        }
        Ok(RunEvent::Batch {
            batch_uid,
            payload: Json::null(),
            last,
        })
    }

    async fn process(
        &mut self,
        uid: BatchUid,
        payload: &Json,
        checkpoint: Option<Json>,
    ) -> Result<RunEvent, HandlerError> {
        self.hook = "process";
        let drawn = self
            .drawn
            .take()
            .filter(|batch| *batch.uid == *uid.as_str() || is_planted(Bug::BatchStale));
        let mut batch = match drawn {
            Some(batch) => batch,
            None => {
                let payload = payload.decode();
                let payload = payload.map_err(|error| HandlerError::bad_input(&error))?;
                Batch::new(uid.as_str(), payload)
            }
        };
        let checkpoint = checkpoint.filter(|_| !is_planted(Bug::BatchCheckpointLost));
        batch.checkpoint = checkpoint.clone();
        self.cx.begin_batch(uid, checkpoint);
        if is_planted(Bug::StateRenewed) {
            self.state = Some(self.handler.init(&self.cx).await?);
        }
        let Some(state) = &mut self.state else {
            unreachable!("a batch comes only after the run began");
        };
        let result = self.handler.process(&self.cx, state, batch).await?;
        let (written, marked) = self.cx.end_batch();
        let artifact = match result.artifact {
            Some(artifact) => Some(Json::encode(&artifact).map_err(|error| no_json(&error))?),
            None => written.filter(|_| !is_planted(Bug::WrittenLost)),
        };
        self.cx.count(&result.metrics);
        let mut metrics = result.metrics;
        if is_planted(Bug::MetricsLost) {
            metrics.clear();
        }
        Ok(RunEvent::Processed {
            metrics,
            artifact,
            result: marked,
        })
    }

    async fn finalize(&mut self, totals: Totals) -> Result<RunEvent, HandlerError> {
        self.hook = "finalize";
        let mut totals = totals;
        if is_planted(Bug::TotalsUnset) {
            totals.clear();
        }
        self.cx.begin_finalize(totals);
        let Some(state) = self.state.take() else {
            unreachable!("a run is finalized once, after it began");
        };
        let end = self.handler.finalize(&self.cx, state).await?;
        let marked = self.cx.end_finalize();
        let result = end.result.transpose()?.or(marked);
        let result = result.filter(|_| !is_planted(Bug::ResultLost));
        Ok(RunEvent::Finalized {
            metrics: end.metrics,
            result,
        })
    }

    /// The one answer to a command.
    fn answer(&self, outcome: Option<Result<Result<RunEvent, HandlerError>, String>>) -> RunEvent {
        let mut returned = false;
        let error = match outcome {
            Some(Ok(Ok(event))) => return event,
            Some(Ok(Err(error))) => {
                returned = true;
                error
            }
            Some(Err(panic)) => HandlerError::panic(&format!("in {}: {panic}", self.hook)),
            None => HandlerError::cancelled(),
        };
        self.cx.end_batch();
        self.cx.end_finalize();
        let classify = |source: &Source| self.handler.classify_error(&**source);
        let mut failure = error.into_failure(classify);
        // A batch's failure carries its uid.
        if returned && !failure.cancelled && self.hook != "process" {
            failure.error = format!("{}: {}", self.hook, failure.error).into();
        }
        if failure.permanent && is_planted(Bug::PermanentUnsaid) {
            failure.permanent = false;
        }
        if failure.retry_after_ms.is_some() && is_planted(Bug::RetryAfterUnsaid) {
            failure.retry_after_ms = None;
        }
        RunEvent::Failed(failure)
    }
}

/// The adapter that stands in the loaded input, as the graph format writes it.
fn adapter_of(input: &TaskInput) -> Option<AdapterSpec> {
    #[derive(Deserialize)]
    struct Proposal {
        input_adapter: Arc<str>,
        #[serde(default)]
        input_args: Json,
    }
    let inline = input.inline.as_ref()?;
    // Most inputs have none: look before parsing.
    if !inline.text().contains("\"input_adapter\"") {
        return None;
    }
    let proposal: Proposal = inline.decode().ok()?;
    Some(AdapterSpec {
        name: proposal.input_adapter,
        args: proposal.input_args,
    })
}

#[cfg(test)]
mod tests;
