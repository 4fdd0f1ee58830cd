//! What came of a simulation, for people.

use std::collections::BTreeMap;
use std::fmt;

/// What came of a simulation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Seeds in which everything held.
    pub held: u64,
    /// What the first seed broke that did not hold.
    pub found: Option<Found>,
    /// How often each family of faults struck, over all seeds: what never struck was not tried.
    pub fired: BTreeMap<String, u64>,
}

/// Something that broke.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// Seeds that held before it.
    pub seeds_before: u64,
    /// A promise of the engine by its name in the README, `effect_twice`, `verify`, `determinism` or `roles`.
    pub promise: String,
    /// What was seen.
    pub what: String,
    /// The fewest faults that were found to break it, single calls that went wrong among them.
    pub faults: Vec<String>,
    /// What happened, a row each.
    pub history: Vec<String>,
}

impl Report {
    /// Something was run, and everything held.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.held > 0 && self.found.is_none()
    }
}

/// Rows that a report shows.
const ROWS_MAX: usize = 120;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(found) = &self.found else {
            return match self.held {
                0 => f.write_str("no seed was run: a simulation of none proves nothing"),
                held => write!(f, "{held} seeds held"),
            };
        };
        write!(f, "{found}")
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seed, before) = (self.seed, self.seeds_before);
        writeln!(
            f,
            "{} (seed {seed}, after {before} that held)",
            self.promise
        )?;
        writeln!(f, "\n{}", self.what)?;
        if let Some(cure) = self.cure() {
            writeln!(f, "\ncure: {cure}")?;
        }
        match self.faults.len() {
            0 => writeln!(f, "\nit takes no fault")?,
            n => writeln!(f, "\nit takes {n} faults:")?,
        }
        for fault in &self.faults {
            writeln!(f, "  {fault}")?;
        }
        writeln!(f, "\nwhat happened:")?;
        let hidden = self.history.len().saturating_sub(ROWS_MAX);
        if hidden > 0 {
            writeln!(f, "  ({hidden} rows before)")?;
        }
        for row in &self.history[hidden..] {
            writeln!(f, "{row}")?;
        }
        write!(
            f,
            "\nagain: FLOWKIT_SIM_SEED={seed}, or .seeds({seed}..{})",
            seed + 1
        )
    }
}

impl Found {
    /// Something that needs no seed to be wrong.
    pub(super) fn before_any_seed(promise: &str, what: String) -> Self {
        Self {
            seed: 0,
            seeds_before: 0,
            promise: promise.to_owned(),
            what,
            faults: Vec::new(),
            history: Vec::new(),
        }
    }

    fn cure(&self) -> Option<&'static str> {
        Some(match self.promise.as_str() {
            "effect_twice" => {
                "a batch is processed at least once and counted exactly once. Give the outside \
                 system a key that is the same in every attempt (`cx.idempotency_key()`), or look \
                 there whether the effect has happened before you repeat it"
            }
            "determinism" => {
                "use `tokio::time` instead of the system's clock, seeds instead of the system's \
                 randomness, `biased;` in `tokio::select!`"
            }
            "settle" => {
                "a handler that waits for ever holds its node for ever: listen to \
                 `cx.cancelled()`, and give up after a time of your own. If the work takes long, say \
                 how long: `.patience(…)`"
            }
            _ => return None,
        })
    }
}
