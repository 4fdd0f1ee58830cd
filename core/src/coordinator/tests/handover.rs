//! A shard that its owner gives back for another coordinator, and a third one that looks in between.

use super::super::context::{Context, Ops, Random, ShardOp};
use super::super::ownership::{Phase, Slot};
use super::super::peers::Peers;
use super::super::workers::Workers;
use super::super::{Config, Effect, Subject};
use super::bench::config;
use crate::id::{ClientId, ShardId};
use crate::port::{LeaseView, StoreReply, StoreRequest};
use crate::time::{Mono, Now};

fn id(name: &str) -> ClientId {
    ClientId::new(name).expect("an id")
}

/// What c1 does about one shard, with c2 and c3 for peers.
struct Third {
    config: Config,
    ops: Ops,
    workers: Workers,
    peers: Peers,
    random: Random,
    subject: Subject,
    slot: Slot,
}

impl Third {
    /// About a shard that should be c2's.
    fn of_c2() -> Self {
        let mut config = config();
        config.shards = 12;
        let mut third = Self {
            config,
            ops: Ops::default(),
            workers: Workers::default(),
            peers: Peers::default(),
            random: Random(1),
            subject: Subject::default(),
            slot: Slot::new(ShardId(0)),
        };
        for at in [10, 20] {
            for peer in ["c2", "c3"] {
                let mut peers = std::mem::take(&mut third.peers);
                third.with(at, |_, ctx| peers.online(ctx, &id(peer)));
                third.peers = peers;
            }
        }
        let shards = (0..12).map(ShardId);
        let mut of_c2 = shards.filter(|shard| third.peers.rightful(*shard) == Some(&id("c2")));
        third.slot = Slot::new(of_c2.next().expect("c2 has a share"));
        third
    }

    fn with<T>(
        &mut self,
        at: u64,
        act: impl FnOnce(&mut Slot, &mut Context<'_>) -> T,
    ) -> Vec<Effect> {
        let mut out = Vec::new();
        let mut ctx = Context {
            now: Now::new(at, 0),
            config: &self.config,
            ops: &mut self.ops,
            workers: &mut self.workers,
            peers: &mut self.peers,
            random: &mut self.random,
            subject: &mut self.subject,
            out: &mut out,
        };
        act(&mut self.slot, &mut ctx);
        out
    }

    /// It asks for the lease, and the store says who holds it then.
    fn looks(&mut self, at: u64, owner: &str) -> Vec<StoreRequest> {
        self.slot.phase = Phase::Acquiring;
        let lease = StoreReply::Lease(LeaseView {
            held: owner == "c1",
            owner: id(owner),
            remaining_ms: 1_000,
        });
        let out = self.with(at, |slot, ctx| {
            slot.store_done(ctx, ShardOp::Acquire, Ok(lease))
        });
        let requests = out.into_iter().filter_map(|effect| match effect {
            Effect::Store { request, .. } => Some(request),
            _ => None,
        });
        requests.collect()
    }

    fn release(&self) -> StoreRequest {
        StoreRequest::ReleaseShard {
            shard: self.slot.id,
            owner: id("c1"),
        }
    }

    fn read(&self) -> StoreRequest {
        StoreRequest::ReadShard {
            shard: self.slot.id,
        }
    }
}

#[test]
fn a_shard_that_was_taken_on_its_way_to_another_coordinator_is_given_back_once() {
    let mut third = Third::of_c2();
    assert_eq!(third.looks(100, "c3"), []);
    assert_eq!(third.looks(1_000, "c1"), [third.release()]);
    let waits = matches!(third.slot.phase, Phase::Waiting(until) if until == Mono(6_000));
    assert!(waits, "{:?}", third.slot.phase);
    // Nobody took it: whoever should have it is gone.
    assert_eq!(third.looks(6_000, "c1"), [third.read()]);
    // The next time it is on its way again.
    assert_eq!(third.looks(20_000, "c3"), []);
    assert_eq!(third.looks(21_000, "c1"), [third.release()]);
}

#[test]
fn the_shard_of_an_owner_that_died_is_taken_at_once() {
    let mut third = Third::of_c2();
    assert_eq!(third.looks(100, "c2"), []);
    assert_eq!(third.looks(1_101, "c1"), [third.read()]);
    let mut third = Third::of_c2();
    assert_eq!(third.looks(100, "c1"), [third.read()], "nobody had it");
    // It left in order, and said so.
    let mut third = Third::of_c2();
    assert_eq!(third.looks(100, "c3"), []);
    third.with(200, |slot, ctx| slot.departed(ctx, &id("c3")));
    assert_eq!(third.looks(300, "c1"), [third.read()]);
}

/// A coordinator that stops gives shards back while others are still busy: nobody is to hold the lease of
/// one that nobody folds.
#[test]
fn a_lease_that_was_given_back_is_not_renewed() {
    let mut third = Third::of_c2();
    third.looks(100, "c1");
    third.looks(6_000, "c1");
    assert!(!third.slot.renewing);
    let release = third.release();
    let shard = third.slot.id;
    let released = third.with(7_000, |slot, ctx| {
        slot.release(ctx);
        slot.phase = Phase::Released;
    });
    let given_back =
        matches!(&released[..], [Effect::Store { request, .. }] if *request == release);
    assert!(given_back, "{shard}: {released:?}");
    assert_eq!(third.with(20_000, |slot, ctx| slot.tick(ctx)), []);
}
