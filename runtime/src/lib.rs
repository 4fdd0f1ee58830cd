//! FlowKit's tokio drivers and the handler API.
//!
//! Users write a [`Handler`], give it to a [`Worker`] of an [`Engine`], and submit graphs with a
//! [`Client`]. The drivers underneath carry the core machines' requests to the store and the
//! transport; every decision about tasks is the core's.

mod batch;
mod cancel;
mod checkpoint;
mod client;
mod clock;
mod config;
mod context;
mod driver;
mod engine;
mod environment;
mod error;
mod exec;
mod folder;
mod handler;
mod ids;
mod input;
mod mailbox;
mod process;
mod resources;
mod run;
mod signal;
mod source;
mod testing;
pub mod vitals;
mod worker;

/// For the `flowkit` command, not for others.
#[doc(hidden)]
pub mod of_command {
    pub use crate::folder::Folder;
    pub use crate::process::kill_all;
}

pub use batch::{Batch, BatchResult, FinalizeResult};
pub use cancel::CancelInfo;
pub use client::{
    ActiveRun, ArtifactView, Artifacts, Client, ClientError, Heard, NodeStatus, Presence,
    RerunOptions, ShardLag, SubmitOptions, TaskHandle, TaskList, TaskOutcome, TaskStatus,
    TaskWatch, WorkerView,
};
pub use config::{BuildError, CoordinatorSettings, WorkerSettings};
pub use context::{ArtifactWriter, Progress, RunContext, RunInfo};
pub use engine::{Engine, EngineSettings, StartError};
pub use environment::Environment;
pub use error::{ErrorClass, HandlerError};
pub use exec::{Exec, ExecError, ExecRun};
pub use flowkit_core::control::{START_DELAY_MS_MAX, TaskOptions};
pub use flowkit_core::coordinator::{Limit, Limits};
pub use flowkit_core::function;
pub use flowkit_core::id::{NodeId, Role, TaskId, WorkerId};
pub use flowkit_core::json::Json;
pub use flowkit_core::message::{CancelReason, ReplyError};
pub use flowkit_core::record::{
    Failure, History, MetricTotal, NodeState, TaskState, Totals, Transition, WorkerRecord,
};
pub use flowkit_core::why::{NodeWhy, WaitsFor, Why};
pub use handler::{Handler, HandlerFn, handler_fn};
pub use ids::task_id_of_key;
pub use input::{ArtifactRef, Chunk, ChunkParent, ChunkRef, Pulled, TaskInput};
pub use process::ChildProcess;
pub use signal::shutdown_signal;
pub use source::{BatchSink, BatchStream};
pub use testing::TestControl;
pub use worker::{RunStatus, Worker, WorkerBuilder, WorkerError, WorkerHandle, WorkerStatus};
