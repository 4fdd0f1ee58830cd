//! Panics in processes of a run: none may get lost, wherever the runtime catches it.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

use crate::acting::PlannedPanic;

thread_local! {
    /// Panics of this thread's run so far; absent outside of runs.
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    /// A user's handler is at work: its panics are failures of its own.
    static IN_HANDLER: RefCell<bool> = const { RefCell::new(false) };
}

static HOOK: Once = Once::new();

/// From now on panics of this thread are kept.
pub(super) fn watch() {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let watched = SEEN.with(|seen| {
                let Ok(mut seen) = seen.try_borrow_mut() else {
                    return true;
                };
                let Some(seen) = seen.as_mut() else {
                    return false;
                };
                let planned = info.payload().is::<PlannedPanic>();
                if !planned && !IN_HANDLER.with(|inside| *inside.borrow()) {
                    seen.push(info.to_string());
                }
                true
            });
            if !watched {
                before(info);
            }
        }));
    });
    SEEN.with(|seen| *seen.borrow_mut() = Some(Vec::new()));
}

/// What panicked since [`watch`].
pub(super) fn seen() -> Vec<String> {
    SEEN.with(|seen| seen.borrow_mut().take())
        .unwrap_or_default()
}

/// Whether something has panicked.
pub(super) fn any() -> bool {
    SEEN.with(|seen| seen.borrow().as_ref().is_some_and(|seen| !seen.is_empty()))
}

/// Marks a user's handler as at work.
pub(super) fn in_handler<T>(work: impl FnOnce() -> T) -> T {
    struct Leave(bool);
    impl Drop for Leave {
        fn drop(&mut self) {
            IN_HANDLER.with(|inside| *inside.borrow_mut() = self.0);
        }
    }
    let _leave = Leave(IN_HANDLER.with(|inside| inside.replace(true)));
    work()
}
