//! The world of tier 0: hosts, two servers, a network, handlers and clients, driven by one heap of
//! events. No clock, no thread, no randomness but what the plan keys.

mod calls;
mod clients;
mod faults;
mod handlers;
mod heap;
mod host;
mod processes;
mod servers;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use flowkit_core::coordinator;
use flowkit_core::json::Json;
use flowkit_core::message::Envelope;
use flowkit_core::planted::is_any;
use flowkit_core::port::Stream;
use flowkit_core::worker::{self, RunId};

use crate::checkers::Finish;
use crate::dice::Dice;
use crate::history::{Place, What};
use crate::observer::Observer;
use crate::outcome::Outcome;
use crate::plan::{Plan, When};
use crate::servers::Servers;
use clients::Client;
use faults::Pending;
use handlers::HandlerRun;
use heap::{Due, Heap};
use host::{Host, Kind};
use servers::Parked;

/// A run goes on for so long at least when faults are over and everything is settled.
const LATE_WORDS_US: u64 = 2_000_000;
/// Most events of a run with a planted bug; others have a thousandth of that.
const PLANTED_EVENTS_MAX: u64 = 5_000_000;

/// What a draw is for; part of its key.
#[derive(Clone, Copy, Debug)]
enum Luck {
    Network = 1,
    Handler = 2,
    Client = 3,
    Process = 4,
}

/// One run of one plan.
#[derive(Debug)]
pub(crate) struct World<'p> {
    plan: &'p Plan,
    /// True time in microseconds.
    now: u64,
    heap: Heap,
    hosts: Vec<Host>,
    servers: Servers,
    parked: BTreeMap<u64, Parked>,
    /// Events so far.
    events: u64,
    /// A broken promise does not end the run.
    forgives: bool,
    /// Numbers parked reads, clients' asks and draws that have no other key.
    counter: u64,
    clients: Vec<Client>,
    /// Graphs as they are submitted, by task; true = the other one under the same id.
    graphs: BTreeMap<(u32, bool), Json>,
    runs: BTreeMap<(Place, RunId), HandlerRun<'p>>,
    pending: Pending,
    /// Both servers: away until, slow until and by how much.
    away: [u64; 2],
    slow: [(u64, u64); 2],
    healed: bool,
    /// Effects of each host when every client had its last answer first.
    life: Vec<u64>,
    seen: Observer,
    coordinator_effects: Vec<coordinator::Effect>,
    worker_effects: Vec<worker::Effect>,
}

/// Runs a plan to its end.
pub(crate) fn run(plan: &Plan, keep_history: bool) -> Outcome {
    let mut world = World::new(plan, keep_history);
    world.start();
    // With a bug, machines may go round in circles for the whole time that a task may take.
    let events_max = if is_any() {
        PLANTED_EVENTS_MAX
    } else {
        u64::MAX
    };
    let settled = world.drive(events_max);
    world.finish(settled)
}

/// Runs a plan for so many events at most, with messages of nobody that appear at times in
/// milliseconds; whether it came to its end.
pub(crate) fn run_some(plan: &Plan, events_max: u64, strays: &[(u64, Stream, Envelope)]) -> bool {
    let mut world = World::new(plan, false);
    world.forgives = true;
    world.start();
    for (at_ms, stream, envelope) in strays {
        let (stream, envelope) = (*stream, Arc::new(envelope.clone()));
        let at = at_ms.saturating_mul(1_000);
        world.heap.push(at, Due::Append { stream, envelope });
    }
    let settled = world.drive(events_max);
    let ended = world.events < events_max;
    if ended {
        world.finish(settled);
    }
    ended
}

impl<'p> World<'p> {
    fn new(plan: &'p Plan, keep_history: bool) -> Self {
        let world = &plan.world;
        let kinds: Vec<Kind> = if world.embedded {
            vec![Kind::Embedded]
        } else {
            let coordinators = (0..world.coordinators).map(|_| Kind::Coordinator);
            let workers = world
                .workers
                .iter()
                .enumerate()
                .map(|(index, worker)| Kind::Worker(index, processes::worker_id(&worker.id)));
            coordinators.chain(workers).collect()
        };
        let hosts = kinds
            .into_iter()
            .enumerate()
            .map(|(index, kind)| {
                Host::new(kind, world.clocks.get(index).copied().unwrap_or_default())
            })
            .collect();
        Self {
            plan,
            now: 0,
            heap: Heap::default(),
            hosts,
            servers: Servers::new(plan),
            parked: BTreeMap::new(),
            events: 0,
            forgives: false,
            counter: 0,
            clients: (0..world.clients).map(Client::new).collect(),
            graphs: BTreeMap::new(),
            runs: BTreeMap::new(),
            pending: Pending::default(),
            away: [0; 2],
            slow: [(0, 0); 2],
            healed: false,
            life: Vec::new(),
            seen: Observer::new(plan, keep_history),
            coordinator_effects: Vec::new(),
            worker_effects: Vec::new(),
        }
    }

    /// Puts the first events onto the heap.
    fn start(&mut self) {
        self.count_actions();
        for (index, action) in self.plan.actions.iter().enumerate() {
            match action.when {
                When::At { ms } => self.heap.push(ms * 1_000, Due::Action { index }),
                when => self.pending.actions.push((when, index)),
            }
        }
        for (index, fault) in self.plan.faults.iter().enumerate() {
            match fault.when() {
                Some(When::At { ms }) => self.heap.push(ms * 1_000, Due::Fault { index }),
                Some(when) => self.pending.add(when, fault.host().unwrap_or(0), index),
                None => {}
            }
        }
        self.heap.push(self.plan.heal_ms * 1_000, Due::Heal);
        for host in 0..self.hosts.len() {
            let mut dice = self.dice(Luck::Process, host as u64, 0);
            let at = dice.between(0, 20_000);
            self.heap.push(
                at,
                Due::Start {
                    host: host_number(host),
                },
            );
        }
    }

    fn dice(&self, luck: Luck, a: u64, b: u64) -> Dice {
        Dice::keyed(self.plan.seed, [luck as u64, a, b])
    }

    fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Runs until every task is settled (and a while longer), or the bound is over.
    fn drive(&mut self, events_max: u64) -> Option<u64> {
        let heal = self.plan.heal_ms * 1_000;
        let bound = heal + self.plan.settle_bound_ms() * 1_000;
        // Zombies hold their leases, and say late words, when everything is settled and healed.
        let linger = (self.plan.world.lease_ttl_ms + 2_000) * 1_000;
        let mut content_at = None;
        let mut settled = None;
        while let Some((at, due)) = self.heap.pop() {
            let end = settled.map_or(bound, |at: u64| {
                (at + LATE_WORDS_US).max(content_at.unwrap_or(at) + linger)
            });
            if at > end || !self.seen.broken.is_empty() || self.events >= events_max {
                break;
            }
            self.events += 1;
            self.now = at.max(self.now);
            let step = || {
                self.dispatch(due);
                self.trigger();
            };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(step)) {
                self.panicked("world", panic);
            }
            if self.forgives {
                self.seen.broken.clear();
            }
            let content = settled.is_none() && self.clients.iter().all(Client::is_content);
            if content && self.life.is_empty() {
                self.life = self.hosts.iter().map(|host| host.effects).collect();
            }
            if settled.is_none() {
                content_at = content.then(|| content_at.unwrap_or(self.now));
            }
            if content && self.healed {
                settled = Some(self.now);
            }
        }
        settled.map(|at| at.saturating_sub(heal) / 1_000)
    }

    fn dispatch(&mut self, due: Due) {
        match due {
            Due::Give(to, given) => self.give(to, given),
            Due::Timer(place) => self.timer(place),
            Due::Handler { place, run, ticket } => self.handler(place, run, ticket),
            Due::Store(call) => self.store_call(*call),
            Due::Broker(call) => self.broker_call(*call),
            Due::ReadExpires { parked } => self.read_expires(parked),
            Due::Append { stream, envelope } => {
                let _ = self.append(stream, envelope);
            }
            Due::ClientGets { client, envelope } => self.client_gets(client, &envelope),
            Due::ClientRetries { client, ask } => self.client_retries(client, ask),
            Due::ClientResumes { client, task } => self.resumes(client, task),
            Due::Start { host } => {
                let due = self.hosts[host as usize].starts_at;
                if due.is_none_or(|at| at == self.now) {
                    self.start_process(host);
                }
            }
            Due::Resume { host, generation } => self.resume(host, generation),
            Due::Probe { place } => self.probe(place),
            Due::Fault { index } => self.fault(index),
            Due::Action { index } => self.action(index),
            Due::Heal => self.heal(),
        }
    }

    fn note(&mut self, what: What) {
        self.seen.note(self.now, what);
    }

    fn finish(mut self, settled_after_ms: Option<u64>) -> Outcome {
        // A broken promise ends a run early; what is unfinished then is no further fault.
        if self.seen.broken.is_empty() {
            let finish = Finish {
                plan: self.plan,
                now: self.now,
                settled: settled_after_ms.is_some(),
                tables: self.servers.store.synced(),
                ledger: &self.seen.ledger,
            };
            self.seen.judges.finish(&finish, &mut self.seen.broken);
        }
        Outcome {
            fired: self.seen.fired,
            struck: self.seen.struck,
            trace_hash: self.seen.trace.finish(),
            trace_events: self.seen.trace.events(),
            ended_ms: self.now / 1_000,
            settled_after_ms,
            overlap_ms: self.seen.judges.overlap_us() / 1_000,
            effects: self.life,
            history: self.seen.history.take().unwrap_or_default(),
            broken: self.seen.broken,
        }
    }
}

/// Hosts are few.
fn host_number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
