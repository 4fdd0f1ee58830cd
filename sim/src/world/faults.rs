//! Faults of the plan take effect; at the end all of them heal.

use std::collections::BTreeMap;

use super::heap::{Due, Given};
use super::host::{Cut, Host, Kind};
use super::{World, host_number};
use crate::history::{Life, Place, What};
use crate::plan::{Fault, Logical, When};

/// Faults and actions that wait for an event.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By host and number of its effect.
    by_effect: BTreeMap<(u32, u64), Vec<usize>>,
    by_event: BTreeMap<(Logical, u64), Vec<usize>>,
    pub(super) actions: Vec<(When, usize)>,
}

impl Pending {
    pub(super) fn add(&mut self, when: When, host: u32, fault: usize) {
        match when {
            When::At { .. } => {}
            When::Effect { nth } => self.by_effect.entry((host, nth)).or_default().push(fault),
            When::Event { what, nth } => {
                self.by_event.entry((what, nth)).or_default().push(fault);
            }
        }
    }
}

impl World<'_> {
    /// A host carried out its n-th effect.
    pub(super) fn effect_trigger(&mut self, host: u32, effects: u64) {
        if self.pending.by_effect.is_empty() {
            return;
        }
        for fault in self
            .pending
            .by_effect
            .remove(&(host, effects))
            .unwrap_or_default()
        {
            self.fault(fault);
        }
    }

    /// Logical events happened: what waited for them is due.
    pub(super) fn trigger(&mut self) {
        for (what, nth) in std::mem::take(&mut self.seen.fresh) {
            for fault in self
                .pending
                .by_event
                .remove(&(what, nth))
                .unwrap_or_default()
            {
                self.fault(fault);
            }
            let when = When::Event { what, nth };
            for (wanted, index) in std::mem::take(&mut self.pending.actions) {
                if wanted == when {
                    self.heap.push(self.now, Due::Action { index });
                } else {
                    self.pending.actions.push((wanted, index));
                }
            }
        }
    }

    pub(super) fn fault(&mut self, index: usize) {
        if self.healed {
            return;
        }
        let fault = self.plan.faults[index].clone();
        if fault.host().unwrap_or(0) as usize >= self.hosts.len() {
            return;
        }
        self.note(What::Fault {
            text: format!("{fault:?}"),
        });
        let until = |for_ms: u64, now: u64| now + for_ms * 1_000;
        match fault {
            Fault::Crash {
                host,
                down_ms,
                new_id,
                ..
            } => {
                if self.hosts[host as usize].process.is_some() {
                    self.seen
                        .fire(if new_id { "crash_new_id" } else { "crash" });
                }
                if new_id && let Kind::Worker(_, id) = &mut self.hosts[host as usize].kind {
                    *id = super::processes::worker_id(&format!("{id}x"));
                }
                self.crash(host, down_ms);
            }
            Fault::PowerLoss { host, down_ms, .. } => {
                if self.hosts[host as usize].process.is_some() {
                    self.seen.fire("power_loss");
                }
                self.crash(host, down_ms);
            }
            Fault::Hold {
                host, for_ms, from, ..
            } => {
                // What is held comes through when faults are over, not behind that: it would hold up
                // what is sent after it.
                let heal = self.plan.heal_ms * 1_000;
                let until = until(for_ms, self.now).min(heal.max(self.now));
                self.hosts[host as usize].holds.push((until, from));
            }
            Fault::Stall { host, for_ms, .. } => {
                self.stall(host, for_ms);
            }
            Fault::Partition {
                host,
                for_ms,
                from,
                lost,
                ..
            } => {
                let until = until(for_ms, self.now);
                let cut = Cut { until, from, lost };
                self.hosts[host as usize].partitions.push(cut);
            }
            Fault::Away { server, for_ms, .. } => {
                self.away[server as usize] = until(for_ms, self.now);
            }
            Fault::Slow {
                server,
                for_ms,
                extra_ms,
                ..
            } => self.slow[server as usize] = (until(for_ms, self.now), extra_ms * 1_000),
            Fault::Poison { shard, .. } => self.poison(shard),
            Fault::InboxLost { inbox, .. } => {
                let stream = self.servers.lose_inbox(inbox, &self.seen);
                self.wake_readers(stream);
            }
            Fault::LogLost { shard, newest, .. } => {
                let seen = &mut self.seen;
                let stream = self.servers.lose_log(self.now, shard, newest, seen);
                self.wake_readers(stream);
            }
            // Drivers make a machine anew, and clients are processes; there are none here.
            Fault::MachinePanic { .. } | Fault::Client { .. } => {}
            Fault::Shutdown {
                host,
                grace_ms,
                down_ms,
                ..
            } => self.shutdown(host, grace_ms, down_ms),
            Fault::WallStep { host, by_ms, .. } => {
                if self.hosts[host as usize].process.is_some() {
                    self.seen.fire("wall_step");
                }
                self.hosts[host as usize].clock.stepped_ms += by_ms;
            }
            Fault::StoreClock { by_ms, .. } => {
                self.servers.step_clock(self.now, by_ms, &mut self.seen);
            }
            Fault::Gone { host, .. } => {
                if self.hosts[host as usize].process.is_some() {
                    self.seen.fire("gone");
                }
                self.crash(host, 0);
                self.hosts[host as usize].retired = true;
            }
            Fault::Twin { host, .. } => self.twin(host),
            Fault::RefuseWrites { task, for_ms, .. } => {
                self.servers.refuse_writes(task, until(for_ms, self.now));
            }
            Fault::Rot { what, .. } => self.servers.rot(self.now, &what, &mut self.seen),
            Fault::RefuseCommit { .. } | Fault::RefuseBatches { .. } | Fault::RefuseTask { .. } => {
            }
        }
    }

    fn shutdown(&mut self, host: u32, grace_ms: u64, down_ms: u64) {
        let index = host as usize;
        let generation = self.hosts[index].generation;
        let Some(process) = &mut self.hosts[index].process else {
            return;
        };
        process.asked = true;
        let machines = host_number(process.machines.len());
        self.seen.fire("shutdown");
        let place = Place {
            host,
            generation,
            machine: 0,
        };
        let what = Life::Asked { grace_ms };
        self.note(What::Process { place, what });
        self.hosts[index].back_in_ms = self.plan.world.prompt_restarts.then_some(down_ms);
        self.restart_in(host, grace_ms + down_ms + 5_000);
        // An engine tells its workers first, and then its coordinator.
        let first = u32::from(machines > 1);
        for machine in first..machines {
            let place = Place {
                host,
                generation,
                machine,
            };
            self.heap
                .push(self.now, Due::Give(place, Given::Shutdown { grace_ms }));
        }
    }

    /// Another process starts under the id of a running worker; the old one has to give way.
    fn twin(&mut self, host: u32) {
        let index = host as usize;
        let kind = self.hosts[index].kind.clone();
        if !matches!(kind, Kind::Worker(..)) || self.hosts[index].process.is_none() {
            return;
        }
        self.seen.fire("twin");
        let twin = host_number(self.hosts.len());
        self.hosts
            .push(Host::new(kind, crate::plan::Clock::default()));
        self.start_process(twin);
    }

    /// Entries that no coordinator should trip over.
    fn poison(&mut self, shard: u32) {
        for stream in self.servers.poison(self.now, shard, &mut self.seen) {
            self.wake_readers(stream);
        }
    }

    /// Every process is up again and the network is fine.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.away = [0; 2];
        self.slow = [(0, 0); 2];
        self.note(What::Healed);
        for host in 0..host_number(self.hosts.len()) {
            let index = host as usize;
            self.hosts[index].partitions.clear();
            self.hosts[index].holds.clear();
            if self.hosts[index].stalled_until > self.now {
                let generation = self.hosts[index].generation;
                self.hosts[index].stalled_until = self.now;
                self.heap.push(self.now, Due::Resume { host, generation });
            }
            if self.hosts[index].process.is_none() && !self.hosts[index].retired {
                self.hosts[index].starts_at = Some(self.now);
                self.heap.push(self.now, Due::Start { host });
            }
        }
        // What waited for an event that never came happens now.
        for (_, index) in std::mem::take(&mut self.pending.actions) {
            self.heap.push(self.now, Due::Action { index });
        }
    }
}
