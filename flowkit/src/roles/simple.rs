//! The roles `echo`, `sleep` and `fail`: for trying graphs out.

use flowkit::prelude::*;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

/// `echo`: each batch's payload becomes its artifact.
#[derive(Debug)]
pub(crate) struct Echo;

impl Handler for Echo {
    type Run = ();
    type Input = Value;
    type Output = Value;

    async fn init(&self, _cx: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn process(
        &self,
        _cx: &RunContext,
        _run: &mut (),
        batch: Batch<Value>,
    ) -> Result<BatchResult<Value>, HandlerError> {
        Ok(BatchResult::of(batch.payload))
    }
}

/// `io.input_inline` of `sleep`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SleepInput {
    /// How long each batch takes, in milliseconds.
    ms: u64,
    /// How many batches.
    #[serde(default = "one")]
    batches: u64,
}

const fn one() -> u64 {
    1
}

/// `sleep`: batches that do nothing but take time.
#[derive(Debug)]
pub(crate) struct Sleep;

impl Handler for Sleep {
    type Run = ();
    type Input = u64;
    type Output = ();

    async fn init(&self, _cx: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        _cx: &RunContext,
        input: TaskInput,
    ) -> Result<BatchStream<u64>, HandlerError> {
        let SleepInput { ms, batches } = input.decode()?;
        let numbers = 0..batches;
        Ok(BatchStream::iter(
            numbers.map(move |n| Batch::new(format!("{n:08}"), ms)),
        ))
    }

    async fn process(
        &self,
        cx: &RunContext,
        _run: &mut (),
        batch: Batch<u64>,
    ) -> Result<BatchResult<()>, HandlerError> {
        cx.sleep(Duration::from_millis(batch.payload)).await?;
        Ok(BatchResult::new().metric("slept_ms", batch.payload))
    }
}

/// `io.input_inline` of `fail`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FailInput {
    /// How many attempts fail; all of them if absent.
    times: Option<u32>,
    /// The failure is permanent.
    permanent: bool,
    /// The handler panics instead of returning an error.
    panic: bool,
    /// Reason code.
    reason_code: Option<String>,
    /// Error text.
    error: Option<String>,
}

/// `fail`: fails as it is told.
#[derive(Debug)]
pub(crate) struct Fail;

impl Handler for Fail {
    type Run = ();
    type Input = Option<FailInput>;
    type Output = ();

    async fn init(&self, _cx: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn process(
        &self,
        cx: &RunContext,
        _run: &mut (),
        batch: Batch<Option<FailInput>>,
    ) -> Result<BatchResult<()>, HandlerError> {
        let told = batch.payload.unwrap_or_default();
        if told.times.is_some_and(|times| cx.info().epoch.0 > times) {
            return Ok(BatchResult::new());
        }
        let text = told.error.unwrap_or_else(|| "told to fail".to_owned());
        assert!(!told.panic, "{text}");
        let code = told
            .reason_code
            .unwrap_or_else(|| "told_to_fail".to_owned());
        Err(if told.permanent {
            HandlerError::permanent(code, text)
        } else {
            HandlerError::transient(code, text)
        })
    }
}
