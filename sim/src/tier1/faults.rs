//! Faults carried out on hosts, ways and servers.

use super::director::{Director, SERVERS, worker_id};
use super::host::{Cut, CutKind, Kind, client_host, is_client};
use super::servers;
use super::stage::{self, Luck, Stage};
use crate::clock::HostClock;
use crate::history::{Life, Place, What};
use crate::plan::{ClientFault, Fault, Leaving, Server};

impl Director<'_> {
    pub(super) fn fault(&mut self, index: usize) {
        let fault = self.plan.faults[index].clone();
        let known = stage::with(|stage| {
            !stage.healed && (fault.host().unwrap_or(0) as usize) < stage.hosts.len()
        });
        if !known {
            return;
        }
        let now = stage::with(|stage| {
            stage.note(What::Fault {
                text: format!("{fault:?}"),
            });
            stage.now
        });
        let until = |for_ms: u64| now + for_ms * 1_000;
        match fault {
            Fault::Crash {
                host,
                down_ms,
                new_id,
                ..
            } => {
                let family = if new_id { "crash_new_id" } else { "crash" };
                if self.crash(host, down_ms, family) && new_id {
                    stage::with(|stage| {
                        if let Kind::Worker { id, .. } = &mut stage.hosts[host as usize].kind {
                            *id = worker_id(&format!("{id}x"));
                        }
                    });
                }
            }
            Fault::PowerLoss { host, down_ms, .. } => {
                // Nobody hears of it: the ways are cut before the process falls.
                let name = stage::with(|stage| stage.hosts[host as usize].name.clone());
                for server in SERVERS {
                    self.sim.partition(&*name, servers::name(server));
                }
                self.crash(host, down_ms, "power_loss");
                for server in SERVERS {
                    self.sim.repair(&*name, servers::name(server));
                }
                self.ways(host);
            }
            Fault::Gone { host, .. } => {
                self.crash(host, 0, "gone");
                stage::with(|stage| stage.hosts[host as usize].retired = true);
            }
            Fault::Stall { host, for_ms, .. } => {
                stage::with(|stage| stage.stall(host, until(for_ms)))
            }
            Fault::Partition {
                host,
                for_ms,
                from,
                lost,
                ..
            } => self.cut(host, from, CutKind::Lost(lost), until(for_ms)),
            Fault::Hold {
                host, for_ms, from, ..
            } => self.cut(host, from, CutKind::Held, until(for_ms)),
            Fault::Away {
                server,
                for_ms,
                how,
                ..
            } => self.away(server, how, until(for_ms)),
            Fault::Slow {
                server,
                for_ms,
                extra_ms,
                ..
            } => stage::with(|stage| stage.server(server).slow = (until(for_ms), extra_ms * 1_000)),
            Fault::Poison { shard, .. } => stage::with(|stage| {
                if stage.plan.world.embedded {
                    let engine = stage.hosts.first_mut().filter(|host| host.alive);
                    engine.into_iter().for_each(|host| host.strays.push(shard));
                    return;
                }
                let streams = stage.servers.poison(stage.now, shard, &mut stage.seen);
                stage.triggered();
                for stream in streams {
                    stage.grown(stream).notify_waiters();
                }
            }),
            Fault::Shutdown { host, down_ms, .. } => stage::with(|stage| {
                let prompt = stage.plan.world.prompt_restarts;
                let state = &mut stage.hosts[host as usize];
                if let Some(stop) = &state.stop
                    && state.alive
                {
                    stop.send_replace(true);
                    state.starts_at = Some(until(down_ms + state.grace_ms + 5_000));
                    state.back_in_ms = prompt.then_some(down_ms);
                    let place = state.place(host);
                    let grace_ms = state.grace_ms;
                    stage.seen.fire("shutdown");
                    let what = Life::Asked { grace_ms };
                    stage.note(What::Process { place, what });
                }
            }),
            Fault::InboxLost { inbox, .. } => stage::with(|stage| {
                let stream = stage.servers.lose_inbox(inbox, &stage.seen);
                stage.grown(stream).notify_waiters();
            }),
            Fault::LogLost { shard, newest, .. } => stage::with(|stage| {
                let now = stage.now;
                let stream = stage.servers.lose_log(now, shard, newest, &mut stage.seen);
                stage.grown(stream).notify_waiters();
            }),
            Fault::MachinePanic { host, .. } => stage::with(|stage| {
                let state = &mut stage.hosts[host as usize];
                // Where several machines share a process it could strike between two inputs.
                state.panics = state.alive && !matches!(state.kind, Kind::Embedded);
            }),
            Fault::Client { client, what, .. } => self.befall(client, what, now),
            Fault::WallStep { host, by_ms, .. } => {
                stage::with(|stage| stage.wall_step(host, by_ms))
            }
            Fault::StoreClock { by_ms, .. } => stage::with(|stage| {
                let now = stage.now;
                stage.servers.step_clock(now, by_ms, &mut stage.seen);
            }),
            Fault::Twin { host, .. } => {
                let kind = stage::with(|stage| {
                    let state = &stage.hosts[host as usize];
                    let twin = state.alive && matches!(state.kind, Kind::Worker { .. });
                    twin.then(|| state.kind.clone())
                });
                if let Some(kind) = kind {
                    stage::with(|stage| stage.seen.fire("twin"));
                    self.add_host(kind, HostClock::new(crate::plan::Clock::default()));
                }
            }
            Fault::RefuseWrites { task, for_ms, .. } => stage::with(|stage| {
                stage.servers.refuse_writes(task, until(for_ms));
            }),
            Fault::Rot { what, .. } => stage::with(|stage| {
                let now = stage.now;
                stage.servers.rot(now, &what, &mut stage.seen);
            }),
            Fault::RefuseCommit { .. } | Fault::RefuseBatches { .. } | Fault::RefuseTask { .. } => {
            }
        }
    }

    fn befall(&mut self, client: u32, what: ClientFault, now: u64) {
        if client >= self.clients {
            return;
        }
        let host = client_host(client);
        let until = |for_ms: u64| now + for_ms * 1_000;
        match what {
            ClientFault::Crash { down_ms } => {
                self.crash(host, down_ms, "client_crash");
            }
            ClientFault::Stall { for_ms } => {
                stage::with(|stage| stage.stall(host, until(for_ms)));
            }
            ClientFault::Partition { for_ms, from, lost } => {
                self.cut(host, from, CutKind::Lost(lost), until(for_ms));
            }
            ClientFault::Hold { for_ms, from } => {
                self.cut(host, from, CutKind::Held, until(for_ms));
            }
            ClientFault::WallStep { by_ms } => stage::with(|stage| stage.wall_step(host, by_ms)),
        }
    }

    /// A process dies at once, if there is one.
    fn crash(&mut self, host: u32, down_ms: u64, family: &'static str) -> bool {
        let (alive, embedded) = stage::with(|stage| {
            let state = stage.known(host);
            state.gate.open();
            (state.alive, matches!(state.kind, Kind::Embedded))
        });
        if !alive {
            return false;
        }
        stage::with(|stage| stage.seen.fire(family));
        self.end(host, Life::Crashed);
        stage::with(|stage| {
            if embedded {
                let generation = u64::from(stage.hosts[host as usize].generation);
                let mut dice = stage.dice(Luck::World, 2, generation);
                let unsynced = stage.servers.store.unsynced_commits() as u64;
                let keep = usize::try_from(dice.between(0, unsynced)).unwrap_or(0);
                stage
                    .servers
                    .lose_unsynced(stage.now, keep, &mut stage.seen);
            }
            let starts_at = stage.now + down_ms * 1_000;
            let state = stage.known(host);
            state.starts_at = Some(starts_at);
            state.back_in_ms = None;
        });
        true
    }

    fn cut(&mut self, host: u32, from: Server, lost: CutKind, until: u64) {
        stage::with(|stage| {
            let cut = Cut { until, from, lost };
            stage.known(host).cuts.push(cut);
        });
        self.ways(host);
    }

    fn away(&mut self, server: Server, how: Leaving, until: u64) {
        let goes_down = stage::with(|stage| {
            let state = stage.server(server);
            if how == Leaving::Frozen {
                state.frozen_until = until.max(state.frozen_until);
                state.gate.shut();
                return false;
            }
            let runs = state.down_until.is_none();
            state.down_until = Some(until);
            runs
        });
        if goes_down {
            // What it had begun and not acknowledged is gone. For the held ways see `end`.
            let hosts = stage::with(|stage| stage.numbers());
            for &host in &hosts {
                self.hold_unless_cut(host, server);
            }
            self.sim.crash(servers::name(server));
            for host in hosts {
                self.ways(host);
            }
        }
    }
}

impl Stage {
    /// A process calls a server: what stands in its way counts as struck now, not when it was ordered.
    pub(super) fn strike(&mut self, place: Place, server: Server) {
        let now = self.now;
        let mut struck = Vec::new();
        let cuts = self.host(place).map(|host| &host.cuts);
        let active = cuts.into_iter().flatten();
        for cut in active.filter(|cut| cut.until > now && cut.from == server) {
            struck.push(match (cut.lost, server) {
                (CutKind::Held, _) if is_client(place.host) => "client_hold",
                (CutKind::Lost(_), _) if is_client(place.host) => "client_partition",
                (CutKind::Held, _) => "hold",
                (CutKind::Lost(lost), from) => lost.family(from),
            });
        }
        let state = self.server(server);
        if state.frozen_until > now {
            struck.push(match server {
                Server::Store => "store_frozen",
                Server::Broker => "broker_frozen",
            });
        }
        if state.down_until.is_some() {
            struck.push(match server {
                Server::Store => "store_restarted",
                Server::Broker => "broker_restarted",
            });
        }
        for family in struck {
            self.seen.fire(family);
        }
    }

    /// The wall clock of a host jumps.
    fn wall_step(&mut self, host: u32, by_ms: i64) {
        let state = self.known(host);
        state.clock.stepped_ms += by_ms;
        if state.alive {
            self.seen.fire(if is_client(host) {
                "client_wall_step"
            } else {
                "wall_step"
            });
        }
    }

    /// Freezes a process.
    fn stall(&mut self, host: u32, until: u64) {
        let now = self.now;
        let state = self.known(host);
        if !state.alive || until <= state.stalled_until {
            return;
        }
        if state.stalled_until <= now {
            state.stalled_since = now;
        }
        state.stalled_until = until;
        state.gate.shut();
        self.seen.fire(if is_client(host) {
            "client_stall"
        } else {
            "stall"
        });
        self.note_life(host, Life::Stalled);
    }

    /// A process that was frozen goes on.
    pub(super) fn goes_on(&mut self, host: u32) {
        let now = self.now;
        let world = &self.plan.world;
        let (owner_ms, holder_ms) = (world.shard_lease_ttl_ms, world.lease_ttl_ms);
        let state = self.known(host);
        let lease_ms = match state.kind {
            Kind::Coordinator => Some(owner_ms),
            Kind::Worker { .. } | Kind::Embedded => Some(holder_ms),
            Kind::Client => None,
        };
        let frozen_us = now - state.stalled_since;
        if lease_ms.is_some_and(|ms| frozen_us > ms * 1_000) {
            self.seen.fire("stall_past_lease");
        }
        self.note_life(host, Life::Resumed);
    }
}
