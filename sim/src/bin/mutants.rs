//! Plants every known bug in turn and sees that the simulator finds it: `cargo xtask mutants`.
//!
//! `mutants [--tier 0|1|all] [--seeds N] [--from S] [--only ID]... [--part PART] [--sample]
//! [--threads N] [--json] [--markdown] [--list] [--none] [--replay SEED]`
//!
//! `--replay` shows what happens in one seed with the bug of `--only`, or with none.
//! `--none` plants nothing: every seed must hold, and repeat exactly.
//! Without `--tier` each bug is hunted on the cheapest tier that it can strike on.

use std::process::ExitCode;
use std::sync::Mutex;

use flowkit_sim::mutants::{Baseline, Bug, Hunt, SAMPLE, hunt, plant, tiers_of};
use flowkit_sim::runner::{self, Tier};

/// Bugs that are known to survive: docs/planted-bugs.md says why.
const SURVIVORS: &[&str] = &["cancel-cleared", "old-answers"];

/// Which tiers to hunt on.
#[derive(Clone, Copy)]
enum On {
    Cheapest,
    One(Tier),
    All,
}

/// What the command line asks for.
struct Options {
    seeds: u64,
    from: u64,
    bugs: Vec<Bug>,
    on: On,
    threads: usize,
    json: bool,
    markdown: bool,
    list: bool,
    none: bool,
    replay: Option<u64>,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(2);
        }
    };
    if options.list {
        print!("{}", list(&options.bugs));
        return ExitCode::SUCCESS;
    }
    // Planted bugs trip assertions on purpose; each is caught and told as a broken promise.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = options.replay {
        return replay(&options, seed);
    }
    if options.none {
        return without_any(&options);
    }
    let hunts = hunt_all(&options);
    let missed = hunts
        .iter()
        .any(|hunt| hunt.killed.is_none() && !SURVIVORS.contains(&hunt.bug));
    let unclean = hunts.iter().any(|hunt| !hunt.unclean.is_empty());
    if options.json {
        let hunts = serde_json::to_string_pretty(&hunts).unwrap_or_default();
        println!("{hunts}");
    } else {
        let text = if options.markdown {
            markdown(&hunts)
        } else {
            table(&hunts)
        };
        print!("{text}");
        if unclean {
            println!("some seeds break a promise without any bug: mend those first");
        }
        println!("{}", sum(&hunts));
    }
    if !missed && !unclean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs one seed and shows its history.
fn replay(options: &Options, seed: u64) -> ExitCode {
    let bug = (options.bugs.len() == 1).then(|| options.bugs[0]);
    let tier = match (options.on, bug) {
        (On::One(tier), _) => tier,
        (_, Some(bug)) => tiers_of(bug).first().copied().unwrap_or(Tier::Zero),
        (_, None) => Tier::Zero,
    };
    plant(bug.filter(|_| !options.none));
    let report = runner::replay(tier, seed, false);
    for row in &report.rows {
        println!("{row}");
    }
    for failure in &report.verdict.failures {
        println!("BROKEN {}: {}", failure.promise, failure.explanation);
    }
    ExitCode::SUCCESS
}

/// Runs the seeds without any bug.
fn without_any(options: &Options) -> ExitCode {
    let tiers = match options.on {
        On::One(tier) => vec![tier],
        On::Cheapest | On::All => vec![Tier::Zero, Tier::One],
    };
    let mut holds = true;
    for tier in tiers {
        let seeds = options.from..options.from.saturating_add(options.seeds);
        let mut checks = runner::Options::default();
        checks.failures_max = 1_000;
        let report = runner::run(tier, seeds, &checks, &mut |_| {});
        for failure in &report.failures {
            println!(
                "tier {tier} seed {} {} at {} ms: {}",
                failure.seed, failure.promise, failure.at_ms, failure.explanation
            );
        }
        let failures = report.failures.len();
        println!("tier {tier}: {} seeds, {failures} failures", report.seeds);
        println!("never fired: {:?}", report.never_fired);
        holds &= report.failures.is_empty();
    }
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        seeds: 2_000,
        from: 0,
        bugs: Bug::ALL.to_vec(),
        on: On::Cheapest,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        json: false,
        markdown: false,
        list: false,
        none: false,
        replay: None,
    };
    let mut named = Vec::new();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        let number = |text: String| {
            let parsed = text.parse::<u64>();
            parsed.map_err(|_| format!("`{text}` is no number"))
        };
        match arg.as_str() {
            "--seeds" => options.seeds = number(value()?)?,
            "--from" => options.from = number(value()?)?,
            "--threads" => options.threads = usize::try_from(number(value()?)?).unwrap_or(1),
            "--only" => {
                let name = value()?;
                let bug = Bug::ALL.iter().find(|bug| bug.name() == name);
                let bug = bug.ok_or(format!("no bug is called `{name}`; --list shows all"))?;
                named.push(*bug);
            }
            "--part" => {
                let part = value()?;
                let before = named.len();
                named.extend(Bug::ALL.iter().filter(|bug| bug.part() == part));
                if named.len() == before {
                    return Err(format!("no part is called `{part}`; --list shows all"));
                }
            }
            "--tier" => {
                options.on = match value()?.as_str() {
                    "0" => On::One(Tier::Zero),
                    "1" => On::One(Tier::One),
                    "all" => On::All,
                    other => return Err(format!("there is no tier `{other}`")),
                }
            }
            "--markdown" => options.markdown = true,
            "--sample" => options.bugs = SAMPLE.to_vec(),
            "--json" => options.json = true,
            "--list" => options.list = true,
            "--none" => options.none = true,
            "--replay" => options.replay = Some(number(value()?)?),
            other => return Err(format!("unknown option `{other}`")),
        }
    }
    if !named.is_empty() {
        options.bugs = named;
    }
    Ok(options)
}

/// What is to be hunted where.
fn quarry(options: &Options) -> Vec<(Bug, Tier)> {
    let of_bug = |bug: &Bug| {
        let tiers = tiers_of(*bug);
        let wanted = match options.on {
            On::Cheapest => tiers.get(..1).unwrap_or_default(),
            On::All => tiers,
            On::One(tier) => tiers
                .iter()
                .position(|t| *t == tier)
                .map_or(&[][..], |at| &tiers[at..=at]),
        };
        let bug = *bug;
        wanted
            .iter()
            .map(move |tier| (bug, *tier))
            .collect::<Vec<_>>()
    };
    options.bugs.iter().flat_map(of_bug).collect()
}

/// Hunts bugs on several threads, each bug on one.
fn hunt_all(options: &Options) -> Vec<Hunt> {
    let baseline = Baseline::default();
    let waiting = Mutex::new(quarry(options).into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    let seeds = options.from..options.from.saturating_add(options.seeds);
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().map_or(None, |mut waiting| waiting.next());
                    let Some((place, (bug, tier))) = next else {
                        break;
                    };
                    let hunt = hunt(bug, tier, seeds.clone(), &baseline);
                    if !options.json {
                        eprintln!("{}", row(&hunt).join("  "));
                    }
                    if let Ok(mut done) = done.lock() {
                        done.push((place, hunt));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, hunt)| hunt).collect()
}

fn row(hunt: &Hunt) -> [String; 7] {
    let (promise, seed) = match &hunt.killed {
        Some(kill) => (kill.promise.clone(), kill.seed.to_string()),
        None => (
            "SURVIVED".to_owned(),
            format!("struck in {} seeds", hunt.struck),
        ),
    };
    #[expect(clippy::cast_precision_loss, reason = "a time for people")]
    let seconds = hunt.elapsed_ms as f64 / 1_000.0;
    [
        hunt.part.to_owned(),
        hunt.bug.to_owned(),
        promise,
        hunt.tier.to_string(),
        hunt.seeds.to_string(),
        seed,
        format!("{seconds:.1} s"),
    ]
}

fn table(hunts: &[Hunt]) -> String {
    let head = ["part", "bug", "killed by", "tier", "seeds", "seed", "time"].map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(hunts.iter().map(row)).collect();
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
            text.push_str(&format!("{cell:width$}  "));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// How many were killed, by tier.
fn sum(hunts: &[Hunt]) -> String {
    let of = |hunts: &[&Hunt]| {
        let killed = hunts.iter().filter(|hunt| hunt.killed.is_some()).count();
        format!("{killed} of {}", hunts.len())
    };
    let all: Vec<&Hunt> = hunts.iter().collect();
    let tiers = [Tier::Zero, Tier::One].map(|tier| {
        let mine = hunts.iter().filter(|hunt| hunt.tier == tier.number());
        format!("tier {tier}: {}", of(&mine.collect::<Vec<_>>()))
    });
    format!("{} killed ({})", of(&all), tiers.join(", "))
}

/// The table of `docs/planted-bugs.md`.
fn markdown(hunts: &[Hunt]) -> String {
    let head = "| part | bug | what it does | promise that fell | tier | seeds |";
    let mut text = format!("{head}\n|---|---|---|---|---|---|\n");
    for hunt in hunts {
        let promise = match &hunt.killed {
            Some(kill) => format!("`{}`", kill.promise),
            None => "survives".to_owned(),
        };
        text.push_str(&format!(
            "| {} | `{}` | {} | {promise} | {} | {} |\n",
            hunt.part, hunt.bug, hunt.about, hunt.tier, hunt.seeds
        ));
    }
    text
}

/// Every bug with the promise that its author expects to fall.
fn list(bugs: &[Bug]) -> String {
    let mut text = "| part | bug | what it does | promise |\n|---|---|---|---|\n".to_owned();
    for bug in bugs {
        text.push_str(&format!(
            "| {} | `{}` | {} | `{}` |\n",
            bug.part(),
            bug.name(),
            bug.about(),
            bug.promise()
        ));
    }
    text
}
