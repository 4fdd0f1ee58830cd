//! What a run holds outside of its own memory: a temporary folder and child processes. Both go with
//! it, however it ends.

use flowkit_core::message::CancelReason;
use flowkit_core::planted::{Bug, is_planted};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::process::Command;
use tokio::time::Instant;

use crate::cancel::CancelInfo;
use crate::folder::Folder;
use crate::process::{self, ChildProcess, Group};

/// Time that processes have between SIGTERM and SIGKILL, where no deadline is nearer.
const GRACE: Duration = Duration::from_secs(5);
/// The same when the run's own deadline has passed: the worker gives a handler up a second after.
const LATE_GRACE: Duration = Duration::from_millis(500);

/// Why a run cannot have something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// It is over.
    #[error("the run is over")]
    Ended,
    /// The operating system says no.
    #[error(transparent)]
    System(#[from] std::io::Error),
}

#[derive(Debug, Default)]
pub(crate) struct Resources(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    ended: bool,
    folder: Option<Folder>,
    processes: Vec<Arc<Group>>,
}

impl Resources {
    /// The run's folder, made at the first call.
    pub(crate) fn folder(&self) -> Result<PathBuf, Refused> {
        let mut held = self.held();
        if held.ended {
            return Err(Refused::Ended);
        }
        let folder = match &held.folder {
            Some(folder) => folder,
            None => held.folder.insert(Folder::make()?),
        };
        Ok(folder.path().to_owned())
    }

    /// Starts a process that ends with the run.
    pub(crate) fn spawn(&self, command: &mut Command) -> Result<ChildProcess, Refused> {
        let mut held = self.held();
        if held.ended {
            return Err(Refused::Ended);
        }
        let process = process::start(command)?;
        held.processes.retain(|group| !group.has_ended());
        held.processes.push(process.group.clone());
        Ok(process)
    }

    /// Nothing is held, so nothing needs to end.
    pub(crate) fn is_empty(&self) -> bool {
        let held = self.held();
        held.folder.is_none() && held.processes.is_empty()
    }

    /// Asks all processes to end, and kills those that do not, by the time that a cancel allows.
    pub(crate) async fn end_processes(&self, cancel: Option<CancelInfo>) {
        // They stay held meanwhile: a run that is given up at once takes them along.
        let guard = KillAll(self.held().processes.clone());
        let grace = grace(cancel);
        futures_util::future::join_all(guard.0.iter().map(|group| group.end(grace))).await;
        self.held().processes.retain(|group| !group.has_ended());
    }

    /// The run is over: what it still holds goes, and it gets no more.
    pub(crate) async fn end(&self) {
        let (folder, processes) = self.take();
        processes.iter().for_each(|group| group.kill());
        futures_util::future::join_all(processes.iter().map(|group| group.ended())).await;
        if let Some(folder) = folder {
            let path = folder.path().to_owned();
            let removed = tokio::task::spawn_blocking(move || folder.close()).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!("a run's folder {} stays: {error}", path.display());
            }
        }
    }

    /// The same at once, for a run that is dropped.
    pub(crate) fn abandon(&self) {
        let (folder, processes) = self.take();
        if !is_planted(Bug::ChildKept) {
            processes.iter().for_each(|group| group.kill());
        }
        match folder {
            Some(folder) if is_planted(Bug::FolderKept) => std::mem::forget(folder),
            folder => drop(folder),
        }
    }

    fn take(&self) -> (Option<Folder>, Vec<Arc<Group>>) {
        let mut held = self.held();
        held.ended = true;
        (held.folder.take(), std::mem::take(&mut held.processes))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Resources {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Processes whose end is under way; dropped before, they are killed.
struct KillAll(Vec<Arc<Group>>);

impl Drop for KillAll {
    fn drop(&mut self) {
        self.0.iter().for_each(|group| group.kill());
    }
}

fn grace(cancel: Option<CancelInfo>) -> Duration {
    let Some(CancelInfo { reason, deadline }) = cancel else {
        return GRACE;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let least = match reason {
        // Another worker may hold the node soon, or already.
        CancelReason::LeaseLapsed | CancelReason::Fenced => Duration::ZERO,
        _ => LATE_GRACE,
    };
    left.clamp(least, GRACE)
}
