//! `capacity`, where several workers share a role: of those with a free slot, a node goes to the one with
//! the most of them, as far as its owner could know.
//!
//! Judged where nothing else decides: one shard, whose owner knows every grant, and nothing planned to go
//! wrong. In one commit things may have happened in any order, and each is believed that fits.

use std::collections::{BTreeMap, BTreeSet};

use flowkit_core::id::{NodeId, Offset, ShardId, TaskId, WorkerId};
use flowkit_core::message::{Envelope, SenderRole};
use flowkit_core::port::Stream;
use flowkit_core::record::{NodeState, TaskState};

use super::{Judge, View};
use crate::history::{Change, Life, What};
use crate::plan::Plan;

const NAME: &str = "capacity";

#[derive(Debug)]
pub(super) struct Evenly {
    /// Nothing that would be judged has a meaning any more, or ever had one.
    over: bool,
    workers: BTreeMap<WorkerId, Known>,
    /// Who held which node so far: an owner prefers another one than who gave a node up.
    had: BTreeSet<(TaskId, NodeId, WorkerId)>,
    /// What the owner had read before the commit to come.
    read: Offset,
    /// Since when it is the owner, and where it began to read.
    epoch: u64,
    owner_since: u64,
    owner_from: Offset,
    /// When its process was started.
    owner_started: u64,
    started: BTreeMap<u32, u64>,
}

/// A worker, as an owner knows it.
#[derive(Debug)]
struct Known {
    capacity: u32,
    roles: Vec<String>,
    /// Grants by the records.
    held: u32,
    /// What it said, in order.
    said: Vec<Said>,
    /// It lost a grant then, maybe because it left its START unanswered: it counts again once it is heard.
    unheard_since: u64,
}

/// A message of a worker.
#[derive(Debug)]
struct Said {
    at: u64,
    /// Where it stands in the shard's stream; an announcement to all stands elsewhere.
    place: Option<Offset>,
    /// The number of the news, and how many slots are free.
    slots: (u64, u32),
}

/// What one commit did to the grants of a worker.
#[derive(Default)]
struct Moved {
    gained: u32,
    lost: u32,
    /// Not because it said so itself.
    unheard: bool,
}

impl Evenly {
    pub(super) fn new(plan: &Plan) -> Self {
        let workers = plan.world.workers.iter().filter_map(|worker| {
            let known = Known {
                capacity: worker.capacity,
                roles: worker.roles.clone(),
                held: 0,
                said: Vec::new(),
                unheard_since: 0,
            };
            Some((WorkerId::new(&worker.id).ok()?, known))
        });
        Self {
            over: plan.world.shards != 1 || !plan.is_calm(),
            workers: workers.collect(),
            had: BTreeSet::new(),
            read: Offset(0),
            epoch: 0,
            owner_since: 0,
            owner_from: Offset(0),
            owner_started: 0,
            started: BTreeMap::new(),
        }
    }

    fn appended(&mut self, at: u64, place: Option<Offset>, envelope: &Envelope) {
        if envelope.sender.role != SenderRole::Worker {
            return;
        }
        if let Some(worker) = self.workers.get_mut(&*envelope.sender.id)
            && let (Some(number), Some(free)) = (envelope.slots_no, envelope.free_slots)
        {
            let slots = (number, free);
            worker.said.push(Said { at, place, slots });
        }
    }

    fn committed(&mut self, view: &mut View<'_>, next: Offset, changes: &[Change]) {
        let mut moved: BTreeMap<WorkerId, Moved> = BTreeMap::new();
        let mut grants = Vec::new();
        for change in changes {
            let Change::Node {
                task,
                node,
                old,
                new,
            } = change
            else {
                continue;
            };
            let held = old.as_ref().and_then(|old| old.holder.clone());
            if held == new.holder && old.as_ref().is_some_and(|old| old.token == new.token) {
                continue;
            }
            if let Some((worker, _)) = held {
                let moved = moved.entry(worker).or_default();
                moved.lost += 1;
                let failed = old.as_ref().is_some_and(|old| new.failures > old.failures);
                moved.unheard |= !failed && new.state != NodeState::Finished;
            }
            if let Some((worker, _)) = &new.holder {
                moved.entry(worker.clone()).or_default().gained += 1;
                grants.push((task, node, worker.clone()));
            }
        }
        for worker in moved.keys() {
            let mine = grants.iter().filter(|(.., by)| by == worker);
            // One of them was the last, and nobody knows which.
            let passed: Option<Vec<String>> = mine
                .map(|(task, node, _)| self.passed_over(view, (task, node), worker, next, &moved))
                .collect();
            if let Some(what) = passed.and_then(|all| all.into_iter().next()) {
                view.broken(NAME, what);
            }
        }
        for (task, node, worker) in grants {
            self.had.insert((task.clone(), node.clone(), worker));
        }
        for (worker, moved) in moved {
            if let Some(worker) = self.workers.get_mut(&worker) {
                worker.held = (worker.held + moved.gained).saturating_sub(moved.lost);
                if moved.unheard {
                    worker.unheard_since = view.event.at;
                }
            }
        }
    }

    /// Another worker surely had more free slots than the one that got the node, as the last one of the commit.
    fn passed_over(
        &self,
        view: &View<'_>,
        (task, node): (&TaskId, &NodeId),
        worker: &WorkerId,
        next: Offset,
        moved: &BTreeMap<WorkerId, Moved>,
    ) -> Option<String> {
        let role = &view.node(task.as_str(), node.as_str())?.role;
        let of = |worker: &WorkerId| {
            let moved = moved.get(worker);
            moved.map_or((0, 0), |moved| (moved.gained, moved.lost))
        };
        let taker = self.workers.get(worker)?;
        let (gained, lost) = of(worker);
        // At its last grant of this commit, with all that it lost in it over by then.
        let held = (taker.held + gained).saturating_sub(lost + 1);
        let most = taker.capacity.saturating_sub(held);
        self.workers.iter().find_map(|(other, known)| {
            let had = (task.clone(), node.clone(), other.clone());
            if other == worker || !known.roles.contains(role) || self.had.contains(&had) {
                return None;
            }
            let free = self.surely_free(view, known, of(other).0, next)?;
            (free > most).then(|| {
                format!("{task}/{node}: {worker} gets it with {most} free slots at most, {other} has {free}")
            })
        })
    }

    /// How many slots the owner must take for free, whatever came first.
    fn surely_free(
        &self,
        view: &View<'_>,
        worker: &Known,
        gained: u32,
        next: Offset,
    ) -> Option<u32> {
        let round = 2_000 * view.plan.calm_round_ms();
        let is_old = |at: u64| at + round < view.event.at;
        let is_read = |said: &Said| match said.place {
            Some(place) if place >= self.owner_from && place < next => {
                place < self.read || is_old(said.at) && is_old(self.owner_since)
            }
            Some(_) => false,
            None => said.at > self.owner_started + round && is_old(said.at),
        };
        let mine = worker.said.iter().enumerate();
        let mine = mine.filter(|(_, said)| is_read(said));
        let known = mine.clone().any(|(_, said)| said.place.is_none());
        let heard = mine.clone().any(|(_, said)| said.at > worker.unheard_since);
        if !known || !heard {
            return None;
        }
        let (newest, _) = mine.max_by_key(|(index, said)| (said.slots.0, *index))?;
        let told = worker.said[newest..]
            .iter()
            .map(|said| said.slots.1)
            .min()?;
        let counted = worker.capacity.saturating_sub(worker.held + gained);
        Some(counted.min(told))
    }
}

impl Judge for Evenly {
    fn event(&mut self, view: &mut View<'_>) {
        if self.over {
            return;
        }
        match &view.event.what {
            What::Appended {
                stream,
                offset,
                envelope,
            } => match stream {
                Stream::Shard(ShardId(0)) => self.appended(view.event.at, Some(*offset), envelope),
                Stream::Announcements => self.appended(view.event.at, None, envelope),
                _ => {}
            },
            What::Process {
                place,
                what: Life::Started,
            } => {
                self.started.insert(place.host, view.event.at);
            }
            What::Committed {
                epoch,
                next,
                changes,
                ..
            } if *epoch == self.epoch => {
                let aside = |change: &Change| matches!(change, Change::Task { new, .. } if new.state == TaskState::Quarantined);
                if changes.iter().any(aside) {
                    // Its grants are over, and its records stay as they were.
                    self.over = true;
                    return;
                }
                self.committed(view, *next, changes);
                self.read = *next;
            }
            What::EpochRaised { host, epoch, .. } => {
                (self.epoch, self.owner_since) = (*epoch, view.event.at);
                self.owner_from = self.read;
                self.owner_started = self.started.get(host).copied().unwrap_or(0);
            }
            // Who is made anew has to learn all of it again.
            What::Broke | What::Undone { .. } => self.over = true,
            _ => {}
        }
    }
}
