//! `vars`: the vars of a task are what its functions make of them, one after the other, each in the
//! commit that ends its node, all or nothing; a `when` is judged once, over the vars of that moment;
//! a START carries vars of a commit. Judged by functions and conditions written out anew.

use std::collections::BTreeMap;

use flowkit_core::id::{NodeId, TaskId};
use flowkit_core::message::{Body, Envelope};
use flowkit_core::port::Stream;
use flowkit_core::record::{NodeState, TaskState};
use serde_json::Value;

use super::start_rule::{Standing, holds, standing};
use super::{Broken, Finish, Judge, View, task_plan};
use crate::history::{Change, NodeFact, TaskFact, What};
use crate::plan::{FanIn, NodePlan, TaskPlan};
use crate::vars_model::{self as model, Parent};

const NAME: &str = "vars";

/// The vars of every task by version, as its functions made them.
#[derive(Debug, Default)]
pub(super) struct Vars {
    tasks: BTreeMap<TaskId, BTreeMap<u64, Value>>,
}

/// What one commit did to one task.
#[derive(Default)]
struct Done<'c> {
    task: Option<(Option<&'c TaskFact>, &'c TaskFact)>,
    nodes: Vec<(&'c NodeId, Option<&'c NodeFact>, &'c NodeFact)>,
}

impl Judge for Vars {
    fn event(&mut self, view: &mut View<'_>) {
        match &view.event.what {
            What::Committed { changes, .. } => {
                let mut tasks: BTreeMap<&TaskId, Done<'_>> = BTreeMap::new();
                for change in changes {
                    match change {
                        Change::Task { task, old, new } => {
                            tasks.entry(task).or_default().task = Some((old.as_deref(), new));
                        }
                        Change::Node {
                            task,
                            node,
                            old,
                            new,
                        } => {
                            let done = tasks.entry(task).or_default();
                            done.nodes.push((node, old.as_deref(), new));
                        }
                        Change::Artifact { .. }
                        | Change::Tombstone { .. }
                        | Change::Removed { .. } => {}
                    }
                }
                for (task, done) in tasks {
                    let Some(plan) = view.task(task.as_str()).cloned() else {
                        // Of a user's own graph only its author knows the functions.
                        continue;
                    };
                    for what in self.committed(view, &plan, task, &done) {
                        view.broken(NAME, format!("{task}: {what}"));
                    }
                }
            }
            What::Undone { changes } => {
                for change in changes {
                    if let Change::Task { task, old, .. } = change {
                        let version = old.as_ref().map_or(0, |old| old.vars_version);
                        if let Some(versions) = self.tasks.get_mut(task) {
                            versions.retain(|at, _| *at <= version);
                        }
                    }
                }
            }
            What::Appended {
                stream: Stream::Inbox(_),
                envelope,
                ..
            } => self.started(view, envelope),
            _ => {}
        }
    }

    /// What functions told of other nodes must be so.
    fn finish(&mut self, finish: &Finish<'_>, broken: &mut Vec<Broken>) {
        for task in finish.tables.tasks() {
            let Some(plan) = task_plan(finish.plan, task.task_id.as_str()) else {
                continue;
            };
            // What is being swept has lost some of its parts.
            if finish.tables.tombstone(&task.task_id).is_some() {
                continue;
            }
            for record in finish.tables.nodes(&task.task_id) {
                let node = plan.graph.node(record.node_id.as_str());
                let Some(node) = node.filter(|_| record.state == NodeState::Finished) else {
                    continue;
                };
                let Some(function) = &node.function else {
                    continue;
                };
                let parents = node.parents.iter().filter_map(|(name, _)| {
                    let of_plan = plan.graph.node(name)?;
                    Some((name.clone(), parent(finish, &task.task_id, of_plan)?))
                });
                let expected = model::told(function, &parents.collect());
                let result = record.result.as_ref().map(|json| json.decode::<Value>());
                let result = result.and_then(Result::ok);
                if result != expected {
                    let what = format!(
                        "{}/{}: its result is {result:?}, not {expected:?}",
                        task.task_id, record.node_id
                    );
                    broken.push(Broken::new(NAME, finish.now, what));
                }
            }
        }
    }
}

fn parent(finish: &Finish<'_>, task: &TaskId, plan: &NodePlan) -> Option<Parent> {
    let node = &NodeId::new(&plan.id).ok()?;
    let mut records = finish.tables.nodes(task);
    let record = records.find(|record| record.node_id == *node)?;
    let mut parent = Parent {
        finished: record.state == NodeState::Finished,
        batches: record.accepted,
        // What an unfinished node has marked so far is nobody's business.
        result: record
            .result
            .as_ref()
            .filter(|_| record.state == NodeState::Finished)
            .and_then(|json| json.decode().ok()),
        ..Parent::default()
    };
    if parent.finished && plan.function.is_none() {
        // What every script's `finalize` counts.
        parent.metrics.insert("finals".to_owned(), vec![1.0]);
    }
    let of = record.kept_from.as_ref().unwrap_or(task);
    for artifact in finish.tables.artifacts(of, node) {
        for (name, value) in &artifact.metrics {
            if let Ok(number) = value.decode::<f64>() {
                let numbers = parent.metrics.entry(name.to_string()).or_default();
                numbers.push(number);
            }
        }
    }
    Some(parent)
}

impl Vars {
    fn committed(
        &mut self,
        view: &View<'_>,
        plan: &TaskPlan,
        task: &TaskId,
        done: &Done<'_>,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let versions = self.tasks.entry(task.clone()).or_default();
        versions
            .entry(0)
            .or_insert_with(|| model::object(&plan.vars));
        let before = *versions.keys().next_back().unwrap_or(&0);
        let mut made: BTreeMap<u64, (&NodePlan, &NodeFact)> = BTreeMap::new();
        for (id, old, new) in &done.nodes {
            let Some(node) = plan.graph.node(id.as_str()) else {
                continue;
            };
            let was = old.and_then(|old| old.made_vars);
            if was.is_some() && was != new.made_vars {
                wrong.push(format!(
                    "{id}: it made version {was:?}, then {:?}",
                    new.made_vars
                ));
            }
            if let (None, Some(version)) = (was, new.made_vars)
                && made.insert(version, (node, new)).is_some()
            {
                wrong.push(format!("{id}: another node made version {version}, too"));
            }
        }
        for (version, (node, fact)) in &made {
            let (Some(function), Some(vars)) = (
                &node.function,
                version.checked_sub(1).and_then(|at| versions.get(&at)),
            ) else {
                wrong.push(format!(
                    "{}: it made version {version}, which it cannot",
                    node.id
                ));
                continue;
            };
            let told = fact.result.as_ref().and_then(|json| json.decode().ok());
            match model::after(function, vars, &told.unwrap_or_default()) {
                Some(after) if fact.state == NodeState::Finished => {
                    versions.insert(*version, after);
                }
                _ => wrong.push(format!(
                    "{}: {:?} after `{}` over {vars}, which must fail",
                    node.id, fact.state, function.name
                )),
            }
        }
        self.stored(task, done, before, &mut wrong);
        let versions = &self.tasks[task];
        for (id, old, new) in &done.nodes {
            if let Some(node) = plan.graph.node(id.as_str()) {
                let seen = Seen {
                    versions,
                    before,
                    over: is_over(view, task),
                };
                seen.judged(node, *old, new, &mut wrong);
                seen.failed(node, *old, new, &mut wrong);
                if node.function.is_some() {
                    seen.rule(view, plan, task, (node, *old, new), done, &mut wrong);
                }
            }
        }
        wrong
    }

    /// The vars in the store are those of its version, and none were made without it.
    fn stored(&self, task: &TaskId, done: &Done<'_>, before: u64, wrong: &mut Vec<String>) {
        let versions = &self.tasks[task];
        let newest = *versions.keys().next_back().unwrap_or(&0);
        let Some((_, new)) = done.task else {
            if newest > before {
                wrong.push(format!("version {newest} was made, but not stored with it"));
            }
            return;
        };
        if new.vars_version != newest {
            let stored = new.vars_version;
            wrong.push(format!("version {newest} was made, {stored} is stored"));
        }
        let vars: Value = new.vars.decode().unwrap_or_default();
        let expected = versions.get(&new.vars_version);
        if expected != Some(&model::object(&vars)) {
            let version = new.vars_version;
            wrong.push(format!("version {version} is {vars}, not {expected:?}"));
        }
    }

    /// A START carries the vars of a commit, and none from before what it waits for.
    fn started(&self, view: &mut View<'_>, envelope: &Envelope) {
        let (Body::TaskStart(start), Some(task), Some(id)) =
            (&envelope.body, &envelope.task_id, &envelope.node_id)
        else {
            return;
        };
        let (Some(versions), Some(node), Some(fact)) = (
            self.tasks.get(task),
            view.node(task.as_str(), id.as_str()),
            view.ledger.fact(task, id),
        ) else {
            return;
        };
        // What a crash undid with its commit may still be on its way (embedded), and dies with it.
        if envelope.lease_no != Some(fact.token) {
            return;
        }
        let parents = node.parents.iter().filter_map(|(parent, _)| {
            let ledger = view.ledger.tasks.get(task)?;
            let fact = ledger.nodes.get(parent.as_str())?.fact.as_ref()?;
            fact.made_vars
        });
        let floor = match node.fan_in {
            FanIn::All => parents.chain(fact.when_vars).max(),
            _ => fact.when_vars,
        };
        let floor = floor.unwrap_or(0);
        let vars = model::object(&start.vars.decode().unwrap_or_default());
        let mut fitting = versions.range(floor..);
        if !fitting.any(|(_, known)| *known == vars) {
            let what = format!("{task}/{id}: its START carries {vars}, no version from {floor} on");
            view.broken(NAME, what);
        }
    }
}

fn is_over(view: &View<'_>, task: &TaskId) -> bool {
    let fact = view.ledger.tasks.get(task).and_then(|t| t.fact.as_ref());
    fact.is_some_and(|fact| fact.state.is_terminal() || fact.state == TaskState::Cancelling)
}

/// What a node can have seen within one commit.
struct Seen<'v> {
    versions: &'v BTreeMap<u64, Value>,
    /// The newest version before the commit.
    before: u64,
    over: bool,
}

impl Seen<'_> {
    fn judged(
        &self,
        node: &NodePlan,
        old: Option<&NodeFact>,
        new: &NodeFact,
        wrong: &mut Vec<String>,
    ) {
        let id = &node.id;
        if new.kept_from.is_some() {
            if new.when_vars.is_some() {
                wrong.push(format!("{id}: kept, and its `when` was judged again"));
            }
            return;
        }
        let was = old.and_then(|old| old.when_vars);
        if was.is_some() {
            if was != new.when_vars {
                wrong.push(format!("{id}: its `when` was judged twice"));
            }
            return;
        }
        let Some(when) = &node.when else {
            if new.when_vars.is_some() {
                wrong.push(format!("{id}: it has no `when`, but one was judged"));
            }
            return;
        };
        let Some(version) = new.when_vars else {
            let began = !matches!(
                new.state,
                NodeState::Queued | NodeState::Skipped | NodeState::Cancelled
            );
            if began {
                wrong.push(format!("{id}: {:?} with its `when` unjudged", new.state));
            }
            return;
        };
        let Some(vars) = self
            .versions
            .get(&version)
            .filter(|_| version >= self.before)
        else {
            wrong.push(format!(
                "{id}: its `when` was judged over version {version}"
            ));
            return;
        };
        let holds = model::holds(when, vars);
        let fits = if holds {
            new.state != NodeState::Skipped || self.over
        } else {
            new.state == NodeState::Skipped
        };
        if !fits {
            let state = new.state;
            wrong.push(format!(
                "{id}: {state:?}, but {when} over {vars} is {holds}"
            ));
        }
    }

    /// A function fails only if it must, over vars that it can have seen.
    fn failed(
        &self,
        node: &NodePlan,
        old: Option<&NodeFact>,
        new: &NodeFact,
        wrong: &mut Vec<String>,
    ) {
        let Some(function) = &node.function else {
            return;
        };
        if new.token.0 > 0 || new.holder.is_some() {
            wrong.push(format!("{}: a function was granted to a worker", node.id));
        }
        let was = old.map(|old| old.state);
        if new.state != NodeState::Failed || was == Some(NodeState::Failed) {
            return;
        }
        let told = Value::Null;
        let mut seen = self.versions.range(self.before..);
        if seen.all(|(_, vars)| model::after(function, vars, &told).is_some()) {
            let code = &new.failure_code;
            wrong.push(format!("{}: failed with {code:?} without need", node.id));
        }
    }

    /// A function runs only when its fan-in holds.
    fn rule(
        &self,
        view: &View<'_>,
        plan: &TaskPlan,
        task: &TaskId,
        (node, old, new): (&NodePlan, Option<&NodeFact>, &NodeFact),
        done: &Done<'_>,
        wrong: &mut Vec<String>,
    ) {
        let ran = |state| matches!(state, NodeState::Finished | NodeState::Failed);
        if !ran(new.state) || old.is_some_and(|old| ran(old.state)) {
            return;
        }
        assert!(plan.graph.node(&node.id).is_some());
        let Some(ledger) = view.ledger.tasks.get(task) else {
            return;
        };
        let now: Vec<Standing> = node
            .parents
            .iter()
            .map(|(parent, link)| {
                let fact = ledger
                    .nodes
                    .get(parent.as_str())
                    .and_then(|n| n.fact.as_ref());
                let streams = node.streams_from(*link);
                let (state, accepted) =
                    fact.map_or((NodeState::Queued, 0), |fact| (fact.state, fact.accepted));
                let now = standing(state, accepted, *link, streams);
                // It may have counted by its first batch and failed in the same commit, or since
                // the commit in which the node became ready.
                let batches = streams && accepted > 0 && now == Standing::Never;
                if batches { Standing::Counts } else { now }
            })
            .collect();
        let ready = old.is_some_and(|old| old.state == NodeState::Ready);
        if !holds(node, &now) && !ready {
            let id = &node.id;
            wrong.push(format!("{id}: ran while its parents stand {now:?}"));
        }
        // What its parents made comes before what it made.
        let mine = new.made_vars.unwrap_or(u64::MAX);
        let changed = done.nodes.iter().filter_map(|(id, _, fact)| {
            let parent = node.parents.iter().any(|(parent, _)| parent == id.as_str());
            fact.made_vars
                .filter(|_| parent && node.fan_in == FanIn::All)
        });
        if let Some(later) = changed.filter(|made| *made >= mine).max() {
            wrong.push(format!(
                "{}: version {mine}, its parent made {later}",
                node.id
            ));
        }
    }
}
