//! How a task is operated: what clients asked for beside its graph, and how often it was held back.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::id::ID_BYTES_MAX;

/// Longest delayed start: ten years.
pub const START_DELAY_MS_MAX: u64 = 10 * 366 * 86_400_000;

/// How a task is operated, as its record keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskControl {
    /// Counts the pauses and resumes that were carried out: odd while the task is held back.
    ///
    /// A request carries the next number, so a copy that comes late changes nothing.
    #[serde(default)]
    pub no: u64,
    /// What its submission asked for.
    #[serde(default)]
    pub options: TaskOptions,
}

/// What a submission may ask for beside the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOptions {
    /// Where nodes of several tasks are ready, those of the highest priority are granted first, and
    /// among equals those that waited longest; default 0.
    #[serde(default)]
    pub priority: i32,
    /// No node starts before so long after the submission was taken; default 0.
    #[serde(default)]
    pub start_delay_ms: u64,
    /// Its nodes count against the coordinator's limit for this key; default: for none.
    #[serde(default)]
    pub limit_key: Option<Arc<str>>,
}

impl TaskOptions {
    /// Nothing was asked for.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Every value that is impossible, one sentence each with its field and the cure.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.start_delay_ms > START_DELAY_MS_MAX {
            let asked = self.start_delay_ms;
            faults.push(format!(
                "options.start_delay_ms: {asked} is over the limit of {START_DELAY_MS_MAX} (ten years)"
            ));
        }
        if let Some(key) = &self.limit_key
            && (key.is_empty() || key.len() > ID_BYTES_MAX || key.chars().any(char::is_control))
        {
            faults.push(format!(
                "options.limit_key: must be 1 to {ID_BYTES_MAX} bytes without control characters"
            ));
        }
        faults
    }
}
