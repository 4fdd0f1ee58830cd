//! What the handlers and clients of a plan do, with the real library: in simulated processes, and in
//! real ones.

mod clients;
mod handler;

pub use clients::Clients;
pub(crate) use handler::PlannedPanic;
pub use handler::Scripted;

use flowkit_core::json::Json;
use flowkit_runtime::RunInfo;
use std::fmt;

use crate::judge::{Seen, Step};

/// Where a scripted handler says what it does, at the moment it does it.
pub trait Journal: fmt::Debug + Send + Sync + 'static {
    /// A run begins, at a checkpoint.
    fn began(&self, run: &RunInfo, checkpoint: Option<Json>);

    /// A later step of a run.
    fn step(&self, run: &RunInfo, step: Step);

    /// A trouble of its script strikes, by its family.
    fn struck(&self, _family: &'static str) {}
}

/// Who is told what clients ask and are answered, at that moment.
pub trait Watcher: fmt::Debug + Send + Sync + 'static {
    /// It happens now.
    fn saw(&self, seen: Seen);
}
