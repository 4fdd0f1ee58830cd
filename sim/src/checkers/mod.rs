//! The promises, one judge each. They read the history and the committed records, never the
//! machines' opinion of themselves, and share no code with the machines.

mod announced;
mod answered;
mod as_reported;
mod at_rest;
mod bodies;
mod cancel_final;
mod cancel_seen;
mod capacity;
mod dedup_bounded;
mod effect_once;
mod evenly;
mod hooks;
mod limits;
mod no_lost_task;
mod order;
mod paused;
mod rerun;
mod results;
mod resume_point;
mod retention;
mod retry_bounded;
mod settle;
mod shown;
mod single_owner;
mod start_rule;
mod stops;
mod stored;
mod tokens;
mod vars;

pub(crate) use start_rule::{Standing, holds, standing};

use flowkit_memory::Tables;

use crate::history::Event;
use crate::ledger::Ledger;
use crate::plan::{NodePlan, Plan, TaskPlan, WorkerPlan};

/// A broken promise.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Broken {
    /// The promise.
    pub(crate) promise: &'static str,
    /// True time in microseconds.
    pub(crate) at: u64,
    /// What was seen.
    pub(crate) what: String,
}

impl Broken {
    pub(crate) fn new(promise: &'static str, at: u64, what: impl Into<String>) -> Self {
        Self {
            promise,
            at,
            what: what.into(),
        }
    }
}

/// What a judge sees of a run while it goes on.
pub(crate) struct View<'a> {
    pub(crate) plan: &'a Plan,
    /// Committed records, the event's own commit included.
    pub(crate) ledger: &'a Ledger,
    pub(crate) event: &'a Event,
    pub(crate) broken: &'a mut Vec<Broken>,
}

impl View<'_> {
    fn broken(&mut self, promise: &'static str, what: impl Into<String>) {
        self.broken.push(Broken::new(promise, self.event.at, what));
    }

    fn task(&self, id: &str) -> Option<&TaskPlan> {
        task_plan(self.plan, id)
    }

    fn node(&self, task: &str, node: &str) -> Option<&NodePlan> {
        self.task(task)?.graph.node(node)
    }
}

fn task_plan<'p>(plan: &'p Plan, id: &str) -> Option<&'p TaskPlan> {
    plan.tasks.iter().find(|task| task.id == id)
}

/// A worker of the plan; one that came back under another id keeps the stem.
fn worker_plan<'p>(plan: &'p Plan, id: &str) -> Option<&'p WorkerPlan> {
    let mut stem = id;
    loop {
        let mut workers = plan.world.workers.iter();
        let worker = workers.find(|worker| worker.id == stem);
        if worker.is_some() {
            return worker;
        }
        stem = stem.strip_suffix('x')?;
    }
}

/// What a judge sees at the end of a run.
pub(crate) struct Finish<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) now: u64,
    /// Every client got its last answer in time.
    pub(crate) settled: bool,
    /// The durable tables of the store.
    pub(crate) tables: &'a Tables,
    pub(crate) ledger: &'a Ledger,
}

/// A judge of one promise.
trait Judge {
    fn event(&mut self, view: &mut View<'_>);
    fn finish(&mut self, _finish: &Finish<'_>, _broken: &mut Vec<Broken>) {}
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Judges {
    single_owner: single_owner::SingleOwner,
    tokens: tokens::Tokens,
    no_lost_task: no_lost_task::NoLostTask,
    effect_once: effect_once::EffectOnce,
    resume_point: resume_point::ResumePoint,
    bodies: bodies::Bodies,
    cancel_final: cancel_final::CancelFinal,
    dedup_bounded: dedup_bounded::DedupBounded,
    start_rule: start_rule::StartRule,
    retry_bounded: retry_bounded::RetryBounded,
    capacity: capacity::Capacity,
    evenly: evenly::Evenly,
    paused: paused::Paused,
    order: order::Order,
    limits: limits::Limited,
    as_reported: as_reported::AsReported,
    announced: announced::Announced,
    answered: answered::Answered,
    at_rest: at_rest::AtRest,
    cancel_seen: cancel_seen::CancelSeen,
    hooks: hooks::Hooks,
    rerun: rerun::Reruns,
    retention: retention::Retention,
    results: results::Results,
    stops: stops::Stops,
    stored: stored::Stored,
    vars: vars::Vars,
    settle: settle::Settle,
    shown: shown::Looks,
}

impl Judges {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            single_owner: single_owner::SingleOwner::default(),
            tokens: tokens::Tokens::default(),
            no_lost_task: no_lost_task::NoLostTask::default(),
            effect_once: effect_once::EffectOnce,
            resume_point: resume_point::ResumePoint::default(),
            bodies: bodies::Bodies::default(),
            cancel_final: cancel_final::CancelFinal::default(),
            dedup_bounded: dedup_bounded::DedupBounded::default(),
            start_rule: start_rule::StartRule,
            retry_bounded: retry_bounded::RetryBounded::default(),
            capacity: capacity::Capacity::default(),
            evenly: evenly::Evenly::new(plan),
            paused: paused::Paused::default(),
            order: order::Order::default(),
            limits: limits::Limited::default(),
            as_reported: as_reported::AsReported::default(),
            announced: announced::Announced::default(),
            answered: answered::Answered::default(),
            at_rest: at_rest::AtRest::default(),
            cancel_seen: cancel_seen::CancelSeen::new(plan),
            hooks: hooks::Hooks::default(),
            rerun: rerun::Reruns,
            retention: retention::Retention::default(),
            results: results::Results,
            stops: stops::Stops::default(),
            stored: stored::Stored::default(),
            vars: vars::Vars::default(),
            settle: settle::Settle::default(),
            shown: shown::Looks::default(),
        }
    }

    fn each(&mut self, mut f: impl FnMut(&mut dyn Judge)) {
        // Before `start_rule`, which sees a grant of a paused task too.
        f(&mut self.paused);
        f(&mut self.single_owner);
        f(&mut self.tokens);
        f(&mut self.effect_once);
        f(&mut self.resume_point);
        f(&mut self.bodies);
        f(&mut self.cancel_final);
        f(&mut self.dedup_bounded);
        f(&mut self.start_rule);
        f(&mut self.retry_bounded);
        f(&mut self.capacity);
        f(&mut self.evenly);
        f(&mut self.order);
        f(&mut self.limits);
        f(&mut self.as_reported);
        f(&mut self.announced);
        f(&mut self.answered);
        f(&mut self.shown);
        f(&mut self.at_rest);
        f(&mut self.cancel_seen);
        f(&mut self.hooks);
        f(&mut self.rerun);
        f(&mut self.retention);
        f(&mut self.results);
        f(&mut self.stops);
        f(&mut self.stored);
        f(&mut self.vars);
        // What did not settle is told before that it did not reach its end.
        f(&mut self.settle);
        f(&mut self.no_lost_task);
    }

    pub(crate) fn event(
        &mut self,
        plan: &Plan,
        ledger: &Ledger,
        event: &Event,
        broken: &mut Vec<Broken>,
    ) {
        let mut view = View {
            plan,
            ledger,
            event,
            broken,
        };
        self.each(|judge| judge.event(&mut view));
    }

    pub(crate) fn finish(&mut self, finish: &Finish<'_>, broken: &mut Vec<Broken>) {
        self.each(|judge| judge.finish(finish, broken));
    }

    /// Longest time in microseconds that two handlers of one node overlapped.
    pub(crate) fn overlap_us(&self) -> u64 {
        self.single_owner.overlap_us
    }
}
