//! Generated sequences of operations, each under a seed of its own, several at once.

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Operations that are compared where nobody asks for another number.
const OPERATIONS_DEFAULT: u64 = 10_000;
/// Runs that a difference is made shorter with.
const SHRINK_RUNS: u32 = 400;
/// Longest time for it where nobody asks for another one.
const SHRINK_MS_DEFAULT: u32 = 90_000;

const OPERATIONS: &str = "FLOWKIT_FIDELITY_OPERATIONS";
const SEED: &str = "FLOWKIT_FIDELITY_SEED";

/// How much is compared.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// At least so many operations.
    pub operations: u64,
    /// Seed of the first sequence; the next one has the next seed.
    pub seed: u64,
    /// Sequences under way at once.
    pub at_once: usize,
    /// Longest time for making a difference shorter, in milliseconds.
    pub shrink_ms: u32,
}

impl Budget {
    /// `FLOWKIT_FIDELITY_OPERATIONS` (10,000) from `FLOWKIT_FIDELITY_SEED` (a fresh one) on.
    ///
    /// # Panics
    /// If one of them is no number.
    #[must_use]
    pub fn of_environment(at_once: usize) -> Self {
        // Short enough to be typed.
        let fresh = RandomState::new().hash_one(std::process::id()) >> 24;
        Self {
            operations: number(OPERATIONS).unwrap_or(OPERATIONS_DEFAULT),
            seed: number(SEED).unwrap_or(fresh),
            at_once,
            shrink_ms: SHRINK_MS_DEFAULT,
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is {value:?}, not a number")))
}

/// What was compared, and found the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Generated operations whose answers were compared.
    pub operations: u64,
    /// The sequences that they came in.
    pub sequences: u64,
}

/// The first sequence that was found to differ, as short as it could be made.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Its seed.
    pub seed: u64,
    /// What differs, and after which operations.
    pub text: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, text } = self;
        write!(
            f,
            "{text}\nagain: this test with {SEED}={seed} {OPERATIONS}=1 \
             (servers: cargo xtask fidelity --seed {seed} --operations 1)"
        )
    }
}

/// Runs sequences until enough operations were compared, or a difference is found.
pub(super) fn explore<S: Strategy>(
    budget: Budget,
    sequences: impl Fn() -> S + Sync,
    compare: impl Fn(&S::Value) -> Result<u64, String> + Sync,
) -> Result<Compared, Difference> {
    let (begun, ended) = (AtomicU64::new(0), AtomicU64::new(0));
    let operations = AtomicU64::new(0);
    let found: Mutex<Option<Difference>> = Mutex::default();
    let lock = || found.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        while operations.load(Ordering::Relaxed) < budget.operations && lock().is_none() {
            let seed = budget
                .seed
                .wrapping_add(begun.fetch_add(1, Ordering::Relaxed));
            match one(seed, budget.shrink_ms, &sequences(), &compare) {
                Ok(count) => {
                    operations.fetch_add(count, Ordering::Relaxed);
                    ended.fetch_add(1, Ordering::Relaxed);
                }
                Err(difference) => {
                    lock().get_or_insert(difference);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..budget.at_once.max(1) {
            scope.spawn(work);
        }
    });
    let found = lock().take();
    found.map_or_else(
        || {
            Ok(Compared {
                operations: operations.load(Ordering::Relaxed),
                sequences: ended.load(Ordering::Relaxed),
            })
        },
        Err,
    )
}

/// The sequence of one seed.
fn one<S: Strategy>(
    seed: u64,
    shrink_ms: u32,
    sequences: &S,
    compare: impl Fn(&S::Value) -> Result<u64, String>,
) -> Result<u64, Difference> {
    let config = Config {
        failure_persistence: None,
        max_shrink_iters: SHRINK_RUNS,
        max_shrink_time: shrink_ms,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let differs = |text| Difference { seed, text };
    let tree = sequences.new_tree(&mut runner);
    let tree = tree.map_err(|reason| differs(format!("no sequence: {reason}")))?;
    let operations = Cell::new(0);
    let outcome = runner.run_one(tree, |steps| {
        operations.set(compare(&steps).map_err(TestCaseError::fail)?);
        Ok(())
    });
    match outcome {
        Ok(_) => Ok(operations.get()),
        Err(TestError::Fail(reason, steps)) => Err(differs(format!("{reason}\nafter {steps:#?}"))),
        Err(TestError::Abort(reason)) => Err(differs(format!("given up: {reason}"))),
    }
}

/// Says what was compared on `what`, past the test runner, which would keep it to itself.
///
/// # Panics
/// If a difference was found, or less was compared than asked for.
pub fn conclude(what: &str, budget: Budget, outcome: &Result<Compared, Difference>) {
    let seed = budget.seed;
    let compared = match outcome {
        Ok(compared) => compared,
        Err(difference) => panic!("{what} and its model differ (first seed {seed}): {difference}"),
    };
    assert!(
        compared.operations >= budget.operations,
        "too few operations on {what}: {compared:?} for {budget:?}"
    );
    let line = format!(
        "fidelity: {} operations compared on {what} (seed {seed}, {} sequences): no difference\n",
        grouped(compared.operations),
        grouped(compared.sequences),
    );
    // `cargo xtask fidelity` reads this line. Where nobody hears it, it is not needed.
    let _ = std::io::stdout().write_all(line.as_bytes());
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;

    fn budget() -> Budget {
        Budget {
            operations: 1_000,
            seed: 7,
            at_once: 3,
            shrink_ms: SHRINK_MS_DEFAULT,
        }
    }

    #[test]
    fn enough_is_compared_and_counted() {
        let compared = explore(
            budget(),
            || vec(0..100_u8, 1..20),
            |steps| Ok(steps.len() as u64),
        );
        let compared = compared.expect("nothing differs");
        assert!(compared.operations >= 1_000 && compared.sequences > 50);
    }

    #[test]
    fn a_difference_is_made_short_and_its_seed_finds_it_again() {
        let sequences = || vec(0..100_u8, 1..40);
        let compare = |steps: &Vec<u8>| match steps.iter().find(|step| **step > 90) {
            Some(step) => Err(format!("{step} differs")),
            None => Ok(steps.len() as u64),
        };
        let found = explore(budget(), sequences, compare).expect_err("some are above 90");
        assert!(
            found.text.contains("91 differs\nafter [\n    91,\n]"),
            "{found}"
        );
        assert!(
            found
                .to_string()
                .contains(&format!("--seed {} ", found.seed))
        );
        let again = Budget {
            seed: found.seed,
            operations: 1,
            ..budget()
        };
        let again = explore(again, sequences, compare).expect_err("the same one");
        assert_eq!(again.text, found.text);
    }

    #[test]
    #[should_panic(expected = "too few operations")]
    fn too_few_operations_fail() {
        let few = Compared {
            operations: 999,
            sequences: 1,
        };
        conclude("nothing", budget(), &Ok(few));
    }

    #[test]
    fn thousands_stand_apart() {
        let texts = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }
}
