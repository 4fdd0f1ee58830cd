//! One run's process: tells it what to do and hears what it says.

use flowkit_core::json::Json;
use flowkit_core::planted::{Bug, is_planted};
use std::fmt::Display;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::ChildStdout;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::lines::{Lines, Piece, Tail, printable};
use super::said::{
    BatchDone, Checkpoint, Failed, Final, Hello, Level, Log, Progress, Said, understand,
};
use super::tell::{Tell, Teller};
use super::{Exec, PROTOCOL};
use crate::context::StartRefused;
use crate::process::Group;
use crate::resources::Refused;
use crate::{Batch, BatchResult, FinalizeResult, HandlerError, RunContext};

/// The program broke the protocol. The same again would break it again.
const PROTOCOL_BROKEN: &str = "exec_protocol";
/// A line is longer than allowed.
const LINE_TOO_LONG: &str = "exec_line_too_long";
/// The program cannot be started, here and now.
const NOT_STARTED: &str = "exec_start";
/// The program ended with another exit code than 0.
const EXITED: &str = "exec_exit";
/// A signal ended the program.
const KILLED: &str = "exec_killed";
/// The program says that it failed and gives no code.
const FAILED: &str = "exec_error";

/// How long a program that closed a pipe may take to end, and what it said last to arrive.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);
/// Longest excerpt of a line in an error, in characters.
const EXCERPT: usize = 80;
/// Longest message of a log line, in bytes.
const LOG_BYTES_MAX: usize = 4 * 1024;

/// A process and its pipes.
#[derive(Debug)]
pub(super) struct Session {
    name: String,
    line_bytes_max: usize,
    group: Arc<Group>,
    teller: Option<Teller>,
    lines: Lines<ChildStdout>,
    errors: Tail,
    errors_read: JoinHandle<()>,
    /// The batch in work.
    batch: Option<String>,
    cancel_told: bool,
    /// When it gets SIGTERM, if it was told to end.
    terminate_at: Option<Instant>,
}

type Saving<'a> = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send + 'a>>;

async fn saved(saving: &mut Option<Saving<'_>>) -> Result<(), HandlerError> {
    match saving {
        Some(saving) => saving.await,
        None => std::future::pending().await,
    }
}

/// What the program was heard to say in the end.
enum Heard {
    Result(BatchDone),
    Final(Final),
    /// It ended without an answer.
    End,
}

impl Session {
    /// Starts the program and greets it.
    pub(super) fn start(exec: &Exec, cx: &RunContext) -> Result<Self, HandlerError> {
        let name = printable(exec.name());
        let temp_dir = cx.temp_dir()?;
        let mut command = exec.command();
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("TMPDIR", &temp_dir);
        let mut process = cx.start(&mut command).map_err(|error| match error {
            StartRefused::Run(Refused::System(error)) => HandlerError::transient(
                NOT_STARTED,
                format_args!(
                    "the program `{name}` cannot be started: {error}; it must be installed where the \
                     worker runs, and executable"
                ),
            ),
            StartRefused::Run(Refused::Ended) => HandlerError::cancelled(),
            StartRefused::Simulated => HandlerError::permanent(
                "simulated",
                format_args!(
                    "the program `{name}` is not started: in the simulator there are no real \
                     processes; give the role a stand-in there"
                ),
            ),
        })?;
        let pipes = (
            process.stdin.take(),
            process.stdout.take(),
            process.stderr.take(),
        );
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            unreachable!("all three are piped");
        };
        let errors = Tail::default();
        let session = Self {
            name,
            line_bytes_max: exec.longest_line(),
            group: process.group.clone(),
            teller: Some(Teller::new(stdin)),
            lines: Lines::new(stdout, exec.longest_line()),
            errors_read: tokio::spawn(errors.clone().follow(stderr)),
            errors,
            batch: None,
            cancel_told: false,
            terminate_at: None,
        };
        let info = cx.info();
        let checkpoint: Option<Json> = cx.checkpoint()?;
        session.tell(&Tell::Hello {
            protocol: PROTOCOL,
            task_id: info.task_id.as_str(),
            node_id: info.node_id.as_str(),
            role: info.role.as_str(),
            worker_id: info.worker_id.as_str(),
            attempt: info.epoch.0,
            token: info.token.0,
            accepted: info.accepted,
            checkpoint: checkpoint.as_ref(),
            input: cx.raw_input(),
            vars: cx.vars(),
            temp_dir: &temp_dir,
        })?;
        Ok(session)
    }

    /// Hands a batch over and waits for its result.
    pub(super) async fn process(
        &mut self,
        cx: &RunContext,
        batch: Batch<Json>,
    ) -> Result<BatchResult<Json>, HandlerError> {
        self.tell(&Tell::Batch {
            batch_uid: &batch.uid,
            attempt: cx.info().epoch.0,
            idempotency_key: &cx.idempotency_key(),
            checkpoint: batch.checkpoint.as_ref(),
            payload: &batch.payload,
        })?;
        self.batch = Some(batch.uid.as_ref().to_owned());
        let heard = self.hear(cx).await?;
        match heard {
            Heard::Result(done) => {
                self.batch = None;
                Ok(BatchResult {
                    metrics: done.metrics,
                    artifact: done.artifact,
                })
            }
            Heard::Final(_) => Err(self.broken("wrote a `final` line before `finalize`")),
            Heard::End => Err(self.ended(cx).await),
        }
    }

    /// Tells the program that all is done, and waits for its end.
    pub(super) async fn finalize(
        mut self,
        cx: &RunContext,
    ) -> Result<FinalizeResult, HandlerError> {
        self.tell(&Tell::Finalize {
            totals: &cx.totals(),
        })?;
        self.teller = None; // the end of file, once all is written
        let mut end = FinalizeResult::new();
        let mut said = false;
        loop {
            match self.hear(cx).await? {
                Heard::Final(_) if said => return Err(self.broken("wrote a second `final` line")),
                Heard::Final(line) => {
                    said = true;
                    end.metrics = line.metrics;
                    end.result = line.result.map(Ok);
                }
                Heard::Result(done) => {
                    let uid = excerpt(done.batch_uid.as_bytes());
                    return Err(self.broken(format_args!("wrote a result of {uid} after its end")));
                }
                Heard::End => break,
            }
        }
        match self.exited().await {
            Some(status) if status.success() => Ok(end),
            _ => Err(self.ended(cx).await),
        }
    }

    /// Hears the program until it answers or ends. What it says beside that is passed on.
    async fn hear(&mut self, cx: &RunContext) -> Result<Heard, HandlerError> {
        // Set once the process has ended, or closed its input too early: what it said last is heard.
        let mut until: Option<Instant> = None;
        let mut input_closed = false;
        // A checkpoint on its way to the store: nothing more is read meanwhile, but a cancel is told.
        let mut saving: Option<Saving<'_>> = None;
        loop {
            // What it says comes last: a flood must not hide a cancel.
            let piece = tokio::select! {
                biased;
                info = cx.cancelled(), if !self.cancel_told => {
                    self.cancel_told = true;
                    self.terminate_at = Some(terminate_at(info.deadline));
                    let left = info.deadline.saturating_duration_since(Instant::now());
                    let grace_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                    if !is_planted(Bug::CancelUnsaid) {
                        self.tell(&Tell::Cancel { reason: info.reason, grace_ms })?;
                    }
                    continue;
                }
                () = at(self.terminate_at), if self.terminate_at.is_some() => {
                    self.terminate_at = None;
                    self.group.terminate();
                    continue;
                }
                _ = self.group.ended(), if until.is_none() || input_closed => {
                    input_closed = false;
                    until = Some(Instant::now() + SETTLE);
                    continue;
                }
                () = broken(self.teller.as_ref()), if until.is_none() => {
                    input_closed = true;
                    until = Some(Instant::now() + SETTLE);
                    continue;
                }
                saved = saved(&mut saving), if saving.is_some() => {
                    saving = None;
                    // What it said behind the checkpoint is still to be read.
                    until = until.map(|_| Instant::now() + SETTLE);
                    match saved {
                        Err(error) if !is_planted(Bug::RefusalPassedOver) => return Err(error),
                        _ => continue,
                    }
                }
                () = at(until), if until.is_some() && saving.is_none() => {
                    if input_closed && !cx.is_cancelled() {
                        return Err(self.broken("closed its standard input and goes on"));
                    }
                    return Ok(Heard::End);
                }
                piece = self.lines.next(), if saving.is_none() => piece,
            };
            let line = match piece {
                Piece::Line(line) => line,
                Piece::End => return Ok(Heard::End),
                Piece::TooLong => return Err(self.too_long()),
                Piece::Half(half) => return Err(self.half_line(cx, &half).await),
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            let said = understand(&line).map_err(|why| {
                let text = excerpt(&line);
                self.broken(format_args!("wrote a line that {why}: {text}"))
            })?;
            if let Said::Checkpoint(Checkpoint {
                batch_uid, value, ..
            }) = said
            {
                self.check_uid("checkpoint", &batch_uid)?;
                saving = Some(Box::pin(async move { cx.save_checkpoint(&value).await }));
            } else if let Some(heard) = self.take(cx, said)? {
                return Ok(heard);
            }
        }
    }

    /// Does what a line asks for at once; an answer is returned.
    fn take(&self, cx: &RunContext, said: Said) -> Result<Option<Heard>, HandlerError> {
        match said {
            Said::Hello(Hello { protocol, .. }) if protocol == PROTOCOL => {}
            Said::Hello(Hello { protocol, .. }) => {
                return Err(self.broken(format_args!(
                    "speaks version {protocol} of the protocol; this worker speaks {PROTOCOL}"
                )));
            }
            Said::Result(done) => {
                if self.batch.is_some()
                    && let Err(error) = self.check_uid("result", &done.batch_uid)
                    && !is_planted(Bug::StaleResult)
                {
                    return Err(error);
                }
                return Ok(Some(Heard::Result(done)));
            }
            Said::Checkpoint(_) => unreachable!("saved by who hears it"),
            Said::Progress(Progress { done, total, .. }) => cx.report_progress(done, total),
            Said::Log(line) => log(cx, &line),
            Said::Error(failed) => return Err(failure(failed)),
            Said::Cancelled => return Err(HandlerError::cancelled()),
            Said::Final(line) => return Ok(Some(Heard::Final(line))),
        }
        Ok(None)
    }

    #[cfg(test)]
    pub(super) fn group_for_test(&self) -> Arc<Group> {
        self.group.clone()
    }

    fn check_uid(&self, kind: &str, uid: &str) -> Result<(), HandlerError> {
        if self.batch.as_deref() == Some(uid) {
            return Ok(());
        }
        let uid = excerpt(uid.as_bytes());
        let wrong = format!("wrote a {kind} of the batch {uid}");
        Err(match &self.batch {
            Some(batch) => self.broken(format_args!(
                "{wrong} while {} was in work; is it a second one, or of another batch?",
                excerpt(batch.as_bytes())
            )),
            None => self.broken(format_args!("{wrong} while none was in work")),
        })
    }

    fn tell(&self, line: &Tell<'_>) -> Result<(), HandlerError> {
        let told = self.teller.as_ref().map_or(Ok(()), |to| to.tell(line));
        told.map_err(|error| self.broken(format_args!("cannot be told: {error}")))
    }

    fn broken(&self, what: impl Display) -> HandlerError {
        HandlerError::permanent(
            PROTOCOL_BROKEN,
            format_args!("the program `{}` {what}", self.name),
        )
    }

    fn too_long(&self) -> HandlerError {
        HandlerError::permanent(
            LINE_TOO_LONG,
            format_args!(
                "the program `{}` wrote a line of more than {} bytes; write large results to a file \
                 or a store, and a reference to it here",
                self.name, self.line_bytes_max
            ),
        )
    }

    /// Killed or failed within a line, that is the reason; else the line is.
    async fn half_line(&mut self, cx: &RunContext, half: &[u8]) -> HandlerError {
        match self.exited().await {
            Some(status) if !status.success() => self.ended(cx).await,
            _ if cx.is_cancelled() => HandlerError::cancelled(),
            _ => {
                let text = excerpt(half);
                self.broken(format_args!(
                    "ended its output within a line: {text}; every line ends with a line end"
                ))
            }
        }
    }

    /// How the process ended, if it does so soon after its pipes closed.
    async fn exited(&self) -> Option<ExitStatus> {
        tokio::time::timeout(SETTLE, self.group.ended()).await.ok()
    }

    /// The error of a program that ended, or closed its output, without an answer.
    async fn ended(&mut self, cx: &RunContext) -> HandlerError {
        let status = self.exited().await;
        if cx.is_cancelled() {
            return HandlerError::cancelled();
        }
        let _ = tokio::time::timeout(SETTLE, &mut self.errors_read).await;
        let tail = self.errors.text();
        let tail = match tail.is_empty() {
            true => String::new(),
            false => format!("; its standard error ended with:\n{tail}"),
        };
        let name = &self.name;
        let when = match &self.batch {
            Some(batch) => format!("while the batch {} was in work", excerpt(batch.as_bytes())),
            None => "after its last batch".to_owned(),
        };
        match status {
            None => self.broken(format_args!(
                "closed its standard output and goes on, {when}{tail}"
            )),
            Some(status) if status.success() => self.broken(format_args!(
                "ended with exit code 0 and without a result, {when}; it must read lines until the \
                 end of file{tail}"
            )),
            Some(status) => match status.code() {
                Some(code) => HandlerError::transient(
                    EXITED,
                    format_args!("the program `{name}` ended with exit code {code}, {when}{tail}"),
                ),
                None => HandlerError::transient(
                    KILLED,
                    format_args!("the program `{name}` was killed ({status}), {when}{tail}"),
                ),
            },
        }
    }
}

impl Drop for Session {
    /// The pipes close; the process itself ends with the run.
    fn drop(&mut self) {
        self.errors_read.abort();
    }
}

fn failure(failed: Failed) -> HandlerError {
    let code = failed.code.filter(|code| !code.is_empty());
    let code = code.unwrap_or_else(|| FAILED.into());
    let error = if failed.permanent {
        HandlerError::permanent(code, failed.message)
    } else {
        HandlerError::transient(code, failed.message)
    };
    match failed.retry_after_ms {
        Some(ms) => error.retry_after(Duration::from_millis(ms)),
        None => error,
    }
}

fn log(cx: &RunContext, line: &Log) {
    let mut end = line.message.len().min(LOG_BYTES_MAX);
    while !line.message.is_char_boundary(end) {
        end -= 1;
    }
    let message = printable(&line.message[..end]);
    let info = cx.info();
    let (task, node, epoch) = (&info.task_id, &info.node_id, info.epoch.0);
    match line.level {
        Level::Error => tracing::error!(%task, %node, epoch, "{message}"),
        Level::Warn => tracing::warn!(%task, %node, epoch, "{message}"),
        Level::Info => tracing::info!(%task, %node, epoch, "{message}"),
        Level::Debug => tracing::debug!(%task, %node, epoch, "{message}"),
    }
}

/// When a program that was told to end gets SIGTERM: soon enough before its deadline to be heard.
fn terminate_at(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline - (left / 4).min(SETTLE)
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn broken(teller: Option<&Teller>) {
    match teller {
        Some(teller) => teller.broken().await,
        None => std::future::pending().await,
    }
}

/// The start of a line, quoted, for an error.
fn excerpt(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
