//! Tier 1: whole coordinators, workers and clients, the real drivers of `runtime/`, on turmoil's
//! hosts. The servers' models live on hosts of their own and are reached over simulated TCP.

mod director;
mod embedded;
mod environment;
mod faults;
mod gate;
mod host;
mod hosted;
mod panics;
mod port;
mod process;
mod servers;
mod stage;
mod wire;

pub(crate) use director::run;
