//! Names of single calls, for plans that say which ones go wrong.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Plan;

/// One call: the n-th of its kind that a host (or a client) makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Call {
    /// Index of the host, or number of the client.
    pub host: u32,
    /// Its kind.
    pub kind: CallKind,
    /// Which one.
    pub nth: u64,
}

/// Kinds of calls that have their luck counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CallKind {
    /// To the store.
    Store,
    /// A message.
    Append,
    /// A read of a stream.
    Read,
    /// A question about a stream (tier 0).
    Look,
    /// A client's message (tier 0).
    Ask,
    /// A reply on its way to a client (tier 0).
    Reply,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (who, what) = match self.kind {
            CallKind::Store => ("host", "call to the store"),
            CallKind::Append => ("host", "message"),
            CallKind::Read => ("host", "read"),
            CallKind::Look => ("host", "question about a stream"),
            CallKind::Ask => ("client", "message"),
            CallKind::Reply => ("client", "reply"),
        };
        write!(f, "{who} {}, {what} {}", self.host, self.nth)
    }
}

impl Plan {
    /// Whether `rates` hold for this call, too. It draws its luck in any case, so that what does not go
    /// wrong is the same with and without a list of calls.
    pub(crate) fn strikes(&self, call: Call) -> bool {
        self.calls
            .as_ref()
            .is_none_or(|calls| calls.contains(&call))
    }
}
