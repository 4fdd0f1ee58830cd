//! Ports: what the engine needs of a store and of a transport, as plain data.
//!
//! A machine pushes requests as effects and gets the replies as inputs; a driver carries them to
//! an implementation of [`Store`] or [`Transport`]. Because requests are data, a fault layer, a
//! simulated network and a recorder wrap any implementation in a few lines.

mod store;
mod transport;

pub use store::{
    Commit, ExpiredPage, ExpiredTask, GrantView, LeaseView, Record, Removal, StagedKey, Store,
    StoreReply, StoreRequest, TaskAnswer, TaskPage, TaskWithNodes, WorkerList,
};
pub use transport::{Entry, Stream, Transport, TransportReply, TransportRequest};

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Nothing happened; try again later.
    Retry,
    /// It may have happened, or may still happen: submit the *same* request again.
    Unknown,
    /// Another owner or token is current: drop what you believed.
    Fenced,
    /// A condition other than ownership does not hold (another value, a taken id).
    Conflict,
    /// What was named does not exist.
    NotFound,
    /// The request can never succeed as it stands.
    Invalid,
    /// This backend does not do that.
    Unsupported,
    /// A record cannot be read.
    Corrupt,
}

/// An error of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{op}: {detail} ({kind:?})")]
pub struct PortError {
    /// What the caller does next.
    pub kind: ErrorKind,
    /// The operation that failed.
    pub op: Arc<str>,
    /// The cause for people; never payloads or secrets.
    pub detail: Arc<str>,
}

impl PortError {
    /// An error of a kind.
    #[must_use]
    pub fn new(kind: ErrorKind, op: &str, detail: impl AsRef<str>) -> Self {
        Self {
            kind,
            op: Arc::from(op),
            detail: Arc::from(detail.as_ref()),
        }
    }

    /// An answer to another question. Only its kind is told: the rest may be the payloads of users.
    #[must_use]
    pub fn unexpected(op: &str, reply: &impl std::fmt::Debug) -> Self {
        let text = format!("{reply:?}");
        let kind = text.split(|c: char| !c.is_alphanumeric()).next();
        let kind = kind.unwrap_or_default();
        let detail = format!("the answer is of another kind: {kind}");
        Self::new(ErrorKind::Unsupported, op, detail)
    }
}
