//! The search: breadth first, so the first broken promise is found by a shortest way.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::scope::{Budget, Scope};
use crate::world::{Action, Broken, World};

#[cfg(feature = "planted-bugs")]
use flowkit_core::planted::{Bug, plant};

/// When to stop although states are left.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most states.
    pub states_max: usize,
    /// Most states of one level, which are kept whole: about 20 KB each.
    pub level_max: usize,
    /// Longest time.
    pub time_max: Duration,
    /// Threads.
    pub threads: usize,
}

/// What a search came to.
#[derive(Debug)]
pub struct Outcome {
    /// Different states visited.
    pub states: usize,
    /// Actions taken, those included that lead to a state that was visited.
    pub transitions: usize,
    /// Length of the longest shortest way.
    pub depth: usize,
    /// States in which nothing is left to do.
    pub ends: usize,
    /// States that were found and not looked into; 0 = every state of the scope was visited.
    pub left: usize,
    /// States from which the task was seen to settle without further faults.
    pub settles: usize,
    /// Time.
    pub elapsed: Duration,
    /// A broken promise, if one was found.
    pub counterexample: Option<Counterexample>,
}

/// How a promise breaks.
#[derive(Debug)]
pub struct Counterexample {
    /// Which one, and what was seen.
    pub broken: Broken,
    /// What happened, in order.
    pub steps: Vec<String>,
}

const SHARDS: usize = 64;
const NONE: u32 = u32::MAX;
/// Steps after which a task that has not settled never will.
const SETTLE_STEPS_MAX: usize = 5_000;

/// How a state was reached first.
#[derive(Clone, Copy, Debug)]
struct From {
    parent: u32,
    action: u16,
}

#[derive(Debug)]
struct Node {
    index: u32,
    world: World,
}

#[derive(Debug)]
struct Shared {
    /// What may yet go wrong in each state that was visited.
    seen: Vec<Mutex<HashMap<u64, u64, Plain>>>,
    froms: Mutex<Vec<From>>,
    good: Vec<Mutex<HashMap<u64, (), Plain>>>,
}

/// Digests are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Plain;

impl std::hash::BuildHasher for Plain {
    type Hasher = Same;
    fn build_hasher(&self) -> Same {
        Same(0)
    }
}

#[derive(Debug)]
struct Same(u64);

impl std::hash::Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

fn sets<T>() -> Vec<Mutex<HashMap<u64, T, Plain>>> {
    (0..SHARDS).map(|_| Mutex::default()).collect()
}

/// True if nothing that can follow from a state was looked into: it is new, or as much may go wrong as
/// in none of its earlier visits. (What follows where less may go wrong follows there too, and sooner.)
fn visit(seen: &[Mutex<HashMap<u64, u64, Plain>>], digest: u64, left: u64) -> bool {
    let shard = (digest >> 58) as usize % SHARDS;
    let mut seen = seen[shard].lock().unwrap_or_else(|e| e.into_inner());
    let mut key = digest;
    // Visits with budgets that do not cover each other stand one step apart.
    loop {
        match seen.entry(key) {
            Entry::Vacant(free) => {
                free.insert(left);
                return true;
            }
            Entry::Occupied(visit) if Budget::covers(*visit.get(), left) => return false,
            Entry::Occupied(_) => key = key.wrapping_add(0x9e37_79b9_7f4a_7c15),
        }
    }
}

/// True if the digest is new in the set.
fn add(sets: &[Mutex<HashMap<u64, (), Plain>>], digest: u64) -> bool {
    let shard = (digest >> 58) as usize % SHARDS;
    let mut set = sets[shard].lock().unwrap_or_else(|e| e.into_inner());
    set.insert(digest, ()).is_none()
}

fn holds(sets: &[Mutex<HashMap<u64, (), Plain>>], digest: u64) -> bool {
    let shard = (digest >> 58) as usize % SHARDS;
    let set = sets[shard].lock().unwrap_or_else(|e| e.into_inner());
    set.contains_key(&digest)
}

/// What one thread found in one level.
#[derive(Debug, Default)]
struct Found {
    next: Vec<Node>,
    /// States that a limit kept it from looking into.
    left: usize,
    transitions: usize,
    ends: usize,
    settles: usize,
    broken: Vec<(u32, Option<u16>, Broken, Vec<String>)>,
}

/// Visits every state of a scope, as far as the limits let it. With `bug`, one is planted in every
/// thread.
#[must_use]
pub fn search(scope: &'static Scope, limits: Limits, bug: Planted) -> Outcome {
    let started = Instant::now();
    set_bug(bug);
    let first = World::start(scope);
    let shared = Shared {
        seen: sets(),
        froms: Mutex::new(vec![From {
            parent: NONE,
            action: 0,
        }]),
        good: sets(),
    };
    visit(&shared.seen, first.digest(), first.left.packed());
    let mut level = vec![Node {
        index: 0,
        world: first,
    }];
    let mut outcome = Outcome {
        states: 1,
        transitions: 0,
        depth: 0,
        ends: 0,
        left: 0,
        settles: 0,
        elapsed: Duration::ZERO,
        counterexample: None,
    };
    while !level.is_empty() {
        let until = started + limits.time_max;
        let threads = limits.threads.max(1);
        let states_max = limits
            .states_max
            .min(outcome.states.saturating_add(limits.level_max));
        let part = level.len().div_ceil(threads).max(1);
        let found: Vec<Found> = std::thread::scope(|scope| {
            let mut rest = level;
            let mut running = Vec::new();
            while !rest.is_empty() {
                let at = rest.len().saturating_sub(part);
                let mine = rest.split_off(at);
                let shared = &shared;
                running.push(scope.spawn(move || {
                    set_bug(bug);
                    expand(shared, mine, states_max, until)
                }));
            }
            running
                .into_iter()
                // What a thread did not look into must not count as visited.
                .map(|thread| thread.join().expect("a thread of the search panicked"))
                .collect()
        });
        level = Vec::new();
        let mut broken = Vec::new();
        let mut left = 0;
        for found in found {
            left += found.left;
            outcome.transitions += found.transitions;
            outcome.ends += found.ends;
            outcome.settles += found.settles;
            level.extend(found.next);
            broken.extend(found.broken);
        }
        outcome.states += level.len();
        outcome.depth += usize::from(!level.is_empty());
        if let Some((index, action, what, more)) = broken.into_iter().next() {
            let mut steps = trace(scope, &shared, index, action);
            steps.extend(more);
            outcome.left = left + level.len();
            outcome.counterexample = Some(Counterexample {
                broken: what,
                steps,
            });
            break;
        }
        if left > 0 {
            outcome.left = left + level.len();
            break;
        }
    }
    set_bug(NO_BUG);
    outcome.elapsed = started.elapsed();
    outcome
}

fn expand(shared: &Shared, level: Vec<Node>, states_max: usize, until: Instant) -> Found {
    let mut found = Found::default();
    for node in level {
        let states = shared.froms.lock().map_or(usize::MAX, |froms| froms.len());
        if states >= states_max || Instant::now() >= until {
            found.left += 1;
            continue;
        }
        let actions = node.world.actions();
        if !node.world.is_settled() && is_waiting(&actions) {
            // Left alone from here, the task must settle.
            found.settles += 1;
            if let Some((broken, steps)) = settle(&node.world, shared) {
                found.broken.push((node.index, None, broken, steps));
            }
        }
        found.ends += usize::from(actions.is_empty());
        for (number, action) in actions.into_iter().enumerate() {
            let world = node.world.after(action);
            found.transitions += 1;
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            if let Some(broken) = world.broken() {
                let broken = broken.clone();
                found
                    .broken
                    .push((node.index, Some(number), broken, Vec::new()));
                continue;
            }
            if !visit(&shared.seen, world.digest(), world.left.packed()) {
                continue;
            }
            let mut froms = shared.froms.lock().unwrap_or_else(|e| e.into_inner());
            let index = u32::try_from(froms.len()).unwrap_or(NONE);
            froms.push(From {
                parent: node.index,
                action: number,
            });
            found.next.push(Node { index, world });
        }
    }
    found
}

/// Nothing goes on by itself but time, if that.
fn is_waiting(actions: &[Action]) -> bool {
    use Action::{Announcements, Call, Fetch, Handler, Inbox, Wake};
    let acts = |action: &Action| {
        matches!(
            action,
            Announcements(_) | Call(..) | Fetch(..) | Handler(..) | Inbox(..) | Wake(_)
        )
    };
    !actions.iter().any(acts)
}

/// Runs on without faults until the task settles; what is broken if it does not.
fn settle(from: &World, shared: &Shared) -> Option<(Broken, Vec<String>)> {
    let mut world = from.clone();
    let mut steps = Vec::new();
    let mut passed = Vec::new();
    for step in 0..SETTLE_STEPS_MAX {
        if world.is_settled() {
            break;
        }
        let digest = world.digest();
        if holds(&shared.good, digest) {
            break;
        }
        passed.push(digest);
        let action = world.replaces_the_dead().or_else(|| {
            let mut actions = Vec::new();
            world.ordinary(&mut actions);
            // In turn, so that nobody is left out for ever.
            let number = step.checked_rem(actions.len());
            number.map(|number| actions[number])
        });
        let Some(action) = action else {
            let broken = Broken::new("settle", "nothing goes on, and the task is not settled");
            return Some((broken, steps));
        };
        steps.push(world.describe(action));
        world = world.after(action);
        if let Some(broken) = world.broken() {
            return Some((broken.clone(), steps));
        }
    }
    if passed.len() == SETTLE_STEPS_MAX {
        steps.truncate(100);
        let broken = Broken::new("settle", "it goes on and on, and the task does not settle");
        return Some((broken, steps));
    }
    for digest in passed {
        add(&shared.good, digest);
    }
    None
}

/// The way to a state, and one action more, in words.
fn trace(scope: &'static Scope, shared: &Shared, index: u32, last: Option<u16>) -> Vec<String> {
    let froms = shared.froms.lock().unwrap_or_else(|e| e.into_inner());
    let mut numbers = Vec::new();
    numbers.extend(last);
    let mut at = index;
    while let Some(from) = froms.get(at as usize).filter(|from| from.parent != NONE) {
        numbers.push(from.action);
        at = from.parent;
    }
    let mut world = World::start(scope);
    let mut steps = Vec::new();
    for number in numbers.into_iter().rev() {
        let Some(action) = world.actions().get(usize::from(number)).copied() else {
            break;
        };
        steps.push(world.describe(action));
        world = world.after(action);
    }
    steps
}

/// The bug to plant.
#[cfg(feature = "planted-bugs")]
pub type Planted = Option<Bug>;
/// The bug to plant: without the feature `planted-bugs` there is none.
#[cfg(not(feature = "planted-bugs"))]
pub type Planted = Nothing;
/// Nothing to plant.
#[cfg(not(feature = "planted-bugs"))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

#[cfg(feature = "planted-bugs")]
const NO_BUG: Planted = None;
#[cfg(not(feature = "planted-bugs"))]
const NO_BUG: Planted = Nothing;

#[cfg(feature = "planted-bugs")]
fn set_bug(bug: Planted) {
    plant(bug);
}
#[cfg(not(feature = "planted-bugs"))]
fn set_bug(_: Planted) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_visited_again_only_if_something_more_may_go_wrong() {
        let left = |crashes, doubles| {
            let budget = Budget {
                crashes,
                doubles,
                ..Budget::default()
            };
            budget.packed()
        };
        let seen = sets();
        assert!(visit(&seen, 7, left(1, 0)));
        assert!(!visit(&seen, 7, left(1, 0)));
        assert!(!visit(&seen, 7, left(0, 0)));
        assert!(visit(&seen, 7, left(0, 1)), "neither covers the other");
        assert!(!visit(&seen, 7, left(0, 1)));
        assert!(visit(&seen, 7, left(1, 1)));
        assert!(!visit(&seen, 7, left(0, 1)));
        assert!(visit(&seen, 8, left(0, 0)), "another state");
    }
}
