//! What a handler works on and what it gives back.

use flowkit_core::id::BatchUid;
use flowkit_core::json::Json;
use flowkit_core::message::Metrics;
use serde::Serialize;
use std::sync::Arc;

use crate::HandlerError;

/// One batch of a node's input.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batch<T> {
    /// Unique in its node and *the same in every attempt*: derive it from the data, never from a
    /// clock or a counter of this process. 1 to 200 bytes; checked when the batch is drawn.
    pub uid: Arc<str>,
    /// What to work on.
    pub payload: T,
    /// Newest checkpoint that an earlier attempt saved while this very batch was in work; see
    /// [`RunContext::batch_checkpoint`](crate::RunContext::batch_checkpoint).
    pub checkpoint: Option<Json>,
}

impl<T> Batch<T> {
    /// A batch.
    pub fn new(uid: impl Into<Arc<str>>, payload: T) -> Self {
        Self {
            uid: uid.into(),
            payload,
            checkpoint: None,
        }
    }

    pub(crate) fn checked_uid(&self) -> Result<BatchUid, HandlerError> {
        BatchUid::new(&self.uid).map_err(|error| {
            HandlerError::permanent(
                crate::error::BAD_INPUT,
                format_args!("batch uid {:?} {error}", self.uid),
            )
        })
    }
}

/// What one batch gave: metrics, and an artifact for later nodes.
///
/// A batch without an artifact leaves its metrics as one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct BatchResult<T> {
    pub(crate) metrics: Metrics,
    pub(crate) artifact: Option<T>,
}

impl<T> BatchResult<T> {
    /// The batch is done; nothing to report.
    pub fn new() -> Self {
        Self {
            metrics: Metrics::new(),
            artifact: None,
        }
    }

    /// The batch is done and leaves a value for later nodes.
    pub fn of(artifact: T) -> Self {
        Self {
            metrics: Metrics::new(),
            artifact: Some(artifact),
        }
    }

    /// Adds a metric. Numbers are summed up by the engine over accepted batches (sum, count, min,
    /// max, last); other values are kept per batch.
    pub fn metric(
        mut self,
        name: impl Into<Arc<str>>,
        value: impl Into<serde_json::Value>,
    ) -> Self {
        self.metrics.insert(name.into(), Json::from(value.into()));
        self
    }
}

impl<T> Default for BatchResult<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a node gave once every batch was done.
#[derive(Debug, Default)]
#[must_use]
pub struct FinalizeResult {
    pub(crate) metrics: Metrics,
    pub(crate) result: Option<Result<Json, HandlerError>>,
}

impl FinalizeResult {
    /// Nothing to report.
    pub fn new() -> Self {
        Self::default()
    }

    /// The node's result, kept in its record.
    ///
    /// A value without a JSON form (a map whose keys are not text) fails the node for good.
    pub fn of(result: impl Serialize) -> Self {
        Self {
            metrics: Metrics::new(),
            result: Some(Json::encode(&result).map_err(|error| no_json(&error))),
        }
    }

    /// Adds a metric to the node's totals.
    pub fn metric(
        mut self,
        name: impl Into<Arc<str>>,
        value: impl Into<serde_json::Value>,
    ) -> Self {
        self.metrics.insert(name.into(), Json::from(value.into()));
        self
    }
}

pub(crate) fn no_json(error: &serde_json::Error) -> HandlerError {
    HandlerError::permanent(
        "bad_output",
        format_args!("the value has no JSON form: {error}"),
    )
}
