//! Transitions of the coordinator machine: what goes in, and everything that comes out.

mod bench;
mod cancel;
mod commit;
mod events;
mod leases;
mod random;
mod rerun;
mod rules;
mod sweep;
mod takeover;
