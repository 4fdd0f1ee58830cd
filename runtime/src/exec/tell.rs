//! Lines for the program, each one JSON object with its `kind` first.

use flowkit_core::json::Json;
use flowkit_core::message::CancelReason;
use flowkit_core::record::Totals;
use serde::Serialize;
use std::path::Path;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::{mpsc, watch};

/// A line for the program.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Tell<'a> {
    /// The first line: who and what the run is.
    Hello {
        protocol: u32,
        task_id: &'a str,
        node_id: &'a str,
        role: &'a str,
        worker_id: &'a str,
        attempt: u32,
        token: u64,
        accepted: u64,
        checkpoint: Option<&'a Json>,
        input: &'a Json,
        vars: &'a Json,
        temp_dir: &'a Path,
    },
    /// Work.
    Batch {
        batch_uid: &'a str,
        attempt: u32,
        idempotency_key: &'a str,
        checkpoint: Option<&'a Json>,
        payload: &'a Json,
    },
    /// The run is to end.
    Cancel { reason: CancelReason, grace_ms: u64 },
    /// Every batch is done; behind it comes the end of file.
    Finalize { totals: &'a Totals },
}

/// Writes lines from a task of its own, so that a program which does not read cannot keep us from
/// hearing what it says. Dropped, it closes the pipe.
#[derive(Debug)]
pub(super) struct Teller {
    lines: mpsc::UnboundedSender<String>,
    broken: watch::Receiver<bool>,
}

impl Teller {
    pub(super) fn new(mut pipe: ChildStdin) -> Self {
        // As many lines wait as are outstanding: a hello, a batch, a cancel, a finalize.
        let (lines, mut waiting) = mpsc::unbounded_channel::<String>();
        let (say_broken, broken) = watch::channel(false);
        tokio::spawn(async move {
            while let Some(line) = waiting.recv().await {
                let written = pipe.write_all(line.as_bytes()).await;
                if written.is_err() || pipe.flush().await.is_err() {
                    say_broken.send_replace(true);
                    return;
                }
            }
        });
        Self { lines, broken }
    }

    pub(super) fn tell(&self, line: &Tell<'_>) -> Result<(), serde_json::Error> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        let _ = self.lines.send(text); // fails when the pipe is broken
        Ok(())
    }

    /// Returns when the program has closed its standard input before it read all. Cancel safe.
    pub(super) async fn broken(&self) {
        let mut broken = self.broken.clone();
        if broken.wait_for(|broken| *broken).await.is_err() {
            // All was written and the pipe is closed.
            std::future::pending::<()>().await;
        }
    }
}
