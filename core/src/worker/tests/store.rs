//! A store that is slow or away.

use super::bench::*;
use crate::id::Offset;
use crate::message::{CancelReason, RefusalReason, ReleaseReason};
use crate::port::{ErrorKind, StoreReply, TransportReply, TransportRequest};
use crate::report::ReportKind;
use crate::worker::{Effect, RunEvent};

/// Every read of grants fails; returns what else the worker does in `ms`.
fn fail_for(bench: &mut Bench, ms: u64) -> Vec<Effect> {
    let mut rest = Vec::new();
    let end = bench.at + ms;
    while bench.at < end {
        for effect in bench.pass(50) {
            match &effect {
                Effect::Store { op, .. } => {
                    rest.extend(bench.store_fails(op.0, ErrorKind::Retry));
                }
                _ => rest.push(effect),
            }
        }
    }
    rest
}

#[test]
fn a_start_waits_for_a_store_that_is_away_only_shortly() {
    let mut bench = Bench::new();
    bench.arrive(vec![started(1)]);
    assert_eq!(bench.store_fails(7, ErrorKind::Unknown), vec![]);
    assert_eq!(fail_for(&mut bench, 1_950), vec![]);
    let out = fail_for(&mut bench, 50);
    let [online_again, refusal] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!(online_again, &online(op_of(online_again), 2, "online", 0));
    let unreachable = RefusalReason::StoreUnreachable;
    assert_eq!(refusal, &refused(op_of(refusal), 1, unreachable, 0));
    assert!(!bench.worker.is_ready());
    // Further STARTs are refused at once.
    let out = bench.arrive(vec![started(2)]);
    assert_eq!(out[0], refused(op_of(&out[0]), 2, unreachable, 0));
}

#[test]
fn owners_hear_at_once_that_the_store_is_back() {
    let mut bench = Bench::new();
    bench.arrive(vec![started(1)]);
    bench.store_fails(7, ErrorKind::Retry);
    fail_for(&mut bench, 2_000);
    let out = bench.pass(2_000);
    let read = out
        .iter()
        .find(|effect| matches!(effect, Effect::Store { .. }));
    let out = bench.store(op_of(read.expect("it asks again")), grants(&[None]));
    assert_eq!(out[0], online(op_of(&out[0]), 3, "online", 2));
    assert!(bench.worker.is_ready());
}

#[test]
fn a_worker_without_store_for_a_whole_lease_releases_its_runs() {
    let mut bench = Bench::new();
    bench.processing();
    let mut out = Vec::new();
    // Heartbeats are confirmed: it is only the store that is away.
    for _ in 0..(TTL + 500) / 50 {
        for effect in fail_for(&mut bench, 50) {
            if let Effect::Transport { op, .. } = &effect {
                bench.confirm(op.0);
            }
            out.push(effect);
        }
    }
    let told_at: Vec<_> = out
        .iter()
        .filter(|effect| matches!(effect, Effect::Run { .. }))
        .collect();
    let deadline = 1_500 + TTL + 500;
    assert_eq!(
        told_at,
        vec![&told(CancelReason::StoreUnreachable, deadline)]
    );
    bench.run(1, RunEvent::Failed(failure("dropped", false, true)));
    let out = bench.run(1, RunEvent::Closed);
    let end = released(ReleaseReason::StoreUnreachable);
    assert_eq!(out[1], event(op_of(&out[1]), 1, 1, end, 0));
}

#[test]
fn registration_is_repeated_until_the_store_answers() {
    let mut bench = Bench::cold(|_| {});
    bench.input(crate::worker::Input::Wake);
    bench.transport_fails(1, ErrorKind::Retry);
    let out = bench.pass(50);
    assert_eq!(op_of(&out[0]), 2);
    let out = bench.transport(2, bounds(0, 3));
    bench.store_fails(op_of(&out[0]), ErrorKind::Unknown);
    let out = bench.pass(50);
    let registered = StoreReply::Registered(crate::id::Incarnation(3));
    let out = bench.store(op_of(&out[0]), registered);
    assert_eq!(out[0], online(5, 1, "online", 2));
}

#[test]
fn repeats_wait_twice_as_long_each_time_and_two_seconds_at_most() {
    let mut bench = Bench::cold(|_| {});
    bench.input(crate::worker::Input::Wake);
    for (failures, wait_ms) in [50, 100, 200, 400, 800, 1_600, 2_000, 2_000]
        .into_iter()
        .enumerate()
    {
        let op = failures as u64 + 1;
        let out = bench.transport_fails(op, ErrorKind::Retry);
        // The first one after two seconds of failures is told.
        assert_eq!(
            (out.len(), said(&out).len()),
            match failures {
                6 => (1, 1),
                _ => (0, 0),
            }
        );
        assert_eq!(bench.pass(wait_ms - 1), vec![]);
        let again = TransportRequest::Bounds { stream: inbox() };
        let request = Effect::Transport {
            op: crate::id::OpId(op + 1),
            request: again,
        };
        assert_eq!(bench.pass(1), vec![request]);
    }
}

#[test]
fn an_inbox_that_lost_its_place_is_read_from_its_start() {
    let mut bench = Bench::new();
    bench.transport_fails(4, ErrorKind::Retry);
    assert_eq!(bench.pass(50), vec![read_inbox(6, 7)]);
    let out = bench.transport_fails(6, ErrorKind::Invalid);
    assert_eq!(op_of(&out[0]), 7);
    let out = bench.transport(7, bounds(20, 30));
    assert_eq!(out, vec![read_inbox(8, 20)]);
}

fn said(out: &[Effect]) -> Vec<(ReportKind, String)> {
    let reports = out.iter().filter_map(|effect| match effect {
        Effect::Report(report) => Some((report.kind, report.detail.to_string())),
        _ => None,
    });
    reports.collect()
}

#[test]
fn that_the_store_is_away_is_told_once_and_that_it_is_back_too() {
    let mut bench = Bench::new();
    bench.arrive(vec![started(1)]);
    let mut out = bench.store_fails(7, ErrorKind::Unknown);
    assert_eq!(said(&out), [], "a failure that passes is not worth a word");
    out.extend(fail_for(&mut bench, 20_000));
    let told = said(&out);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, ReportKind::PortFailed);
    let text = "the store does not answer: ";
    assert!(told[0].1.starts_with(text), "{told:?}");
    let reads = |out: &[Effect]| {
        let read = out.iter().find(|e| matches!(e, Effect::Store { .. }));
        read.map(op_of)
    };
    let op = loop {
        if let Some(op) = reads(&bench.pass(50)) {
            break op;
        }
    };
    let back = (ReportKind::PortBack, "the store answers again".to_owned());
    assert_eq!(said(&bench.store(op, grants(&[None]))), [back]);
}

#[test]
fn that_the_transport_is_away_is_told_once_for_each_direction() {
    let mut bench = Bench::new();
    // The read of the inbox, and from time to time an announcement.
    let (mut read, mut told) = (Some(4), Vec::new());
    let (mut reads, mut sends) = (0, 0);
    let fail = |bench: &mut Bench, out: Vec<Effect>, sends: &mut u32| {
        let mut told = said(&out);
        let mut read = None;
        for effect in &out {
            match effect {
                Effect::Transport {
                    request: TransportRequest::Read { .. },
                    ..
                } => read = Some(op_of(effect)),
                Effect::Transport { .. } => {
                    *sends += 1;
                    told.extend(said(
                        &bench.transport_fails(op_of(effect), ErrorKind::Retry),
                    ));
                }
                _ => {}
            }
        }
        (told, read)
    };
    for _ in 0..3_000 {
        if let Some(op) = read.take() {
            reads += 1;
            told.extend(said(&bench.transport_fails(op, ErrorKind::Retry)));
        }
        let out = bench.pass(50);
        let (more, next) = fail(&mut bench, out, &mut sends);
        told.extend(more);
        read = next;
    }
    assert!(reads > 10 && sends > 10, "{reads} reads, {sends} messages");
    let kinds: Vec<_> = told.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [ReportKind::PortFailed; 2], "{told:?}");
    assert!(
        told.iter()
            .any(|(_, text)| text.starts_with("the transport cannot be read: "))
    );
    assert!(
        told.iter()
            .any(|(_, text)| text.starts_with("the transport takes no messages: "))
    );
    let op = loop {
        if let Some(op) = read.take() {
            break op;
        }
        let out = bench.pass(50);
        read = fail(&mut bench, out, &mut sends).1;
    };
    let entries = TransportReply::Entries {
        entries: Vec::new(),
        next: Offset(7),
    };
    let back = "the transport can be read again".to_owned();
    assert_eq!(
        said(&bench.transport(op, entries)),
        [(ReportKind::PortBack, back)]
    );
}
