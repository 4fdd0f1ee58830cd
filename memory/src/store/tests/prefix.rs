//! A crash at any point leaves a prefix of the commits, whole, with its indexes.

use super::super::StoreModel;
use super::support::{artifact, commit, granted, owned, task};
use flowkit_core::id::ShardId;
use flowkit_core::port::{Commit, Record, StoreReply, StoreRequest};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(u8, u8)>),
    Sync,
    /// The first so many of the unsynced commits had reached the disk.
    Crash(usize),
    RaiseEpoch,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => vec((0..5_u8, 0..4_u8), 0..6).prop_map(Step::Commit),
        2 => Just(Step::Sync),
        2 => (0..4_usize).prop_map(Step::Crash),
        1 => Just(Step::RaiseEpoch),
    ]
}

/// Records with keys of their own; what they are follows from the numbers.
fn records(seq: u64, choices: &[(u8, u8)]) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for (nth, (kind, name)) in choices.iter().enumerate() {
        let (id, node) = (format!("t{name}"), format!("n{nth}"));
        records.push(match kind {
            0 | 1 => granted(&id, &node, seq),
            2 | 3 => artifact(&id, &node, seq, &format!("u{seq}")),
            _ => task(&format!("{id}-{nth}")),
        });
    }
    records
}

/// Epoch, then the commit; or a raise alone.
type Applied = (u64, Option<Commit>);

/// What a store that never crashed holds after these.
fn replay(history: &[Applied]) -> StoreModel {
    let mut store = owned(StoreModel::durable());
    for (now_ms, (epoch, done)) in (1..).zip(history) {
        match done {
            Some(commit) => {
                store
                    .commit(now_ms, commit.clone())
                    .expect("it was applied before");
            }
            None => raise(&mut store, epoch - 1),
        }
    }
    store
}

fn raise(store: &mut StoreModel, from: u64) {
    let owner = super::owner("owner");
    let shard = ShardId(0);
    let acquire = StoreRequest::AcquireShard {
        shard,
        owner: owner.clone(),
        ttl_ms: 1_000,
    };
    store.apply(0, &acquire).expect("there is no other owner");
    let commit_seq = store.applied().shard(shard).map_or(0, |s| s.commit_seq);
    let raise = StoreRequest::RaiseEpoch {
        shard,
        owner,
        epoch: from,
        commit_seq,
    };
    store.apply(0, &raise).expect("lease, epoch and seq hold");
}

proptest! {
    #[test]
    fn a_crash_at_any_point_leaves_a_prefix_of_commits(steps in vec(step(), 1..40)) {
        let mut store = owned(StoreModel::two_phase());
        let mut history: Vec<Applied> = Vec::new();
        let mut synced = 0;
        let mut epoch = 1;
        let mut seq = 0;
        for step in steps {
            match step {
                Step::Commit(choices) => {
                    let next = Commit { epoch, ..commit(seq + 1, records(seq + 1, &choices)) };
                    // The replay gives every entry the time of its place.
                    let now_ms = history.len() as u64 + 1;
                    let reply = store.commit(now_ms, next.clone());
                    prop_assert_eq!(reply, Ok(StoreReply::Committed { seq: seq + 1 }));
                    seq += 1;
                    history.push((epoch, Some(next)));
                }
                Step::Sync => {
                    let sync = StoreRequest::Sync { shard: ShardId(0) };
                    prop_assert_eq!(store.apply(0, &sync), Ok(StoreReply::Synced { seq }));
                    synced = history.len();
                }
                Step::RaiseEpoch => {
                    raise(&mut store, epoch);
                    epoch += 1;
                    history.push((epoch, None));
                    synced = history.len();
                }
                Step::Crash(kept) => {
                    store.crash_keeping(kept);
                    history.truncate(synced + kept);
                    synced = history.len();
                    seq = store.applied().shard(ShardId(0)).map_or(0, |s| s.commit_seq);
                    prop_assert_eq!(store.unsynced_commits(), 0);
                }
            }
            let (all, durable) = (replay(&history), replay(&history[..synced]));
            prop_assert_eq!(store.applied(), all.applied());
            prop_assert_eq!(store.synced(), durable.applied());
        }
    }
}
