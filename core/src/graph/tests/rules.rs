//! What edges and fan-in say, against a judge that looks at every parent.

use proptest::prelude::*;

use crate::graph::{
    EdgeCondition, EdgeState, FanIn, FanInTally, ParentEdge, ParentView, Verdict, edge_state,
    failure_handled,
};
use crate::record::NodeState;

const EDGE_STATES: [EdgeState; 4] = [
    EdgeState::Pending,
    EdgeState::Counting,
    EdgeState::Skipped,
    EdgeState::Impossible,
];

/// Whether the rule holds for parents that have all settled.
fn holds(fan_in: FanIn, parents: &[EdgeState]) -> bool {
    let counting = parents
        .iter()
        .filter(|s| **s == EdgeState::Counting)
        .count();
    let fine = |s: &EdgeState| matches!(s, EdgeState::Counting | EdgeState::Skipped);
    match fan_in {
        _ if parents.is_empty() => true,
        FanIn::All => parents.iter().all(fine) && counting > 0,
        FanIn::Any => counting > 0,
        FanIn::Count(n) => counting >= n as usize,
    }
}

/// Judges by trying every way in which the pending parents may end.
fn judge(fan_in: FanIn, parents: &[EdgeState]) -> Verdict {
    let pending: Vec<usize> = (0..parents.len())
        .filter(|&i| parents[i] == EdgeState::Pending)
        .collect();
    let now = holds(fan_in, parents);
    if now && (pending.is_empty() || fan_in != FanIn::All) {
        return Verdict::Start;
    }
    let ends = [
        EdgeState::Counting,
        EdgeState::Skipped,
        EdgeState::Impossible,
    ];
    let ways = 3_usize.pow(u32::try_from(pending.len()).expect("few"));
    let can_hold = (0..ways).any(|way| {
        let mut way = way;
        let mut settled = parents.to_vec();
        for &place in &pending {
            settled[place] = ends[way % 3];
            way /= 3;
        }
        holds(fan_in, &settled)
    });
    if can_hold {
        Verdict::Wait
    } else {
        Verdict::Skip
    }
}

fn fan_ins() -> impl Strategy<Value = FanIn> {
    prop_oneof![
        Just(FanIn::All),
        Just(FanIn::Any),
        (1_u32..7).prop_map(FanIn::Count)
    ]
}

proptest! {
    #[test]
    fn tally_says_what_a_look_at_every_parent_says(
        fan_in in fan_ins(),
        parents in 0_usize..6,
        moves in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..4), 0..30),
    ) {
        let mut states = vec![EdgeState::Pending; parents];
        let mut tally = FanInTally::new(parents);
        prop_assert_eq!(tally.verdict(fan_in), judge(fan_in, &states));
        for (place, to) in moves {
            if states.is_empty() {
                break;
            }
            let place = place.index(states.len());
            tally.move_edge(states[place], EDGE_STATES[to]);
            states[place] = EDGE_STATES[to];
            prop_assert_eq!(tally.verdict(fan_in), judge(fan_in, &states), "{:?}", states);
        }
    }
}

#[test]
fn a_node_without_parents_starts_at_once() {
    for fan_in in [FanIn::All, FanIn::Any, FanIn::Count(1)] {
        assert_eq!(FanInTally::new(0).verdict(fan_in), Verdict::Start);
    }
}

#[test]
fn all_does_without_skipped_parents_but_not_without_any() {
    let tally = |counting, skipped, impossible, pending| FanInTally {
        counting,
        skipped,
        impossible,
        pending,
    };
    assert_eq!(tally(1, 1, 0, 0).verdict(FanIn::All), Verdict::Start);
    assert_eq!(tally(1, 1, 0, 1).verdict(FanIn::All), Verdict::Wait);
    assert_eq!(tally(0, 2, 0, 0).verdict(FanIn::All), Verdict::Skip);
    assert_eq!(tally(1, 0, 1, 1).verdict(FanIn::All), Verdict::Skip);
    assert_eq!(tally(1, 0, 1, 1).verdict(FanIn::Any), Verdict::Start);
    assert_eq!(tally(1, 0, 1, 1).verdict(FanIn::Count(2)), Verdict::Wait);
    assert_eq!(tally(1, 1, 1, 0).verdict(FanIn::Count(2)), Verdict::Skip);
}

#[test]
#[should_panic(expected = "no parent edge is Counting")]
fn a_lost_edge_is_noticed() {
    FanInTally::new(1).move_edge(EdgeState::Counting, EdgeState::Pending);
}

#[test]
fn edges_follow_their_parent() {
    use EdgeCondition::{Failure, Success};
    use EdgeState::{Counting, Impossible, Pending, Skipped};
    // Parent's state, then: plain success, first batch with none and with one accepted, failure.
    let table = [
        (NodeState::Queued, [Pending, Pending, Counting, Pending]),
        (NodeState::Ready, [Pending, Pending, Counting, Pending]),
        (NodeState::Deferred, [Pending, Pending, Counting, Pending]),
        (NodeState::Running, [Pending, Pending, Counting, Pending]),
        (
            NodeState::Finished,
            [Counting, Counting, Counting, Impossible],
        ),
        (
            NodeState::Failed,
            [Impossible, Impossible, Impossible, Counting],
        ),
        (
            NodeState::Cancelled,
            [Impossible, Impossible, Impossible, Impossible],
        ),
        (NodeState::Skipped, [Skipped, Skipped, Skipped, Impossible]),
    ];
    let edge = |when, first_batch| ParentEdge {
        node: 0,
        when,
        first_batch,
    };
    for (state, expected) in table {
        let parent = |accepted| ParentView { state, accepted };
        let found = [
            edge_state(&edge(Success, false), parent(5)),
            edge_state(&edge(Success, true), parent(0)),
            edge_state(&edge(Success, true), parent(1)),
            edge_state(&edge(Failure, false), parent(5)),
        ];
        assert_eq!(found, expected, "{state:?}");
    }
}

#[test]
fn a_failure_is_handled_once_every_target_ended_and_one_finished() {
    use NodeState::{Failed, Finished, Running, Skipped};
    assert_eq!(failure_handled([]), Some(false));
    assert_eq!(failure_handled([Finished, Running]), None);
    assert_eq!(failure_handled([Finished, Skipped]), Some(true));
    assert_eq!(failure_handled([Failed, Skipped]), Some(false));
}
