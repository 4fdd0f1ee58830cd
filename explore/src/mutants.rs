//! Planted bugs: proof that the search can fail.

pub use flowkit_core::planted::{Bug, Reach};

use crate::scope::Scope;
use crate::search::{Limits, Outcome, search};

/// The small scopes in which bugs are looked for, cheapest first.
pub const SCOPES_OF_BUGS: &[&str] = &[
    "plain",
    "cancel",
    "double",
    "delay",
    "restart",
    "owner-crash",
    "chain",
    "crash",
    "takeover",
    "pause",
];

/// Looks for a bug in the scopes, one after the other; the scope that shows it, with the way to it.
#[must_use]
pub fn hunt(bug: Bug, scopes: &[&str], limits: Limits) -> Option<(&'static Scope, Outcome)> {
    for name in scopes {
        let Some(scope) = Scope::named(name) else {
            continue;
        };
        let outcome = search(scope, limits, Some(bug));
        if outcome.counterexample.is_some() {
            return Some((scope, outcome));
        }
    }
    None
}
