//! Checks of what runs: roles, ids, streams, times.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Finding};
use crate::id::{Incarnation, Role, ShardId, WorkerId};
use crate::why::{WorkerFacts, span};

/// Workers that are named in a sentence.
const NAMED_MAX: usize = 5;
/// Messages wait for so long: nobody folds them.
const FOLD_MS: u64 = 10_000;

/// A worker as the store and the streams have it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What `why` knows of it, too.
    pub facts: WorkerFacts,
    /// Its newest process as registered; `None` if the store does not know the worker.
    pub registered: Option<Incarnation>,
    /// The process that is heard.
    pub heard: Option<Incarnation>,
    /// How often an older process of it was heard after a newer one.
    pub older_heard: u32,
    /// The longest that a batch was in work in any heartbeat that was seen.
    pub batch_ms_max: u64,
    /// How long ago its newest heartbeat was sent.
    pub heartbeat_ms: Option<u64>,
    /// Length of the leases that it holds; 0 if it holds none.
    pub lease_ttl_ms: u64,
}

/// How many leases of a worker ran out; `None`: it is not known whose.
pub type Lapses = BTreeMap<Option<WorkerId>, u64>;

/// Settings of a process, as far as they concern time.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// `lease_ttl_sec` in milliseconds.
    pub lease_ttl_ms: u64,
    /// It was given, and is no default: leases must be that long.
    pub lease_given: bool,
    /// `hb_interval_sec` in milliseconds. A worker beats every third of a lease, if that is more often.
    pub hb_interval_ms: u64,
    /// `db_cancel_poll_ms`.
    pub db_cancel_poll_ms: u64,
}

/// Every type of node that waits, with how many wait, has a live worker.
#[must_use]
pub fn roles(waiting: &BTreeMap<Role, usize>, workers: &[Listed]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (role, nodes) in waiting {
        let able = workers
            .iter()
            .filter(|worker| worker.facts.roles.contains(role));
        if able.clone().any(|worker| worker.facts.is_live()) {
            continue;
        }
        let newest = able.filter_map(|worker| worker.facts.heard_ms).min();
        let since = newest.map_or_else(String::new, |ms| {
            format!(" (the last was heard {} ago)", span(ms))
        });
        findings.push(Finding::new(
            Check::Roles,
            role.as_str(),
            format!("{nodes} nodes wait for a worker of this role, and none lives{since}"),
            format!(
                "start one: flowkit worker --role {role}; or is the `type` in the graph misspelt?"
            ),
        ));
    }
    findings
}

/// Two live processes of one id, and workers of another deployment on the same topics.
#[must_use]
pub fn conflicts(workers: &[Listed]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for worker in workers {
        let id = worker.facts.worker_id.as_str();
        if worker.older_heard > 1 {
            findings.push(Finding::new(
                Check::Conflicts,
                id,
                "two processes with this id speak in turn",
                "give each process a worker_id of its own, or none; the older one is stopped as soon as \
                 it reads the store",
            ));
        }
        match (worker.registered, worker.heard) {
            (None, Some(_)) => findings.push(Finding::new(
                Check::Conflicts,
                id,
                "it speaks on these topics, and this store does not know it",
                "two deployments share a topic_prefix: give each its own, or name the right database",
            )),
            (Some(registered), Some(heard)) if heard > registered => findings.push(Finding::new(
                Check::Conflicts,
                id,
                format!("process start {heard} speaks, and the store knows of {registered} only"),
                "two deployments share a topic_prefix, or the store was set back to an older state",
            )),
            _ => {}
        }
    }
    findings
}

/// What is in the streams that does not belong there.
#[must_use]
pub fn subscription(
    unreadable: u64,
    inboxes: u32,
    inbox_of: &BTreeMap<WorkerId, u32>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if unreadable > 0 {
        findings.push(Finding::new(
            Check::Subscription,
            "streams",
            format!("{unreadable} of the newest entries are no messages of FlowKit"),
            "see which other program writes to these topics; they are skipped, nothing is lost by them",
        ));
    }
    for (worker, inbox) in inbox_of {
        if *inbox >= inboxes {
            findings.push(Finding::new(
                Check::Subscription,
                worker.as_str(),
                format!("it listens on inbox {inbox}, and this deployment has {inboxes}"),
                "stop it and start it again: it was started for another deployment",
            ));
        }
    }
    findings
}

/// Somebody folds every shard: `(shard, messages that wait, how long the oldest has)`.
#[must_use]
pub fn folding(shards: &[(ShardId, u64, Option<u64>)]) -> Vec<Finding> {
    let stuck = shards
        .iter()
        .filter(|(_, lag, oldest)| *lag > 0 && oldest.is_some_and(|ms| ms > FOLD_MS));
    stuck
        .map(|(shard, lag, oldest)| {
            Finding::new(
                Check::Folding,
                format!("shard {shard}"),
                format!(
                    "{lag} messages wait, the oldest for {}: no coordinator folds them",
                    span(oldest.unwrap_or(0))
                ),
                "start a coordinator (flowkit coordinator); if one runs, ask its /readyz and its log",
            )
        })
        .collect()
}

/// How often workers send heartbeats, if that is not how often their settings say.
#[must_use]
pub fn beats_sooner(settings: Timing) -> Option<String> {
    let third_ms = settings.lease_ttl_ms / 3;
    (settings.hb_interval_ms > third_ms).then(|| {
        format!(
            "heartbeats are sent every {}, a third of the lease, which is less than hb_interval_sec",
            span(third_ms)
        )
    })
}

/// Lease and heartbeats against each other and against what was seen. `lapses` counts the grants of each
/// worker that were lost because a lease ran out.
#[must_use]
pub fn timing(settings: Timing, workers: &[Listed], lapses: &Lapses) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Timing {
        lease_ttl_ms,
        lease_given,
        db_cancel_poll_ms,
        ..
    } = settings;
    let mut held = workers.iter().map(|worker| worker.lease_ttl_ms);
    let other = held.find(|held| *held > 0 && *held != lease_ttl_ms);
    if let Some(other) = other.filter(|_| lease_given) {
        findings.push(Finding::new(
            Check::Timing,
            "lease_ttl_sec",
            format!(
                "leases last {} as the coordinators say, and these settings say {}",
                span(other),
                span(lease_ttl_ms)
            ),
            "give coordinators and workers the same lease_ttl_sec; the coordinators' counts",
        ));
    }
    if db_cancel_poll_ms > lease_ttl_ms {
        findings.push(Finding::new(
            Check::Timing,
            "db_cancel_poll_ms",
            format!(
                "grants are read every {}, less than once per lease of {}",
                span(db_cancel_poll_ms),
                span(lease_ttl_ms)
            ),
            "set db_cancel_poll_ms well below lease_ttl_sec",
        ));
    }
    let mut explained = BTreeSet::new();
    for worker in workers {
        let id = worker.facts.worker_id.as_str();
        let ttl = if worker.lease_ttl_ms > 0 {
            worker.lease_ttl_ms
        } else {
            lease_ttl_ms
        };
        let lapsed = lapses.get(&Some(worker.facts.worker_id.clone()));
        if let Some(lapsed) = lapsed
            && worker.batch_ms_max > ttl
        {
            explained.insert(id);
            findings.push(Finding::new(
                Check::Timing,
                id,
                format!(
                    "a batch was in work for {}, longer than a lease of {}, and {lapsed} leases of it ran out",
                    span(worker.batch_ms_max),
                    span(ttl)
                ),
                "a handler must not block its thread (use spawn_blocking or a child process); make \
                 batches smaller, or raise lease_ttl_sec",
            ));
        }
        let late = worker.heartbeat_ms.is_some_and(|ms| ms > ttl);
        if worker.facts.held > 0 && late {
            findings.push(Finding::new(
                Check::Timing,
                id,
                format!(
                    "it holds {} nodes and sent no heartbeat for {}",
                    worker.facts.held,
                    span(worker.heartbeat_ms.unwrap_or(0))
                ),
                "see whether the process is alive and reaches the transport; its nodes are granted anew \
                 when their lease runs out",
            ));
        }
    }
    let others = lapses.iter().filter(|(worker, _)| {
        let worker = worker.as_ref().map(WorkerId::as_str);
        worker.is_none_or(|worker| !explained.contains(worker))
    });
    let others: Vec<_> = others.collect();
    let lapsed: u64 = others.iter().map(|(_, lapsed)| **lapsed).sum();
    if lapsed > 0 {
        let named = others.iter().filter_map(|(worker, lapsed)| {
            let worker = worker.as_ref()?;
            Some(format!("{worker} {lapsed}"))
        });
        let mut named: Vec<String> = named.take(NAMED_MAX + 1).collect();
        if named.len() > NAMED_MAX {
            named[NAMED_MAX] = "more".to_owned();
        }
        let of = match named.is_empty() {
            true => String::new(),
            false => format!(": of {}", named.join(", ")),
        };
        findings.push(Finding::new(
            Check::Timing,
            "lease_ttl_sec",
            format!("{lapsed} leases of {} ran out{of}", span(lease_ttl_ms)),
            "did workers die or lose the network at that time? If not, raise lease_ttl_sec",
        ));
    }
    findings
}
