//! Planted bugs: proof that the checkers can fail.
//!
//! Each bug of [`Bug::ALL`] is planted alone, and seeds are run until one breaks a promise. A seed
//! counts only if it holds every promise without the bug. The machines' own invariants are off
//! meanwhile (`core/src/planted.rs`), so what finds a bug is a checker of this crate, or an
//! assertion that also guards a release build.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

pub use flowkit_core::planted::plant;
use flowkit_core::planted::times_struck;
pub use flowkit_core::planted::{Bug, Reach};
use serde::Serialize;

use crate::runner::{self, Tier};

/// Bugs that fall within a few seeds, from different parts of the engine: what tests look for.
pub const SAMPLE: &[Bug] = &[
    Bug::SavedLost,
    Bug::FanInEarly,
    Bug::PermanentRetried,
    Bug::OldTokenAccepted,
    Bug::CheckpointUncounted,
    Bug::ResultLost,
    Bug::CheckpointAckedEarly,
    Bug::PanicUnanswered,
    Bug::RepliesOfOthers,
];

/// The tiers on which a bug can strike, the cheapest first; none = not in a simulation.
#[must_use]
pub const fn tiers_of(bug: Bug) -> &'static [Tier] {
    match bug.reach() {
        Reach::Machines => &[Tier::Zero, Tier::One],
        Reach::Processes => &[Tier::One],
        // Real processes' business: a test of the runtime plants them.
        Reach::Children => &[],
    }
}

/// What came of the hunt for one bug on one tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hunt {
    /// The bug's id.
    pub bug: &'static str,
    /// The part of the engine that it spoils.
    pub part: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Where it was hunted.
    pub tier: u8,
    /// The promise that its author expects to be broken.
    pub expected: &'static str,
    /// Absent: it survived.
    pub killed: Option<Kill>,
    /// Seeds run, the killing one included.
    pub seeds: u64,
    /// Seeds in which it decided something.
    pub struck: u64,
    /// Seeds that broke a promise with the bug, but do so without it too; must be empty.
    pub unclean: Vec<u64>,
    /// Time the hunt took.
    pub elapsed_ms: u64,
}

/// How a bug was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kill {
    /// The broken promise; `no_panic` = an assertion of a machine.
    pub promise: String,
    /// The seed.
    pub seed: u64,
    /// What the checker saw.
    pub explanation: String,
}

/// The verdicts of seeds without any bug, shared by hunts.
#[derive(Debug, Default)]
pub struct Baseline {
    holds: Mutex<BTreeMap<(Tier, u64), bool>>,
}

impl Baseline {
    /// Whether every promise holds in this seed's run without a bug.
    pub fn holds(&self, tier: Tier, seed: u64) -> bool {
        let known = |baseline: &Self| {
            let holds = baseline.holds.lock();
            holds.map_or(None, |holds| holds.get(&(tier, seed)).copied())
        };
        if let Some(holds) = known(self) {
            return holds;
        }
        plant(None);
        let verdict = runner::check(tier, &tier.plan(seed), false).holds();
        if let Ok(mut holds) = self.holds.lock() {
            holds.insert((tier, seed), verdict);
        }
        verdict
    }
}

/// Runs seeds with a bug planted in this thread until one breaks a promise.
pub fn hunt(bug: Bug, tier: Tier, seeds: Range<u64>, baseline: &Baseline) -> Hunt {
    let stopwatch = runner::Stopwatch::start();
    let mut hunt = Hunt {
        bug: bug.name(),
        part: bug.part(),
        about: bug.about(),
        tier: tier.number(),
        expected: bug.promise(),
        killed: None,
        seeds: 0,
        struck: 0,
        unclean: Vec::new(),
        elapsed_ms: 0,
    };
    for seed in seeds {
        hunt.seeds += 1;
        plant(Some(bug));
        let verdict = runner::check(tier, &tier.plan(seed), false);
        hunt.struck += u64::from(times_struck() > 0);
        let Some(failure) = verdict.failures.first() else {
            continue;
        };
        if !baseline.holds(tier, seed) {
            hunt.unclean.push(seed);
            continue;
        }
        hunt.killed = Some(Kill {
            promise: failure.promise.clone(),
            seed,
            explanation: failure.explanation.clone(),
        });
        break;
    }
    plant(None);
    hunt.elapsed_ms = stopwatch.elapsed_ms();
    hunt
}
