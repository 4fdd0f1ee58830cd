//! Transition tests: one input, the whole vector of effects. `random` throws everything at once.

mod bench;

mod announces;
mod batches;
mod cancels;
mod drain;
mod leases;
mod life;
mod random;
mod readers;
mod sending;
mod starts;
mod store;
