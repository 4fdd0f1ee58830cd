//! Handlers and clients on a simulated host: they freeze with their process, and let others go first
//! now and then.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use flowkit_core::json::Json;
use flowkit_runtime::{
    Batch, BatchResult, BatchStream, ErrorClass, FinalizeResult, Handler, HandlerError, RunContext,
    RunInfo, TaskInput,
};

use super::panics;
use super::stage::{self, Luck};
use crate::acting::Journal;
use crate::history::{Place, Step};
use crate::plan::Logical;

/// Work at the pace of its process: it freezes with it, and lets others go first now and then.
pub(super) async fn paced<T>(place: Place, luck: Luck, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(
        |cx| match stage::with(|stage| stage.poll_pace(place, luck, cx)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => work.as_mut().poll(cx),
        },
    )
    .await
}

/// A handler in a process.
#[derive(Debug)]
pub(super) struct Hosted<H> {
    pub(super) place: Place,
    pub(super) handler: H,
    /// It says itself what it does; for others faults are told of it here.
    pub(super) keeps_journal: bool,
}

impl<H> Hosted<H> {
    /// Faults may strike at this moment.
    fn happens(&self, what: Logical) {
        if !self.keeps_journal {
            stage::with(|stage| stage.happens(what));
        }
    }

    /// The process's pace is the handler's.
    async fn paced<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let work = poll_fn(|cx| panics::in_handler(|| work.as_mut().poll(cx)));
        paced(self.place, Luck::Handler, work).await
    }
}

impl<H: Handler> Handler for Hosted<H> {
    type Run = H::Run;
    type Input = H::Input;
    type Output = H::Output;

    async fn init(&self, cx: &RunContext) -> Result<H::Run, HandlerError> {
        self.happens(Logical::Began);
        self.paced(self.handler.init(cx)).await
    }

    async fn load_input(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> Result<TaskInput, HandlerError> {
        self.paced(self.handler.load_input(cx, input)).await
    }

    async fn batches(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> Result<BatchStream<H::Input>, HandlerError> {
        self.paced(self.handler.batches(cx, input)).await
    }

    async fn process(
        &self,
        cx: &RunContext,
        run: &mut H::Run,
        batch: Batch<H::Input>,
    ) -> Result<BatchResult<H::Output>, HandlerError> {
        self.happens(Logical::Processing);
        self.paced(self.handler.process(cx, run, batch)).await
    }

    async fn finalize(&self, cx: &RunContext, run: H::Run) -> Result<FinalizeResult, HandlerError> {
        self.paced(self.handler.finalize(cx, run)).await
    }

    fn classify_error(&self, error: &(dyn Error + Send + Sync + 'static)) -> ErrorClass {
        panics::in_handler(|| self.handler.classify_error(error))
    }

    async fn cleanup(&self, cx: &RunContext) {
        self.paced(self.handler.cleanup(cx)).await;
    }
}

/// Writes what a scripted handler does into the run's history.
pub(super) struct OnStage(pub(super) Place);

impl fmt::Debug for OnStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnStage")
    }
}

impl Journal for OnStage {
    fn began(&self, run: &RunInfo, checkpoint: Option<Json>) {
        stage::if_standing(|stage| stage.began(self.0, run, checkpoint));
    }

    fn step(&self, run: &RunInfo, step: Step) {
        // A handler may be dropped with its whole world.
        stage::if_standing(|stage| stage.step(self.0, run, step));
    }

    fn struck(&self, family: &'static str) {
        stage::if_standing(|stage| {
            if stage.alive(self.0) {
                stage.seen.fire(family);
            }
        });
    }
}
