//! FlowKit's tokio drivers and the handler API.

mod batch;
mod cancel;
mod checkpoint;
mod clock;
mod context;
mod error;
mod handler;
mod input;
mod source;
mod testing;

pub use batch::{Batch, BatchResult, FinalizeResult};
pub use cancel::CancelInfo;
pub use context::{ArtifactWriter, Progress, RunContext, RunInfo};
pub use error::{ErrorClass, HandlerError};
pub use flowkit_core::json::Json;
pub use flowkit_core::message::CancelReason;
pub use handler::{Handler, HandlerFn, handler_fn};
pub use input::{ArtifactRef, Chunk, Pulled, TaskInput};
pub use source::{BatchSink, BatchStream};
pub use testing::TestControl;
