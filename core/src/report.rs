//! What a machine tells people: for logs, metrics and traces. Never a source of truth.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::id::{NodeId, TaskId, Token};

/// Something worth a log line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What happened.
    pub kind: ReportKind,
    /// The task it is about.
    pub task_id: Option<TaskId>,
    /// The node it is about.
    pub node_id: Option<NodeId>,
    /// The token it is about.
    pub token: Option<Token>,
    /// One sentence for people; never payloads or secrets.
    pub detail: Arc<str>,
}

/// Kinds of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportKind {
    /// Bad or late input: state unchanged.
    Rejected,
    /// A message that cannot be read, set aside.
    DeadLetter,
    /// This process owns the shard now.
    ShardOwned,
    /// This process does not own the shard any more.
    ShardLost,
    /// The stream is not the one that the shard record speaks of.
    StreamReplaced,
    /// A lease ran out, or its holder's process is known to be dead.
    GrantLost,
    /// A START was not answered in time.
    GrantUnanswered,
    /// A handler ignores its cancel; its slot stays taken.
    Abandoned,
    /// A task was set aside.
    Quarantined,
    /// The store or transport refused a request, or has not answered for a while.
    PortFailed,
    /// The store or transport answers again.
    PortBack,
    /// A run started or ended; `detail` says which.
    Run,
    /// A newer process of this worker id is alive.
    Superseded,
    /// Leases of the deployment have another length than this worker's settings say.
    LeaseDiffers,
}

impl ReportKind {
    /// Its name in logs, metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::DeadLetter => "dead_letter",
            Self::ShardOwned => "shard_owned",
            Self::ShardLost => "shard_lost",
            Self::StreamReplaced => "stream_replaced",
            Self::GrantLost => "grant_lost",
            Self::GrantUnanswered => "grant_unanswered",
            Self::Abandoned => "abandoned",
            Self::Quarantined => "quarantined",
            Self::PortFailed => "port_failed",
            Self::PortBack => "port_back",
            Self::Run => "run",
            Self::Superseded => "superseded",
            Self::LeaseDiffers => "lease_differs",
        }
    }

    /// Something went wrong: health shows the newest of these as the last error.
    #[must_use]
    pub const fn is_trouble(self) -> bool {
        !matches!(
            self,
            Self::Rejected | Self::Run | Self::ShardOwned | Self::PortBack
        )
    }
}

impl Report {
    /// A report about nothing in particular.
    #[must_use]
    pub fn new(kind: ReportKind, detail: impl AsRef<str>) -> Self {
        Self {
            kind,
            task_id: None,
            node_id: None,
            token: None,
            detail: Arc::from(detail.as_ref()),
        }
    }

    /// The same about a node.
    #[must_use]
    pub fn about(mut self, task: &TaskId, node: &NodeId, token: Option<Token>) -> Self {
        self.task_id = Some(task.clone());
        self.node_id = Some(node.clone());
        self.token = token;
        self
    }
}
