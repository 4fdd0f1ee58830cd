//! Processes: start, inputs, effects, timers, crash, stall, stop.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use flowkit_core::coordinator::{self, Coordinator};
use flowkit_core::id::{ClientId, Incarnation, NodeId, Role, ShardId, TaskId, Token, WorkerId};
use flowkit_core::message::{Body, CancelReason};
use flowkit_core::port::{Stream, TransportReply};
use flowkit_core::worker::{self, Worker};
use flowkit_memory::BrokerModel;

use super::heap::{Due, Given};
use super::host::{Inner, Kind, Machine, Process};
use super::{Luck, World, host_number};
use crate::checkers::Broken;
use crate::history::{Life, Place, Step, What};
use crate::outcome::panic_text;

/// Wakes in a row at one moment that no sane machine asks for.
const WAKES_MAX: u32 = 1_000;

pub(super) fn worker_id(text: &str) -> WorkerId {
    WorkerId::new(text).expect("a plan's worker ids are valid")
}

impl World<'_> {
    fn alive(&self, place: Place) -> bool {
        let host = &self.hosts[place.host as usize];
        host.generation == place.generation && host.process.is_some()
    }

    fn machine(&mut self, place: Place) -> Option<&mut Machine> {
        let host = &mut self.hosts[place.host as usize];
        if host.generation != place.generation {
            return None;
        }
        let process = host.process.as_mut()?;
        process.machines.get_mut(place.machine as usize)
    }

    /// The worker id of a machine.
    pub(super) fn worker_of(&mut self, place: Place) -> Option<WorkerId> {
        self.machine(place)?.worker_id.clone()
    }

    pub(super) fn registered(&mut self, place: Place, incarnation: Incarnation) {
        if let Some(machine) = self.machine(place) {
            machine.incarnation = incarnation;
        }
    }

    pub(super) fn start_process(&mut self, host: u32) {
        let index = host as usize;
        self.hosts[index].restarting = false;
        self.hosts[index].back_in_ms = None;
        self.hosts[index].starts_at = None;
        if self.hosts[index].process.is_some() || self.hosts[index].retired {
            return;
        }
        self.hosts[index].generation += 1;
        self.hosts[index].stalled_until = 0;
        let generation = self.hosts[index].generation;
        let machines = match self.hosts[index].kind.clone() {
            Kind::Coordinator => vec![self.coordinator(host, generation)],
            Kind::Worker(plan, id) => vec![self.worker(plan, &id, (host, generation))],
            Kind::Embedded => {
                self.open_embedded();
                let mut machines = vec![self.coordinator(host, generation)];
                for plan in 0..self.plan.world.workers.len() {
                    let id = worker_id(&self.plan.world.workers[plan].id);
                    machines.push(self.worker(plan, &id, (host, generation)));
                }
                machines
            }
        };
        let count = host_number(machines.len());
        self.hosts[index].process = Some(Process {
            machines,
            asked: false,
        });
        for machine in 0..count {
            let place = Place {
                host,
                generation,
                machine,
            };
            self.note(What::Process {
                place,
                what: Life::Started,
            });
            self.heap.push(self.now, Due::Give(place, Given::Wake));
        }
    }

    fn coordinator(&self, host: u32, generation: u32) -> Machine {
        let world = &self.plan.world;
        let owner = ClientId::new(format!("coordinator-{host}-{generation}"));
        let owner = owner.expect("a valid id");
        let seed = self
            .dice(Luck::Process, u64::from(host), u64::from(generation))
            .draw();
        let mut config = coordinator::Config::new(owner, seed);
        config.shards = world.shards;
        config.inboxes = world.inboxes;
        config.shard_lease_ttl_ms = world.shard_lease_ttl_ms;
        config.lease_ttl_ms = world.lease_ttl_ms;
        config.clock_rate_error_ppm = world.clock_rate_error_ppm;
        config.cancel_grace_ms = world.cancel_grace_ms;
        config.retention_finished_ms = world.retention_finished_ms;
        config.retention_failed_ms = world.retention_failed_ms;
        config.sweep_interval_ms = world.sweep_interval_ms;
        config.accept_timeout_ms = world.accept_timeout_ms;
        config.limits = world.limits.clone();
        if let Some(most) = world.tasks_in_flight_max {
            config.tasks_in_flight_max = most as usize;
        }
        config.applies_before_sync = world.embedded;
        config.predecessors_dead = world.embedded;
        config.functions = crate::functions::functions();
        Machine::new(Inner::Coordinator(Box::new(Coordinator::new(config))), None)
    }

    fn worker(&self, plan: usize, id: &WorkerId, (host, start): (u32, u32)) -> Machine {
        let world = &self.plan.world;
        let plan = &world.workers[plan];
        let roles = plan
            .roles
            .iter()
            .map(|role| Role::new(role).expect("a valid role"));
        let nonce = u64::from(host) << 32 | u64::from(start);
        let mut config = worker::Config::new(id.clone(), roles.collect(), plan.capacity, nonce);
        config.shards = world.shards;
        config.inboxes = world.inboxes;
        config.hb_interval_ms = world.hb_interval_ms;
        config.announce_interval_ms = world.announce_interval_ms;
        config.db_cancel_poll_ms = world.db_cancel_poll_ms;
        if let Some(most) = world.dedup_cache_size {
            config.dedup_cache_size = most as usize;
        }
        config.dedup_ttl_ms = world.dedup_ttl_ms.unwrap_or(config.dedup_ttl_ms);
        config.strict_input_adapters = world.strict_adapters;
        Machine::new(
            Inner::Worker(Box::new(Worker::new(config))),
            Some(id.clone()),
        )
    }

    /// The broker of an embedded engine died with its process: its shard logs start where the
    /// shard records say.
    fn open_embedded(&mut self) {
        self.servers.broker = BrokerModel::new();
        for shard in (0..self.plan.world.shards).map(ShardId) {
            if let Some(record) = self.servers.store.synced().shard(shard) {
                let next = record.next;
                self.servers.broker.set_start(Stream::Shard(shard), next);
            }
        }
    }

    /// Hands an input to a machine and carries out what it wants.
    pub(super) fn give(&mut self, to: Place, given: Given) {
        if !self.alive(to) {
            return;
        }
        let index = to.host as usize;
        if self.hosts[index].stalled_until > self.now {
            self.hosts[index].waiting.push_back(Due::Give(to, given));
            return;
        }
        let now = self.hosts[index].clock.now(self.now);
        let fenced = self.fenced_by(to, &given);
        let mut coordinator_effects = std::mem::take(&mut self.coordinator_effects);
        let mut worker_effects = std::mem::take(&mut self.worker_effects);
        let mut panicked = None;
        if let Some(machine) = self.machine(to) {
            if machine.stopped {
                return;
            }
            machine.idle_due &= !matches!(given, Given::Idle);
            let name = machine.inner.name();
            let handle = || match &mut machine.inner {
                Inner::Coordinator(inner) => {
                    if let Some(input) = given.for_coordinator() {
                        inner.handle(now, input, &mut coordinator_effects);
                        inner.check_invariants();
                    }
                }
                Inner::Worker(inner) => {
                    if let Some(input) = given.for_worker() {
                        inner.handle(now, input, &mut worker_effects);
                        inner.check_invariants();
                    }
                }
            };
            // Without the drivers nobody makes a machine anew: the run ends here, with its history.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(handle)) {
                panicked = Some((name, panic));
            }
        }
        if let Some((machine, panic)) = panicked {
            return self.panicked(machine, panic);
        }
        for effect in coordinator_effects.drain(..) {
            if !self.alive(to) {
                break;
            }
            self.coordinator_effect(to, effect);
            self.count_effect(to);
        }
        for effect in worker_effects.drain(..) {
            if !self.alive(to) {
                break;
            }
            self.worker_effect(to, effect);
            self.count_effect(to);
        }
        coordinator_effects.clear();
        worker_effects.clear();
        self.coordinator_effects = coordinator_effects;
        self.worker_effects = worker_effects;
        // What the machine did before it came to this entry is not held against it.
        for (task, node, token) in fenced {
            self.note(What::ToldFenced {
                place: to,
                task,
                node,
                token,
            });
        }
        self.rearm(to);
    }

    /// A panic is a broken promise, at the moment at which it happens.
    pub(super) fn panicked(&mut self, who: &str, panic: Box<dyn Any + Send>) {
        if self.forgives {
            resume_unwind(panic);
        }
        let what = format!("the {who} panicked: {}", panic_text(&*panic));
        self.seen
            .broken
            .push(Broken::new("no_panic", self.now, what));
    }

    /// Tokens that this input tells a worker's process to be over.
    fn fenced_by(&mut self, to: Place, given: &Given) -> Vec<(TaskId, NodeId, Token)> {
        let Given::Transport(_, Ok(TransportReply::Entries { entries, .. })) = given else {
            return Vec::new();
        };
        let Some(machine) = self.machine(to).filter(|machine| !machine.stopped) else {
            return Vec::new();
        };
        let Some(worker) = machine.worker_id.clone() else {
            return Vec::new();
        };
        let incarnation = Some(machine.incarnation);
        let messages = entries
            .iter()
            .filter_map(|entry| entry.message.as_ref().ok());
        messages
            .filter(|message| {
                message.to.as_deref() == Some(worker.as_str())
                    && message.to_incarnation == incarnation
                    && matches!(&message.body, Body::TaskCancel(cancel)
                        if cancel.reason == CancelReason::Fenced)
            })
            .filter_map(|message| {
                Some((
                    message.task_id.clone()?,
                    message.node_id.clone()?,
                    message.lease_no?,
                ))
            })
            .collect()
    }

    fn count_effect(&mut self, place: Place) {
        self.hosts[place.host as usize].effects += 1;
        let effects = self.hosts[place.host as usize].effects;
        self.effect_trigger(place.host, effects);
    }

    fn coordinator_effect(&mut self, from: Place, effect: coordinator::Effect) {
        match effect {
            coordinator::Effect::Store { op, request } => self.ask_store(from, op, request),
            coordinator::Effect::Transport { op, request } => self.ask_broker(from, op, request),
            coordinator::Effect::Report(_) => {}
            coordinator::Effect::Stopped => self.stopped(from, false),
        }
    }

    fn worker_effect(&mut self, from: Place, effect: worker::Effect) {
        match effect {
            worker::Effect::Store { op, request } => self.ask_store(from, op, request),
            worker::Effect::Transport { op, request } => self.ask_broker(from, op, request),
            worker::Effect::Run { run, command } => self.command(from, run, command),
            worker::Effect::Report(_) => {}
            worker::Effect::Stopped { superseded } => self.stopped(from, superseded),
            worker::Effect::Unregistered(_) => self.stopped(from, false),
        }
    }

    /// Sets the machine's timer to what it asks for now.
    fn rearm(&mut self, place: Place) {
        let clock = self.hosts[place.host as usize].clock;
        let earliest = self.now;
        let Some(machine) = self.machine(place) else {
            return;
        };
        if machine.stopped {
            return;
        }
        let at = machine
            .poll_timeout()
            .map(|mono| clock.when(mono).max(earliest));
        let idle = machine.wants_idle() && !machine.idle_due;
        machine.idle_due |= idle;
        machine.timer = at;
        let fresh = at.filter(|at| !machine.armed.contains(at));
        machine.armed.extend(fresh);
        if idle {
            self.heap.push(earliest, Due::Give(place, Given::Idle));
        }
        if let Some(at) = fresh {
            self.heap.push(at, Due::Timer(place));
        }
    }

    pub(super) fn timer(&mut self, place: Place) {
        if !self.alive(place) {
            return;
        }
        let host = &mut self.hosts[place.host as usize];
        if host.stalled_until > self.now {
            host.waiting.push_back(Due::Timer(place));
            return;
        }
        let now = self.now;
        let Some(machine) = self.machine(place) else {
            return;
        };
        machine.armed.retain(|at| *at > now);
        // A timer that was set anew meanwhile is stale (after a stall, any passed one is due).
        if machine.timer.is_none_or(|at| at > now) {
            return;
        }
        machine.timer = None;
        machine.wakes = if machine.wakes.0 == now {
            (now, machine.wakes.1 + 1)
        } else {
            (now, 1)
        };
        if machine.wakes.1 > WAKES_MAX {
            let what = format!("the machine at {place:?} asks to be woken at once, for ever");
            self.seen.broken.push(Broken::new("livelock", now, what));
            return;
        }
        self.give(place, Given::Wake);
    }

    /// The machine is done.
    fn stopped(&mut self, place: Place, superseded: bool) {
        let Some(machine) = self.machine(place) else {
            return;
        };
        machine.stopped = true;
        machine.timer = None;
        let index = place.host as usize;
        let all = self.hosts[index]
            .process
            .as_ref()
            .is_some_and(|process| process.machines.iter().all(|machine| machine.stopped));
        if superseded {
            self.seen.fire("superseded");
            self.hosts[index].retired = true;
        }
        if self.workers_left(place) {
            let coordinator = Place {
                machine: 0,
                ..place
            };
            self.heap
                .push(self.now, Due::Give(coordinator, Given::ShutdownLast));
        }
        if all {
            self.end_process(place.host, Life::Stopped);
            if let Some(back_in_ms) = self.hosts[index].back_in_ms.take() {
                self.restart_in(place.host, back_in_ms);
            } else if !self.hosts[index].retired && !self.hosts[index].restarting {
                self.restart_in(place.host, 300);
            }
        }
    }

    /// A worker of an engine has stopped, and it was the last one.
    fn workers_left(&self, place: Place) -> bool {
        let process = self.hosts[place.host as usize].process.as_ref();
        process.is_some_and(|process| {
            let mut workers = process.machines.iter().skip(1);
            process.asked && place.machine > 0 && workers.all(|worker| worker.stopped)
        })
    }

    /// The process dies at once.
    pub(super) fn crash(&mut self, host: u32, down_ms: u64) {
        let index = host as usize;
        if self.hosts[index].process.is_none() {
            return;
        }
        self.end_process(host, Life::Crashed);
        if matches!(self.hosts[index].kind, Kind::Embedded) {
            self.lose_unsynced(host);
        }
        self.restart_in(host, down_ms);
    }

    pub(super) fn restart_in(&mut self, host: u32, down_ms: u64) {
        let at = self.now + down_ms * 1_000;
        self.hosts[host as usize].restarting = true;
        self.hosts[host as usize].starts_at = Some(at);
        self.heap.push(at, Due::Start { host });
    }

    fn end_process(&mut self, host: u32, what: Life) {
        let index = host as usize;
        let generation = self.hosts[index].generation;
        self.hosts[index].process = None;
        self.hosts[index].waiting.clear();
        self.hosts[index].last_append.clear();
        self.hosts[index].overtaken.clear();
        let place = Place {
            host,
            generation,
            machine: 0,
        };
        self.note(What::Process { place, what });
        let gone: Vec<_> = self
            .runs
            .keys()
            .filter(|(at, _)| at.host == host)
            .copied()
            .collect();
        for key in gone {
            if let Some(run) = self.runs.remove(&key) {
                self.note(What::Handler {
                    run: run.info,
                    step: Step::Lost,
                });
            }
        }
    }

    /// An embedded engine died: commits that were not synced are gone, maybe but for the first.
    fn lose_unsynced(&mut self, host: u32) {
        let generation = u64::from(self.hosts[host as usize].generation);
        let mut dice = self.dice(Luck::Process, 1_000 + u64::from(host), generation);
        let unsynced = self.servers.store.unsynced_commits() as u64;
        let keep = usize::try_from(dice.between(0, unsynced)).unwrap_or(0);
        self.servers.lose_unsynced(self.now, keep, &mut self.seen);
        self.parked.clear();
    }

    /// Freezes a process.
    pub(super) fn stall(&mut self, host: u32, for_ms: u64) {
        let index = host as usize;
        if self.hosts[index].process.is_none() {
            return;
        }
        let until = self.now + for_ms * 1_000;
        if until <= self.hosts[index].stalled_until {
            return;
        }
        self.seen.fire("stall");
        if self.hosts[index].stalled_until <= self.now {
            self.hosts[index].stalled_since = self.now;
        }
        self.hosts[index].stalled_until = until;
        let generation = self.hosts[index].generation;
        self.note(What::Process {
            place: Place {
                host,
                generation,
                machine: 0,
            },
            what: Life::Stalled,
        });
        self.heap.push(until, Due::Resume { host, generation });
    }

    pub(super) fn resume(&mut self, host: u32, generation: u32) {
        let index = host as usize;
        if self.hosts[index].generation != generation
            || self.hosts[index].process.is_none()
            || self.hosts[index].stalled_until > self.now
        {
            return;
        }
        self.note(What::Process {
            place: Place {
                host,
                generation,
                machine: 0,
            },
            what: Life::Resumed,
        });
        let lease_ms = match self.hosts[index].kind {
            Kind::Coordinator => self.plan.world.shard_lease_ttl_ms,
            Kind::Worker(..) | Kind::Embedded => self.plan.world.lease_ttl_ms,
        };
        if self.now - self.hosts[index].stalled_since > lease_ms * 1_000 {
            self.seen.fire("stall_past_lease");
        }
        // A driver may look at its timers or at its inputs first.
        let mut waiting = std::mem::take(&mut self.hosts[index].waiting);
        let timers_first = self
            .dice(Luck::Process, 2_000 + u64::from(host), self.now)
            .permille(500);
        if timers_first {
            waiting
                .make_contiguous()
                .sort_by_key(|due| !matches!(due, Due::Timer(_)));
        }
        for due in waiting {
            self.heap.push(self.now, due);
        }
    }
}
