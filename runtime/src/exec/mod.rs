//! Any program as a handler: one JSON line per batch on its standard input, lines with what it made
//! of it on its standard output.
//!
//! `docs/guide/exec.md` is the protocol's page.

mod command;
mod lines;
mod said;
mod session;
mod tell;

pub use command::ExecError;

use flowkit_core::json::Json;

use crate::{Batch, BatchResult, FinalizeResult, Handler, HandlerError, RunContext};
#[cfg(test)]
pub(crate) use session::SETTLE;
use session::Session;

/// Version of the protocol, told in the first line.
pub(crate) const PROTOCOL: u32 = 1;
/// Longest line in bytes that a program may write, if not set: 16 MiB, so that the largest artifact
/// fits.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A program as a handler, in any language.
///
/// One process per run: started when the run begins, ended by the end of file on its standard input
/// once every batch is done, and gone with the run in any case
/// ([`RunContext::spawn`]). Its standard input carries one JSON line per batch, its standard output
/// results, checkpoints, progress and log lines. Batches come from the node's input adapter, or the
/// whole `input_inline` is one batch. `docs/guide/exec.md` describes every line.
///
/// ```no_run
/// # use flowkit_runtime::*;
/// # fn example(engine: &Engine) -> Result<(), Box<dyn std::error::Error>> {
/// let ocr = Exec::parse("python3 ocr.py --lang de")?;
/// let worker = Worker::builder(engine).role("ocr", ocr).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Exec {
    program: String,
    arguments: Vec<String>,
    line_bytes_max: usize,
}

/// Without the arguments: there may be a token among them.
impl std::fmt::Debug for Exec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let arguments = self.arguments.len();
        write!(f, "Exec({:?}, {arguments} arguments)", self.program)
    }
}

impl Exec {
    /// A program and its arguments, passed on as they are; no shell is started.
    pub fn new<A: Into<String>>(
        program: impl Into<String>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            line_bytes_max: LINE_BYTES_MAX,
        }
    }

    /// The longest line that the program may write, in bytes; default 16 MiB, at least 1 KiB.
    #[must_use]
    pub fn line_bytes_max(mut self, bytes: usize) -> Self {
        self.line_bytes_max = bytes.max(1024);
        self
    }
}

impl Handler for Exec {
    type Run = ExecRun;
    type Input = Json;
    type Output = Json;

    async fn init(&self, cx: &RunContext) -> Result<ExecRun, HandlerError> {
        Ok(ExecRun(Session::start(self, cx)?))
    }

    async fn process(
        &self,
        cx: &RunContext,
        run: &mut ExecRun,
        batch: Batch<Json>,
    ) -> Result<BatchResult<Json>, HandlerError> {
        run.0.process(cx, batch).await
    }

    async fn finalize(
        &self,
        cx: &RunContext,
        run: ExecRun,
    ) -> Result<FinalizeResult, HandlerError> {
        run.0.finalize(cx).await
    }
}

/// The state of one run of an [`Exec`]: its process.
#[derive(Debug)]
pub struct ExecRun(Session);

#[cfg(test)]
mod tests;
