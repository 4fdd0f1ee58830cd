//! What came of a simulation, for people.

use std::collections::BTreeMap;
use std::fmt;

use crate::plan::Plan;
use crate::runner::MET;

/// What came of a simulation.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Seeds in which everything held.
    pub held: u64,
    /// What the first seed broke that did not hold.
    pub found: Option<Found>,
    /// How often each family of faults struck, over all seeds: what never struck was not tried.
    pub fired: BTreeMap<String, u64>,
    /// Seeds that held and had faults to strike with.
    pub drawn: u64,
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
    /// It broke again when the seed was run again; if not, nobody knows which faults it takes.
    pub repeats: bool,
    /// What happened, a row each.
    pub history: Vec<String>,
}

/// Some fault strikes in nearly every seed that has faults: if none does in so many of them, faults
/// are not carried out. Fewer are left alone, since a look at a few seeds must not fail for that.
const TELLING: u64 = 20;

impl Report {
    /// Something was run, and everything held, though faults struck (in a few seeds they need not).
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.held > 0 && self.found.is_none() && !self.is_untried()
    }

    /// Not one fault struck in many seeds that had some: nothing was tried.
    fn is_untried(&self) -> bool {
        self.fired.is_empty() && self.drawn >= TELLING
    }

    /// A seed held.
    pub(super) fn hold(&mut self, plan: &Plan) {
        self.held += 1;
        self.drawn += u64::from(!plan.faults.is_empty() || !plan.rates.is_quiet());
    }

    /// What struck in a seed.
    pub(super) fn strike(&mut self, fired: &BTreeMap<&'static str, u64>) {
        for (family, times) in fired {
            if !MET.contains(family) {
                *self.fired.entry((*family).to_owned()).or_default() += times;
            }
        }
    }

    /// What struck, and how often.
    fn struck(&self) -> String {
        let entries = self.fired.iter();
        let entries: Vec<String> = entries.map(|(family, n)| format!("{family} {n}")).collect();
        let lines = entries.chunks(ON_LINE);
        let lines: Vec<String> = lines.map(|line| line.join(", ")).collect();
        match &lines[..] {
            [] => "no fault struck".to_owned(),
            lines => format!("what struck, and how often:\n  {}", lines.join(",\n  ")),
        }
    }
}

/// Kinds of faults that stand on one line.
const ON_LINE: usize = 5;
/// Rows that a report shows.
const ROWS_MAX: usize = 120;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(found) = &self.found else {
            let (held, drawn) = (self.held, self.drawn);
            return match held {
                0 => f.write_str("no seed was run: a simulation of none proves nothing"),
                _ if self.is_untried() => write!(
                    f,
                    "{held} seeds held, but not one fault struck in the {drawn} that had some: this \
                     proves nothing, and is a bug of the simulation"
                ),
                1 => write!(f, "1 seed held; {}", self.struck()),
                _ => write!(f, "{held} seeds held; {}", self.struck()),
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
            // That is all that is wrong.
            _ if self.promise == "determinism" => {}
            _ if !self.repeats => writeln!(f, "\n{NOT_AGAIN}")?,
            0 => writeln!(f, "\nit takes no fault")?,
            1 => writeln!(f, "\nit takes 1 fault:")?,
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

const NOT_AGAIN: &str = "it did not break when the seed was run again, so which faults it takes is not \
                         known: a handler looks at something that is not simulated";

impl Found {
    /// Something that needs no seed to be wrong.
    pub(super) fn before_any_seed(promise: &str, what: String) -> Self {
        Self {
            seed: 0,
            seeds_before: 0,
            promise: promise.to_owned(),
            what,
            faults: Vec::new(),
            repeats: true,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// So many seeds with faults held.
    fn held(seeds: u64) -> Report {
        let mut report = Report::default();
        let mut plan = Plan::small();
        plan.rates.read_lost = 1;
        for _ in 0..seeds {
            report.hold(&plan);
        }
        report
    }

    #[test]
    fn many_seeds_in_which_no_fault_struck_prove_nothing_but_a_look_at_a_few_is_well() {
        assert!(held(1).is_clean());
        assert_eq!(held(1).to_string(), "1 seed held; no fault struck");
        assert!(held(TELLING - 1).is_clean());
        let many = held(TELLING);
        assert!(!many.is_clean());
        let text = many.to_string();
        assert!(text.contains("not one fault struck in the 20"), "{text}");
        let mut cancelled = held(TELLING);
        cancelled.strike(&BTreeMap::from([("cancel_of_running", 9)]));
        assert!(!cancelled.is_clean(), "what a user asks for is no fault");
        let mut struck = held(TELLING);
        struck.strike(&BTreeMap::from([("crash", 1)]));
        assert!(struck.is_clean());
    }

    #[test]
    fn seeds_without_faults_in_them_need_none_to_strike() {
        let mut report = Report::default();
        for _ in 0..100 {
            report.hold(&Plan::small());
        }
        assert!(report.is_clean());
        assert_eq!(report.drawn, 0);
    }

    #[test]
    fn what_struck_is_told_with_how_often() {
        let mut report = held(3);
        let seeds = [
            BTreeMap::from([("crash", 2), ("stall", 1), ("hold", 1)]),
            BTreeMap::from([("crash", 1), ("twin", 1), ("poison", 4), ("swept", 1)]),
            BTreeMap::from([("wall_step", 7)]),
        ];
        for fired in &seeds {
            report.strike(fired);
        }
        assert_eq!(
            report.to_string(),
            "3 seeds held; what struck, and how often:\n  \
             crash 3, hold 1, poison 4, stall 1, twin 1,\n  wall_step 7"
        );
    }
}
