//! What a task must come to, computed from its graph and scripts alone, as if nothing ever broke.

use std::collections::{BTreeMap, BTreeSet};

use flowkit_core::record::NodeState;
use serde_json::Value;

use crate::checkers::{Standing, holds, standing};
use crate::functions::PANICS;
use crate::plan::{FanIn, Fault, GraphPlan, Hook, Link, NodePlan, Plan, TroubleKind};
use crate::script::{self, source_len, source_uid};
use crate::vars_model as model;

/// What a task must come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expected {
    /// It finishes, with these states of its nodes.
    Finished(BTreeMap<String, NodeState>),
    /// It fails; what its other nodes come to is a matter of timing.
    Failed,
    /// A handler hangs until it is cancelled.
    Hangs,
    /// It is set aside: a function of its breaks the machine.
    SetAside,
    /// What functions do, or conditions say, depends on which of two nodes ends first.
    Open,
}

/// How one node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It finishes, with so many batches.
    Finished(u64),
    Failed,
    Hangs,
}

/// What a task of a plan must come to.
pub(crate) fn expect(plan: &Plan, task: usize) -> Expected {
    let graph = &plan.tasks[task].graph;
    let mut states: BTreeMap<String, NodeState> = BTreeMap::new();
    let mut batches: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut flow = Flow::new(&plan.tasks[task].vars);
    // Where something else ends the task, too, it is a matter of timing what comes first.
    let may_break = graph.nodes.iter().any(breaks_machine);
    let mut breaks = false;
    for node in &graph.nodes {
        let parents: Vec<Standing> = node
            .parents
            .iter()
            .map(|(parent, link)| {
                let state = states.get(parent).copied().unwrap_or(NodeState::Queued);
                standing(state, 0, *link, false)
            })
            .collect();
        if !holds(node, &parents) {
            flow.skipped_by_rule(node);
            states.insert(node.id.clone(), NodeState::Skipped);
            continue;
        }
        match flow.begins(node) {
            Begins::Skipped => {
                states.insert(node.id.clone(), NodeState::Skipped);
                continue;
            }
            Begins::Breaks => {
                breaks = true;
                continue;
            }
            Begins::Function(state) => {
                batches.insert(node.id.clone(), Vec::new());
                states.insert(node.id.clone(), state);
                continue;
            }
            Begins::Handler => {}
        }
        let refused = plan.faults.iter().any(|fault| {
            matches!(fault, Fault::RefuseBatches { task: t, node: n }
                if *t as usize == task && *n == node.id)
        });
        // Items of each batch that the node gets.
        let input: Vec<u64> = match &node.reader {
            None => vec![u64::from(node.script.items); node.script.batches as usize],
            Some(reader) => {
                let sources = reader.from.iter().filter_map(|from| batches.get(from));
                let parents = sources.flatten().copied();
                match reader.rechunk {
                    None => parents.collect(),
                    Some(_) if reader.takes_whole() => parents.map(|_| 1).collect(),
                    Some(size) => parents
                        .flat_map(|items| chunks(items, u64::from(size.max(1))))
                        .collect(),
                }
            }
        };
        let strict = plan.world.strict_adapters;
        match end_of(node, input.len() as u64, (refused, strict)) {
            End::Hangs if may_break || flow.is_racy(graph, &states) => return Expected::Open,
            End::Hangs => return Expected::Hangs,
            End::Failed => {
                states.insert(node.id.clone(), NodeState::Failed);
            }
            End::Finished(count) => {
                let kept = usize::try_from(count).unwrap_or(usize::MAX);
                batches.insert(node.id.clone(), input.into_iter().take(kept).collect());
                states.insert(node.id.clone(), NodeState::Finished);
            }
        }
    }
    if flow.is_racy(graph, &states) {
        return Expected::Open;
    }
    let unhandled = graph
        .nodes
        .iter()
        .filter(|node| states.get(&node.id) == Some(&NodeState::Failed))
        .any(|node| !handled(graph, &states, &node.id));
    // What streams from the node that failed may have begun before, or not at all.
    if unhandled && may_break {
        Expected::Open
    } else if breaks {
        Expected::SetAside
    } else if unhandled {
        Expected::Failed
    } else {
        Expected::Finished(states)
    }
}

fn breaks_machine(node: &NodePlan) -> bool {
    let function = node.function.as_ref();
    function.is_some_and(|function| function.name == PANICS)
}

/// How a node begins whose rule holds.
enum Begins {
    Skipped,
    /// It breaks the machine.
    Breaks,
    Function(NodeState),
    Handler,
}

/// The vars on their way through a graph.
struct Flow {
    vars: Value,
    /// Nodes that have surely ended when the rule of a node comes to hold.
    before: BTreeMap<String, BTreeSet<String>>,
}

impl Flow {
    fn new(vars: &Value) -> Self {
        Self {
            vars: model::object(vars),
            before: BTreeMap::new(),
        }
    }

    /// One open end of another node may be enough for that.
    fn skipped_by_rule(&mut self, node: &NodePlan) {
        self.before.insert(node.id.clone(), BTreeSet::new());
    }

    fn begins(&mut self, node: &NodePlan) -> Begins {
        let streams = node
            .parents
            .iter()
            .any(|(_, link)| node.streams_from(*link));
        let waits_for_all = node.fan_in == FanIn::All || node.parents.len() == 1;
        let mut before = BTreeSet::new();
        if waits_for_all && !streams {
            for (parent, _) in &node.parents {
                before.extend(self.before.get(parent).into_iter().flatten().cloned());
                before.insert(parent.clone());
            }
        }
        self.before.insert(node.id.clone(), before);
        let when = node.when.as_ref();
        if when.is_some_and(|when| !model::holds(when, &self.vars)) {
            return Begins::Skipped;
        }
        let Some(function) = &node.function else {
            return Begins::Handler;
        };
        if breaks_machine(node) {
            return Begins::Breaks;
        }
        // What functions tell of other nodes is looked at by none.
        match model::after(function, &self.vars, &Value::Null) {
            None => Begins::Function(NodeState::Failed),
            Some(vars) => {
                self.vars = vars;
                Begins::Function(NodeState::Finished)
            }
        }
    }

    /// Some function may run before or after a node that looks at what it changes.
    fn is_racy(&self, graph: &GraphPlan, states: &BTreeMap<String, NodeState>) -> bool {
        let looks = |node: &NodePlan| -> BTreeSet<String> {
            let mut roots = node.when.as_ref().map(model::looked_at).unwrap_or_default();
            roots.extend(node.function.iter().flat_map(model::touched));
            roots
        };
        let ordered = |first: &NodePlan, second: &NodePlan| {
            let before = self.before.get(&second.id);
            before.is_some_and(|before| before.contains(&first.id))
        };
        let ran = |node: &&NodePlan| {
            node.function.is_some() && states.get(&node.id) != Some(&NodeState::Skipped)
        };
        // All vars share one limit: whether there is room for a large one hangs on every other function.
        let crowds = |node: &NodePlan| node.function.as_ref().is_some_and(model::crowds);
        graph.nodes.iter().filter(ran).any(|function| {
            let crowds = crowds(function);
            let changed = function.function.as_ref().map(model::touched);
            let changed = changed.unwrap_or_default();
            graph.nodes.iter().any(|node| {
                let meets = !looks(node).is_disjoint(&changed);
                node.id != function.id
                    && (meets || crowds && node.function.is_some())
                    && !ordered(function, node)
                    && !ordered(node, function)
            })
        })
    }
}

fn chunks(items: u64, size: u64) -> Vec<u64> {
    let full = usize::try_from(items / size).unwrap_or(0);
    let mut chunks = vec![size; full];
    if !items.is_multiple_of(size) {
        chunks.push(items % size);
    }
    chunks
}

fn handled(graph: &GraphPlan, states: &BTreeMap<String, NodeState>, failed: &str) -> bool {
    graph.nodes.iter().any(|node| {
        let routed = node
            .parents
            .iter()
            .any(|(parent, link)| parent == failed && *link == Link::OnFailure);
        routed && states.get(&node.id) == Some(&NodeState::Finished)
    })
}

fn end_of(node: &NodePlan, input: u64, (refused, strict): (bool, bool)) -> End {
    if let Some(reader) = &node.reader {
        return reader_end(node, input, (refused, reader.keyless && strict));
    }
    let mut accepted: BTreeSet<String> = BTreeSet::new();
    // Index behind which a checkpoint lies, and how many batches were accepted then.
    let mut checkpoint: Option<(u32, u64)> = None;
    'attempts: for epoch in 1..=node.retry_max.max(1) {
        match fate(node, &at_begin(node, epoch)) {
            Fate::GoesOn => {}
            Fate::Again => continue 'attempts,
            Fate::Ends(end) => return end,
        }
        let first = checkpoint.map_or(0, |(index, _)| index + 1);
        let (mut seen, mut new, mut skipped) = (BTreeSet::new(), 0, 0);
        for index in first..source_len(node, epoch) {
            let uid = source_uid(node, index);
            if !seen.insert(uid.clone()) {
                return End::Failed;
            }
            if accepted.contains(&uid) {
                skipped += 1;
                continue;
            }
            match fate(node, &script::troubles(node, epoch, Some(index))) {
                Fate::GoesOn => {}
                Fate::Again => continue 'attempts,
                Fate::Ends(end) => return end,
            }
            if refused {
                return End::Failed;
            }
            accepted.insert(uid);
            new += 1;
            if saves(node, index) {
                checkpoint = Some((index, accepted.len() as u64));
            }
        }
        match fate(node, &script::final_troubles(node, epoch)) {
            Fate::GoesOn => {}
            Fate::Again => continue 'attempts,
            Fate::Ends(end) => return end,
        }
        // The checkpoint that the attempt began with counts, not the ones it saved itself.
        let behind = accepted.len() as u64 - new - skipped;
        let at_begin = match checkpoint {
            _ if first == 0 => 0,
            _ => behind_at(node, first, &accepted),
        };
        if at_begin + skipped + new < accepted.len() as u64 {
            return End::Failed;
        }
        assert!(behind <= at_begin);
        return End::Finished(accepted.len() as u64);
    }
    End::Failed
}

/// Batches behind a resume point: all of the source before it are accepted.
fn behind_at(node: &NodePlan, first: u32, accepted: &BTreeSet<String>) -> u64 {
    let uids: BTreeSet<String> = (0..first).map(|i| source_uid(node, i)).collect();
    uids.intersection(accepted).count() as u64
}

fn saves(node: &NodePlan, index: u32) -> bool {
    let every = node.script.checkpoint_every.max(1);
    node.script.checkpoints > 0 && (index + 1).is_multiple_of(every)
}

fn reader_end(node: &NodePlan, input: u64, (refused, no_adapter): (bool, bool)) -> End {
    for epoch in 1..=node.retry_max.max(1) {
        let mut kinds = at_begin(node, epoch);
        if no_adapter && fate(node, &kinds) == Fate::GoesOn {
            return End::Failed;
        }
        if input > 0 {
            kinds.extend(script::troubles(node, epoch, None));
        }
        kinds.extend(script::final_troubles(node, epoch));
        match fate(node, &kinds) {
            _ if input > 0 && refused && fate(node, &at_begin(node, epoch)) == Fate::GoesOn => {
                return End::Failed;
            }
            Fate::GoesOn => return End::Finished(input),
            Fate::Again => {}
            Fate::Ends(end) => return end,
        }
    }
    End::Failed
}

/// What goes wrong before the first batch.
fn at_begin(node: &NodePlan, epoch: u32) -> Vec<TroubleKind> {
    let mut kinds = script::hook_troubles(node, epoch, Hook::Init);
    kinds.extend(script::hook_troubles(node, epoch, Hook::LoadInput));
    if node.reader.is_none() {
        kinds.extend(script::hook_troubles(node, epoch, Hook::Batches));
    }
    kinds
}

/// What troubles make of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    GoesOn,
    Again,
    Ends(End),
}

fn fate(node: &NodePlan, troubles: &[TroubleKind]) -> Fate {
    let listed = |kind| {
        let code = script::code(kind);
        code.is_some_and(|code| node.permanent_on.iter().any(|listed| listed == code))
    };
    for kind in troubles {
        match kind {
            TroubleKind::Slow { .. } => {}
            TroubleKind::Permanent | TroubleKind::Classified { permanent: true } => {
                return Fate::Ends(End::Failed);
            }
            kind if listed(*kind) => return Fate::Ends(End::Failed),
            TroubleKind::Hangs => return Fate::Ends(End::Hangs),
            TroubleKind::Transient
            | TroubleKind::Panics
            | TroubleKind::PanicsNaming
            | TroubleKind::Classified { permanent: false }
            | TroubleKind::RetryAfter { .. } => return Fate::Again,
        }
    }
    Fate::GoesOn
}
