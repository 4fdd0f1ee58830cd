//! Exhaustive exploration of FlowKit's machines.
//!
//! The simulator draws some schedules of large worlds; this crate takes *every* schedule of a small
//! one: the real coordinator and worker machines over the models of store and broker, with a budget of
//! things that go wrong ([`Scope`]). `docs/guide/exploration.md` says what is abstracted away.

mod canon;
mod scope;
mod search;
mod world;

#[cfg(feature = "planted-bugs")]
pub mod mutants;

pub use scope::{Budget, SCOPES, Scope};
pub use search::{Counterexample, Limits, Outcome, Planted, search};
pub use world::{Action, Broken, Process, World};
