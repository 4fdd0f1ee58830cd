//! Slots that are not free although no grant holds them, and workers that may be gone.

use super::*;

#[test]
fn a_slot_that_no_grant_holds_and_is_not_free_is_explained() {
    let ready = || node("n", NodeState::Ready);
    let mut deaf = worker("w", 2, 1, Some(1));
    (deaf.free_slots, deaf.abandoned) = (Some(0), 1);
    let said = one(ready(), &[deaf.clone()], KEEPS_UP);
    assert_eq!(said.waits_for, WaitsFor::Slot);
    assert_eq!(
        said.why,
        "all slots of role `ocr` are busy: w runs 1 of 2, and a handler that ignores its cancel holds a slot"
    );
    assert_eq!(
        said.cure.as_deref(),
        Some("restart w: what its handlers hold is free then, and they must heed their cancel")
    );
    // What it says of its slots counts before what is made of the rest.
    deaf.free_slots = Some(1);
    let said = one(ready(), &[deaf.clone()], KEEPS_UP);
    assert_eq!(said.why, "is about to start: w has a free slot");
    (deaf.free_slots, deaf.abandoned, deaf.held) = (None, 2, 0);
    let said = one(ready(), &[deaf], KEEPS_UP);
    assert_eq!(
        said.why,
        "all slots of role `ocr` are busy: w runs 0 of 2, and 2 handlers that ignore their cancel hold slots"
    );

    let mut away = worker("w", 2, 0, Some(1));
    away.free_slots = Some(0);
    let said = one(ready(), &[away.clone()], KEEPS_UP);
    assert_eq!(said.waits_for, WaitsFor::Slot);
    assert_eq!(
        said.why,
        "all slots of role `ocr` are busy: w runs 0 of 2, and says that none is free"
    );
    let cure = said.cure.expect("a cure");
    assert!(cure.contains("the /readyz of w"), "{cure}");
    // Another one has room.
    let said = one(ready(), &[away, worker("v", 1, 0, Some(2))], KEEPS_UP);
    assert_eq!(said.why, "is about to start: v has a free slot");
}

#[test]
fn of_a_worker_that_may_be_gone_it_is_told_when_it_was_heard() {
    let ready = || node("n", NodeState::Ready);
    let quiet = worker("w", 1, 0, Some(40_000));
    let said = one(ready(), std::slice::from_ref(&quiet), KEEPS_UP);
    assert_eq!(
        said.why,
        "is about to start: w (heard 40 s ago) has a free slot"
    );
    let cure = said.cure.expect("a cure");
    let alive = "does w still run? It counts as gone after 90 s of silence; if it stays so";
    assert!(cure.starts_with(alive), "{cure}");
    // The one that spoke last is the one that will.
    let said = one(ready(), &[quiet, worker("v", 1, 0, Some(3_000))], KEEPS_UP);
    assert_eq!(said.why, "is about to start: v has a free slot");
    let said = one(ready(), &[worker("w", 1, 1, Some(40_000))], KEEPS_UP);
    assert_eq!(
        said.why,
        "all slots of role `ocr` are busy: w (heard 40 s ago) runs 1 of 1"
    );
}
