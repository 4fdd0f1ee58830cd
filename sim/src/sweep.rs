//! The exhaustive crash sweep: one plan's life, with a crash at every effect of every process.

use serde::{Deserialize, Serialize};

use crate::plan::{Fault, Plan, When};
use crate::tier0::{Failure, check};

/// What came of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SweepReport {
    /// Crashes that struck: (host, effect, how long it stayed down), or pairs of them.
    pub points: u64,
    /// Those after which every promise held.
    pub survived: u64,
    /// The first failure of each of the others, with where the crash struck.
    pub failures: Vec<(String, Failure)>,
}

impl SweepReport {
    /// `N of N points survived`.
    #[must_use]
    pub fn summary(&self) -> String {
        format!("{} of {} points survived", self.survived, self.points)
    }

    /// No point broke a promise, and there was one.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.points > 0 && self.survived == self.points
    }

    fn add(&mut self, plan: &Plan, crashes: u64, place: impl FnOnce() -> String) {
        let verdict = check(plan, false);
        // A crash that never struck is no point: after an earlier one a host may do less.
        let struck = verdict.fired.get("crash").copied().unwrap_or(0);
        if struck < crashes && verdict.holds() {
            return;
        }
        self.points += 1;
        match verdict.failures.into_iter().next() {
            None => self.survived += 1,
            Some(failure) => self.failures.push((place(), failure)),
        }
    }
}

/// Effects of each host in the plan's own life, without further faults.
fn life(plan: &Plan) -> Vec<u64> {
    check(plan, false).effects
}

fn crash(host: usize, nth: u64, down_ms: u64) -> Fault {
    Fault::Crash {
        host: u32::try_from(host).unwrap_or(u32::MAX),
        when: When::Effect { nth },
        down_ms,
        new_id: false,
    }
}

/// Crashes each process right after each of its effects, once per length of its absence.
#[must_use]
pub fn every_effect(plan: &Plan, down_ms: &[u64]) -> SweepReport {
    let mut report = SweepReport::default();
    for (host, &effects) in life(plan).iter().enumerate() {
        for nth in 1..=effects {
            for &down in down_ms {
                let crashed = plan.clone().with(crash(host, nth, down));
                report.add(&crashed, 1, || {
                    format!("host {host}, effect {nth}, down {down}")
                });
            }
        }
    }
    report
}

/// Crashes twice: at every `stride`-th pair of (host, effect) points, back after `down_ms`.
///
/// Strides that share no factor with the number of points reach different pairs.
#[must_use]
pub fn pairs(plan: &Plan, down_ms: u64, stride: usize) -> SweepReport {
    let life = life(plan);
    let points: Vec<(usize, u64)> = life
        .iter()
        .enumerate()
        .flat_map(|(host, &effects)| (1..=effects).map(move |nth| (host, nth)))
        .collect();
    let mut report = SweepReport::default();
    let pairs = points.len() * points.len();
    for at in (0..pairs).step_by(stride.max(1)) {
        let (first, second) = (points[at / points.len()], points[at % points.len()]);
        let crashed = plan
            .clone()
            .with(crash(first.0, first.1, down_ms))
            .with(crash(second.0, second.1, down_ms));
        report.add(&crashed, 2, || {
            format!("{first:?} and {second:?}, down {down_ms}")
        });
    }
    report
}
