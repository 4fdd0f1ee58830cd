//! The built-in roles: `scan`, `measure`, `summarize`, `echo`, `sleep` and `fail`; and `exec`, which only
//! `flowkit run` has.

mod count;
mod exec;
mod measure;
pub(crate) mod path_text;
mod reason;
mod report;
mod scan;
mod simple;
mod summarize;
mod walk;

pub(crate) use count::Counts;
pub(crate) use exec::{EXEC, GraphExec, command_of};
pub(crate) use report::FileReport;
pub(crate) use scan::{BATCH_SIZE as SCAN_BATCH_SIZE, ENTRIES_KEY};
pub(crate) use summarize::METRICS;

use flowkit::prelude::WorkerBuilder;

/// Adds the handler of one of [`NAMES`].
///
/// # Errors
/// There is no such role; the text says which there are.
pub(crate) fn with(worker: WorkerBuilder, name: &str) -> Result<WorkerBuilder, String> {
    Ok(match name {
        "scan" => worker.role(name, scan::Scan),
        "measure" => worker.role(name, measure::Measure),
        "summarize" => worker.role(name, summarize::Summarize),
        "echo" => worker.role(name, simple::Echo),
        "sleep" => worker.role(name, simple::Sleep),
        "fail" => worker.role(name, simple::Fail),
        _ => return Err(unknown(name)),
    })
}

/// What is said of a role that is not built in and that no program runs.
pub(crate) fn unknown(name: &str) -> String {
    let names = NAMES.join(", ");
    format!(
        "role {name:?}: no such built-in role; there are {names}; or give it to a program: --exec \
         {name}='COMMAND'"
    )
}

/// Names of the built-in roles.
pub(crate) const NAMES: [&str; 6] = ["scan", "measure", "summarize", "echo", "sleep", "fail"];
