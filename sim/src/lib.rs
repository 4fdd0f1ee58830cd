//! Deterministic simulation of FlowKit.
//!
//! A run is a [`plan::Plan`], which is data; checkers judge its history by the promises of the README.
//! **Tier 0** runs the coordinator and worker machines and the store and broker models on one heap
//! of events: no runtime, no clock, no thread inside a run. **Tier 1** runs whole coordinators,
//! workers and clients, with the real drivers, on simulated hosts and a simulated network. [`runner`]
//! runs seeds and plans on either; [`user`] runs a user's own handlers there; [`judge`] takes the
//! history of real processes to the same checkers.

pub mod acting;
pub mod functions;
pub mod judge;
#[cfg(feature = "planted-bugs")]
pub mod mutants;
pub mod plan;
pub mod runner;
pub mod script;
pub mod strays;
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
mod vars_model;
mod world;
