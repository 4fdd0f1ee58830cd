//! Requests that wait for a lookup, and people who wait for an end: how many there may be.

use std::sync::Arc;

use super::super::parked::{PARKED_BYTES_MAX, PARKED_MAX, PARKED_PER_TASK_MAX, Parked};
use super::super::request::WATCHERS_MAX;
use super::bench::*;
use crate::message::{Body, WaitTask};

/// What is full keeps the shard from folding on, so it must have room again once it is looked up.
#[test]
fn too_many_and_too_large_requests_fill_it_until_they_are_taken() {
    let mut parked = Parked::default();
    let small = Arc::new(submit("t", "{}"));
    for number in 0..PARKED_MAX {
        assert!(!parked.is_full());
        parked.push(task_id(&format!("t{number}")), small.clone());
    }
    assert!(parked.is_full());
    assert_eq!(parked.take(&task_id("t7"), 1).len(), 1);
    assert!(!parked.is_full());

    let mut parked = Parked::default();
    let graph = format!(r#""{}""#, "x".repeat(PARKED_BYTES_MAX / 2));
    let large = Arc::new(submit("t", &graph));
    for full in [false, true] {
        parked.push(task_id("t"), large.clone());
        assert_eq!(parked.is_full(), full);
    }
    // Only what was there when the store was asked.
    assert_eq!(parked.take(&task_id("t"), 1).len(), 1);
    assert!(!parked.is_full() && parked.contains(&task_id("t")));
    assert_eq!(parked.take(&task_id("t"), 1).len(), 1);
    for _ in 0..2 * PARKED_PER_TASK_MAX {
        parked.push(task_id("t"), small.clone());
    }
    assert_eq!(
        parked.take(&task_id("t"), usize::MAX).len(),
        PARKED_PER_TASK_MAX
    );
}

#[test]
fn those_who_wait_for_one_task_are_bounded_and_the_others_ask_again() {
    let mut bench = Bench::owned();
    bench.submitted("t", r#"{"nodes":[{"node_id":"n","type":"a"}]}"#);
    let waits = (0..WATCHERS_MAX + 5).map(|number| {
        let mut wait = client("t", Body::WaitTask(WaitTask { inbox: 0 }));
        wait.corr_id = Some(format!("{number:05}").into());
        wait
    });
    bench.arrive(waits.collect());
    bench.arrive(vec![event("t", "n", 1, 1, done(0, 0, 0))]);
    bench.take_commit();
    let replies = bench.sent().into_iter();
    let replies = replies.filter(|(_, body)| matches!(body, Body::Reply(_)));
    assert_eq!(replies.count(), WATCHERS_MAX);
}
