//! The exhaustive crash sweep: one plan, run again and again, each time with a crash right after
//! another effect of another process. What survives every point survives a crash anywhere.

use serde::{Deserialize, Serialize};

use super::report::Verdict;
use super::{Tier, check, outcome};
use crate::plan::{Fault, Plan, When};

/// What a sweep found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepReport {
    /// Where it was run.
    pub tier: Tier,
    /// Crash points tried.
    pub points: u64,
    /// Crash points after which every promise held.
    pub survived: u64,
    /// Points that did not survive: where the crashes struck, and what broke. At most ten are kept.
    pub failed: Vec<(String, Verdict)>,
}

impl SweepReport {
    /// Every point survived, and there were some.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.points > 0 && self.survived == self.points
    }
}

impl std::fmt::Display for SweepReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "crash sweep: {} of {} points survived",
            self.survived, self.points
        )?;
        for (place, verdict) in &self.failed {
            write!(f, "\n{place}: {:?}", verdict.failures)?;
        }
        Ok(())
    }
}

impl SweepReport {
    fn add(&mut self, plan: &Plan, crashes: u64, place: impl FnOnce() -> String) {
        let verdict = check(self.tier, plan, false);
        let struck = verdict.fired.get("crash").copied().unwrap_or(0);
        if verdict.holds() && struck < crashes {
            // After an earlier crash a host may never come to that effect: no point.
            return;
        }
        self.points += 1;
        if verdict.holds() {
            self.survived += 1;
        } else if self.failed.len() < 10 {
            self.failed.push((place(), verdict));
        }
    }
}

/// Effects of each host until every client of the plan had its last answer.
///
/// # Panics
/// When the plan breaks a promise before any crash is added.
#[must_use]
pub fn effects_of(tier: Tier, plan: &Plan) -> Vec<u64> {
    match outcome(tier, plan, false) {
        Ok(outcome) => {
            assert!(
                outcome.broken.is_empty(),
                "the plan itself fails: {:?}",
                outcome.broken
            );
            outcome.effects
        }
        Err(panic) => panic!("the plan itself panics: {panic}"),
    }
}

/// The plan with a crash right after one effect of one host.
#[must_use]
pub fn crashed_after(plan: &Plan, host: u32, nth: u64, down_ms: u64) -> Plan {
    let when = When::Effect { nth };
    plan.clone().with(Fault::Crash {
        host,
        when,
        down_ms,
        new_id: false,
    })
}

fn empty(tier: Tier) -> SweepReport {
    SweepReport {
        tier,
        points: 0,
        survived: 0,
        failed: Vec::new(),
    }
}

fn points_of(tier: Tier, plan: &Plan) -> Vec<(u32, u64)> {
    let hosts = (0_u32..).zip(effects_of(tier, plan));
    hosts
        .flat_map(|(host, effects)| (1..=effects).map(move |nth| (host, nth)))
        .collect()
}

/// Crashes every process of the plan right after every effect it has, once for each length of its
/// absence in milliseconds, one run each.
///
/// # Panics
/// When the plan breaks a promise before any crash is added.
#[must_use]
pub fn crash_everywhere(tier: Tier, plan: &Plan, down_ms: &[u64]) -> SweepReport {
    let mut report = empty(tier);
    for (host, nth) in points_of(tier, plan) {
        for &down in down_ms {
            report.add(&crashed_after(plan, host, nth, down), 1, || {
                format!("host {host}, right after effect {nth}, down {down} ms")
            });
        }
    }
    report
}

/// Crashes twice: every `stride`-th pair of points, each crash `down_ms` long. A stride that shares
/// no factor with the number of points spreads over all of them.
///
/// # Panics
/// When the plan breaks a promise before any crash is added.
#[must_use]
pub fn crash_pairs(tier: Tier, plan: &Plan, down_ms: u64, stride: usize) -> SweepReport {
    let points = points_of(tier, plan);
    let mut report = empty(tier);
    let pairs = points.len() * points.len();
    for at in (0..pairs).step_by(stride.max(1)) {
        let (one, two) = (points[at / points.len()], points[at % points.len()]);
        let crashed = crashed_after(plan, one.0, one.1, down_ms);
        let crashed = crashed_after(&crashed, two.0, two.1, down_ms);
        report.add(&crashed, 2, || {
            format!("right after (host, effect) {one:?} and {two:?}, down {down_ms} ms")
        });
    }
    report
}
