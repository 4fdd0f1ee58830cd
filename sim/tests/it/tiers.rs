//! A scenario on both tiers: every promise holds, the faults named strike, and the rows of the run
//! tell the story of its name.

use std::iter::zip;

use flowkit_sim::plan::Plan;
use flowkit_sim::runner::{ReplayReport, Tier, check, replay_plan};

pub(crate) const FINISHED: &str = "task-0 Finished settled true";

/// The first run of `scan` ends by itself, because nobody confirmed its lease.
pub(crate) const LAPSES: &str = "scan t1 told to end: LeaseLapsed";

/// A plan that ran on tier 0 and on tier 1.
pub(crate) struct Ran {
    pub(crate) tiers: [ReplayReport; 2],
}

/// Runs the plan twice on each tier. Every promise holds, each family of faults named struck, and
/// the story is told (see [`Ran::tells`]).
pub(crate) fn holds(plan: &Plan, fired: &[&str], story: &[&str]) -> Ran {
    let hosts = plan.clone().fit_hosts();
    let tiers = [run(Tier::Zero, plan), run(Tier::One, &hosts)];
    for report in &tiers {
        for family in fired {
            let fired = &report.verdict.fired;
            assert!(
                strikes(report, family),
                "{} {family} did not fire: {fired:?}",
                named(report)
            );
        }
    }
    let ran = Ran { tiers };
    ran.tells(story);
    ran
}

fn run(tier: Tier, plan: &Plan) -> ReplayReport {
    let report = replay_plan(tier, plan, true);
    let failures = &report.verdict.failures;
    assert!(
        report.verdict.holds(),
        "{} {failures:#?}\n{}",
        named(&report),
        report.rows.join("\n")
    );
    let again = check(tier, plan, false);
    let same = (again.trace_hash, &again.failures) == (report.verdict.trace_hash, failures);
    assert!(same, "{} two runs differ", named(&report));
    report
}

fn named(report: &ReplayReport) -> String {
    let plan = serde_json::to_string(&report.plan).unwrap_or_default();
    format!("tier {}: {plan}\n", report.tier)
}

fn strikes(report: &ReplayReport, family: &str) -> bool {
    let names: &[&str] = match (report.tier, family) {
        // A thread that is blocked would block the whole simulation.
        (Tier::One, "handler_blocks") => return true,
        (Tier::One, "store_away") => &["store_frozen", "store_restarted"],
        (Tier::One, "broker_away") => &["broker_frozen", "broker_restarted"],
        _ => &[family],
    };
    let fired = &report.verdict.fired;
    names.iter().any(|&name| fired.contains_key(name))
}

/// The parts of `text`, which `…` divides, stand in the row in this order.
fn shows(row: &str, text: &str) -> bool {
    let mut parts = text.split(" … ");
    let rest = parts.try_fold(row, |rest, part| Some(rest.split_once(part)?.1));
    rest.is_some()
}

/// Where each text of a story is shown, each further down than the one before; or the text that is not.
fn places<'a>(report: &ReplayReport, story: &[&'a str]) -> Result<Vec<usize>, &'a str> {
    let mut rows = report.rows.iter().enumerate();
    let places = story.iter().map(|&text| {
        let place = rows.find(|(_, row)| shows(row, text));
        place.map(|(number, _)| number).ok_or(text)
    });
    places.collect()
}

fn tells(report: &ReplayReport, story: &[&str]) {
    if let Err(text) = places(report, story) {
        let rows = report.rows.join("\n");
        panic!("{} no {text:?} of {story:?} in\n{rows}", named(report));
    }
}

fn time_of(row: &str) -> u64 {
    let ms = row.trim_start().split('.').next().unwrap_or_default();
    ms.parse().expect("a row begins with its time")
}

impl Ran {
    /// On each tier there are rows that show these texts, in this order; ` … ` stands for anything.
    pub(crate) fn tells(&self, story: &[&str]) -> &Self {
        self.tiers.iter().for_each(|report| tells(report, story));
        self
    }

    /// On each tier the batch that was in work when the first process died is processed again.
    pub(crate) fn does_again_what_was_lost(&self) {
        for report in &self.tiers {
            let dies = report.rows.iter().position(|row| shows(row, "*** Crashed"));
            let mut before = report.rows[..dies.expect("one dies")].iter().rev();
            let begins = before.find(|row| shows(row, "task-0/ … process "));
            // Time, host, worker, node, token, "process", batch.
            let words = begins.expect("a batch is in work").split_whitespace();
            let words: Vec<&str> = words.collect();
            let (node, batch) = (words[3], words[6]);
            let (lost, again) = (
                format!("{node} … lost"),
                format!("{node} … process {batch}"),
            );
            tells(report, &["*** Crashed", &lost, &again, FINISHED]);
        }
    }

    /// How many rows show the text, by tier.
    pub(crate) fn rows(&self, text: &str) -> [usize; 2] {
        self.tiers.each_ref().map(|report| {
            let rows = report.rows.iter().filter(|row| shows(row, text));
            rows.count()
        })
    }

    /// True time in milliseconds from the first row of a story to its last one, by tier.
    pub(crate) fn lasts(&self, story: &[&str]) -> [u64; 2] {
        self.tells(story).tiers.each_ref().map(|report| {
            let places = places(report, story).expect("it is told");
            let time = |place: Option<&usize>| time_of(&report.rows[*place.expect("some")]);
            time(places.last()) - time(places.first())
        })
    }

    /// How often faults of the family struck, by tier.
    pub(crate) fn struck(&self, family: &str) -> [u64; 2] {
        let tiers = self.tiers.each_ref();
        tiers.map(|report| report.verdict.fired.get(family).copied().unwrap_or(0))
    }
}

/// In how many runs something was met, by tier: where no plan can say in which of them.
#[derive(Debug, Default)]
pub(crate) struct Met([usize; 2]);

impl Met {
    /// The story was told, as for [`Ran::tells`].
    pub(crate) fn told(&mut self, ran: &Ran, story: &[&str]) {
        for (met, report) in zip(&mut self.0, &ran.tiers) {
            *met += usize::from(places(report, story).is_ok());
        }
    }

    /// Faults of the family struck.
    pub(crate) fn struck(&mut self, ran: &Ran, family: &str) {
        for (met, times) in zip(&mut self.0, ran.struck(family)) {
            *met += usize::from(times > 0);
        }
    }

    #[track_caller]
    pub(crate) fn at_least(&self, runs: usize) {
        assert!(
            self.0.iter().all(|&met| met >= runs),
            "met in {:?} runs",
            self.0
        );
    }
}
