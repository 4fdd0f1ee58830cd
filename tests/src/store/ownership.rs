//! Deployment, shard leases, shard epochs.

use flowkit_core::id::{Offset, ShardId};
use flowkit_core::port::{ErrorKind, StoreReply, StoreRequest};
use flowkit_core::record::{DeploymentRecord, ShardRecord};
use std::sync::Arc;

use super::{
    LONG_MS, Owner, SHARD, acquire, committed, exists, raise_request, shard_record, submit,
};
use crate::StoreInstance;
use crate::records::{IntoRecord, owner_id, task};

/// Whoever comes later gets what was first proposed, also after a crash.
pub async fn the_first_proposal_fixes_the_deployment(store: &mut StoreInstance) {
    let first = DeploymentRecord {
        shards: 3,
        inboxes: 8,
    };
    let second = DeploymentRecord {
        shards: 5,
        inboxes: 2,
    };
    for propose in [first, second] {
        let reply = store.ok(StoreRequest::Deployment { propose }).await;
        assert_eq!(reply, StoreReply::Deployment(first));
    }
    store.crash_and_reopen().await;
    let reply = store.ok(StoreRequest::Deployment { propose: second }).await;
    assert_eq!(reply, StoreReply::Deployment(first));
}

/// Another owner waits for the store's clock, and for nothing else.
pub async fn a_lease_is_exclusive_until_it_lapses_by_store_time(store: &mut StoreInstance) {
    let lease = acquire(store, SHARD, "one", LONG_MS).await;
    assert_eq!((lease.held, lease.owner), (true, owner_id("one")));
    assert!(lease.remaining_ms > 0 && lease.remaining_ms <= LONG_MS);
    let lease = acquire(store, SHARD, "two", LONG_MS * 2).await;
    assert_eq!((lease.held, lease.owner), (false, owner_id("one")));
    assert!(lease.remaining_ms > 0 && lease.remaining_ms <= LONG_MS);
    // By a real clock a short one may be over at any look, so what is answered meanwhile says nothing.
    let (short, ttl_ms) = (ShardId(1), store.caps.lease_ms);
    let lease = acquire(store, short, "one", ttl_ms).await;
    assert_eq!((lease.held, lease.owner), (true, owner_id("one")));
    assert!(lease.remaining_ms > 0 && lease.remaining_ms <= ttl_ms);
    acquire(store, short, "two", LONG_MS).await;
    store.pass_time(ttl_ms + 1).await;
    let lease = acquire(store, short, "two", LONG_MS).await;
    assert_eq!((lease.held, lease.owner), (true, owner_id("two")));
    let lease = acquire(store, short, "one", ttl_ms).await;
    assert_eq!((lease.held, lease.owner), (false, owner_id("two")));
}

/// A renewal counts from its own time.
pub async fn a_holder_renews_its_lease(store: &mut StoreInstance) {
    let ttl_ms = store.caps.lease_ms;
    assert!(acquire(store, SHARD, "one", ttl_ms).await.held);
    assert!(acquire(store, SHARD, "one", ttl_ms * 100).await.held);
    store.pass_time(ttl_ms + 1).await;
    assert!(!acquire(store, SHARD, "two", ttl_ms).await.held);
    assert!(acquire(store, SHARD, "one", ttl_ms).await.held);
}

/// Releasing what is another's does nothing.
pub async fn a_lease_is_released_by_its_holder_only(store: &mut StoreInstance) {
    let release = |owner| StoreRequest::ReleaseShard {
        shard: SHARD,
        owner: owner_id(owner),
    };
    assert_eq!(store.ok(release("nobody")).await, StoreReply::Done);
    assert!(acquire(store, SHARD, "one", LONG_MS).await.held);
    assert_eq!(store.ok(release("two")).await, StoreReply::Done);
    assert!(!acquire(store, SHARD, "two", LONG_MS).await.held);
    for _ in 0..2 {
        assert_eq!(store.ok(release("one")).await, StoreReply::Done);
    }
    assert!(acquire(store, SHARD, "two", LONG_MS).await.held);
}

/// There is a shard record for every shard, all zero at first.
pub async fn an_unknown_shard_reads_as_zero(store: &mut StoreInstance) {
    let shard = ShardId(u32::MAX);
    let zero = ShardRecord {
        shard,
        epoch: 0,
        commit_seq: 0,
        commit_id: 0,
        next: Offset(0),
        last_entry: None,
    };
    assert_eq!(shard_record(store, shard).await, zero);
}

/// No lease, another's lease and a lapsed lease are all fenced.
pub async fn only_the_holder_of_the_lease_raises_the_epoch(store: &mut StoreInstance) {
    let read = shard_record(store, SHARD).await;
    let refused = store.refused(raise_request("one", &read)).await;
    assert_eq!(refused, ErrorKind::Fenced);
    let ttl_ms = store.caps.lease_ms;
    assert!(acquire(store, SHARD, "one", ttl_ms).await.held);
    let refused = store.refused(raise_request("two", &read)).await;
    assert_eq!(refused, ErrorKind::Fenced);
    store.pass_time(ttl_ms + 1).await;
    let refused = store.refused(raise_request("one", &read)).await;
    assert_eq!(refused, ErrorKind::Fenced);
    assert_eq!(shard_record(store, SHARD).await, read);
    let owner = Owner::take(store, "two").await;
    assert_eq!(owner.shard.epoch, 1);
    assert_eq!(shard_record(store, SHARD).await, owner.shard);
}

/// Compare-and-set on epoch and commit_seq; a repeat finds its own raise and is fenced.
pub async fn the_epoch_is_raised_from_what_was_read(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let stale_epoch = ShardRecord {
        epoch: 0,
        ..owner.shard
    };
    let refused = store.refused(raise_request("one", &stale_epoch)).await;
    assert_eq!(refused, ErrorKind::Fenced);
    let stale_seq = owner.shard;
    owner.commit(store, vec![]).await;
    let refused = store.refused(raise_request("one", &stale_seq)).await;
    assert_eq!(refused, ErrorKind::Fenced);
    let again = Owner::take(store, "one").await;
    let expected = ShardRecord {
        epoch: 2,
        ..owner.shard
    };
    assert_eq!(again.shard, expected);
}

/// Both read, both try to raise, at once.
pub async fn two_owners_race_for_a_shard_and_one_wins(store: &mut StoreInstance) {
    for round in 0..20 {
        let shard = ShardId(round);
        let store = &*store;
        let take = async |name: &str| {
            let held = acquire(store, shard, name, LONG_MS).await.held;
            let read = shard_record(store, shard).await;
            let raised = store.call(raise_request(name, &read)).await;
            (held, raised)
        };
        let (one, two) = tokio::join!(take("one"), take("two"));
        let winners = [&one, &two].into_iter().filter(|(held, _)| *held).count();
        assert_eq!(winners, 1, "{one:?} and {two:?} for one lease");
        for (held, raised) in [one, two] {
            assert_eq!(held, raised.is_ok());
        }
        assert_eq!(shard_record(store, shard).await.epoch, 1);
    }
}

/// The old owner's commit and the new owner's raise cross: whichever comes first, the new owner
/// sees the commit or the old one is fenced.
pub async fn a_commit_races_a_takeover_and_is_seen_or_fenced(store: &mut StoreInstance) {
    for round in 0..20 {
        let shard = ShardId(round);
        let name = format!("t{round}");
        let old = Owner::take_shard(store, "old", shard).await;
        let release = StoreRequest::ReleaseShard {
            shard,
            owner: owner_id("old"),
        };
        store.ok(release).await;
        assert!(acquire(store, shard, "new", LONG_MS).await.held);
        let read = shard_record(store, shard).await;
        let commit = old.next(vec![task(&name).record()]);
        let request = StoreRequest::Commit(Arc::new(commit.clone()));
        let (late, raised) =
            tokio::join!(store.call(request), store.call(raise_request("new", &read)));
        match committed(late) {
            Ok(_) => assert_eq!(
                raised.map_err(|error| error.kind),
                Err(ErrorKind::Fenced),
                "the commit moved commit_seq on"
            ),
            Err(kind) => {
                assert_eq!(kind, ErrorKind::Fenced);
                assert!(raised.is_ok());
            }
        }
        let new = Owner::take_shard(store, "new", shard).await;
        let seen = exists(store, &name).await;
        assert_eq!(seen, new.shard.commit_seq == 1);
        assert_eq!(submit(store, &commit).await, Err(ErrorKind::Fenced));
        assert_eq!(exists(store, &name).await, seen);
    }
}

/// A store holds many shards.
pub async fn shards_do_not_share_leases_or_epochs(store: &mut StoreInstance) {
    let mut one = Owner::take_shard(store, "one", ShardId(1)).await;
    let two = Owner::take_shard(store, "two", ShardId(2)).await;
    one.commit(store, vec![task("t").record()]).await;
    assert_eq!(shard_record(store, ShardId(1)).await, one.shard);
    assert_eq!(shard_record(store, ShardId(2)).await, two.shard);
    assert_eq!(one.name, owner_id("one"));
}
