//! FlowKit's durable store for one machine.
//!
//! One process owns the folder; engine, workers and store live and die together. So a commit is
//! answered when it is *applied*, and [`Sync`](flowkit_core::port::StoreRequest::Sync) makes
//! everything applied before it durable, while later commits are being applied. A power cut costs a
//! suffix of the applied commits, never one that was synced and never one in the middle.
//!
//! | request | reads | its effect is durable |
//! |---|---|---|
//! | `Commit` | applied | at the next `Sync` |
//! | `RegisterWorker`, `PutScratch`, `TakeScratch`, `StageArtifact`, `RaiseEpoch`, `Deployment` | applied | at its reply |
//! | `AcquireShard`, `ReleaseShard` | memory | never: see below |
//! | `ReadShard`, `LoadTasks`, `LookupTasks`, `ReadGrants`, `ReadAccepted`, `ReadWorkers` | applied | |
//! | `ReadArtifacts`, `ReadTask`, `ListTasks`, `ActiveRuns` | synced | |
//!
//! A lease on a shard is not stored: its holder was in the process that had the file, and that
//! process is dead when another one opens it. The shard *epoch*, which fences, is stored.
//!
//! **Threads.** A caller encodes and sorts its own commit; one writer thread applies, one flush
//! thread writes to the disk, one thread serves reads of many rows. Short reads run where they are
//! called. No part of a request waits for the disk on an async thread, except a read of a page that
//! is not in memory.
//!
//! **Age of a record** ([`TaskWithNodes::node_age_ms`](flowkit_core::port::TaskWithNodes)): now less
//! the wall time at which it was applied. Within one process steps of the system's clock are not
//! seen. A clock that was set back between two processes makes ages too small (at least 0), so waits
//! get longer, never shorter; one that was set forward makes them too great.
//!
//! **Failure.** A failed write or sync, or a damaged page, ends the store: every later call answers
//! `Corrupt`, and [`EmbeddedStore::fatal`] ends. A record that cannot be decoded costs its task only.

mod clock;
mod disk;
mod error;
mod folder;
mod format;
mod lease;
mod open;
mod reader;
mod scans;
mod shared;
mod store;
mod sweep;
mod writer;

#[cfg(test)]
mod tests;

pub use error::OpenError;
pub use store::EmbeddedStore;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
