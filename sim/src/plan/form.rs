//! Whether a plan that somebody wrote makes sense: every fault of form at once.

use std::collections::BTreeSet;

use flowkit_core::graph::check_vars;
use flowkit_core::id::{ID_BYTES_MAX, Role, ShardId, TaskId, WorkerId};

use flowkit_core::json::Json;

use super::{Action, ActionKind, Fault, Plan, RerunPlan, Rotten, When, limits, processes};

/// Most sentences; a plan of nonsense is told in the first ones.
const WRONG_MAX: usize = 100;

impl Plan {
    /// What makes no sense in a plan that somebody wrote; empty if all of it does. No run of a plan
    /// without such faults overflows, and each has an end.
    #[must_use]
    pub fn faults_of_form(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        limits::check(self, &mut wrong);
        self.wrong_names(&mut wrong);
        self.wrong_tasks(&mut wrong);
        self.wrong_actions(&mut wrong);
        self.wrong_faults(&mut wrong);
        if wrong.len() > WRONG_MAX {
            let more = wrong.len() - WRONG_MAX;
            wrong.truncate(WRONG_MAX);
            wrong.push(format!("and {more} more"));
        }
        wrong
    }

    fn wrong_names(&self, wrong: &mut Vec<String>) {
        let world = &self.world;
        let limits = world.limits.faults();
        wrong.extend(limits.iter().map(|fault| format!("world.limits: {fault}")));
        if !world.limits.is_none() && world.shards > 1 {
            wrong.push("world.limits: need world.shards to be 1".to_owned());
        }
        if world.workers.is_empty() {
            wrong.push("world.workers: there must be one".to_owned());
        }
        let mut seen = BTreeSet::new();
        for (at, worker) in world.workers.iter().enumerate() {
            let place = format!("world.workers[{at}]");
            // Each start under a new id adds a letter.
            let host =
                u32::try_from(at).map_or(u32::MAX, |at| at.saturating_add(world.coordinators));
            let renamed = self.faults.iter().filter(
                |fault| matches!(fault, Fault::Crash { host: at, new_id: true, .. } if *at == host),
            );
            let longest = worker.id.len() + renamed.count();
            if let Err(error) = WorkerId::new(&worker.id) {
                wrong.push(format!("{place}.id: {error}"));
            } else if longest > ID_BYTES_MAX {
                wrong.push(format!("{place}.id: is too long to be renamed so often"));
            }
            if !seen.insert(&worker.id) {
                wrong.push(format!("{place}.id: another worker has it"));
            }
            for role in &worker.roles {
                if let Err(error) = Role::new(role) {
                    wrong.push(format!("{place}.roles: {error}"));
                }
            }
        }
    }

    fn wrong_tasks(&self, wrong: &mut Vec<String>) {
        let mut seen = BTreeSet::new();
        for (at, task) in self.tasks.iter().enumerate() {
            if let Err(error) = TaskId::new(&task.id) {
                wrong.push(format!("tasks[{at}].id: {error}"));
            }
            if !seen.insert(&task.id) {
                wrong.push(format!("tasks[{at}].id: another task has it"));
            }
            for fault in task.options.faults() {
                wrong.push(format!("tasks[{at}].{fault}"));
            }
            if let Some(rerun) = &task.rerun {
                self.wrong_rerun(at, rerun, wrong);
            }
            // What comes to nothing else needs no second look at its parts.
            if wrong.is_empty() {
                let place = format!("tasks[{at}].graph");
                if let Err(faults) = check_vars(&Json::from(task.vars.clone())) {
                    let faults = faults.iter();
                    wrong.extend(faults.map(|fault| format!("tasks[{at}]: {fault}")));
                }
                let faults = task.graph.faults_of_form();
                wrong.extend(faults.iter().map(|fault| format!("{place}: {fault}")));
            }
        }
    }

    fn wrong_rerun(&self, at: usize, rerun: &RerunPlan, wrong: &mut Vec<String>) {
        let (here, place) = (&self.tasks[at], format!("tasks[{at}].rerun"));
        let source = self.tasks[..at].get(rerun.of as usize);
        let Some(source) = source else {
            wrong.push(format!("{place}.of: must be a task before it"));
            return;
        };
        let shards = self.world.shards;
        let shard = |id: &str| TaskId::new(id).map(|id| ShardId::of(&id, shards));
        if shard(&here.id) != shard(&source.id) {
            wrong.push(format!("{place}.of: belongs to another shard"));
        }
        if source.graph.to_json() != here.graph.to_json() {
            wrong.push(format!("{place}.of: has another graph"));
        }
        if source.vars != here.vars {
            wrong.push(format!("{place}.of: has other vars"));
        }
        if super::reruns::options(source) != here.options {
            wrong.push(format!(
                "{place}.of: has other options; those of a rerun are the same without the delay"
            ));
        }
        for node in &rerun.from {
            if source.graph.node(node).is_none() {
                wrong.push(format!("{place}.from: there is no node {node:?}"));
            }
        }
        if rerun.all && !rerun.from.is_empty() {
            wrong.push(format!("{place}: `from` and `all` exclude each other"));
        }
    }

    fn wrong_actions(&self, wrong: &mut Vec<String>) {
        let tasks = self.tasks.len();
        for (at, action) in self.actions.iter().enumerate() {
            let task = action.kind.task();
            if task as usize >= tasks {
                wrong.push(format!("actions[{at}].task: there is no task {task}"));
            }
            if action.client >= self.world.clients {
                let client = action.client;
                wrong.push(format!("actions[{at}].client: there is no client {client}"));
            }
        }
    }

    fn wrong_faults(&self, wrong: &mut Vec<String>) {
        // Every twin is a host more.
        let twins = self
            .faults
            .iter()
            .filter(|f| matches!(f, Fault::Twin { .. }));
        let hosts = (self.hosts() as usize).saturating_add(twins.count());
        for (at, fault) in self.faults.iter().enumerate() {
            let task = match fault {
                Fault::Rot { what, .. } => what.task(),
                other => other.refused_task(),
            };
            if let Some(task) = task.filter(|task| *task as usize >= self.tasks.len()) {
                wrong.push(format!("faults[{at}].task: there is no task {task}"));
            }
            if let Fault::Rot {
                what: Rotten::Worker { worker },
                ..
            } = fault
                && *worker as usize >= self.world.workers.len()
            {
                wrong.push(format!("faults[{at}].worker: there is no worker {worker}"));
            }
            if let Fault::RefuseBatches { task, node }
            | Fault::Rot {
                what: Rotten::Node { task, node },
                ..
            } = fault
                && let Some(of) = self.tasks.get(*task as usize)
                && of.graph.node(node).is_none()
            {
                wrong.push(format!(
                    "faults[{at}].node: task {task} has no node {node:?}"
                ));
            }
            if let Some(host) = fault.host()
                && host as usize >= hosts
            {
                wrong.push(format!("faults[{at}].host: there is no host {host}"));
            }
            if let Fault::Client { client, .. } = fault
                && (*client >= self.world.clients || self.world.embedded)
            {
                wrong.push(format!(
                    "faults[{at}].client: no client {client} has a host of its own"
                ));
            }
            if matches!(fault, Fault::LogLost { .. }) && self.world.embedded {
                wrong.push(format!(
                    "faults[{at}]: the logs of one process are lost with it, and only then"
                ));
            }
            if let Fault::Poison { shard, .. } | Fault::LogLost { shard, .. } = fault
                && *shard >= self.world.shards
            {
                wrong.push(format!("faults[{at}].shard: there is no shard {shard}"));
            }
        }
    }

    /// Time that a worker process has when it is asked to stop: a setting of the process.
    pub const PROCESS_GRACE_MS: u64 = 2_000;

    /// Makes a plan one for simulated hosts: what has no setting there is as the library has it, and
    /// handlers that block their thread are left out, for all hosts share one.
    #[must_use]
    pub fn fit_hosts(mut self) -> Self {
        self.world.accept_timeout_ms = 5_000;
        self.world.slack_ms = 3 * Self::TICK_MS;
        let tasks = self.tasks.iter_mut();
        for node in tasks.flat_map(|task| &mut task.graph.nodes) {
            node.script.blocks = false;
        }
        self
    }

    /// Hosts take turns of this length in true time.
    pub(crate) const TICK_MS: u64 = 20;

    /// Makes a plan one for real processes: clocks, the drivers' time-outs and the grace of a stop are
    /// theirs, whatever the plan says. Lists what cannot be made there.
    ///
    /// # Errors
    /// One sentence for each thing that makes no sense, or only in a simulation.
    pub fn fit_processes(mut self) -> Result<Self, Vec<String>> {
        let mut wrong = self.faults_of_form();
        if self.world.embedded {
            wrong.push("world.embedded: one process is no deployment".to_owned());
        }
        if !self.rates.is_quiet() {
            wrong.push("rates: single calls go wrong only in a simulation".to_owned());
        }
        let mut nodes = self.tasks.iter().flat_map(|task| &task.graph.nodes);
        if nodes.any(|node| node.script.blocks) {
            wrong.push("script.blocks: nobody would end such a handler".to_owned());
        }
        for (at, action) in self.actions.iter().enumerate() {
            if !matches!(action.when, When::At { .. }) {
                wrong.push(format!("actions[{at}].when: must be a time"));
            }
            let task = action.kind.task();
            let submits = |other: &Action| other.kind == ActionKind::Submit { task };
            if !self.actions.iter().any(submits) {
                wrong.push(format!("actions[{at}]: nobody submits task {task}"));
            }
        }
        if !self.world.limits.is_none() {
            wrong.push("world.limits: processes are not told of them yet".to_owned());
        }
        self.world.clocks.clear();
        // They are not told of these either, and do well without.
        self.world.tasks_in_flight_max = None;
        (self.world.dedup_cache_size, self.world.dedup_ttl_ms) = (None, None);
        for fault in &mut self.faults {
            if let Fault::Shutdown { grace_ms, .. } = fault {
                *grace_ms = Self::PROCESS_GRACE_MS;
            }
        }
        processes::fixed(&mut self.world);
        if wrong.is_empty() {
            Ok(self)
        } else {
            Err(wrong)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Rates;

    #[test]
    fn every_fault_of_form_is_listed_at_once() {
        let mut plan = Plan::small().with(Fault::RefuseTask { task: 9 });
        assert_eq!(Plan::small().faults_of_form(), Vec::<String>::new());
        plan.world.shards = 0;
        plan.actions[0].client = 5;
        plan.actions[0].kind = ActionKind::Submit { task: 7 };
        let wrong = plan.faults_of_form().join("\n");
        for part in [
            "world.shards",
            "there is no client 5",
            "no task 7",
            "no task 9",
        ] {
            assert!(wrong.contains(part), "{part}: {wrong}");
        }
    }

    #[test]
    fn what_the_generators_make_has_no_fault_of_form() {
        for seed in 0..300 {
            for plan in [Plan::from_seed, Plan::for_hosts, Plan::for_processes] {
                let plan = plan(seed);
                assert_eq!(plan.faults_of_form(), Vec::<String>::new(), "seed {seed}");
            }
        }
    }

    /// The change of one place in a small plan, and what is said to it.
    fn refused(change: impl FnOnce(&mut Plan), said: &str) {
        let mut plan = Plan::small();
        change(&mut plan);
        let wrong = plan.faults_of_form().join("\n");
        assert!(wrong.contains(said), "{said}: {wrong}");
    }

    #[test]
    fn absurd_numbers_are_refused_with_their_place() {
        let at = When::At { ms: u64::MAX };
        refused(
            |p| p.heal_ms = u64::MAX,
            "heal_ms: 18446744073709551615 is too much",
        );
        refused(|p| p.world.lease_ttl_ms = u64::MAX, "world.lease_ttl_ms");
        refused(|p| p.world.yield_permille = 1_000, "world.yield_permille");
        refused(
            |p| p.world.hb_interval_ms = 0,
            "world.hb_interval_ms: must not be 0",
        );
        refused(|p| p.world.coordinators = u32::MAX, "world.coordinators");
        refused(
            |p| p.world.latency_us_max = u64::MAX,
            "world.latency_us_max",
        );
        refused(
            |p| p.world.workers[0].capacity = u32::MAX,
            "world.workers[0].capacity",
        );
        refused(|p| p.actions[0].when = at, "actions[0].when");
        refused(
            |p| p.faults.push(Fault::Gone { host: 2, when: at }),
            "faults[0].when",
        );
        let slowest = crate::plan::Clock {
            drift_ppm: i64::MIN,
            ..Default::default()
        };
        refused(
            |p| p.world.clocks.push(slowest),
            "world.clocks[0].drift_ppm",
        );
        let node = |p: &mut Plan| p.tasks[0].graph.nodes[0].clone();
        refused(
            |p| p.tasks[0].graph.nodes = vec![node(p); 2_000],
            "tasks: nodes of all of them: 2000 is too much",
        );
        refused(
            |p| p.tasks[0].graph.nodes[0].script.batches = u32::MAX,
            "batches x items",
        );
        refused(
            |p| {
                let node = &mut p.tasks[0].graph.nodes[0];
                (node.retry_max, node.backoff_ms) = (1_000, 80_000_000);
            },
            "their work in ms",
        );
        let workers = |p: &mut Plan| vec![p.world.workers[0].clone(); 3_000];
        refused(|p| p.world.workers = workers(p), "and 2900 more");
    }

    #[test]
    fn names_that_nobody_knows_or_twice_are_refused_with_their_place() {
        let when = When::At { ms: 1 };
        refused(
            |p| p.world.workers[1].id = "w0".to_owned(),
            "world.workers[1].id: another",
        );
        refused(
            |p| p.world.workers[1].id.clear(),
            "world.workers[1].id: must not be empty",
        );
        refused(
            |p| p.world.workers[0].roles[0] = "$".to_owned(),
            "world.workers[0].roles",
        );
        refused(|p| p.tasks.push(p.tasks[0].clone()), "tasks[1].id: another");
        refused(|p| p.tasks[0].id.push('\0'), "tasks[0].id");
        refused(
            |p| p.tasks[0].graph.nodes.clear(),
            "tasks[0].graph: nodes: is empty",
        );
        refused(|p| p.tasks[0].graph.nodes.reverse(), "no node above it");
        refused(
            |p| p.tasks[0].graph.nodes[1].role.clear(),
            "tasks[0].graph: nodes[1].type",
        );
        refused(
            |p| p.faults.push(Fault::Gone { host: 4, when }),
            "there is no host 4",
        );
        refused(
            |p| p.faults.push(Fault::Poison { shard: 1, when }),
            "there is no shard 1",
        );
        let log_lost = |shard| Fault::LogLost {
            when,
            shard,
            newest: None,
        };
        refused(|p| p.faults.push(log_lost(7)), "there is no shard 7");
        refused(
            |p| *p = Plan::small_embedded().with(log_lost(0)),
            "the logs of one process are lost with it",
        );
        let node = "nobody".to_owned();
        refused(
            |p| p.faults.push(Fault::RefuseBatches { task: 0, node }),
            "task 0 has no node \"nobody\"",
        );
    }

    #[test]
    fn a_worker_that_is_renamed_too_often_is_refused() {
        let renamed = Fault::Crash {
            host: 2,
            when: When::At { ms: 1 },
            down_ms: 0,
            new_id: true,
        };
        let mut plan = Plan::small().with(renamed);
        plan.world.workers[0].id = "w".repeat(199);
        assert_eq!(plan.faults_of_form(), Vec::<String>::new());
        plan.world.workers[0].id.push('w');
        assert!(plan.faults_of_form()[0].contains("too long to be renamed"));
    }

    #[test]
    fn what_only_a_simulation_has_is_no_plan_for_processes() {
        let mut plan = Plan::small_embedded();
        plan.rates = Rates {
            append_lost: 1,
            ..Rates::default()
        };
        let wrong = plan.fit_processes().expect_err("two faults").join("\n");
        assert!(
            wrong.contains("world.embedded") && wrong.contains("rates"),
            "{wrong}"
        );
        let fit = Plan::small().fit_processes().expect("it can be made");
        assert_eq!(
            (fit.world.slack_ms, fit.world.call_timeout_ms),
            (1_000, 10_000)
        );
    }
}
