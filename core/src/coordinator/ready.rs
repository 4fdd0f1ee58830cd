//! Nodes that may start and wait for a slot: the highest priority first, then who waited longest.
//!
//! What a key's limit holds back stands beside, so that no dispatch looks at it again before the
//! limit has room.

use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::task::NodeKey;
use crate::id::Role;

/// A node's place among those that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Place {
    priority: Reverse<i32>,
    order: u64,
    node: usize,
    task: u64,
}

impl Place {
    pub(super) const fn key(self) -> NodeKey {
        NodeKey {
            task: self.task,
            node: self.node,
        }
    }
}

/// All of them, by role.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Ready {
    newest: u64,
    roles: BTreeMap<Role, Queue>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Queue {
    /// Nodes that no key limits.
    free: BTreeSet<Place>,
    /// Nodes by the key that limits them.
    keyed: BTreeMap<Arc<str>, BTreeSet<Place>>,
    /// The first node of each key, unless the key is at its limit.
    heads: BTreeSet<(Place, Arc<str>)>,
    /// Keys at their limit.
    full: BTreeSet<Arc<str>>,
}

impl Ready {
    /// Puts a node behind all of its priority.
    pub(super) fn push(
        &mut self,
        role: &Role,
        limit: Option<&Arc<str>>,
        priority: i32,
        key: NodeKey,
    ) -> Place {
        self.newest += 1;
        let place = Place {
            priority: Reverse(priority),
            order: self.newest,
            node: key.node,
            task: key.task,
        };
        let queue = self.roles.entry(role.clone()).or_default();
        match limit {
            None => {
                queue.free.insert(place);
            }
            Some(limit) => queue.change(limit, |places| {
                places.insert(place);
            }),
        }
        place
    }

    pub(super) fn remove(&mut self, role: &Role, limit: Option<&Arc<str>>, place: Place) {
        let Some(queue) = self.roles.get_mut(role) else {
            return;
        };
        match limit {
            None => {
                queue.free.remove(&place);
            }
            Some(limit) => queue.change(limit, |places| {
                places.remove(&place);
            }),
        }
        if queue.free.is_empty() && queue.keyed.is_empty() {
            self.roles.remove(role);
        }
    }

    /// The role whose first node comes first, other than those left out.
    pub(super) fn first_role(&self, without: &BTreeSet<Role>) -> Option<Role> {
        let roles = self
            .roles
            .iter()
            .filter(|(role, _)| !without.contains(*role));
        let firsts = roles.filter_map(|(role, queue)| Some((queue.first()?, role)));
        firsts.min().map(|(_, role)| role.clone())
    }

    /// The first node of a role that no key's limit holds back.
    pub(super) fn first(&self, role: &Role) -> Option<Place> {
        self.roles.get(role)?.first()
    }

    /// How many nodes of a role wait for a slot, those of one key counted once.
    pub(super) fn waiting(&self, role: &Role) -> usize {
        let queue = self.roles.get(role);
        queue.map_or(0, |queue| queue.free.len() + queue.heads.len())
    }

    /// The key is at its limit: its nodes of this role stand aside. How many they are.
    pub(super) fn set_aside(&mut self, role: &Role, limit: &Arc<str>) -> usize {
        let Some(queue) = self.roles.get_mut(role) else {
            return 0;
        };
        queue.full.insert(limit.clone());
        queue.change(limit, |_| ());
        queue.keyed.get(limit).map_or(0, BTreeSet::len)
    }

    /// The key may have room again.
    pub(super) fn take_back(&mut self, limit: &Arc<str>) {
        for queue in self.roles.values_mut() {
            if queue.full.remove(limit) {
                queue.change(limit, |_| ());
            }
        }
    }

    /// How many nodes wait of each role; costs a look at every queue.
    pub(super) fn by_role(&self) -> impl Iterator<Item = (&Role, usize)> {
        self.roles.iter().map(|(role, queue)| {
            let keyed = queue.keyed.values().map(BTreeSet::len);
            (role, queue.free.len() + keyed.sum::<usize>())
        })
    }

    /// How many nodes wait in all; costs a look at every queue.
    pub(super) fn len(&self) -> usize {
        self.by_role().map(|(_, nodes)| nodes).sum()
    }
}

impl Queue {
    fn first(&self) -> Option<Place> {
        let keyed = self.heads.first().map(|(place, _)| *place);
        self.free.first().copied().into_iter().chain(keyed).min()
    }

    /// Changes the nodes of a key, and its head with them.
    fn change(&mut self, limit: &Arc<str>, change: impl FnOnce(&mut BTreeSet<Place>)) {
        let places = self.keyed.entry(limit.clone()).or_default();
        if let Some(old) = places.first() {
            self.heads.remove(&(*old, limit.clone()));
        }
        change(places);
        match places.first() {
            None => {
                self.keyed.remove(limit);
                self.full.remove(limit);
            }
            Some(head) if !self.full.contains(limit) => {
                self.heads.insert((*head, limit.clone()));
            }
            Some(_) => {}
        }
    }
}
