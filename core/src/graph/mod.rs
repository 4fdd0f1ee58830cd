//! Task graphs: reading and checking them, their compiled form, and the rules of fan-in.
//!
//! [`Graph::parse`] checks a graph and lists every fault at once; [`Graph::plan`] compiles it to a
//! [`Plan`] of numbered nodes and edges. [`edge_state`] says what a parent's state means for one
//! edge, [`FanInTally`] adds the edges of one child up to a [`Verdict`]. What a verdict leads to
//! is the coordinator's business.

pub mod adapter;
mod check;
mod cycle;
mod edge;
mod fan_in;
mod fault;
mod function;
pub mod generate;
mod parse;
mod plan;
mod read;
mod spec;
mod when;

pub use adapter::{Adapter, Pull};
pub use edge::{ParentView, edge_state, failure_handled};
pub use fan_in::{EdgeState, FanIn, FanInTally, Verdict};
pub use fault::{FAULTS_MAX, Fault};
pub(crate) use fault::{Faults, Path, quoted, similar};
pub use function::FunctionCall;
pub use generate::{GraphOptions, generate};
pub use plan::{ChildEdge, EdgeCondition, ParentEdge, Plan, PlanNode};
pub(crate) use read::{Fields, id, ids, kind, list, text};
pub use spec::{Graph, Node, RetryPolicy};
pub use when::{Condition, Op};

pub use crate::vars::{VARS_BYTES_MAX, check_vars};

use crate::message::{CHECKPOINT_BYTES_MAX, MESSAGE_BYTES_MAX};

/// Most nodes of a graph.
pub const GRAPH_NODES_MAX: usize = 10_000;
/// Most bytes of a graph's JSON: what fits into a message with room for its envelope.
pub const GRAPH_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 4 * 1024;
/// Most bytes that a node's own part (input, adapter, parents) may add to the message that starts
/// it: the rest of a message holds its checkpoint, the vars and the totals.
pub const START_BYTES_MAX: usize =
    MESSAGE_BYTES_MAX - CHECKPOINT_BYTES_MAX - VARS_BYTES_MAX - 64 * 1024;

#[cfg(test)]
mod tests;
