//! How a task is operated: what clients asked for beside its graph, and how often it was held back.

use serde::{Deserialize, Serialize};

/// How a task is operated, as its record keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskControl {
    /// Counts the pauses and resumes that were carried out: odd while the task is held back.
    ///
    /// A request carries the next number, so a copy that comes late changes nothing.
    #[serde(default)]
    pub no: u64,
}
