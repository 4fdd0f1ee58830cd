//! Spans of a run and of its batches, for logs and traces: what each is about, and how it ended.

use flowkit_core::worker::{RunCommand, RunEvent, RunFailure};
use tracing::Span;
use tracing::field::Empty;

use crate::RunContext;

/// All that a handler logs stands inside this span: who runs what.
pub(super) fn of_run(cx: &RunContext) -> Span {
    let info = cx.info();
    // The target is how traces know it (observe/src/traces/).
    tracing::info_span!(
        target: "flowkit_runtime::run",
        "run",
        task = %info.task_id,
        node = %info.node_id,
        epoch = info.epoch.0,
        worker = %info.worker_id,
        role = %info.role,
        token = info.token.0,
        outcome = Empty,
        reason = Empty,
        cancel = Empty,
        otel.status_code = Empty,
    )
}

/// What it logs while a batch is in work stands inside this one, too; of other steps there is none.
///
/// The command is passed through: borrowed, it would be kept in the run's future for as long as the step
/// takes.
pub(super) fn of_batch(command: RunCommand) -> (Span, RunCommand) {
    let RunCommand::Process { batch_uid, .. } = &command else {
        return (Span::none(), command);
    };
    let span = tracing::info_span!(
        target: "flowkit_runtime::run",
        "batch",
        batch = %batch_uid,
        outcome = Empty,
        reason = Empty,
        otel.status_code = Empty,
    );
    (span, command)
}

/// How the step ended, which may be how the run ends. Never the error itself: it may hold anything.
///
/// Called inside the run's span: carried along, it would be one more field of every run's future.
pub(super) fn answered(batch: &Span, event: &RunEvent) {
    let run = Span::current();
    match event {
        RunEvent::Processed { .. } => {
            batch.record("outcome", "done");
        }
        RunEvent::Finalized { .. } => {
            run.record("outcome", "done");
        }
        RunEvent::Failed(failure) => {
            failed(batch, failure);
            failed(&run, failure);
        }
        _ => {}
    }
}

fn failed(span: &Span, failure: &RunFailure) {
    let outcome = if failure.cancelled {
        "cancelled"
    } else {
        "failed"
    };
    span.record("outcome", outcome);
    span.record("reason", &*failure.reason_code);
    if !failure.cancelled {
        span.record("otel.status_code", "ERROR");
    }
}

/// The run is being closed: if it was told to end, this is why.
pub(super) fn closing(cx: &RunContext) {
    if let Some(cancel) = cx.cancel_info() {
        Span::current().record("cancel", tracing::field::debug(cancel.reason));
    }
}
