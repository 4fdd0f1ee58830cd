//! Coordinator functions: what a `coordinator_fn` node does, inside the coordinator.
//!
//! A function is pure: from its arguments, the task's vars and what the node's parents came to it
//! makes changes of the vars and, if it likes, a result of the node. The coordinator makes the
//! changes and ends the node in one commit, so that both happen once or not at all. After a crash
//! the same function may run again on the same state; it must come to the same.

mod args;
mod call;
mod detect;
mod merge;
mod metrics;
mod registry;
mod vars;

pub use args::Check;
pub use call::{Call, Changes, FunctionError, Upstream};
pub(crate) use call::{Done, carry_out};
pub use detect::{Detector, SECRETS};
pub use registry::Functions;

/// The `type` of nodes that run inside the coordinator.
pub const COORDINATOR_FN: &str = "coordinator_fn";

/// Most bytes of a function's result as JSON.
pub const RESULT_BYTES_MAX: usize = 64 * 1024;

/// A function that `coordinator_fn` nodes can name in `io.fn`.
///
/// It must be deterministic: no clock, no randomness, no I/O, nothing kept between calls. A panic
/// sets its task aside (`quarantined`), and no other.
///
/// A closure is a function without a check of its arguments:
///
/// ```
/// use flowkit_core::function::{Call, Changes, FunctionError, Functions};
///
/// let functions = Functions::default().function("vars.double", |call: &Call<'_>| {
///     let path = call.text_arg("path")?;
///     let number = call.var(path).and_then(|value| value.as_i64());
///     let number = number.ok_or_else(|| FunctionError::new("no_number", "it is no whole number"))?;
///     Ok(Changes::new().set(path, number * 2))
/// });
/// assert!(functions.faults().is_empty());
/// ```
pub trait Function: Send + Sync + 'static {
    /// Checks a node's `io.fn_args` when a graph is submitted; each fault refuses the graph. By
    /// default everything is taken.
    fn check(&self, check: &mut Check<'_>) {
        let _ = check;
    }

    /// Does the work.
    ///
    /// # Errors
    /// The node fails for good, with this reason and text; nothing changes.
    fn run(&self, call: &Call<'_>) -> Result<Changes, FunctionError>;
}

impl<F> Function for F
where
    F: Fn(&Call<'_>) -> Result<Changes, FunctionError> + Send + Sync + 'static,
{
    fn run(&self, call: &Call<'_>) -> Result<Changes, FunctionError> {
        self(call)
    }
}

#[cfg(test)]
mod tests;
