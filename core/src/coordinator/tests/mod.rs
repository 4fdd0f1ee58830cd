//! Transitions of the coordinator machine: what goes in, and everything that comes out.

mod bench;
mod cancel;
mod commit;
mod events;
mod functions;
mod handover;
mod leases;
mod limits;
mod parked;
mod pause;
mod random;
mod rerun;
mod rerun_begins;
mod rules;
mod stops;
mod sweep;
mod takeover;
mod unreadable;
