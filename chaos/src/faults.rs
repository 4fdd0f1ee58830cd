//! The plan's faults, made on real processes, servers and connections.

use flowkit_sim::plan::{Fault, Leaving, Lost, Plan, Server, When};
use flowkit_sim::strays::strays;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::hosts::Host;
use crate::proxy::{Gate, Proxy, Way};
use crate::servers::{Doing, Servers};
use crate::streams;
use crate::timeline::Timeline;

/// A partition that lasts no longer only cuts connections.
const CUT_MS: u64 = 20;

/// The proxies of one host.
#[derive(Debug)]
pub(crate) struct Proxies {
    pub(crate) kafka: Proxy,
    pub(crate) mongo: Proxy,
}

impl Proxies {
    fn to(&self, server: Server) -> &Proxy {
        match server {
            Server::Store => &self.mongo,
            Server::Broker => &self.kafka,
        }
    }
}

/// The faults of one run, as they come and pass.
#[derive(Debug)]
pub(crate) struct Faults<'a> {
    plan: &'a Plan,
    servers: &'a Servers,
    proxies: &'a [Proxies],
    name: &'a str,
    start: Instant,
    /// Faults to come, the next one last.
    to_come: Vec<(u64, usize)>,
    /// Partitions and slow servers, until when.
    lasting: Vec<(Instant, usize)>,
    doing: Vec<(&'static str, Doing)>,
    pub(crate) made: usize,
    /// Faults that met something, by name.
    met: BTreeMap<&'static str, u64>,
    /// What the proxies had done when the run began.
    before: [u64; 4],
}

/// When a fault is due, in milliseconds; or why it cannot be made.
pub(crate) fn due_ms(fault: &Fault) -> Result<u64, String> {
    let inside = matches!(
        fault,
        Fault::Crash { new_id: true, .. }
            | Fault::WallStep { .. }
            | Fault::StoreClock { .. }
            | Fault::InboxLost { .. }
            | Fault::LogLost { .. }
            | Fault::MachinePanic { .. }
            | Fault::Client { .. }
    );
    match fault.when() {
        Some(When::At { ms }) if !inside => Ok(ms),
        Some(when) if !inside => Err(format!(
            "{when:?} is not a time; real processes know no other"
        )),
        _ => Err(format!("{fault:?} cannot be made on real processes")),
    }
}

impl<'a> Faults<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        servers: &'a Servers,
        proxies: &'a [Proxies],
        name: &'a str,
        start: Instant,
    ) -> Result<Self, String> {
        let mut to_come = Vec::new();
        for (index, fault) in plan.faults.iter().enumerate() {
            to_come.push((due_ms(fault)?, index));
        }
        to_come.sort_by(|a, b| b.cmp(a));
        Ok(Self {
            plan,
            servers,
            proxies,
            name,
            start,
            to_come,
            lasting: Vec::new(),
            doing: Vec::new(),
            made: 0,
            met: BTreeMap::new(),
            before: done(proxies),
        })
    }

    /// What faults met, by name.
    pub(crate) fn met(&self) -> BTreeMap<&'static str, u64> {
        let names = [
            "pieces lost",
            "pieces held",
            "pieces slowed",
            "connections cut",
        ];
        let mut met = self.met.clone();
        for ((name, after), before) in names.iter().zip(done(self.proxies)).zip(self.before) {
            met.insert(name, after - before);
        }
        met
    }

    /// Makes what is due and ends what has lasted.
    pub(crate) fn tend(
        &mut self,
        hosts: &mut Vec<Host>,
        timeline: &Timeline,
    ) -> Result<(), String> {
        let now = Instant::now();
        let lasted = self.lasting.len();
        self.lasting.retain(|(until, _)| *until > now);
        if self.lasting.len() < lasted {
            self.set_gates();
        }
        while let Some((ms, index)) = self.to_come.last().copied() {
            if self.start + Duration::from_millis(ms) > now {
                break;
            }
            self.to_come.pop();
            self.made += 1;
            self.make(index, hosts, timeline)?;
        }
        Ok(())
    }

    fn make(
        &mut self,
        index: usize,
        hosts: &mut Vec<Host>,
        timeline: &Timeline,
    ) -> Result<(), String> {
        let ms = Duration::from_millis;
        let fault = &self.plan.faults[index];
        let host_of = |hosts: &mut Vec<Host>, host: u32| {
            let index = host as usize;
            (index < hosts.len()).then_some(index)
        };
        let (name, met) = match *fault {
            // To the rest of the world a machine without power is a process that was killed.
            Fault::Crash { host, down_ms, .. } | Fault::PowerLoss { host, down_ms, .. } => {
                let met = host_of(hosts, host).map(|h| hosts[h].crash(timeline, ms(down_ms)));
                ("kill -9", met)
            }
            Fault::Stall { host, for_ms, .. } => {
                let met = host_of(hosts, host).map(|h| hosts[h].stall(timeline, ms(for_ms)));
                ("frozen", met)
            }
            Fault::Shutdown { host, down_ms, .. } => {
                let met = host_of(hosts, host).map(|h| hosts[h].shutdown(ms(down_ms)));
                ("stopped", met)
            }
            Fault::Gone { host, .. } => {
                let met = host_of(hosts, host).map(|h| hosts[h].gone(timeline));
                ("gone for good", met)
            }
            Fault::Twin { host, .. } => ("twin", Some(self.twin(host, hosts))),
            Fault::Partition {
                host, for_ms, from, ..
            } => {
                if for_ms <= CUT_MS {
                    if let Some(proxies) = self.proxies.get(host as usize) {
                        proxies.to(from).set(|gate| gate.cuts += 1);
                    }
                } else {
                    self.lasting.push((Instant::now() + ms(for_ms), index));
                    self.set_gates();
                }
                // What it met is counted by the proxies.
                ("partition", None)
            }
            Fault::Hold { for_ms, .. } => {
                self.lasting.push((Instant::now() + ms(for_ms), index));
                self.set_gates();
                ("held messages", None)
            }
            Fault::Slow { for_ms, .. } => {
                self.lasting.push((Instant::now() + ms(for_ms), index));
                self.set_gates();
                ("slow server", None)
            }
            Fault::Away {
                server,
                for_ms,
                how,
                ..
            } => {
                let name = match (server, how) {
                    (Server::Store, Leaving::Frozen) => "MongoDB frozen",
                    (Server::Store, Leaving::Stopped) => "MongoDB stopped",
                    (Server::Store, Leaving::Killed) => "MongoDB kill -9",
                    (Server::Broker, Leaving::Frozen) => "Kafka frozen",
                    (Server::Broker, Leaving::Stopped) => "Kafka stopped",
                    (Server::Broker, Leaving::Killed) => "Kafka kill -9",
                };
                self.doing
                    .push((name, self.servers.away(server, how, for_ms)));
                // Counted when it is over.
                (name, None)
            }
            Fault::Poison { shard, .. } => {
                let (kafka, name) = (self.servers.kafka.clone(), self.name.to_owned());
                let all = strays(self.plan, shard, 1);
                let poison = move || streams::poison(&kafka, &name, all);
                self.doing.push(("poison", std::thread::spawn(poison)));
                ("poison", None)
            }
            Fault::WallStep { .. }
            | Fault::StoreClock { .. }
            | Fault::InboxLost { .. }
            | Fault::LogLost { .. }
            | Fault::MachinePanic { .. }
            | Fault::Client { .. }
            | Fault::RefuseCommit { .. }
            | Fault::RefuseBatches { .. }
            | Fault::RefuseTask { .. }
            | Fault::RefuseWrites { .. }
            | Fault::Rot { .. } => return due_ms(fault).map(|_| ()),
        };
        if met == Some(true) {
            *self.met.entry(name).or_default() += 1;
        }
        Ok(())
    }

    /// Another process under the id of a worker that runs.
    fn twin(&self, of: u32, hosts: &mut Vec<Host>) -> bool {
        let Some(worker) = hosts
            .get(of as usize)
            .filter(|host| host.is_running())
            .and_then(Host::worker_index)
        else {
            return false;
        };
        let index = hosts.len();
        let Some(proxies) = self.proxies.get(index) else {
            return false;
        };
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let (kafka, mongo) = addresses(proxies);
        let mut twin = Host::worker(number, worker, kafka, mongo);
        twin.meets_twin();
        for host in hosts
            .iter_mut()
            .filter(|host| host.worker_index() == Some(worker))
        {
            host.meets_twin();
        }
        hosts.push(twin);
        true
    }

    /// Sets every gate as the partitions of now want it.
    fn set_gates(&self) {
        for (host, proxies) in self.proxies.iter().enumerate() {
            for server in [Server::Store, Server::Broker] {
                let wanted = self.gate(host, server);
                proxies.to(server).set(|gate| {
                    *gate = Gate {
                        cuts: gate.cuts,
                        ..wanted
                    }
                });
            }
        }
    }

    fn gate(&self, host: usize, server: Server) -> Gate {
        let mut gate = Gate::default();
        for (_, index) in &self.lasting {
            match self.plan.faults[*index] {
                Fault::Partition {
                    host: h,
                    from,
                    lost,
                    ..
                } if h as usize == host && from == server => {
                    if lost != Lost::Replies {
                        gate.requests = Way::Lost;
                    }
                    if lost != Lost::Requests {
                        gate.replies = Way::Lost;
                    }
                }
                Fault::Hold { host: h, from, .. } if h as usize == host && from == server => {
                    gate.requests = Way::Held;
                    gate.replies = Way::Held;
                }
                Fault::Slow {
                    server: s,
                    extra_ms,
                    ..
                } if s == server => gate.slow_ms = extra_ms,
                _ => {}
            }
        }
        gate
    }

    /// Ends everything. True once the servers are back, too.
    pub(crate) fn heal(&mut self) -> Result<bool, String> {
        self.to_come.clear();
        self.lasting.clear();
        self.set_gates();
        if self.doing.iter().any(|(_, doing)| !doing.is_finished()) {
            return Ok(false);
        }
        for (name, doing) in self.doing.drain(..) {
            match doing.join().map_err(|_| format!("{name}: it panicked"))? {
                Ok(()) => *self.met.entry(name).or_default() += 1,
                // The broker was away just then: nothing was poisoned.
                Err(_) if name == "poison" => {}
                Err(why) => return Err(format!("{name}: {why}")),
            }
        }
        Ok(true)
    }
}

/// What all proxies have done so far: pieces lost, held and slowed, connections cut.
fn done(proxies: &[Proxies]) -> [u64; 4] {
    let mut sum = [0; 4];
    for proxy in proxies.iter().flat_map(|host| [&host.kafka, &host.mongo]) {
        let done = proxy.done();
        let counters = [&done.lost, &done.held, &done.slowed, &done.cut];
        for (sum, counter) in sum.iter_mut().zip(counters) {
            *sum += counter.load(Ordering::Relaxed);
        }
    }
    sum
}

/// What a host's process is told.
pub(crate) fn addresses(proxies: &Proxies) -> (String, String) {
    let kafka = format!("127.0.0.1:{}", proxies.kafka.port());
    let mongo = proxies.mongo.port();
    let mongo = format!("mongodb://127.0.0.1:{mongo}/?directConnection=true");
    (kafka, mongo)
}
