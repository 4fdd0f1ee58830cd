//! FlowKit's pure core: messages, graphs, the coordinator and worker machines, port traits.
//!
//! Nothing here reads a clock, draws randomness, blocks or does I/O: a machine takes
//! `(now, input)` and pushes effects, which are plain data. `docs/driving-the-core.md` shows the
//! loop that drives one.

pub mod control;
pub mod doctor;
pub mod function;
pub mod graph;
pub mod hash;
pub mod id;
pub mod json;
pub mod message;
#[doc(hidden)]
pub mod planted;
pub mod port;
pub mod record;
pub mod text;
pub mod time;
pub mod vars;

pub mod coordinator;
pub mod report;
pub mod why;
pub mod worker;
