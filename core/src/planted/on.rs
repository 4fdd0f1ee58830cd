//! Which bug is planted in this thread.

use super::Bug;
use std::cell::Cell;

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    static STRUCK: Cell<u64> = const { Cell::new(0) };
}

/// Plants one bug for this thread, or none. Sets [`times_struck`] back to 0.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
    STRUCK.set(0);
}

/// How often the planted bug decided something since it was planted in this thread.
#[must_use]
pub fn times_struck() -> u64 {
    STRUCK.get()
}

/// Whether a bug is planted in this thread.
#[must_use]
pub fn is_any() -> bool {
    PLANTED.get().is_some()
}

/// Whether this bug is planted in this thread.
///
/// Asked last in a condition, so that what is counted are decisions that came out otherwise.
#[must_use]
pub fn is_planted(bug: Bug) -> bool {
    let planted = PLANTED.get() == Some(bug);
    if planted {
        STRUCK.set(STRUCK.get() + 1);
    }
    planted
}
