//! In-memory models of FlowKit's store and broker.
//!
//! Both are pure state machines: `apply(now_ms, &request)`. They read no clock, draw no randomness
//! and do no I/O, so the simulator runs them under any schedule and the same models are held
//! against the real servers. What a network can do to a request (delay, loss, a lost reply, a late
//! copy) is done around a model; what only the inside can do (loss of unsynced state, records that
//! rot, refusals, a full disk) is a fault hook, see [`StoreFault`] and [`BrokerModel`].
//!
//! With the feature `process` they also serve one process as its ports: `MemoryStore` and
//! `LocalTransport`.

mod broker;
#[cfg(feature = "process")]
mod process;
mod store;

pub use broker::{BrokerModel, Outcome};
#[cfg(feature = "process")]
pub use process::{Clock, LocalLimits, LocalTransport, MemoryStore, monotonic_clock};
pub use store::{StoreFault, StoreModel, Tables};
