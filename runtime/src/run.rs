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
use tracing::Instrument;

use crate::batch::no_json;
use crate::mailbox::Mailbox;
use crate::{Batch, BatchStream, Handler, HandlerError, RunContext, TaskInput};

mod span;

/// What a run's task is given by the worker's driver.
pub(crate) struct RunSeat {
    pub(crate) run: RunId,
    pub(crate) cx: RunContext,
    pub(crate) commands: Mailbox,
    pub(crate) events: mpsc::UnboundedSender<(RunId, RunEvent)>,
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

/// What a run holds goes, too, when nobody closes it: its worker is gone.
impl Drop for RunSeat {
    fn drop(&mut self) {
        self.cx.resources().abandon();
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
    };
    while let Some(command) = seat.commands.recv().await {
        let event = match command {
            RunCommand::Abort => continue, // what it was meant for has answered already
            RunCommand::Close => {
                span::closing(&seat.cx);
                close(body, &mut seat.commands).await;
                if is_planted(Bug::ClosedUnsaid) {
                    return;
                }
                let _ = seat.events.send((seat.run, RunEvent::Closed));
                return;
            }
            command => {
                // Pinned here and passed on by reference: passed by value, a future is stored
                // once per function that it goes through.
                let (outcome, batch) = {
                    let (batch, command) = span::of_batch(command);
                    let mut step = pin!(body.step(command).instrument(batch));
                    (
                        unless_aborted(caught(step.as_mut()), &mut seat.commands).await,
                        step.span().clone(),
                    )
                };
                if matches!(outcome, Some(Err(_))) && is_planted(Bug::PanicUnanswered) {
                    continue;
                }
                // The future is dropped by now, whatever the outcome.
                let event = body.answer(outcome);
                span::answered(&batch, &event);
                event
            }
        };
        // Fails only when the worker is gone; then `recv` ends the loop.
        let _ = seat.events.send((seat.run, event));
    }
}

/// `None`: the run was aborted, or its worker is gone; the future is dropped.
async fn unless_aborted<T>(step: impl Future<Output = T>, commands: &mut Mailbox) -> Option<T> {
    let aborted = async {
        while let Some(command) = commands.recv().await {
            if command == RunCommand::Abort {
                return;
            }
            tracing::error!(
                ?command,
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
    let Body { handler, cx, .. } = body; // drops the source and the run's state
    let cleanup = async {
        if !cx.resources().is_empty() {
            Box::pin(cx.resources().end_processes(cx.cancel_info())).await;
        }
        while let Some(mut cleanup) = cx.pop_cleanup()
            && !is_planted(Bug::HooksSkipped)
        {
            if let Err(text) = caught(cleanup.as_mut()).await {
                tracing::warn!(run = ?cx, "a cleanup panicked: {text}");
            }
        }
        if is_planted(Bug::CleanupSkipped) {
            return;
        }
        if let Err(text) = caught(pin!(handler.cleanup(&cx))).await {
            tracing::warn!(run = ?cx, "the handler's cleanup panicked: {text}");
        }
        if !cx.resources().is_empty() {
            Box::pin(cx.resources().end()).await;
        }
    };
    unless_aborted(cleanup, commands).await;
    // A run that is told to have ended holds nothing.
    cx.resources().abandon();
}

/// Runs a future to its end; a panic in it is its outcome.
fn caught<F: Future + ?Sized>(
    mut future: Pin<&mut F>,
) -> impl Future<Output = Result<F::Output, String>> {
    std::future::poll_fn(move |cx| {
        // After a panic the future is not polled again, only dropped.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
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
        let mut input = self.handler.load_input(&self.cx, input).await?;
        let adapter = input.adapter.take().or_else(|| adapter_of(&input));
        self.input = Some(input);
        Ok(RunEvent::Loaded { adapter })
    }

    async fn next_batch(&mut self) -> Result<RunEvent, HandlerError> {
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
        let Some(state) = &mut self.state else {
            unreachable!("a batch comes only after the run began");
        };
        let result = self.handler.process(&self.cx, state, batch).await?;
        let written = self.cx.end_batch();
        let artifact = match result.artifact {
            Some(artifact) => Some(Json::encode(&artifact).map_err(|error| no_json(&error))?),
            None => written.filter(|_| !is_planted(Bug::WrittenLost)),
        };
        self.cx.count(&result.metrics);
        let mut metrics = result.metrics;
        if is_planted(Bug::MetricsLost) {
            metrics.clear();
        }
        Ok(RunEvent::Processed { metrics, artifact })
    }

    async fn finalize(&mut self, totals: Totals) -> Result<RunEvent, HandlerError> {
        let mut totals = totals;
        if is_planted(Bug::TotalsUnset) {
            totals.clear();
        }
        self.cx.set_totals(totals);
        let Some(state) = self.state.take() else {
            unreachable!("a run is finalized once, after it began");
        };
        let end = self.handler.finalize(&self.cx, state).await?;
        let result = end.result.transpose()?.or_else(|| self.cx.take_complete());
        let result = result.filter(|_| !is_planted(Bug::ResultLost));
        Ok(RunEvent::Finalized {
            metrics: end.metrics,
            result,
        })
    }

    /// The one answer to a command.
    fn answer(&self, outcome: Option<Result<Result<RunEvent, HandlerError>, String>>) -> RunEvent {
        let error = match outcome {
            Some(Ok(Ok(event))) => return event,
            Some(Ok(Err(error))) => error,
            Some(Err(panic)) => HandlerError::panic(&panic),
            None => HandlerError::cancelled(),
        };
        self.cx.end_batch();
        let mut failure = error.into_failure(|source| self.handler.classify_error(&**source));
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
