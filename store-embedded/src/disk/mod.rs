//! Between the B-trees and the disk: the write-behind layer, and a disk for power-cut tests.

mod behind;
mod overlay;

#[cfg(any(test, feature = "testing"))]
pub(crate) mod faulty;

pub(crate) use behind::{Behind, BehindBackend};
