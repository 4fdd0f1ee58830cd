//! A task's vars: their limits, paths into them, and changes that happen all or not at all.
//!
//! Vars are one JSON object per task. A path names a place in it by keys joined by dots; lists are
//! values as a whole, no path leads into them.

mod change;
mod check;
mod path;

pub use change::Problem;
pub(crate) use change::{Change, apply, flatten, size_of};
pub use check::check_vars;
pub use path::VarPath;

/// Most bytes of a task's vars as JSON: every message that starts a node carries them.
pub const VARS_BYTES_MAX: usize = 96 * 1024;
/// Most bytes of one value: a text in UTF-8, anything else as JSON.
pub const VAR_BYTES_MAX: usize = 64 * 1024;
/// Most paths of one operation.
pub const PATHS_MAX: usize = 256;
/// Most keys of a path.
pub const PATH_DEPTH_MAX: usize = 16;
/// Longest path, in characters.
pub const PATH_CHARS_MAX: usize = 512;
/// Longest key of a path, in characters.
pub const SEGMENT_CHARS_MAX: usize = 128;
