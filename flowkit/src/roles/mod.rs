//! The built-in roles: `scan`, `measure`, `summarize`, `echo`, `sleep` and `fail`.

mod count;
mod measure;
pub(crate) mod path_text;
mod reason;
mod report;
mod scan;
mod simple;
mod summarize;
mod walk;

pub(crate) use count::Counts;
pub(crate) use report::FileReport;
pub(crate) use scan::{BATCH_SIZE as SCAN_BATCH_SIZE, ENTRIES_KEY};
pub(crate) use summarize::METRICS;

use flowkit::prelude::WorkerBuilder;

/// Names of the built-in roles.
pub(crate) const NAMES: [&str; 6] = ["scan", "measure", "summarize", "echo", "sleep", "fail"];

/// Adds a handler for each of [`NAMES`].
pub(crate) fn with_all(worker: WorkerBuilder) -> WorkerBuilder {
    worker
        .role("scan", scan::Scan)
        .role("measure", measure::Measure)
        .role("summarize", summarize::Summarize)
        .role("echo", simple::Echo)
        .role("sleep", simple::Sleep)
        .role("fail", simple::Fail)
}
