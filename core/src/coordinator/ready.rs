//! Nodes that may start and wait for a slot: the highest priority first, then who waited longest.
//!
//! What a key's limit holds back stands beside, so that no dispatch looks at it again before the
//! limit has room.

use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
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
    /// The first node of each role that has one to offer.
    heads: BTreeSet<(Place, Role)>,
    /// Roles up to here have no slot in this round; roles are many, so they are looked at in order, once.
    #[serde(skip)]
    passed: Option<(Place, Role)>,
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
        self.change(role, |queue| match limit {
            None => {
                queue.free.insert(place);
            }
            Some(limit) => queue.change(limit, |places| {
                places.insert(place);
            }),
        });
        place
    }

    pub(super) fn remove(&mut self, role: &Role, limit: Option<&Arc<str>>, place: Place) {
        self.change(role, |queue| match limit {
            None => {
                queue.free.remove(&place);
            }
            Some(limit) => queue.change(limit, |places| {
                places.remove(&place);
            }),
        });
    }

    /// A round begins: every role is looked at again.
    pub(super) fn rewind(&mut self) {
        self.passed = None;
    }

    /// The role whose first node comes first, other than those that were passed by.
    pub(super) fn next_role(&self) -> Option<Role> {
        let next = match &self.passed {
            None => self.heads.first(),
            Some(passed) => {
                let behind = (Bound::Excluded(passed), Bound::Unbounded);
                self.heads.range(behind).next()
            }
        };
        next.map(|(_, role)| role.clone())
    }

    /// The role that was next has no slot in this round.
    pub(super) fn pass_by(&mut self, role: &Role) {
        if let Some(first) = self.first(role) {
            self.passed = Some((first, role.clone()));
        }
    }

    /// Changes the queue of a role, and its head with it.
    fn change<T>(&mut self, role: &Role, change: impl FnOnce(&mut Queue) -> T) -> T {
        let queue = self.roles.entry(role.clone()).or_default();
        let before = queue.first();
        let changed = change(queue);
        let after = queue.first();
        if queue.free.is_empty() && queue.keyed.is_empty() {
            self.roles.remove(role);
        }
        if before != after {
            if let Some(before) = before {
                self.heads.remove(&(before, role.clone()));
            }
            if let Some(after) = after {
                let head = (after, role.clone());
                // What comes before those that were passed by is looked at first.
                if self.passed.as_ref().is_some_and(|passed| head < *passed) {
                    self.passed = None;
                }
                self.heads.insert(head);
            }
        }
        changed
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
        self.change(role, |queue| {
            queue.full.insert(limit.clone());
            queue.change(limit, |_| ());
            queue.keyed.get(limit).map_or(0, BTreeSet::len)
        })
    }

    /// The key may have room again.
    pub(super) fn take_back(&mut self, limit: &Arc<str>) {
        let full = self.roles.iter().filter(|(_, q)| q.full.contains(limit));
        let roles: Vec<Role> = full.map(|(role, _)| role.clone()).collect();
        for role in roles {
            self.change(&role, |queue| {
                queue.full.remove(limit);
                queue.change(limit, |_| ());
            });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> Role {
        Role::new(name).expect("a role")
    }

    #[test]
    fn roles_are_looked_at_by_their_first_node_and_once_unless_a_better_one_comes() {
        let mut ready = Ready::default();
        let key = |task| NodeKey { task, node: 0 };
        let a = ready.push(&role("a"), None, 0, key(1));
        ready.push(&role("b"), None, 0, key(2));
        ready.push(&role("a"), None, 0, key(3));
        ready.rewind();
        assert_eq!(ready.next_role(), Some(role("a")));
        ready.remove(&role("a"), None, a);
        assert_eq!(ready.next_role(), Some(role("b")));
        ready.pass_by(&role("b"));
        assert_eq!(ready.next_role(), Some(role("a")));
        ready.pass_by(&role("a"));
        assert_eq!(ready.next_role(), None);
        // One of higher priority than those that were passed by.
        ready.push(&role("c"), None, 1, key(4));
        assert_eq!(ready.next_role(), Some(role("c")));
        ready.pass_by(&role("c"));
        assert_eq!(ready.next_role(), Some(role("b")));
    }
}
