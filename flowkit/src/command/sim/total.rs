//! What all threads found together: is it well, and what is told of it.

use flowkit_sim::runner::{self, RunReport, Shape, Tier};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::command::table::thousands;

/// So many seeds meet every kind of fault.
const fn telling(tier: Tier) -> u64 {
    match tier {
        Tier::Zero => 5_000,
        Tier::One => 1_000,
    }
}

/// The reports of all chunks, added up.
#[derive(Clone)]
pub(super) struct Total {
    tier: Tier,
    /// Only plans of this shape were run.
    shape: Option<Shape>,
    first_seed: u64,
    cores: usize,
    started: Instant,
    pub(super) seeds: u64,
    passed_over: u64,
    pub(super) failures: Vec<runner::Failure>,
    faulted_task_lives: u64,
    /// Processor time of all threads together.
    core_time: Duration,
    virtual_ms: u64,
    fired: BTreeMap<String, u64>,
    never_fired: Option<Vec<String>>,
    worst_settle_ms: BTreeMap<String, u64>,
    worst_settle_alone_ms: BTreeMap<String, u64>,
    worst_overlap_ms: u64,
}

impl Total {
    pub(super) fn new(tier: Tier, shape: Option<Shape>, first_seed: u64, cores: usize) -> Self {
        Self {
            tier,
            shape,
            first_seed,
            cores,
            started: Instant::now(),
            seeds: 0,
            passed_over: 0,
            failures: Vec::new(),
            faulted_task_lives: 0,
            core_time: Duration::ZERO,
            virtual_ms: 0,
            fired: BTreeMap::new(),
            never_fired: None,
            worst_settle_ms: BTreeMap::new(),
            worst_settle_alone_ms: BTreeMap::new(),
            worst_overlap_ms: 0,
        }
    }

    pub(super) fn add(&mut self, report: RunReport, core_time: Duration) {
        self.seeds += report.seeds;
        self.passed_over += report.passed_over;
        self.failures.extend(report.failures);
        self.faulted_task_lives += report.faulted_task_lives;
        self.core_time += core_time;
        self.virtual_ms += report.virtual_ms;
        for (family, times) in report.fired {
            *self.fired.entry(family).or_default() += times;
        }
        // What no chunk has seen.
        match &mut self.never_fired {
            None => self.never_fired = Some(report.never_fired),
            Some(never) => never.retain(|family| report.never_fired.contains(family)),
        }
        let worst = &mut self.worst_settle_ms;
        let alone = &mut self.worst_settle_alone_ms;
        for (mine, theirs) in [
            (worst, report.worst_settle_ms),
            (alone, report.worst_settle_alone_ms),
        ] {
            for (family, settled) in theirs {
                let worst = mine.entry(family).or_default();
                *worst = settled.max(*worst);
            }
        }
        self.worst_overlap_ms = self.worst_overlap_ms.max(report.worst_overlap_ms);
    }

    /// Seeds run or passed over.
    pub(super) fn taken(&self) -> u64 {
        self.seeds + self.passed_over
    }

    fn never_fired(&self) -> &[String] {
        self.never_fired.as_deref().unwrap_or_default()
    }

    fn seeds_per_s(&self) -> f64 {
        self.seeds as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    /// Seeds were run, every promise held, and of so many seeds that it tells something every fault
    /// struck.
    pub(super) fn is_ok(&self) -> bool {
        self.seeds > 0 && self.failures.is_empty() && !self.is_silent()
    }

    /// A kind of fault never struck, though the seeds are many: it proves nothing. There are shapes in
    /// which some cannot: a single coordinator loses its shards to no other.
    fn is_silent(&self) -> bool {
        let many = self.seeds >= telling(self.tier) && self.shape.is_none();
        many && !self.never_fired().is_empty()
    }

    fn lives_per_core_s(&self) -> f64 {
        self.faulted_task_lives as f64 / self.core_time.as_secs_f64().max(1e-3)
    }

    /// Virtual time of one core's runs per real time.
    fn ratio(&self) -> f64 {
        self.virtual_ms as f64 / 1_000.0 / self.core_time.as_secs_f64().max(1e-3)
    }

    pub(super) fn rates(&self) -> String {
        format!(
            "{:.0} seeds/s, {:.0} faulted task lives per core-second, {} broken promises",
            self.seeds_per_s(),
            self.lives_per_core_s(),
            self.failures.len()
        )
    }

    /// How far it is, of so many seeds; `u64::MAX` = as many as there is time for.
    pub(super) fn progress(&self, of: u64) -> String {
        let (taken, rates) = (self.taken(), self.rates());
        if of == u64::MAX {
            format!("{taken} seeds  {rates}")
        } else {
            format!("{taken}/{of} seeds  {rates}")
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "tier": self.tier.number(),
            "ok": self.is_ok(),
            "first_seed": self.first_seed,
            "seeds": self.seeds,
            "passed_over": self.passed_over,
            "cores": self.cores,
            "elapsed_ms": self.started.elapsed().as_millis() as u64,
            "seeds_per_s": self.seeds_per_s(),
            "faulted_task_lives": self.faulted_task_lives,
            "faulted_task_lives_per_core_s": self.lives_per_core_s(),
            "virtual_ms": self.virtual_ms,
            "virtual_per_real_time": self.ratio(),
            "fired": self.fired,
            "never_fired": self.never_fired(),
            "worst_settle_ms": self.worst_settle_ms,
            "worst_settle_alone_ms": self.worst_settle_alone_ms,
            "worst_overlap_ms": self.worst_overlap_ms,
            "failures": self.failures,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for failure in &self.failures {
            text.push_str(&format!(
                "\nBROKEN {} at {} ms: {}\n  {}\n",
                failure.promise, failure.at_ms, failure.explanation, failure.replay
            ));
        }
        // One that does not repeat cannot be made small.
        let mut small = self.failures.iter();
        if let Some(failure) = small.find(|failure| failure.promise != "determinism") {
            text.push_str(&format!(
                "\nmade small, as a test and as a plan to keep:\n  \
                 flowkit sim shrink --tier {} --seed {} --out FILE\n",
                self.tier, failure.seed
            ));
        }
        text.push_str(
            "\nfault, times it struck, ms from the end of faults until all was settled at most: \
             in any seed, in seeds with no other fault\n",
        );
        let calm = self.worst_settle_alone_ms.get("none").map(|_| ("none", 0));
        let fired = self.fired.iter().map(|(family, times)| (&**family, *times));
        for (family, times) in calm.into_iter().chain(fired) {
            let shown = |of: &BTreeMap<String, u64>| {
                of.get(family)
                    .map_or_else(|| "-".to_owned(), u64::to_string)
            };
            let any = shown(&self.worst_settle_ms);
            let alone = shown(&self.worst_settle_alone_ms);
            text.push_str(&format!("  {family:22} {times:>10} {any:>8} {alone:>8}\n"));
        }
        text.push_str(&format!(
            "\nseeds {} to {} on tier {}: {}\n{} of virtual time, {:.0} times real time on each core; \
             {} kinds of fault, longest overlap {} ms\n",
            self.first_seed,
            self.first_seed + self.taken().saturating_sub(1),
            self.tier,
            self.rates(),
            hours(self.virtual_ms),
            self.ratio(),
            self.fired.len(),
            self.worst_overlap_ms
        ));
        if self.passed_over > 0 {
            text.push_str(&format!(
                "{} seeds run, {} of another shape passed over\n",
                self.seeds, self.passed_over
            ));
        }
        let never = self.never_fired();
        if !never.is_empty() {
            text.push_str(&format!("never fired: {}\n", never.join(", ")));
        }
        if self.is_silent() {
            text.push_str(&format!(
                "{} seeds meet every kind of fault, and one that never strikes proves nothing\n",
                thousands(telling(self.tier))
            ));
        }
        text
    }
}

fn hours(ms: u64) -> String {
    format!("{} h", thousands(ms / 3_600_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many seeds in which everything held, and every fault struck.
    fn clean(tier: Tier, seeds: u64) -> RunReport {
        let mut report = runner::run(tier, 0..0, &runner::Options::default(), &mut |_| {});
        report.seeds = seeds;
        report.never_fired.clear();
        report
    }

    fn broken(seed: u64, promise: &str) -> runner::Failure {
        runner::Failure {
            seed,
            promise: promise.to_owned(),
            explanation: "two owners".to_owned(),
            at_ms: 17,
            replay: runner::replay_line(Tier::Zero, seed),
        }
    }

    fn total(reports: impl IntoIterator<Item = RunReport>) -> Total {
        let mut total: Option<Total> = None;
        for report in reports {
            let new = || Total::new(report.tier, None, 0, 2);
            let sum = total.get_or_insert_with(new);
            sum.add(report, Duration::from_secs(1));
        }
        total.expect("a report")
    }

    #[test]
    fn one_broken_promise_among_many_seeds_is_not_ok() {
        let mut report = clean(Tier::Zero, 32);
        report.failures.push(broken(40, "single_owner"));
        let total = total([clean(Tier::Zero, 32), report, clean(Tier::Zero, 32)]);
        assert!(!total.is_ok());
        assert_eq!(total.json()["ok"], false);
        let text = total.text();
        for part in [
            "BROKEN single_owner at 17 ms: two owners",
            "flowkit sim replay --tier 0 --seed 40",
            "flowkit sim shrink --tier 0 --seed 40 --out FILE",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_seed_that_does_not_repeat_is_not_offered_to_be_made_small() {
        let mut report = clean(Tier::Zero, 32);
        report.failures.push(broken(3, "determinism"));
        let mut total = total([report]);
        assert!(!total.is_ok());
        assert!(!total.text().contains("sim shrink"), "{}", total.text());
        total.failures.push(broken(9, "settle"));
        assert!(total.text().contains("shrink --tier 0 --seed 9"));
    }

    #[test]
    fn a_fault_that_never_struck_in_many_seeds_is_not_ok() {
        for tier in [Tier::Zero, Tier::One] {
            let seeds = telling(tier);
            let silent = |seeds| {
                let mut report = clean(tier, seeds);
                report.never_fired = vec!["gone".to_owned()];
                report
            };
            let many = total([silent(1), silent(seeds - 1)]);
            assert!(!many.is_ok(), "tier {tier}");
            let text = many.text();
            assert!(text.contains("never fired: gone"), "{text}");
            assert!(text.contains("proves nothing"), "{text}");
            let mut shaped = many;
            shaped.shape = Some("1x1".parse().expect("a shape"));
            assert!(shaped.is_ok(), "tier {tier}: not every shape meets it");
            let few = total([silent(seeds - 1)]);
            assert!(few.is_ok(), "tier {tier}: so few seeds need not meet it");
            assert!(few.text().contains("never fired: gone"));
            assert!(!few.text().contains("proves nothing"));
        }
    }

    #[test]
    fn a_fault_struck_if_it_did_in_any_part_of_the_run() {
        let part = |silent: &[&str]| {
            let mut report = clean(Tier::One, 600);
            report.never_fired = silent.iter().map(|name| (*name).to_owned()).collect();
            report
        };
        let total = total([part(&["gone", "twin"]), part(&["twin", "hold"])]);
        assert_eq!(total.never_fired(), ["twin"]);
        assert!(!total.is_ok());
        let mut struck = total;
        struck.add(part(&["gone"]), Duration::ZERO);
        assert!(struck.is_ok());
    }

    #[test]
    fn a_run_of_no_seed_is_not_ok() {
        let mut report = clean(Tier::Zero, 0);
        report.passed_over = 20;
        let total = total([report]);
        assert!(!total.is_ok());
        assert_eq!(total.json()["ok"], false);
    }

    #[test]
    fn rates_and_the_slowest_recovery_are_those_of_all_parts() {
        let part = |crash_ms: u64| {
            let mut report = clean(Tier::Zero, 50);
            report.virtual_ms = 40_000;
            report.faulted_task_lives = 30;
            let settled = [("none", 20), ("crash", crash_ms)];
            let settled = settled.map(|(family, ms)| (family.to_owned(), ms));
            report.worst_settle_ms = BTreeMap::from(settled);
            report.worst_settle_alone_ms = BTreeMap::from([("none".to_owned(), 20)]);
            report.fired = BTreeMap::from([("crash".to_owned(), 2)]);
            report
        };
        let mut total = total([part(700), part(300)]);
        total.passed_over = 4;
        total.started = Instant::now()
            .checked_sub(Duration::from_secs(5))
            .expect("a time");
        let json = total.json();
        // Two seconds of processor time.
        assert_eq!(json["virtual_per_real_time"], 40.0);
        assert_eq!(json["faulted_task_lives_per_core_s"], 30.0);
        assert_eq!(json["worst_settle_ms"]["crash"], 700);
        let per_s = json["seeds_per_s"].as_f64().expect("a number");
        assert!((1.0..=20.0).contains(&per_s), "{per_s}");
        let text = total.text();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert!(rows.contains(&vec!["none", "0", "20", "20"]), "{text}");
        assert!(rows.contains(&vec!["crash", "4", "700", "-"]), "{text}");
        assert!(text.contains("40 times real time"), "{text}");
        let progress = total.progress(300);
        assert!(progress.starts_with("104/300 seeds  "), "{progress}");
        let lives = "30 faulted task lives per core-second, 0 broken promises";
        assert!(progress.ends_with(lives), "{progress}");
        assert!(total.progress(u64::MAX).starts_with("104 seeds  "));
    }
}
