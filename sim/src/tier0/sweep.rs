//! The exhaustive crash sweep: one plan, run again and again, each time with a crash right after
//! another effect of another process. What survives every point survives a crash anywhere.

use serde::{Deserialize, Serialize};

use super::report::Verdict;
use super::{check, outcome};
use crate::plan::{Fault, Plan, When};

/// How long a crashed process of the sweep stays down, in milliseconds.
const DOWN_MS: u64 = 300;

/// What a sweep found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepReport {
    /// Crash points tried.
    pub points: u64,
    /// Crash points after which every promise held.
    pub survived: u64,
    /// Points that did not survive: host, effect, verdict. At most ten are kept.
    pub failed: Vec<(u32, u64, Verdict)>,
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
        for (host, effect, verdict) in &self.failed {
            write!(
                f,
                "\nhost {host}, right after effect {effect}: {:?}",
                verdict.failures
            )?;
        }
        Ok(())
    }
}

/// Effects of each host when the plan runs as it is.
///
/// # Panics
/// When the plan breaks a promise before any crash is added.
#[must_use]
pub fn effects_of(plan: &Plan) -> Vec<u64> {
    match outcome(plan, false) {
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
pub fn crashed_after(plan: &Plan, host: u32, nth: u64) -> Plan {
    let when = When::Effect { nth };
    plan.clone().with(Fault::Crash {
        host,
        when,
        down_ms: DOWN_MS,
        new_id: false,
    })
}

/// Crashes every process of the plan right after every effect it has, one run each.
///
/// # Panics
/// When the plan breaks a promise before any crash is added.
#[must_use]
pub fn crash_everywhere(plan: &Plan) -> SweepReport {
    let mut report = SweepReport {
        points: 0,
        survived: 0,
        failed: Vec::new(),
    };
    for (host, effects) in (0_u32..).zip(effects_of(plan)) {
        for nth in 1..=effects {
            report.points += 1;
            let verdict = check(&crashed_after(plan, host, nth), false);
            if verdict.failures.is_empty() {
                report.survived += 1;
            } else if report.failed.len() < 10 {
                report.failed.push((host, nth, verdict));
            }
        }
    }
    report
}
