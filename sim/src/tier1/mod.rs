//! Tier 1: whole coordinators, workers and clients, the real drivers of `runtime/`, on turmoil's
//! hosts. The servers' models live on hosts of their own and are reached over simulated TCP.

mod director;
mod embedded;
mod environment;
mod faults;
mod gate;
mod host;
mod hosted;
mod panics;
mod piece;
mod port;
mod process;
mod servers;
mod stage;
#[cfg(test)]
mod tests;
mod wire;

use std::rc::Rc;

use flowkit_runtime::Handler;

use crate::history::Place;
use crate::outcome::Outcome;
use crate::plan::Plan;
pub(crate) use director::run as play;
pub(crate) use piece::{Acting, Piece};

/// Runs a plan's own scripts and actions to the end.
pub(crate) fn run(plan: &Plan, keep_history: bool) -> Outcome {
    director::run(plan, Rc::new(piece::Scripts::of(plan)), keep_history)
}

/// A handler that lives and dies with its process.
pub(crate) fn hosted<H: Handler>(place: Place, handler: H) -> impl Handler {
    hosted::Hosted {
        place,
        handler,
        keeps_journal: false,
    }
}

/// True time of the run that this thread is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) ms: u64,
    /// Faults are over.
    pub(crate) healed: bool,
}

/// `None` outside of a run.
pub(crate) fn now() -> Option<Now> {
    let mut now = None;
    stage::if_standing(|stage| {
        now = Some(Now {
            ms: stage.now / 1_000,
            healed: stage.healed,
        });
    });
    now
}

/// A client has had an answer that is no plan's action.
pub(crate) fn answered() {
    stage::with(stage::Stage::answered);
}
