//! Deterministic simulation of FlowKit.
//!
//! **Tier 0** runs the coordinator and worker machines and the store and broker models on one heap
//! of events: no runtime, no clock, no thread inside a run. A run is a [`plan::Plan`], which is
//! data; checkers judge its history by the promises of the README. [`judge`] takes the history of
//! real processes to the same checkers.

pub mod acting;
pub mod judge;
#[cfg(feature = "planted-bugs")]
pub mod mutants;
pub mod plan;
pub mod runner;
pub mod script;
mod tier1;
pub mod user;

mod checkers;
mod clock;
mod dice;
mod expect;
mod history;
mod ledger;
mod observer;
mod outcome;
mod servers;
mod trace;
mod world;
