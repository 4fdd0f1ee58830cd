//! Whether a plan that somebody wrote makes sense: every fault of form at once.

use super::{Action, ActionKind, Fault, Plan, When, processes};

impl Plan {
    /// What makes no sense in a plan that somebody wrote; empty if all of it does.
    #[must_use]
    pub fn faults_of_form(&self) -> Vec<String> {
        let world = &self.world;
        let mut wrong = Vec::new();
        let positive = [
            ("coordinators", world.coordinators),
            ("shards", world.shards),
            ("inboxes", world.inboxes),
            ("clients", world.clients),
        ];
        for (name, number) in positive {
            if number == 0 {
                wrong.push(format!("world.{name}: must not be 0"));
            }
        }
        if world.workers.is_empty() {
            wrong.push("world.workers: there must be one".to_owned());
        }
        let tasks = self.tasks.len();
        for (at, action) in self.actions.iter().enumerate() {
            let (ActionKind::Submit { task }
            | ActionKind::SubmitOther { task }
            | ActionKind::Cancel { task, .. }) = action.kind;
            if task as usize >= tasks {
                wrong.push(format!("actions[{at}].task: there is no task {task}"));
            }
            if action.client >= world.clients {
                let client = action.client;
                wrong.push(format!("actions[{at}].client: there is no client {client}"));
            }
        }
        for (at, fault) in self.faults.iter().enumerate() {
            if let Fault::RefuseBatches { task, .. } | Fault::RefuseTask { task } = fault
                && *task as usize >= tasks
            {
                wrong.push(format!("faults[{at}].task: there is no task {task}"));
            }
        }
        wrong
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
            let (ActionKind::SubmitOther { task } | ActionKind::Cancel { task, .. }) = action.kind
            else {
                continue;
            };
            let submits = |other: &Action| other.kind == ActionKind::Submit { task };
            if !self.actions.iter().any(submits) {
                wrong.push(format!("actions[{at}]: nobody submits task {task}"));
            }
        }
        self.world.clocks.clear();
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
