//! Makes a failing plan small: as few faults, actions, tasks and rates as still break the promise.
//!
//! Every draw of a run has a key of its own, so that taking one fault away leaves the luck of all
//! else alone; what is left is close to the run that failed.

use std::collections::BTreeSet;

use super::report::panicked;
use super::{Tier, outcome};
use crate::checkers::Broken;
use crate::outcome::Outcome;
use crate::plan::{
    Action, ActionKind, Call, Clock, Fault, Plan, Rates, RerunPlan, Rotten, fit_reruns,
};

/// A plan that was made small.
#[derive(Clone, Debug, PartialEq)]
pub struct Shrunk {
    /// Where it was run.
    pub tier: Tier,
    /// The smallest plan that was found: its faults, and single calls that go wrong (`calls`).
    pub plan: Plan,
    /// The promise that it breaks, like the plan that it came from.
    pub promise: String,
    /// What the checker says.
    pub explanation: String,
    /// Plans that were run.
    pub runs: u64,
}

/// Shrinks a plan that breaks a promise; `None` if it breaks none. `progress` is called after every
/// step that took something away, with the plan so far and the number of runs.
pub fn shrink(tier: Tier, plan: &Plan, progress: &mut dyn FnMut(&Plan, u64)) -> Option<Shrunk> {
    let judge = |plan: &Plan| match outcome(tier, plan, false) {
        Ok(outcome) => Judged::of(&outcome, &outcome.broken),
        Err(panic) => Judged {
            broken: vec![("no_panic".to_owned(), panicked(&panic))],
            ..Judged::default()
        },
    };
    let mut shrunk = shrink_by(plan, &judge, progress)?;
    shrunk.tier = tier;
    Some(shrunk)
}

/// What a run of a plan came to.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// Promises that broke, each with what was seen.
    pub(crate) broken: Vec<(String, String)>,
    /// Calls that went wrong by the plan's rates.
    pub(crate) struck: BTreeSet<Call>,
}

impl Judged {
    pub(crate) fn of(outcome: &Outcome, broken: &[Broken]) -> Self {
        let broken = broken.iter();
        Self {
            broken: broken
                .map(|b| (b.promise.to_owned(), b.what.clone()))
                .collect(),
            struck: outcome.struck.keys().copied().collect(),
        }
    }
}

type Judge<'a> = &'a dyn Fn(&Plan) -> Judged;

/// The same with any judge.
pub(crate) fn shrink_by(
    plan: &Plan,
    judge: Judge<'_>,
    progress: &mut dyn FnMut(&Plan, u64),
) -> Option<Shrunk> {
    let promise = judge(plan).broken.first()?.0.clone();
    let mut shrinker = Shrinker {
        judge,
        plan: plan.clone(),
        promise,
        runs: 1,
        progress,
    };
    // What one step takes away may let another one take more.
    while shrinker.pass() {}
    let Shrinker {
        plan,
        promise,
        runs,
        ..
    } = shrinker;
    let broken = judge(&plan).broken;
    let (_, explanation) = broken.into_iter().find(|(broken, _)| *broken == promise)?;
    Some(Shrunk {
        tier: Tier::One,
        plan,
        promise,
        explanation,
        runs,
    })
}

/// A `#[test]` that fails as the plan does, until the cause is mended.
#[must_use]
pub fn test_of(shrunk: &Shrunk) -> String {
    let json = serde_json::to_string_pretty(&shrunk.plan).unwrap_or_default();
    // A text in the plan that begins with `#` must not end the raw string.
    let mut fence = "#".to_owned();
    while json.contains(&format!("\"{fence}")) {
        fence.push('#');
    }
    format!(
        "/// {promise}: {explanation}\n\
         #[test]\n\
         fn {promise}_holds_with_seed_{seed}() {{\n    \
             let plan = r{fence}\"{json}\"{fence};\n    \
             let plan: flowkit_sim::plan::Plan = serde_json::from_str(plan).expect(\"a plan\");\n    \
             let verdict = flowkit_sim::runner::check({tier}, &plan, true);\n    \
             assert!(verdict.holds(), \"{{:#?}}\", verdict.failures);\n\
         }}\n",
        promise = shrunk.promise,
        tier = format_args!("flowkit_sim::runner::Tier::{:?}", shrunk.tier),
        explanation = shrunk.explanation.replace(char::is_control, " "),
        seed = shrunk.plan.seed,
    )
}

struct Shrinker<'a> {
    judge: Judge<'a>,
    plan: Plan,
    promise: String,
    runs: u64,
    progress: &'a mut dyn FnMut(&Plan, u64),
}

impl Shrinker<'_> {
    /// Takes the smaller plan if it breaks the same promise.
    fn take(&mut self, mut smaller: Plan) -> bool {
        sensible(&mut smaller);
        if smaller == self.plan {
            return false;
        }
        self.runs += 1;
        let broken = (self.judge)(&smaller).broken;
        let same = broken.iter().any(|(broken, _)| *broken == self.promise);
        if same {
            self.plan = smaller;
            (self.progress)(&self.plan, self.runs);
        }
        same
    }

    /// Tries everything once; true if anything went away.
    fn pass(&mut self) -> bool {
        let mut smaller = self.thin_out(|plan| &mut plan.faults);
        smaller |= self.thin_out(|plan| &mut plan.actions);
        smaller |= self.tasks();
        smaller |= self.rates();
        smaller |= self.calls();
        smaller |= self.scripts();
        smaller |= self.world();
        smaller
    }

    /// Takes pieces out of a list: halves first, single entries last.
    fn thin_out<T: Clone>(&mut self, list: impl Fn(&mut Plan) -> &mut Vec<T>) -> bool {
        let mut smaller = false;
        let mut size = list(&mut self.plan).len();
        while size > 0 {
            let mut at = 0;
            while at < list(&mut self.plan).len() {
                let mut plan = self.plan.clone();
                let entries = list(&mut plan);
                let end = entries.len().min(at + size);
                entries.drain(at..end);
                if self.take(plan) {
                    smaller = true;
                } else {
                    at += size;
                }
            }
            size /= 2;
        }
        smaller
    }

    fn tasks(&mut self) -> bool {
        let mut smaller = false;
        for task in (0..self.plan.tasks.len()).rev() {
            if self.plan.tasks.len() > 1 {
                smaller |= self.take(without_task(&self.plan, task));
            }
        }
        smaller
    }

    fn rates(&mut self) -> bool {
        let mut quiet = self.plan.clone();
        quiet.rates = Rates::default();
        let mut smaller = self.take(quiet);
        let fields: [fn(&mut Rates) -> &mut u32; 12] = [
            |rates| &mut rates.append_refused,
            |rates| &mut rates.append_lost,
            |rates| &mut rates.append_twice,
            |rates| &mut rates.append_overtaken,
            |rates| &mut rates.confirm_late,
            |rates| &mut rates.confirm_lost,
            |rates| &mut rates.read_lost,
            |rates| &mut rates.store_refused,
            |rates| &mut rates.store_lost,
            |rates| &mut rates.store_reply_lost,
            |rates| &mut rates.store_late,
            |rates| &mut rates.client_reply_lost,
        ];
        for field in fields {
            let mut plan = self.plan.clone();
            *field(&mut plan.rates) = 0;
            smaller |= self.take(plan);
        }
        smaller
    }

    /// Single calls that go wrong, in place of any that rates may strike.
    fn calls(&mut self) -> bool {
        if self.plan.rates.is_quiet() {
            let named = self.plan.calls.take();
            return named.is_some();
        }
        if self.plan.calls.is_none() {
            let mut plan = self.plan.clone();
            self.runs += 1;
            plan.calls = Some((self.judge)(&plan).struck);
            if !self.take(plan) {
                return false;
            }
        }
        // A set is thinned out as a list.
        let mut list: Vec<Call> = self.plan.calls.iter().flatten().copied().collect();
        let mut smaller = false;
        let mut size = list.len();
        while size > 0 {
            let mut at = 0;
            while at < list.len() {
                let mut fewer = list.clone();
                fewer.drain(at..fewer.len().min(at + size));
                let mut plan = self.plan.clone();
                plan.calls = Some(fewer.iter().copied().collect());
                if self.take(plan) {
                    (list, smaller) = (fewer, true);
                } else {
                    at += size;
                }
            }
            size /= 2;
        }
        smaller
    }

    /// Handlers without trouble, and nodes that nothing depends on.
    fn scripts(&mut self) -> bool {
        let mut smaller = false;
        for task in 0..self.plan.tasks.len() {
            for node in (0..self.plan.tasks[task].graph.nodes.len()).rev() {
                let graph = &self.plan.tasks[task].graph;
                let id = graph.nodes[node].id.clone();
                let needed = graph.nodes.iter().any(|other| {
                    let parents = other.parents.iter().any(|(parent, _)| *parent == id);
                    let reads = other.reader.iter().any(|reader| reader.from.contains(&id));
                    parents || reads
                });
                if !needed && graph.nodes.len() > 1 {
                    let mut plan = self.plan.clone();
                    plan.tasks[task].graph.nodes.remove(node);
                    if self.take(plan) {
                        smaller = true;
                        continue;
                    }
                }
                let mut plan = self.plan.clone();
                plan.tasks[task].graph.nodes[node].script.trouble.clear();
                smaller |= self.take(plan);
                let mut plan = self.plan.clone();
                plan.tasks[task].graph.nodes[node].when = None;
                smaller |= self.take(plan);
            }
        }
        smaller
    }

    /// Perfect clocks, an even network, fewer processes.
    fn world(&mut self) -> bool {
        let mut smaller = false;
        let simpler: [fn(&mut Plan); 4] = [
            |plan| {
                plan.world
                    .clocks
                    .iter_mut()
                    .for_each(|clock| *clock = Clock::default())
            },
            |plan| plan.world.slow_permille = 0,
            |plan| plan.world.shards = 1,
            |plan| plan.world.latency_us_max = plan.world.latency_us_min,
        ];
        for simplify in simpler {
            let mut plan = self.plan.clone();
            simplify(&mut plan);
            smaller |= self.take(plan);
        }
        // The last worker: the numbers of other hosts stay.
        while self.plan.world.workers.len() > 1 {
            let mut plan = self.plan.clone();
            plan.world.workers.pop();
            let roles = roles(&plan);
            let mut nodes = plan.tasks.iter().flat_map(|task| &task.graph.nodes);
            if !nodes.all(|node| node.function.is_some() || roles.contains(&node.role))
                || !self.take(plan)
            {
                break;
            }
            smaller = true;
        }
        smaller
    }
}

/// Takes out what would break `settle` by itself: clients that wait for a task that nobody submits.
fn sensible(plan: &mut Plan) {
    let submitted: BTreeSet<u32> = plan
        .actions
        .iter()
        .filter_map(|action| match action.kind {
            ActionKind::Submit { task } => Some(task),
            _ => None,
        })
        .collect();
    for task in &mut plan.tasks {
        task.rerun.take_if(|rerun| !submitted.contains(&rerun.of));
    }
    fit_reruns(plan);
    plan.actions
        .retain(|action| submitted.contains(&action.kind.task()));
}

/// The roles of workers that are not lost for good.
fn roles(plan: &Plan) -> BTreeSet<&String> {
    let workers = (plan.world.coordinators..).zip(&plan.world.workers);
    let gone = |number: u32| {
        let mut faults = plan.faults.iter();
        faults.any(|fault| matches!(fault, Fault::Gone { host, .. } if *host == number))
    };
    workers
        .filter(|(number, _)| !gone(*number))
        .flat_map(|(_, worker)| &worker.roles)
        .collect()
}

/// The plan without a task, and without what is about it.
fn without_task(plan: &Plan, gone: usize) -> Plan {
    let renumbered = |task: u32| {
        let index = task as usize;
        (index != gone).then(|| if index > gone { task - 1 } else { task })
    };
    let mut smaller = plan.clone();
    smaller.tasks.remove(gone);
    for task in &mut smaller.tasks {
        // What ran it again is a task like others.
        task.rerun = task.rerun.take().and_then(|rerun| {
            let of = renumbered(rerun.of)?;
            Some(RerunPlan { of, ..rerun })
        });
    }
    let actions = plan.actions.iter().filter_map(|action| {
        let kind = action.kind.about(renumbered(action.kind.task())?);
        Some(Action { kind, ..*action })
    });
    smaller.actions = actions.collect();
    let faults = plan.faults.iter().filter_map(|fault| {
        Some(match fault.clone() {
            Fault::RefuseBatches { task, node } => Fault::RefuseBatches {
                task: renumbered(task)?,
                node,
            },
            Fault::RefuseTask { task } => Fault::RefuseTask {
                task: renumbered(task)?,
            },
            Fault::RefuseWrites { task, when, for_ms } => Fault::RefuseWrites {
                task: renumbered(task)?,
                when,
                for_ms,
            },
            Fault::Rot { when, what } => Fault::Rot {
                when,
                what: match what {
                    Rotten::Task { task } => Rotten::Task {
                        task: renumbered(task)?,
                    },
                    Rotten::Node { task, node } => Rotten::Node {
                        task: renumbered(task)?,
                        node,
                    },
                    worker @ Rotten::Worker { .. } => worker,
                },
            },
            other => other,
        })
    });
    smaller.faults = faults.collect();
    smaller
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::When;

    #[test]
    fn a_plan_that_breaks_nothing_cannot_be_shrunk() {
        assert_eq!(shrink(Tier::Zero, &Plan::small(), &mut |_, _| {}), None);
    }

    /// Without a single worker nothing settles, whatever else goes wrong or not.
    #[test]
    fn what_does_not_matter_goes_away_and_the_promise_stays_broken() {
        let mut plan = Plan::from_seed(11);
        for worker in &mut plan.world.workers {
            worker.roles = vec!["nothing".to_owned()];
        }
        plan.world.embedded = false;
        plan.faults.push(Fault::WallStep {
            host: 0,
            when: When::At { ms: 5 },
            by_ms: 5,
        });
        let mut steps = 0;
        let shrunk =
            shrink(Tier::Zero, &plan, &mut |_, _| steps += 1).expect("it breaks a promise");
        assert_eq!(shrunk.promise, "settle");
        assert!(steps > 0 && shrunk.runs > steps);
        let left = (
            shrunk.plan.faults.len(),
            shrunk.plan.tasks.len(),
            shrunk.plan.actions.len(),
            shrunk.plan.rates.is_quiet(),
        );
        assert_eq!(left, (0, 1, 1, true), "{:?}", shrunk.plan);
        assert_eq!(shrunk.plan.actions[0].kind, ActionKind::Submit { task: 0 });
        let test = test_of(&shrunk);
        assert!(
            test.contains("#[test]\nfn settle_holds_with_seed_11() {"),
            "{test}"
        );
    }

    #[test]
    fn a_text_in_the_plan_does_not_end_the_printed_test() {
        let mut plan = Plan::small();
        plan.tasks[0].id = "#\"##task".to_owned();
        let shrunk = Shrunk {
            tier: Tier::Zero,
            plan,
            promise: "settle".to_owned(),
            explanation: "two\r\nlines".to_owned(),
            runs: 1,
        };
        let test = test_of(&shrunk);
        assert!(test.starts_with("/// settle: two  lines\n"), "{test}");
        assert!(test.contains("let plan = r###\"{"), "{test}");
        assert!(test.contains("}\"###;"), "{test}");
    }

    #[test]
    fn tasks_keep_their_actions_when_one_before_them_goes() {
        let mut plan = Plan::small();
        plan.tasks.push(plan.tasks[0].clone());
        plan.tasks[1].id = "task-1".to_owned();
        let mut second = plan.actions[0];
        second.kind = ActionKind::Submit { task: 1 };
        plan.actions.push(second);
        plan.faults.push(Fault::RefuseTask { task: 1 });
        plan.faults.push(Fault::RefuseTask { task: 0 });
        let smaller = without_task(&plan, 0);
        assert_eq!(smaller.tasks[0].id, "task-1");
        assert_eq!(smaller.actions.len(), 1);
        assert_eq!(smaller.actions[0].kind, ActionKind::Submit { task: 0 });
        assert_eq!(smaller.faults, [Fault::RefuseTask { task: 0 }]);
    }
}
