//! The drivers: they carry a machine's requests to the ports and the answers back. They decide
//! nothing about tasks; all of that lives in the core.

mod calls;
mod coordinator;
mod log;
mod worker;

pub(crate) use coordinator::{Told, drive_coordinator};
pub(crate) use worker::{Handlers, Running, WorkerDrive, drive_worker};

/// Inputs handled before a driver lets other tasks of its thread run.
const INPUTS_PER_TURN: u32 = 256;
