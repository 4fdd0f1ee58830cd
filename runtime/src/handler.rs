//! The trait that users write.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::error::UNEXPECTED_ERROR;
use crate::{
    Batch, BatchResult, BatchStream, ErrorClass, FinalizeResult, HandlerError, RunContext,
    TaskInput,
};

/// What a worker does for one role.
///
/// The value itself is shared by all runs; what belongs to one run lives in [`Handler::Run`], so
/// runs never mix. For one run the engine calls `init`, `load_input`, `batches` (unless an input
/// adapter feeds it), `process` once per batch, `finalize`, and at the end of every run, however it
/// ended, `cleanup`. Write the methods as plain `async fn`:
///
/// ```
/// use flowkit_runtime::*;
///
/// struct Sum;
///
/// impl Handler for Sum {
///     type Run = ();
///     type Input = Vec<i64>;
///     type Output = i64;
///
///     async fn init(&self, _cx: &RunContext) -> Result<(), HandlerError> {
///         Ok(())
///     }
///
///     async fn process(
///         &self,
///         _cx: &RunContext,
///         _run: &mut (),
///         batch: Batch<Vec<i64>>,
///     ) -> Result<BatchResult<i64>, HandlerError> {
///         let sum = batch.payload.iter().sum();
///         Ok(BatchResult::of(sum).metric("numbers", batch.payload.len()))
///     }
/// }
/// ```
///
/// **Delivery.** A batch is processed at least once and *counted* exactly once: its metrics,
/// artifact and checkpoint. For effects outside of the engine use
/// [`RunContext::idempotency_key`]. A panic is a transient failure (`panic`).
///
/// **Cancel safety.** A handler that was told to end and is still running at the deadline is
/// dropped at its next await point. One that blocks its thread cannot be dropped; its slot stays
/// taken. Move long blocking work to `tokio::task::spawn_blocking` and look at
/// [`RunContext::is_cancelled`] there.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a FlowKit handler",
    label = "this type does not implement `Handler`",
    note = "implement `flowkit::Handler` for it, or wrap a closure: \
            `handler_fn(|cx, batch: Batch<Input>| async move {{ Ok(BatchResult::of(output)) }})`"
)]
pub trait Handler: Send + Sync + 'static {
    /// State of one run; `()` if there is none.
    type Run: Send;
    /// What a batch carries.
    type Input: DeserializeOwned + Send + 'static;
    /// What a batch leaves for later nodes.
    type Output: Serialize + Send;

    /// Begins a run: opens what it needs.
    fn init(&self, cx: &RunContext)
    -> impl Future<Output = Result<Self::Run, HandlerError>> + Send;

    /// Turns the node's input into what `batches` shall see, and may propose an input adapter
    /// ([`TaskInput::with_adapter`]). Default: the input as it stands; an `input_adapter` that
    /// stands in its inline value is the proposal.
    fn load_input(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> impl Future<Output = Result<TaskInput, HandlerError>> + Send {
        let _ = cx;
        async move { Ok(input) }
    }

    /// Opens the handler's own source. Not called when an input adapter feeds the node.
    ///
    /// [`RunContext::checkpoint`] says where to resume; what lies behind it must not be given
    /// again. Batches that were accepted after it are skipped by the engine. Default: the whole
    /// input as one batch.
    fn batches(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> impl Future<Output = Result<BatchStream<Self::Input>, HandlerError>> + Send {
        let _ = cx;
        async move { Ok(BatchStream::whole_input(&input)) }
    }

    /// Works on one batch.
    fn process(
        &self,
        cx: &RunContext,
        run: &mut Self::Run,
        batch: Batch<Self::Input>,
    ) -> impl Future<Output = Result<BatchResult<Self::Output>, HandlerError>> + Send;

    /// Ends a run whose every batch is done. Default: nothing to add.
    fn finalize(
        &self,
        cx: &RunContext,
        run: Self::Run,
    ) -> impl Future<Output = Result<FinalizeResult, HandlerError>> + Send {
        let _ = cx;
        async move {
            drop(run);
            Ok(FinalizeResult::new())
        }
    }

    /// Names an error that came through `?` and says whether trying again is of any use.
    /// Default: `unexpected_error`, transient.
    fn classify_error(&self, error: &(dyn Error + Send + Sync + 'static)) -> ErrorClass {
        let _ = error;
        ErrorClass::transient(UNEXPECTED_ERROR)
    }

    /// Called at the end of every run, however it ended. Before it the run's child processes have
    /// ended, then what was given to [`RunContext::on_cleanup`] has run, newest first; behind it the
    /// run's temporary folder goes. Default: nothing.
    fn cleanup(&self, cx: &RunContext) -> impl Future<Output = ()> + Send {
        let _ = cx;
        async {}
    }
}

/// One handler under several roles or in several workers.
impl<H: Handler> Handler for Arc<H> {
    type Run = H::Run;
    type Input = H::Input;
    type Output = H::Output;

    async fn init(&self, cx: &RunContext) -> Result<H::Run, HandlerError> {
        (**self).init(cx).await
    }

    async fn load_input(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> Result<TaskInput, HandlerError> {
        (**self).load_input(cx, input).await
    }

    async fn batches(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> Result<BatchStream<H::Input>, HandlerError> {
        (**self).batches(cx, input).await
    }

    async fn process(
        &self,
        cx: &RunContext,
        run: &mut H::Run,
        batch: Batch<H::Input>,
    ) -> Result<BatchResult<H::Output>, HandlerError> {
        (**self).process(cx, run, batch).await
    }

    async fn finalize(&self, cx: &RunContext, run: H::Run) -> Result<FinalizeResult, HandlerError> {
        (**self).finalize(cx, run).await
    }

    fn classify_error(&self, error: &(dyn Error + Send + Sync + 'static)) -> ErrorClass {
        (**self).classify_error(error)
    }

    async fn cleanup(&self, cx: &RunContext) {
        (**self).cleanup(cx).await;
    }
}

/// A handler out of one function: no state per run, one batch or an input adapter.
///
/// ```
/// use flowkit_runtime::*;
///
/// let double = handler_fn(|_cx, batch: Batch<i64>| async move {
///     Ok(BatchResult::of(batch.payload * 2))
/// });
/// # fn is_handler(_: impl Handler) {}
/// # is_handler(double);
/// ```
pub fn handler_fn<F, Fut, I, O>(process: F) -> HandlerFn<F, I>
where
    F: Fn(RunContext, Batch<I>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<BatchResult<O>, HandlerError>> + Send,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send,
{
    HandlerFn {
        process,
        input: PhantomData,
    }
}

/// See [`handler_fn`].
pub struct HandlerFn<F, I> {
    process: F,
    input: PhantomData<fn(I)>,
}

impl<F, I> fmt::Debug for HandlerFn<F, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandlerFn")
    }
}

impl<F, Fut, I, O> Handler for HandlerFn<F, I>
where
    F: Fn(RunContext, Batch<I>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<BatchResult<O>, HandlerError>> + Send,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send,
{
    type Run = ();
    type Input = I;
    type Output = O;

    async fn init(&self, _cx: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn process(
        &self,
        cx: &RunContext,
        _run: &mut (),
        batch: Batch<I>,
    ) -> Result<BatchResult<O>, HandlerError> {
        (self.process)(cx.clone(), batch).await
    }
}
