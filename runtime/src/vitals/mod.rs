//! What a driver saw of its machine and its ports: for health and metrics. Nothing decides by it.
//!
//! A driver counts in memory of its own, without locks, and answers when it is asked. So an answer
//! shows as well that the driver turns.

mod coordinator;
mod figures;
mod worker;

pub use coordinator::{CoordinatorVitals, ShardVitals};
pub use figures::{Calls, Histogram, SECONDS};
pub use worker::{RoleFigures, WorkerVitals};

pub(crate) use coordinator::{CoordinatorWatch, Overview};
pub(crate) use worker::WorkerWatch;

use flowkit_core::id::Role;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Most roles that are counted apart; a graph may name any.
pub(crate) const ROLES_MAX: usize = 64;
/// What roles beyond that are counted as.
pub(crate) const OTHER_ROLES: &str = "other";
/// A driver that does not answer in this time is stuck.
const PATIENCE: Duration = Duration::from_secs(1);

/// Something that went wrong, and how long ago.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trouble {
    /// One sentence; never payloads or secrets.
    pub text: String,
    /// Milliseconds ago.
    pub age_ms: u64,
}

/// The side of whoever asks a driver.
#[derive(Debug)]
pub(crate) struct Asks<T>(mpsc::Sender<oneshot::Sender<T>>);

impl<T> Clone for Asks<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The driver's side.
pub(crate) type Asked<T> = mpsc::Receiver<oneshot::Sender<T>>;

impl<T> Asks<T> {
    /// Both sides.
    pub(crate) fn channel() -> (Self, Asked<T>) {
        let (sender, receiver) = mpsc::channel(8);
        (Self(sender), receiver)
    }

    /// What the driver says; `None` if it has ended or does not answer. Cancel safe.
    pub(crate) async fn ask(&self) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(answer).ok()?;
        let answered = tokio::time::timeout(PATIENCE, answered).await;
        answered.ok()?.ok()
    }
}

/// The name that a role is counted under.
pub(crate) fn counted<V>(known: &BTreeMap<Role, V>, role: &Role) -> Role {
    if known.contains_key(role) || known.len() < ROLES_MAX {
        return role.clone();
    }
    Role::new(OTHER_ROLES).unwrap_or_else(|_| role.clone())
}
