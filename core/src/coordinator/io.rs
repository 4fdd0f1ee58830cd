//! What goes into the coordinator machine and what comes out of it.

use serde::{Deserialize, Serialize};

use crate::id::{DedupId, Offset, OpId, ShardId, TaskId};
use crate::port::{PortError, StoreReply, StoreRequest, TransportReply, TransportRequest};
use crate::report::Report;

/// An input of the coordinator machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// The first input of a process, or a timer; early, late and double wakes are legal.
    Wake,
    /// The driver has no other input at hand: a commit that waited for company may begin.
    Idle,
    /// The answer to [`Effect::Store`].
    StoreDone {
        /// Names the request.
        op: OpId,
        /// Its outcome.
        result: Result<StoreReply, PortError>,
    },
    /// The answer to [`Effect::Transport`].
    TransportDone {
        /// Names the request.
        op: OpId,
        /// Its outcome.
        result: Result<TransportReply, PortError>,
    },
    /// Stop: hear once more what was said until now, commit it, give the shards up.
    Shutdown {
        /// Every worker of the deployment was in this process and has stopped in order: what is still
        /// granted then was never begun, and is handed back.
        workers_left: bool,
    },
    /// The last machine of this process panicked; the driver made this one and tells it what
    /// [`super::Coordinator::subject`] named. Comes before the first `Wake`.
    Panicked {
        /// What was being handled.
        subject: Subject,
    },
}

/// What a coordinator is handling at the moment: if it panics there, this costs its task only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The shard.
    pub shard: Option<ShardId>,
    /// The stream entry, if one was being folded.
    pub offset: Option<Offset>,
    /// Which message that entry is: after a loss another one may stand there.
    pub message: Option<DedupId>,
    /// The task, if known.
    pub task_id: Option<TaskId>,
    /// That task was being read from its records.
    pub loading: bool,
}

/// An effect of the coordinator machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Ask the store.
    Store {
        /// Names the request.
        op: OpId,
        /// The request.
        request: StoreRequest,
    },
    /// Ask the transport. Appends to one stream are carried out in the order of these effects.
    Transport {
        /// Names the request.
        op: OpId,
        /// The request.
        request: TransportRequest,
    },
    /// Tell people.
    Report(Report),
    /// The machine is done; the process (or this coordinator in it) ends.
    Stopped,
}
