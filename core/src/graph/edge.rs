//! What a parent's state means for one of its children.

use super::fan_in::EdgeState;
use super::plan::{EdgeCondition, ParentEdge};
use crate::planted::{Bug, is_planted};
use crate::record::NodeState;

/// What a child needs to know of a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentView {
    /// The parent's state.
    pub state: NodeState,
    /// Its accepted batches, over all attempts.
    pub accepted: u64,
}

/// What one parent edge says to its child, given the parent.
///
/// * A success edge counts from the parent's successful end; with `first_batch` from its first
///   accepted batch (also while a later attempt of the parent is under way), or from its end if
///   it had none.
/// * A failure edge counts once the parent failed for good.
/// * The outcome that was not taken is impossible. A skipped parent had neither outcome: a success
///   edge is skipped with it, so that a join behind a branch goes on, and a failure edge is
///   impossible, because there is no failure to handle.
/// * A cancelled parent will never count.
#[must_use]
pub fn edge_state(edge: &ParentEdge, parent: ParentView) -> EdgeState {
    match (edge.when, parent.state) {
        (EdgeCondition::Success, NodeState::Finished)
        | (EdgeCondition::Failure, NodeState::Failed) => EdgeState::Counting,
        (EdgeCondition::Failure, NodeState::Finished) if is_planted(Bug::RouteSwapped) => {
            EdgeState::Counting
        }
        (EdgeCondition::Success, NodeState::Skipped) => EdgeState::Skipped,
        (_, state) if state.is_terminal() => EdgeState::Impossible,
        (EdgeCondition::Success, _) if edge.first_batch && parent.accepted > 0 => {
            EdgeState::Counting
        }
        _ => EdgeState::Pending,
    }
}

/// Whether a node's failure was handled, judged over its `on_failure` targets: `None` while one of
/// them has not ended, else whether at least one finished. Without targets nothing handles it.
#[must_use]
pub fn failure_handled(targets: impl IntoIterator<Item = NodeState>) -> Option<bool> {
    let mut handled = false;
    for state in targets {
        if !state.is_terminal() {
            return None;
        }
        handled |= state == NodeState::Finished;
    }
    if handled && is_planted(Bug::HandledFails) || !handled && is_planted(Bug::UnhandledPasses) {
        return Some(!handled);
    }
    Some(handled)
}
