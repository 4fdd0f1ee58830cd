//! The workers that this coordinator knows, and how many free slots each has.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::id::{Incarnation, Role, WorkerId};
use crate::message::WorkerOnline;
use crate::planted::{Bug, is_planted};
use crate::record::{RECORD_VERSION, WorkerRecord};

/// One worker as last heard of.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Worker {
    pub(super) record: WorkerRecord,
    /// It said it is leaving or stopping.
    leaving: bool,
    /// It left a START unanswered; it gets no more until heard again.
    unanswered: bool,
    /// Heard in this coordinator's time, not just read from the store.
    heard: bool,
    /// Free slots as it last said.
    reported_free: Option<u32>,
    /// Of how many changes of that number it has told; older news is none.
    slots_no: u64,
    /// Grants it holds from the shards of this process.
    granted: u32,
    /// Roles it refused although announced.
    refused_roles: BTreeSet<Role>,
    /// Its rank among workers with a free slot, as indexed; `None` if it has none.
    rank: Option<Rank>,
}

/// Workers are offered work in this order: heard before unheard, then most free slots, then in turn.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Rank {
    unheard: bool,
    taken: u32,
    id: WorkerId,
}

/// What a message told about its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// From the process we know.
    Known,
    /// From an older process of that worker.
    Outdated,
    /// From a worker or process that we know nothing of.
    Stranger,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Workers {
    all: BTreeMap<WorkerId, Worker>,
    /// Workers with a free slot, by role and rank.
    free: BTreeMap<Role, BTreeSet<Rank>>,
    /// Who was offered work of a role last: among equals it is the next one's turn.
    last: BTreeMap<Role, WorkerId>,
    /// A message of an unknown worker or process arrived: the records are worth reading.
    pub(super) strangers: bool,
}

impl Worker {
    fn free_slots(&self) -> u32 {
        if self.leaving || self.unanswered {
            return 0;
        }
        if is_planted(Bug::SlotsIgnored) {
            return 1;
        }
        let own_count = self.record.capacity.saturating_sub(self.granted);
        own_count.min(self.reported_free.unwrap_or(u32::MAX))
    }
}

impl Workers {
    pub(super) fn get(&self, id: &WorkerId) -> Option<&Worker> {
        self.all.get(id)
    }

    fn index(&mut self, id: &WorkerId) {
        let Some(worker) = self.all.get_mut(id) else {
            return;
        };
        let free = worker.free_slots();
        let rank = (free > 0).then(|| Rank {
            unheard: !worker.heard,
            taken: if is_planted(Bug::FirstByName) {
                0
            } else {
                u32::MAX - free
            },
            id: id.clone(),
        });
        if worker.rank == rank {
            return;
        }
        let old = std::mem::replace(&mut worker.rank, rank.clone());
        for role in &worker.record.roles {
            let set = self.free.entry(role.clone()).or_default();
            if let Some(old) = &old {
                set.remove(old);
            }
            if let Some(rank) = &rank
                && !worker.refused_roles.contains(role)
            {
                set.insert(rank.clone());
            }
        }
    }

    fn unindex(&mut self, id: &WorkerId) {
        let Some(worker) = self.all.get_mut(id) else {
            return;
        };
        if let Some(rank) = worker.rank.take() {
            for role in &worker.record.roles {
                if let Some(set) = self.free.get_mut(role) {
                    set.remove(&rank);
                }
            }
        }
    }

    /// Takes in what the store or an announcement says of a worker's newest process.
    /// True if that process is newer than the one known.
    pub(super) fn learn(&mut self, record: WorkerRecord, heard: bool) -> bool {
        let id = record.worker_id.clone();
        let known = self.all.get(&id).map(|w| w.record.incarnation);
        if known.is_some_and(|known| known > record.incarnation) {
            return false;
        }
        self.unindex(&id);
        let newer = known.is_some_and(|known| known < record.incarnation);
        match self.all.get_mut(&id) {
            Some(worker) if !newer => {
                worker.record = record;
                worker.heard |= heard;
                if heard {
                    worker.refused_roles.clear();
                }
            }
            old => {
                // Grants of an older process stay counted until each is ended.
                let granted = old.map_or(0, |w| w.granted);
                self.all.insert(
                    id.clone(),
                    Worker {
                        record,
                        leaving: false,
                        unanswered: false,
                        heard,
                        reported_free: None,
                        slots_no: 0,
                        granted,
                        refused_roles: BTreeSet::new(),
                        rank: None,
                    },
                );
            }
        }
        self.index(&id);
        newer
    }

    /// An announcement. True if it is of a newer process than the one known.
    pub(super) fn online(
        &mut self,
        online: &WorkerOnline,
        free_slots: Option<u32>,
        slots_no: Option<u64>,
    ) -> bool {
        let id = online.worker_id.clone();
        let newer = self.learn(
            WorkerRecord {
                version: RECORD_VERSION,
                worker_id: id.clone(),
                incarnation: online.incarnation,
                start_nonce: 0,
                roles: online.capabilities.roles.clone(),
                capacity: online.capacity.tasks,
                inbox: online.inbox,
                worker_version: online.version.clone(),
            },
            true,
        );
        self.heard(&id, online.incarnation, free_slots, slots_no);
        if let Some(worker) = self.all.get_mut(&id)
            && worker.record.incarnation == online.incarnation
        {
            worker.leaving = &*online.status != "online";
        }
        self.index(&id);
        newer
    }

    /// The worker's process says goodbye; an older one's goodbye is ignored.
    pub(super) fn offline(&mut self, id: &WorkerId, incarnation: Incarnation) {
        if let Some(worker) = self.all.get_mut(id)
            && worker.record.incarnation == incarnation
        {
            worker.leaving = true;
            self.index(id);
        }
    }

    /// A message of the worker arrived.
    pub(super) fn heard(
        &mut self,
        id: &WorkerId,
        incarnation: Incarnation,
        free_slots: Option<u32>,
        slots_no: Option<u64>,
    ) -> Heard {
        let Some(worker) = self.all.get_mut(id) else {
            return Heard::Stranger;
        };
        if worker.record.incarnation > incarnation {
            return Heard::Outdated;
        }
        if worker.record.incarnation < incarnation {
            return Heard::Stranger;
        }
        worker.heard = true;
        worker.unanswered &= is_planted(Bug::NeverForgiven);
        let slots_no = slots_no.unwrap_or(worker.slots_no);
        if free_slots.is_some() && slots_no >= worker.slots_no {
            worker.reported_free = free_slots;
            worker.slots_no = slots_no;
        }
        self.index(id);
        Heard::Known
    }

    /// A shard is another's now, and its stream was what told of workers that they are full. They tell
    /// that stream that they have room again: one that has none refuses, and tells us then.
    pub(super) fn forget_full(&mut self) {
        let full = self.all.iter().filter(|(_, w)| w.reported_free == Some(0));
        let full: Vec<WorkerId> = full.map(|(id, _)| id.clone()).collect();
        for id in full {
            if let Some(worker) = self.all.get_mut(&id) {
                worker.reported_free = None;
            }
            self.index(&id);
        }
    }

    /// Its record is older than this process, and every process of that time is dead: unless it was
    /// heard, nothing is sent to it.
    pub(super) fn presume_dead(&mut self, id: &WorkerId) {
        if let Some(worker) = self.all.get_mut(id)
            && !worker.heard
        {
            worker.unanswered = true;
            self.index(id);
        }
    }

    /// It left a START unanswered.
    pub(super) fn unanswered(&mut self, id: &WorkerId) {
        if let Some(worker) = self.all.get_mut(id) {
            worker.unanswered = true;
            self.index(id);
        }
    }

    /// It refused: it is stopping.
    pub(super) fn leaving(&mut self, id: &WorkerId) {
        if let Some(worker) = self.all.get_mut(id) {
            worker.leaving = true;
            self.index(id);
        }
    }

    /// It refused: no handler for the role.
    pub(super) fn refuses_role(&mut self, id: &WorkerId, role: &Role) {
        self.unindex(id);
        if let Some(worker) = self.all.get_mut(id) {
            worker.refused_roles.insert(role.clone());
        }
        self.index(id);
    }

    /// A grant was given to it, or found in the store.
    pub(super) fn grant_begins(&mut self, id: &WorkerId) {
        if let Some(worker) = self.all.get_mut(id) {
            worker.granted += 1;
            self.index(id);
        }
    }

    /// A grant of it ended.
    pub(super) fn grant_ends(&mut self, id: &WorkerId) {
        if let Some(worker) = self.all.get_mut(id) {
            worker.granted = worker.granted.saturating_sub(1);
            self.index(id);
        }
    }

    /// Counts the grants anew: a shard was taken over or lost.
    pub(super) fn recount(&mut self, id: &WorkerId, granted: u32) {
        if let Some(worker) = self.all.get_mut(id) {
            worker.granted = granted;
            self.index(id);
        }
    }

    /// The best worker with a free slot for a role, other than `not` if there is a choice; equals take
    /// turns.
    pub(super) fn choose(&self, role: &Role, not: Option<&WorkerId>) -> Option<&Worker> {
        let set = self.free.get(role)?;
        let wanted = |rank: &&Rank| Some(&rank.id) != not;
        let first = set.iter().find(wanted).or_else(|| set.first())?;
        let next = self.last.get(role).and_then(|last| {
            let after = Rank {
                id: last.clone(),
                ..first.clone()
            };
            let mut behind = set.range((Bound::Excluded(after), Bound::Unbounded));
            let next = behind.find(wanted)?;
            ((next.unheard, next.taken) == (first.unheard, first.taken)).then_some(next)
        });
        self.all.get(&next.unwrap_or(first).id)
    }

    /// Work of this role was offered to it.
    pub(super) fn offered(&mut self, role: &Role, id: &WorkerId) {
        self.last.insert(role.clone(), id.clone());
    }

    /// Does any worker that we know run this role?
    pub(super) fn runs_role(&self, id: &WorkerId, role: &Role) -> bool {
        self.all
            .get(id)
            .is_some_and(|w| w.record.roles.contains(role) && !w.leaving)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knows(ids: &[&str]) -> Workers {
        let mut workers = Workers::default();
        for id in ids {
            let record = WorkerRecord {
                version: RECORD_VERSION,
                worker_id: WorkerId::new(id).expect("an id"),
                incarnation: Incarnation(1),
                start_nonce: 0,
                roles: vec![Role::new("r").expect("a role")],
                capacity: 2,
                inbox: 0,
                worker_version: "1".into(),
            };
            workers.learn(record, true);
        }
        workers
    }

    /// Work that comes one piece after the other is no one worker's alone.
    #[test]
    fn workers_that_are_equally_free_take_turns() {
        let mut workers = knows(&["w1", "w2", "w3"]);
        let role = Role::new("r").expect("a role");
        let mut taken = Vec::new();
        for _ in 0..5 {
            let id = workers.choose(&role, None).expect("one is free");
            let id = id.record.worker_id.clone();
            workers.offered(&role, &id);
            workers.grant_begins(&id);
            workers.grant_ends(&id);
            taken.push(id);
        }
        assert_eq!(
            taken,
            ["w1", "w2", "w3", "w1", "w2"].map(|id| WorkerId::new(id).expect("an id"))
        );
        // Who is to be avoided is passed over; who is more free goes first.
        let w3 = WorkerId::new("w3").expect("an id");
        let next = workers.choose(&role, Some(&w3)).expect("one is free");
        assert_eq!(next.record.worker_id.as_str(), "w1");
        workers.grant_begins(&w3);
        let next = workers.choose(&role, None).expect("one is free");
        assert_eq!(next.record.worker_id.as_str(), "w1");
    }
}
