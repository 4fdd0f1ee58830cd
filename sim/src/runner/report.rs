//! What comes of runs, as data.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Tier, replay_line};
use crate::checkers::Broken;
use crate::outcome::Outcome;
use crate::plan::Plan;

/// Families of faults that must have fired in a run of many seeds.
fn families(tier: Tier) -> impl Iterator<Item = &'static &'static str> {
    let own = match tier {
        Tier::Zero => ZERO,
        Tier::One => ONE,
    };
    BOTH.iter().chain(own)
}

/// What only the machines' world has.
const ZERO: &[&str] = &["broker_away", "handler_blocks", "store_away"];

/// What only hosts on a network have.
const ONE: &[&str] = &[
    "broker_frozen",
    "broker_restarted",
    "client_crash",
    "client_hold",
    "client_partition",
    "client_stall",
    "client_wall_step",
    "function_panics",
    "machine_panic",
    "store_frozen",
    "store_restarted",
];

const BOTH: &[&str] = &[
    "append_lost",
    "append_overtaken",
    "append_refused",
    "append_twice",
    "broker_slow",
    "client_reply_lost",
    "commit_fenced",
    "commit_repeated",
    "confirm_late",
    "confirm_lost",
    "crash",
    "crash_new_id",
    "gone",
    "handler_hangs",
    "handler_hook_trouble",
    "handler_ignores_cancel",
    "handler_panics",
    "handler_panics_naming",
    "handler_permanent",
    "handler_slow",
    "handler_transient",
    "hold",
    "inbox_lost",
    "log_lost",
    "message_slow",
    "partition_broker",
    "partition_replies",
    "partition_requests",
    "partition_store",
    "poison",
    "power_loss",
    "read_lost",
    "refuse_batches",
    "refuse_commit",
    "refuse_task",
    "refuse_writes",
    "rot_node",
    "rot_task",
    "rot_worker",
    "shutdown",
    "stall",
    "stall_past_lease",
    "store_clock",
    "store_late",
    "store_lost",
    "store_refused",
    "store_reply_lost",
    "store_slow",
    "superseded",
    "twin",
    "unsynced_lost",
    "wall_step",
    "zombie_owner",
];

/// What must have been met although it is no fault: what users ask for at any time, and what takes long.
pub(crate) const MET: &[&str] = &[
    "cancel_of_running",
    "large_artifact",
    "pause_of_running",
    "submitted_again",
    "swept",
];

/// A broken promise of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The seed of the plan.
    pub seed: u64,
    /// The promise, by the name in the README.
    pub promise: String,
    /// What was seen.
    pub explanation: String,
    /// True time in the run, in milliseconds.
    pub at_ms: u64,
    /// The line that replays it.
    pub replay: String,
}

impl Failure {
    fn of(tier: Tier, seed: u64, broken: &Broken) -> Self {
        Self {
            seed,
            promise: broken.promise.to_owned(),
            explanation: broken.what.clone(),
            at_ms: broken.at / 1_000,
            replay: replay_line(tier, seed),
        }
    }
}

/// The words of a panic that left nothing else.
pub(super) fn panicked(panic: &str) -> String {
    format!("a machine panicked: {panic}")
}

/// What came of one plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Broken promises; empty = all held.
    pub failures: Vec<Failure>,
    /// How often each fault took effect, by family.
    pub fired: BTreeMap<String, u64>,
    /// Hash over everything that happened.
    pub trace_hash: u64,
    /// Virtual time of the run.
    pub virtual_ms: u64,
    /// Time from healing until every task was settled.
    pub settled_after_ms: Option<u64>,
    /// Longest time two handlers of one node overlapped.
    pub overlap_ms: u64,
    /// Effects of each host until every client had its last answer: where a crash can strike.
    pub effects: Vec<u64>,
}

impl Verdict {
    pub(super) fn of(tier: Tier, plan: &Plan, outcome: &Outcome, more: Option<Broken>) -> Self {
        let broken = outcome.broken.iter().chain(more.as_ref());
        let fired = outcome.fired.iter();
        Self {
            failures: broken
                .map(|broken| Failure::of(tier, plan.seed, broken))
                .collect(),
            fired: fired.map(|(name, n)| ((*name).to_owned(), *n)).collect(),
            trace_hash: outcome.trace_hash,
            virtual_ms: outcome.ended_ms,
            settled_after_ms: outcome.settled_after_ms,
            overlap_ms: outcome.overlap_ms,
            effects: outcome.effects.clone(),
        }
    }

    pub(super) fn panicked(tier: Tier, plan: &Plan, panic: &str) -> Self {
        let broken = Broken::new("no_panic", 0, panicked(panic));
        Self {
            failures: vec![Failure::of(tier, plan.seed, &broken)],
            fired: BTreeMap::new(),
            trace_hash: 0,
            virtual_ms: 0,
            settled_after_ms: None,
            overlap_ms: 0,
            effects: Vec::new(),
        }
    }

    /// Every promise held.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.failures.is_empty()
    }
}

/// How far a run of seeds is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Seeds done.
    pub done: u64,
    /// Seeds to do.
    pub total: u64,
    /// Failures so far.
    pub failures: usize,
    /// Seeds per second of this thread.
    pub seeds_per_s: f64,
    /// Tasks that lived through at least one fault, per second of this thread.
    pub faulted_task_lives_per_s: f64,
}

/// What came of a run of seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The tier.
    pub tier: Tier,
    /// First seed.
    pub first_seed: u64,
    /// Seeds run (some of them twice).
    pub seeds: u64,
    /// Seeds whose plan had another shape than asked for.
    pub passed_over: u64,
    /// Broken promises.
    pub failures: Vec<Failure>,
    /// Time the run took on this thread.
    pub elapsed_ms: u64,
    /// Seeds per second of this thread.
    pub seeds_per_s: f64,
    /// Tasks of runs in which at least one fault struck.
    pub faulted_task_lives: u64,
    /// The same per second of this thread (second runs count as time, not as lives).
    pub faulted_task_lives_per_core_s: f64,
    /// Virtual time of all runs.
    pub virtual_ms: u64,
    /// How often each fault took effect, by family.
    pub fired: BTreeMap<String, u64>,
    /// Families that never took effect; must be empty over many seeds.
    pub never_fired: Vec<String>,
    /// Longest time from healing until every task was settled, by family of faults that fired;
    /// `none` = seeds without any.
    pub worst_settle_ms: BTreeMap<String, u64>,
    /// The same of the seeds in which no other family fired: the work that was left is part of it, as
    /// it is of `none`.
    pub worst_settle_alone_ms: BTreeMap<String, u64>,
    /// Longest time two handlers of one node overlapped.
    pub worst_overlap_ms: u64,
    /// Hash over the trace hashes of all seeds.
    pub trace_hash: u64,
}

/// A replayed run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// The tier.
    pub tier: Tier,
    /// The seed of the plan.
    pub seed: u64,
    /// The plan.
    pub plan: Plan,
    /// One row per event.
    pub rows: Vec<String>,
    /// What came of it.
    pub verdict: Verdict,
}

/// Adds verdicts up.
pub(super) struct Meter {
    report: RunReport,
    total: u64,
    stopwatch: Stopwatch,
}

impl Meter {
    pub(super) fn start(tier: Tier, seeds: &Range<u64>) -> Self {
        Self {
            report: RunReport {
                tier,
                first_seed: seeds.start,
                seeds: 0,
                passed_over: 0,
                failures: Vec::new(),
                elapsed_ms: 0,
                seeds_per_s: 0.0,
                faulted_task_lives: 0,
                faulted_task_lives_per_core_s: 0.0,
                virtual_ms: 0,
                fired: BTreeMap::new(),
                never_fired: Vec::new(),
                worst_settle_ms: BTreeMap::new(),
                worst_settle_alone_ms: BTreeMap::new(),
                worst_overlap_ms: 0,
                trace_hash: 0,
            },
            total: seeds.end.saturating_sub(seeds.start),
            stopwatch: Stopwatch::start(),
        }
    }

    pub(super) fn failures(&self) -> usize {
        self.report.failures.len()
    }

    /// A seed was not run: its plan has another shape.
    pub(super) fn pass_over(&mut self) {
        self.report.passed_over += 1;
    }

    pub(super) fn add(&mut self, seed: u64, plan: &Plan, verdict: &Verdict) {
        let report = &mut self.report;
        report.seeds += 1;
        report.failures.extend(verdict.failures.first().cloned());
        report.virtual_ms += verdict.virtual_ms;
        let struck = families(report.tier).filter(|name| verdict.fired.contains_key(**name));
        let struck: Vec<&str> = struck.copied().collect();
        if !struck.is_empty() {
            report.faulted_task_lives += plan.tasks.len() as u64;
        }
        for (family, times) in &verdict.fired {
            *report.fired.entry(family.clone()).or_default() += times;
        }
        if let Some(settled) = verdict.settled_after_ms {
            let settles = |of: &mut BTreeMap<String, u64>, family: &str| {
                let worst = of.entry(family.to_owned()).or_default();
                *worst = settled.max(*worst);
            };
            for family in verdict.fired.keys() {
                settles(&mut report.worst_settle_ms, family);
            }
            match struck[..] {
                [] => {
                    settles(&mut report.worst_settle_ms, "none");
                    settles(&mut report.worst_settle_alone_ms, "none");
                }
                [alone] => settles(&mut report.worst_settle_alone_ms, alone),
                _ => {}
            }
        }
        report.worst_overlap_ms = report.worst_overlap_ms.max(verdict.overlap_ms);
        let parts = [report.trace_hash, seed, verdict.trace_hash];
        let parts: Vec<[u8; 8]> = parts.iter().map(|part| part.to_le_bytes()).collect();
        let parts: Vec<&[u8]> = parts.iter().map(|part| &part[..]).collect();
        report.trace_hash = flowkit_core::hash::stable64(&parts);
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            done: self.report.seeds + self.report.passed_over,
            total: self.total,
            failures: self.report.failures.len(),
            seeds_per_s: self.stopwatch.per_s(self.report.seeds),
            faulted_task_lives_per_s: self.stopwatch.per_s(self.report.faulted_task_lives),
        }
    }

    pub(super) fn report(self) -> RunReport {
        let mut report = self.report;
        report.elapsed_ms = self.stopwatch.elapsed_ms();
        report.seeds_per_s = self.stopwatch.per_s(report.seeds);
        report.faulted_task_lives_per_core_s = self.stopwatch.per_s(report.faulted_task_lives);
        let wanted = families(report.tier).chain(MET);
        let silent = wanted.filter(|name| !report.fired.contains_key(**name));
        report.never_fired = silent.map(|name| (*name).to_owned()).collect();
        report
    }
}

/// Measures the simulator's own speed; no run ever sees it.
pub(crate) struct Stopwatch {
    #[expect(
        clippy::disallowed_types,
        reason = "measures the simulator, is not seen by a run"
    )]
    started: std::time::Instant,
}

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "measures the simulator, is not seen by a run"
    )]
    pub(crate) fn start() -> Self {
        Self {
            started: std::time::Instant::now(),
        }
    }

    pub(crate) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn per_s(&self, count: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let count = count as f64;
        count / self.started.elapsed().as_secs_f64().max(1e-9)
    }
}
