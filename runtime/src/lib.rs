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
mod handler;
mod ids;
mod input;
mod mailbox;
mod run;
mod signal;
mod source;
mod testing;
mod worker;

pub use batch::{Batch, BatchResult, FinalizeResult};
pub use cancel::CancelInfo;
pub use client::{
    ArtifactView, Artifacts, Client, ClientError, NodeStatus, RerunOptions, SubmitOptions,
    TaskHandle, TaskOutcome, TaskStatus, TaskWatch,
};
pub use config::{BuildError, CoordinatorSettings, WorkerSettings};
pub use context::{ArtifactWriter, Progress, RunContext, RunInfo};
pub use engine::{Engine, EngineSettings, StartError};
pub use environment::Environment;
pub use error::{ErrorClass, HandlerError};
pub use flowkit_core::id::{NodeId, TaskId, WorkerId};
pub use flowkit_core::json::Json;
pub use flowkit_core::message::{CancelReason, ReplyError};
pub use flowkit_core::record::{Failure, NodeState, TaskState, Totals};
pub use handler::{Handler, HandlerFn, handler_fn};
pub use ids::task_id_of_key;
pub use input::{ArtifactRef, Chunk, Pulled, TaskInput};
pub use signal::shutdown_signal;
pub use source::{BatchSink, BatchStream};
pub use testing::TestControl;
pub use worker::{RunStatus, Worker, WorkerBuilder, WorkerError, WorkerHandle, WorkerStatus};
