//! One plan, from empty topics and tables to a judgement.

use flowkit_core::id::{ShardId, WorkerId};
use flowkit_core::port::Stream;
use flowkit_sim::acting::Clients;
use flowkit_sim::judge::{Judge, Judgement, Seen};
use flowkit_sim::plan::{Logical, Plan, When};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

use crate::faults::{Faults, Proxies, addresses};
use crate::hosts::{Deployment, Host, log_ends};
use crate::journal::{self, now_us};
use crate::merge::{self, Sources, Told};
use crate::oplog::Oplog;
use crate::proxy::Proxy;
use crate::servers::Servers;
use crate::timeline::Timeline;
use crate::{streams, tamper, worker};

const TICK: Duration = Duration::from_millis(5);
/// How long servers may take to come back when faults heal, and processes to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Servers, and the proxies in front of them.
#[derive(Debug)]
pub(crate) struct Site {
    servers: Servers,
    proxies: Vec<Proxies>,
    flowkit: PathBuf,
}

/// What came of a plan.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) judgement: Judgement,
    pub(crate) misfits: Vec<String>,
    pub(crate) faults: usize,
    /// What they met, by name.
    pub(crate) met: BTreeMap<&'static str, u64>,
    pub(crate) events: usize,
    /// Bent histories that the judge found out: it is awake.
    pub(crate) found_out: usize,
    /// From healing to the last answer; `None` if that never came.
    pub(crate) settled_ms: Option<u64>,
}

impl Report {
    pub(crate) fn holds(&self) -> bool {
        self.judgement.broken.is_empty() && self.misfits.is_empty()
    }

    pub(crate) fn count(&self, what: Logical) -> u64 {
        self.judgement.counts.get(&what).copied().unwrap_or(0)
    }
}

impl Site {
    /// Puts proxies in front of every listener of Kafka, and as many in front of MongoDB.
    pub(crate) async fn new(servers: Servers, flowkit: PathBuf) -> Result<Self, String> {
        let mut proxies = Vec::new();
        for (at, told) in servers.listeners()? {
            let failed = |e: std::io::Error| format!("a proxy cannot listen on port {told}: {e}");
            proxies.push(Proxies {
                kafka: Proxy::start(told, at).await.map_err(failed)?,
                mongo: Proxy::start(0, servers.mongo_port).await.map_err(failed)?,
            });
        }
        Ok(Self {
            servers,
            proxies,
            flowkit,
        })
    }

    /// Runs a plan; everything that it leaves is in `folder`.
    pub(crate) async fn run(&self, plan: &Arc<Plan>, folder: &Path) -> Result<Report, String> {
        let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(failed)?;
        }
        fs::create_dir_all(folder).map_err(failed)?;
        let text = serde_json::to_string_pretty(&**plan).map_err(|e| e.to_string())?;
        fs::write(folder.join("plan.json"), text).map_err(failed)?;
        let deployment = Deployment {
            flowkit: self.flowkit.clone(),
            folder: folder.to_owned(),
            name: format!("chaos_{}_{}", plan.seed, now_us()),
        };
        let (name, mongo) = (&deployment.name, self.servers.mongo());
        let oplog = Oplog::open(&mongo, name).await?;
        let mut library = Vec::new();
        for _ in 0..plan.world.clients.max(1) {
            let engine = worker::engine(plan, &self.servers.kafka, &mongo, name).await?;
            library.push(engine.client());
        }
        let mut live = Live {
            plan,
            deployment: &deployment,
            hosts: self.hosts(plan)?,
            timeline: Timeline::default(),
        };
        let start_us = now_us();
        let mut faults = Faults::new(plan, &self.servers, &self.proxies, name, Instant::now())?;
        let lived = live.live(library, &mut faults).await;
        // Whatever happened: the next round finds open ways and servers that answer.
        let began = Instant::now();
        while !faults.heal()? && began.elapsed() < PATIENCE {
            tokio::time::sleep(TICK).await;
        }
        let ended = live.end().await;
        let lived = lived?;
        ended?;
        let sources = self
            .gather(plan, &deployment, &live.hosts, &oplog, &live.timeline)
            .await?;
        let foreign = sources.foreign;
        let (history, mut misfits) = merge::history(sources, start_us);
        let poisoned = lived.met.get("poison").copied().unwrap_or(0);
        if foreign > 0 && poisoned == 0 {
            misfits.push(format!("{foreign} entries of the topics are no messages"));
        }
        let tables = oplog.tables().await?;
        let events = history.len();
        fs::write(folder.join("history.txt"), shown(&history)).map_err(failed)?;
        let end_us = now_us().saturating_sub(start_us);
        let judged = |history: tamper::History| {
            let mut judge = Judge::new(plan);
            for (at_us, seen) in history {
                judge.saw(at_us, seen);
            }
            judge.finish(end_us, lived.settled_ms.is_some(), &tables)
        };
        let bent = tamper::bent(&history);
        let judgement = judged(history);
        // What is broken already proves nothing about a bend.
        let mut found_out = 0;
        if judgement.broken.is_empty() {
            for (bend, history) in bent {
                let broken = judged(history).broken;
                if broken.iter().any(|broken| broken.promise == bend.promise) {
                    found_out += 1;
                } else {
                    misfits.push(format!("the judge is asleep: it passes {}", bend.name));
                }
            }
        }
        if !judgement.counts.contains_key(&Logical::Committed) {
            misfits.push("nothing was ever committed".to_owned());
        }
        if found_out == 0 && judgement.broken.is_empty() {
            misfits.push("so little happened that nothing is proved".to_owned());
        }
        oplog.drop().await?;
        Ok(Report {
            judgement,
            misfits,
            faults: lived.faults,
            met: lived.met,
            events,
            found_out,
            settled_ms: lived.settled_ms,
        })
    }

    fn hosts(&self, plan: &Plan) -> Result<Vec<Host>, String> {
        let (coordinators, workers) = (plan.world.coordinators, plan.world.workers.len());
        let wanted = coordinators as usize + workers;
        if self.proxies.len() < wanted {
            let there = self.proxies.len();
            return Err(format!(
                "the plan has {wanted} processes; there are proxies for {there}"
            ));
        }
        let hosts = (0..).zip(&self.proxies).take(wanted);
        let hosts = hosts.map(|(index, proxies)| {
            let (kafka, mongo) = addresses(proxies);
            match (index as usize).checked_sub(coordinators as usize) {
                None => Host::coordinator(index, kafka, mongo),
                Some(worker) => Host::worker(index, worker, kafka, mongo),
            }
        });
        Ok(hosts.collect())
    }

    async fn gather(
        &self,
        plan: &Plan,
        deployment: &Deployment,
        hosts: &[Host],
        oplog: &Oplog,
        timeline: &Timeline,
    ) -> Result<Sources, String> {
        let shards = (0..plan.world.shards).map(|shard| Stream::Shard(ShardId(shard)));
        let inboxes = (0..plan.world.inboxes).map(Stream::Inbox);
        let all: Vec<Stream> = shards.chain(inboxes).collect();
        let (kafka, name) = (self.servers.kafka.clone(), deployment.name.clone());
        let read = move || {
            all.iter()
                .map(|stream| streams::read(&kafka, &name, *stream))
                .collect()
        };
        let streams: Result<Vec<_>, String> = tokio::task::spawn_blocking(read)
            .await
            .map_err(|e| e.to_string())?;
        let mut journals = Vec::new();
        for host in hosts {
            let Some(worker) = host.worker_index() else {
                continue;
            };
            let id = &plan.world.workers[worker].id;
            for (place, path) in host.journals(&deployment.folder) {
                journals.push(Told {
                    place,
                    worker: WorkerId::new(id).map_err(|e| format!("{id}: {e}"))?,
                    lines: journal::read(&path)?,
                });
            }
        }
        let mut streams_read = Vec::new();
        let mut foreign = 0;
        for read in streams? {
            foreign += read.foreign;
            streams_read.push(read.messages);
        }
        Ok(Sources {
            foreign,
            streams: streams_read,
            writes: oplog.writes().await?,
            journals,
            outside: timeline.take(),
        })
    }
}

/// The history as text.
fn shown(history: &tamper::History) -> String {
    let mut text = String::new();
    for (at_us, seen) in history {
        // Writing to text cannot fail.
        let _ = writeln!(text, "{:>8}.{:03} {seen:?}", at_us / 1_000, at_us % 1_000);
    }
    text
}

struct Lived {
    faults: usize,
    met: BTreeMap<&'static str, u64>,
    settled_ms: Option<u64>,
}

/// A plan at work.
struct Live<'a> {
    plan: &'a Arc<Plan>,
    deployment: &'a Deployment,
    hosts: Vec<Host>,
    timeline: Timeline,
}

impl Live<'_> {
    /// Starts every action of the plan; the set is empty once all have had their last answer.
    fn ask(
        &self,
        library: &[flowkit_runtime::Client],
        begin: tokio::time::Instant,
    ) -> Result<JoinSet<Result<(), String>>, String> {
        let clients = Clients::new(self.plan, Arc::new(self.timeline.clone()));
        let clients = Arc::new(clients);
        let mut asking = JoinSet::new();
        for action in self.plan.actions.clone() {
            let When::At { ms } = action.when else {
                return Err(format!("{:?} is no time", action.when));
            };
            let clients = clients.clone();
            let library = library[action.client as usize % library.len()].clone();
            asking.spawn(async move {
                tokio::time::sleep_until(begin + Duration::from_millis(ms)).await;
                clients.act(&library, &action).await
            });
        }
        Ok(asking)
    }

    async fn live(
        &mut self,
        library: Vec<flowkit_runtime::Client>,
        faults: &mut Faults<'_>,
    ) -> Result<Lived, String> {
        let (start, begin) = (Instant::now(), tokio::time::Instant::now());
        let mut asking = self.ask(&library, begin)?;
        let heal_at = start + Duration::from_millis(self.plan.heal_ms);
        while Instant::now() < heal_at {
            faults.tend(&mut self.hosts, &self.timeline)?;
            self.tick(&mut asking).await?;
        }
        let made = faults.made;
        while !faults.heal()? {
            if heal_at.elapsed() > PATIENCE {
                return Err("the servers did not come back".to_owned());
            }
            self.tick(&mut asking).await?;
        }
        let met = faults.met();
        for host in &mut self.hosts {
            host.heal(&self.timeline);
        }
        self.timeline.note(Seen::Healed);
        let healed = Instant::now();
        let bound = Duration::from_millis(self.plan.settle_bound_ms());
        while !asking.is_empty() && healed.elapsed() < bound {
            self.tick(&mut asking).await?;
        }
        let settled = asking.is_empty();
        let settled_ms = u64::try_from(healed.elapsed().as_millis()).ok();
        // A process that can never start would be missed by nobody while others do the work.
        while let Some(missing) = self.hosts.iter().position(Host::is_missing) {
            if healed.elapsed() > bound.max(PATIENCE) {
                return Err(format!(
                    "host {missing} does not run; nothing keeps it from it"
                ));
            }
            self.tick(&mut asking).await?;
        }
        Ok(Lived {
            faults: made,
            met,
            settled_ms: settled_ms.filter(|_| settled),
        })
    }

    async fn tick(&mut self, asking: &mut JoinSet<Result<(), String>>) -> Result<(), String> {
        for host in &mut self.hosts {
            host.tend(self.deployment, self.plan, &self.timeline)?;
        }
        while let Some(ended) = asking.try_join_next() {
            ended.map_err(|e| format!("a client panicked: {e}"))??;
        }
        tokio::time::sleep(TICK).await;
        Ok(())
    }

    /// Every process stops in order.
    async fn end(&mut self) -> Result<(), String> {
        for host in &mut self.hosts {
            host.heal(&self.timeline);
            host.end();
        }
        let asked = Instant::now();
        while self.hosts.iter().any(Host::is_running) {
            for host in &mut self.hosts {
                host.tend(self.deployment, self.plan, &self.timeline)?;
            }
            if asked.elapsed() > PATIENCE {
                let logs = log_ends(&self.deployment.folder);
                return Err(format!("processes do not stop:\n{logs}"));
            }
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }
}
