//! Runs a plan: steps the hosts, carries faults out between two steps, and sees when all is done.

use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use flowkit_core::id::WorkerId;
use turmoil::{Builder, Sim};

use super::host::{CutKind, Ended, HostState, Kind};
use super::piece::Piece;
use super::servers;
use super::stage::{self, Stage};
use super::{panics, process};
use crate::checkers::{Broken, Finish};
use crate::clock::HostClock;
use crate::dice::Dice;
use crate::history::{Life, What};
use crate::outcome::Outcome;
use crate::plan::{Lost, Plan, Server};

/// Virtual time of the longest run; each is bounded by its plan.
const FOREVER: Duration = Duration::from_secs(1_000_000);

/// Runs a plan to its end.
pub(crate) fn run(plan: &Plan, piece: Rc<dyn Piece>, keep_history: bool) -> Outcome {
    panics::watch();
    let clients = piece.clients(plan);
    let standing = stage::set_up(Stage::new(plan, piece, keep_history));
    let mut director = Director::new(plan, clients);
    director.populate();
    let settled = director.direct();
    let outcome = director.finish(settled);
    // Processes fall before what they stand on.
    drop(director);
    drop(standing);
    outcome
}

pub(super) struct Director<'p> {
    pub(super) plan: &'p Plan,
    /// How many clients have hosts of their own.
    pub(super) clients: u32,
    pub(super) sim: Sim<'p>,
    /// When each fault of the network or of a server is over; looked at after each step.
    life: Vec<u64>,
}

pub(super) const SERVERS: [Server; 2] = [Server::Store, Server::Broker];

impl<'p> Director<'p> {
    fn new(plan: &'p Plan, clients: u32) -> Self {
        let world = &plan.world;
        let mut dice = Dice::keyed(plan.seed, [200, 0, 0]);
        let sim = Builder::new()
            .rng_seed(dice.draw())
            .epoch(UNIX_EPOCH + Duration::from_secs(1_700_000_000))
            .tick_duration(Duration::from_millis(Plan::TICK_MS))
            .simulation_duration(FOREVER)
            .min_message_latency(Duration::from_micros(world.latency_us_min))
            .max_message_latency(Duration::from_micros(world.latency_us_max))
            .tcp_capacity(4_096)
            .enable_random_order()
            .build();
        Self {
            plan,
            clients,
            sim,
            life: Vec::new(),
        }
    }

    /// Registers every host.
    fn populate(&mut self) {
        for server in SERVERS {
            self.sim
                .host(servers::name(server), move || servers::serve(server));
        }
        let world = &self.plan.world;
        let coordinators = (0..world.coordinators).map(|_| Kind::Coordinator);
        let workers = world.workers.iter().enumerate();
        let workers = workers.map(|(plan, worker)| Kind::Worker {
            plan,
            id: worker_id(&worker.id),
        });
        let kinds: Vec<Kind> = if world.embedded {
            vec![Kind::Embedded]
        } else {
            coordinators.chain(workers).collect()
        };
        for (index, kind) in kinds.into_iter().enumerate() {
            let clock = world.clocks.get(index).copied().unwrap_or_default();
            self.add_host(kind, HostClock::new(clock));
        }
        for number in 0..self.clients {
            let name = format!("client-{number}");
            let index = self.plan.hosts().saturating_add(number) as usize;
            let clock = self.plan.world.clocks.get(index).copied();
            let clock = HostClock::new(clock.unwrap_or_default());
            let state = HostState::new(name.clone(), Kind::Client, clock);
            stage::with(|stage| stage.clients.push(state));
            self.sim.host(name, move || process::client(number));
        }
    }

    pub(super) fn add_host(&mut self, kind: Kind, clock: HostClock) {
        let (host, name) = stage::with(|stage| {
            let host = u32::try_from(stage.hosts.len()).unwrap_or(u32::MAX);
            let name = format!("host-{host}");
            stage.hosts.push(HostState::new(name.clone(), kind, clock));
            (host, name)
        });
        self.sim.host(name, move || process::run(host));
    }

    /// Steps until every task is settled (and a while longer), or the bound is over.
    fn direct(&mut self) -> Option<u64> {
        let heal = self.plan.heal_ms * 1_000;
        let patience_ms = stage::with(|stage| stage.piece.patience_ms());
        let bound = heal + (self.plan.settle_bound_ms() + patience_ms) * 1_000;
        // Late words of zombies still arrive after everything is settled.
        let linger = (self.plan.world.lease_ttl_ms + 2_000) * 1_000;
        let mut settled = None;
        loop {
            if let Err(error) = self.sim.step() {
                let what = format!("a host failed: {error}");
                stage::with(|stage| {
                    stage
                        .seen
                        .broken
                        .push(Broken::new("no_panic", stage.now, what))
                });
            }
            let now = u64::try_from(self.sim.elapsed().as_micros()).unwrap_or(u64::MAX);
            let (broken, content) = stage::with(|stage| {
                stage.reach(now);
                (!stage.seen.broken.is_empty(), stage.content())
            });
            if broken || panics::any() {
                break;
            }
            if content && self.life.is_empty() {
                self.life = stage::with(|stage| stage.hosts.iter().map(|h| h.effects).collect());
            }
            if content && now >= heal && settled.is_none() {
                settled = Some(now);
            }
            if now > settled.map_or(bound, |at| at + linger) {
                break;
            }
            self.tend(now);
        }
        settled.map(|at| at.saturating_sub(heal) / 1_000)
    }

    /// Everything that happens between two steps.
    fn tend(&mut self, now: u64) {
        let heals = stage::with(|stage| !stage.healed && now >= stage.plan.heal_ms * 1_000);
        if heals {
            self.heal();
        }
        let due = stage::with(|stage| {
            stage.clock_strikes();
            std::mem::take(&mut stage.due_faults)
        });
        for index in due {
            self.fault(index);
        }
        self.clear_up(now);
        self.mend(now);
        self.start(now);
    }

    /// Processes that ended by themselves.
    fn clear_up(&mut self, now: u64) {
        let hosts = stage::with(|stage| stage.hosts.len());
        for host in (0..hosts).map(number) {
            let ended = stage::with(|stage| stage.hosts[host as usize].ended.take());
            let Some(ended) = ended else { continue };
            self.end(host, Life::Stopped);
            stage::with(|stage| {
                if ended == Ended::Superseded {
                    stage.seen.fire("superseded");
                }
                let state = &mut stage.hosts[host as usize];
                match ended {
                    Ended::Superseded => state.retired = true,
                    Ended::Failed => state.starts_at = Some(now + 500_000),
                    Ended::Stopped => {
                        if let Some(back_in_ms) = state.back_in_ms.take() {
                            state.starts_at = Some(now + 1_000 * back_in_ms);
                        }
                        state.starts_at.get_or_insert(now + 300_000_000);
                    }
                }
            });
        }
    }

    /// The process of a host is gone, with everything that it holds.
    pub(super) fn end(&mut self, host: u32, what: Life) {
        let name = stage::with(|stage| {
            stage.ends(host, what);
            stage.known(host).ended = None;
            stage.known(host).name.clone()
        });
        // tokio drops the tasks of a runtime in an order that depends on how many tasks there were
        // before in the whole program. While ways are held, the farewells of their connections draw
        // no luck; each way has its own queue, and they leave together.
        for server in SERVERS {
            self.hold_unless_cut(host, server);
        }
        self.sim.crash(name);
        self.ways(host);
    }

    pub(super) fn hold_unless_cut(&mut self, host: u32, server: Server) {
        let (name, cut) = stage::with(|stage| {
            let state = stage.known(host);
            let cut = state.cuts.iter().any(|cut| cut.from == server);
            (state.name.clone(), cut)
        });
        if !cut {
            self.sim.hold(name, servers::name(server));
        }
    }

    fn start(&mut self, now: u64) {
        for host in stage::with(|stage| stage.numbers()) {
            let starts = stage::with(|stage| {
                let state = stage.known(host);
                let due = state.starts_at.is_some_and(|at| at <= now);
                if due && !state.alive {
                    state.starts_at = None;
                }
                (due && !state.alive && !state.retired).then(|| state.name.clone())
            });
            if let Some(name) = starts {
                self.sim.bounce(name);
            }
        }
    }

    /// What is over by now of what disturbs the network, the servers and frozen processes.
    fn mend(&mut self, now: u64) {
        for server in SERVERS {
            let back = stage::with(|stage| {
                let state = stage.server(server);
                if state.frozen_until <= now && state.gate.is_shut() {
                    state.gate.open();
                }
                let back = state.down_until.is_some_and(|until| until <= now);
                if back {
                    state.down_until = None;
                }
                back
            });
            if back {
                self.sim.bounce(servers::name(server));
            }
        }
        for host in stage::with(|stage| stage.numbers()) {
            let cuts_over = stage::with(|stage| {
                let state = stage.known(host);
                if state.gate.is_shut() && state.stalled_until <= now {
                    state.gate.open();
                    if state.alive && state.stalled_until > 0 {
                        stage.goes_on(host);
                    }
                }
                let cuts = &mut stage.known(host).cuts;
                let before = cuts.len();
                cuts.retain(|cut| cut.until > now);
                cuts.len() < before
            });
            if cuts_over {
                self.ways(host);
            }
        }
    }

    /// Makes the ways between a host and the servers what its cuts say.
    pub(super) fn ways(&mut self, host: u32) {
        let (name, cuts) = stage::with(|stage| {
            let state = stage.known(host);
            (state.name.clone(), state.cuts.clone())
        });
        for server in SERVERS {
            let other = servers::name(server);
            let mine = cuts.iter().filter(|cut| cut.from == server);
            let lost = |wanted| {
                mine.clone().any(|cut| {
                    matches!(cut.lost, CutKind::Lost(lost) if lost == wanted || lost == Lost::Both)
                })
            };
            let held = mine.clone().any(|cut| cut.lost == CutKind::Held);
            let (requests, replies) = (lost(Lost::Requests), lost(Lost::Replies));
            // Held messages come when the way is free; lost ones never do.
            self.sim.release(&*name, other);
            if requests {
                self.sim.partition_oneway(&*name, other);
            }
            if replies {
                self.sim.partition_oneway(other, &*name);
            }
            if held && !requests && !replies {
                self.sim.hold(&*name, other);
            }
        }
    }

    /// Every process is up again and the network is fine.
    fn heal(&mut self) {
        let hosts = stage::with(|stage| {
            stage.healed = true;
            stage.note(What::Healed);
            let now = stage.now;
            for server in SERVERS {
                let state = stage.server(server);
                state.slow = (0, 0);
                state.frozen_until = 0;
                state.down_until = state.down_until.map(|_| now);
            }
            for state in stage.hosts.iter_mut().chain(&mut stage.clients) {
                state.cuts.iter_mut().for_each(|cut| cut.until = 0);
                state.stalled_until = state.stalled_until.min(now);
                if !state.alive || state.ended.is_some() {
                    state.starts_at = Some(now);
                }
            }
            stage.hosts.len()
        });
        for host in (0..hosts).map(number) {
            // A process that ended by itself is not up, whatever its host says.
            let ended = stage::with(|stage| stage.hosts[host as usize].ended);
            if ended == Some(Ended::Stopped) {
                self.end(host, Life::Stopped);
            }
        }
    }

    fn finish(&mut self, settled_after_ms: Option<u64>) -> Outcome {
        let panics = panics::seen();
        let life = std::mem::take(&mut self.life);
        stage::with(|stage| {
            for panic in panics {
                let what = format!("a process panicked: {panic}");
                stage
                    .seen
                    .broken
                    .push(Broken::new("no_panic", stage.now, what));
            }
            let seen = &mut stage.seen;
            // A broken promise ends a run early; what is unfinished then is no further fault.
            if seen.broken.is_empty() {
                let finish = Finish {
                    plan: self.plan,
                    now: stage.now,
                    settled: settled_after_ms.is_some(),
                    tables: stage.servers.store.synced(),
                    ledger: &seen.ledger,
                };
                seen.judges.finish(&finish, &mut seen.broken);
            }
            Outcome {
                fired: std::mem::take(&mut seen.fired),
                struck: std::mem::take(&mut seen.struck),
                trace_hash: seen.trace.finish(),
                trace_events: seen.trace.events(),
                ended_ms: stage.now / 1_000,
                settled_after_ms,
                overlap_ms: seen.judges.overlap_us() / 1_000,
                effects: life,
                history: seen.history.take().unwrap_or_default(),
                broken: std::mem::take(&mut seen.broken),
            }
        })
    }
}

pub(super) fn worker_id(text: &str) -> WorkerId {
    WorkerId::new(text).expect("a plan's worker ids are valid")
}

/// Hosts are few.
pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
