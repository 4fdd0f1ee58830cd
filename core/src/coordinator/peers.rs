//! Which coordinators are alive, and which of them should own which shard.
//!
//! Coordinators announce themselves beside the workers. From what it has heard lately each computes
//! the same fair shares: as long as views agree, every shard has one coordinator that wants it and
//! the others make way. Where views differ, shards are only in worse hands: the lease and the shard
//! epoch say who owns, never this.

use serde::Serialize;
use std::collections::BTreeMap;

use super::config::Config;
use super::context::Context;
use crate::hash::stable64;
use crate::id::{ClientId, ShardId};
use crate::message::{Body, CoordinatorOffline, CoordinatorOnline};
use crate::planted::{Bug, is_planted};
use crate::port::Stream;
use crate::time::Mono;

/// Most peers that are remembered.
const PEERS_MAX: usize = 1_000;

/// The coordinators heard of.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Peers {
    /// When each was heard first and last. This process is not among them.
    heard: BTreeMap<ClientId, (Mono, Mono)>,
    announce_at: Option<Mono>,
    /// By shard: the peer that should own it; none = this process.
    shares: Vec<Option<ClientId>>,
}

/// Time between two announcements.
fn interval_ms(config: &Config) -> u64 {
    (config.shard_lease_ttl_ms / 2).max(100)
}

/// A peer that was not heard for so long counts as dead.
fn silence_ms(config: &Config) -> u64 {
    2 * config.shard_lease_ttl_ms
}

impl Peers {
    /// With one shard there is nothing to share.
    const fn is_used(config: &Config) -> bool {
        config.shards > 1
    }

    /// Announces this process when it is due, and forgets peers that fell silent. True if the shares
    /// may have changed.
    pub(super) fn tick(&mut self, ctx: &mut Context<'_>) -> bool {
        if !Self::is_used(ctx.config) {
            return false;
        }
        let now = ctx.now.mono;
        if self.announce_at.is_none_or(|at| at <= now) {
            self.announce_at = Some(now.after(interval_ms(ctx.config)));
            let owner = ctx.config.owner.clone();
            announce(ctx, Body::CoordinatorOnline(CoordinatorOnline { owner }));
        }
        let silence = silence_ms(ctx.config);
        let before = self.heard.len();
        self.heard
            .retain(|_, (_, last)| now.since(*last) <= silence || is_planted(Bug::PeersKept));
        let changed = self.heard.len() != before || self.shares.is_empty();
        if changed {
            self.share(ctx.config);
        }
        changed
    }

    /// When [`Peers::tick`] has something to do.
    pub(super) fn poll_timeout(&self, config: &Config) -> Option<Mono> {
        if !Self::is_used(config) {
            return None;
        }
        let silence = silence_ms(config) + 1;
        let silent = self.heard.values().map(|(_, last)| last.after(silence));
        let silent = silent.filter(|_| !is_planted(Bug::PeersKept));
        silent.chain(self.announce_at).min()
    }

    /// A peer said that it is alive. True if the shares changed.
    pub(super) fn online(&mut self, ctx: &Context<'_>, owner: &ClientId) -> bool {
        if !Self::is_used(ctx.config) || *owner == ctx.config.owner {
            return false;
        }
        let now = ctx.now.mono;
        if let Some((first, last)) = self.heard.get_mut(owner) {
            let was_new = *first == *last;
            *last = now;
            // Heard twice: it did not just start and die.
            if was_new && *first != now {
                self.share(ctx.config);
                return true;
            }
            return false;
        }
        if self.heard.len() < PEERS_MAX {
            self.heard.insert(owner.clone(), (now, now));
        }
        false
    }

    /// A peer stops in order. True if the shares changed.
    pub(super) fn offline(&mut self, config: &Config, owner: &ClientId) -> bool {
        let known = self.heard.remove(owner).is_some();
        if known && Self::is_used(config) {
            self.share(config);
        }
        known
    }

    /// Should this process own the shard? Without peers, always.
    pub(super) fn is_mine(&self, shard: ShardId) -> bool {
        self.rightful(shard).is_none()
    }

    /// The peer that should own the shard, alive as far as this process knows; none = this process.
    pub(super) fn rightful(&self, shard: ShardId) -> Option<&ClientId> {
        self.shares.get(shard.0 as usize)?.as_ref()
    }

    /// Computes the fair shares: each shard goes to the coordinator that ranks highest for it and has
    /// room, so that a coordinator that comes or goes moves few shards.
    fn share(&mut self, config: &Config) {
        let peers = self.heard.iter().filter(|(_, (first, last))| first != last);
        let mut owners: Vec<(&ClientId, u32)> = peers.map(|(id, _)| (id, 0)).collect();
        owners.push((&config.owner, 0));
        owners.sort_unstable();
        let room = config
            .shards
            .div_ceil(u32::try_from(owners.len()).unwrap_or(u32::MAX));
        self.shares = (0..config.shards)
            .map(|shard| {
                let rank =
                    |owner: &ClientId| stable64(&[owner.as_str().as_bytes(), &shard.to_le_bytes()]);
                let open = owners.iter_mut().filter(|(_, load)| *load < room);
                let best = open.max_by_key(|(owner, _)| rank(owner));
                let (owner, load) = best?;
                *load += 1;
                (**owner != config.owner).then(|| (*owner).clone())
            })
            .collect();
    }
}

/// Says to every coordinator that this one is leaving, so that nobody waits for its leases.
pub(super) fn leave(ctx: &mut Context<'_>) {
    if ctx.config.predecessors_dead {
        return; // Nobody else is there.
    }
    let owner = ctx.config.owner.clone();
    announce(ctx, Body::CoordinatorOffline(CoordinatorOffline { owner }));
}

fn announce(ctx: &mut Context<'_>, body: Body) {
    let mut envelope = ctx.envelope("", None, body);
    envelope.to = None;
    let envelope = envelope.identified(ctx.now.mono.0);
    ctx.append(Stream::Announcements, envelope.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ClientId {
        ClientId::new(name).expect("an id")
    }

    /// What `me` takes for its own, having heard of the others.
    fn share_of(me: &str, all: &[String], shards: u32) -> Vec<bool> {
        let mut config = Config::new(id(me), 1);
        config.shards = shards;
        let others = all.iter().filter(|name| *name != me);
        let mut peers = Peers {
            heard: others.map(|name| (id(name), (Mono(1), Mono(2)))).collect(),
            ..Peers::default()
        };
        peers.share(&config);
        peers.shares.iter().map(Option::is_none).collect()
    }

    #[test]
    fn every_shard_has_one_wanted_owner_and_nobody_more_than_a_fair_share() {
        for count in 1..=6 {
            for shards in [2, 3, 7, 16] {
                let all: Vec<String> = (0..count).map(|n| format!("coordinator-{n}")).collect();
                let shares: Vec<_> = all.iter().map(|me| share_of(me, &all, shards)).collect();
                for shard in 0..shards as usize {
                    let wanted = shares.iter().filter(|share| share[shard]).count();
                    assert_eq!(wanted, 1, "shard {shard} of {shards} among {count}");
                }
                for share in &shares {
                    let mine = share.iter().filter(|mine| **mine).count();
                    assert!(mine <= (shards as usize).div_ceil(count));
                }
            }
        }
    }

    #[test]
    fn a_peer_heard_only_once_gets_nothing_yet() {
        let mut config = Config::new(id("me"), 1);
        config.shards = 4;
        let mut peers = Peers {
            heard: BTreeMap::from([(id("new"), (Mono(5), Mono(5)))]),
            ..Peers::default()
        };
        peers.share(&config);
        assert_eq!(peers.shares, [const { None }; 4]);
    }
}
