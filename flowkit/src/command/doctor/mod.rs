//! `flowkit doctor`: each troubleshooting line of the guide as a check.

mod ask;
mod look;
mod tasks;

use flowkit::prelude::*;
use flowkit::settings::Settings;
use flowkit_core::doctor::{self, Check, Finding, Timing};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

use super::args::DoctorArgs;
use super::failure::{Ending, Failure, Outcome};
use super::nodes::word;
use super::output::{put, putln};
use super::session::{DataFolder, Session, no_place};
use super::table::one_line;
use look::Seen;
use tasks::Tasks;

/// A store that takes longer for a small read is slow.
const SLOW_MS: u128 = 1_000;

/// What was checked, and what was found.
#[derive(Default)]
struct Report {
    /// In order: what was looked at, or why not.
    checks: Vec<(Check, Result<String, String>)>,
    findings: Vec<Finding>,
}

impl Report {
    fn checked(&mut self, check: Check, looked_at: impl Into<String>, findings: Vec<Finding>) {
        self.checks.push((check, Ok(looked_at.into())));
        self.findings.extend(findings);
    }

    fn skipped(&mut self, check: Check, why: &str) {
        self.checks.push((check, Err(why.to_owned())));
    }

    fn of(&self, check: Check) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |f| f.check == check)
    }

    fn json(&self) -> Value {
        let checks = self.checks.iter().map(|(check, looked)| {
            let found = self.of(*check).count();
            let (outcome, text) = match looked {
                Ok(text) if found == 0 => ("ok", text),
                Ok(text) => ("found", text),
                Err(why) => ("skipped", why),
            };
            json!({"check": check, "outcome": outcome, "looked_at": text})
        });
        json!({
            "ok": self.findings.is_empty(),
            "checks": checks.collect::<Vec<_>>(),
            "findings": self.findings,
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (check, looked) in &self.checks {
            let name = word(check);
            match looked {
                Ok(looked) if self.of(*check).next().is_none() => {
                    text.push_str(&format!("ok       {name:13} {}\n", one_line(looked, 200)));
                }
                Ok(_) => {}
                Err(why) => text.push_str(&format!("skipped  {name:13} {}\n", one_line(why, 200))),
            }
            for finding in self.of(*check) {
                text.push_str(&format!(
                    "FOUND    {name:13} {}: {}\n{:23}-> {}\n",
                    one_line(&finding.subject, 80),
                    one_line(&finding.finding, 600),
                    "",
                    one_line(&finding.cure, 600)
                ));
            }
        }
        text
    }
}

pub(crate) async fn run(args: DoctorArgs) -> Outcome {
    let mut report = Report::default();
    let settings = args.at.given()?.settings().map_err(Failure::input)?;
    let timing = timing_of(&settings.worker, &settings.coordinator);
    let session = match &args.at.data {
        Some(data) => Some(Session::look(DataFolder::existing(data)?, settings).await?),
        None if !args.health.is_empty()
            && (!names_servers(&settings) || cfg!(not(feature = "fleet"))) =>
        {
            let why = "name a data folder, --data PATH, or servers";
            for check in [
                Check::Store,
                Check::Subscription,
                Check::Roles,
                Check::Conflicts,
                Check::Folding,
                Check::Timing,
                Check::State,
            ] {
                report.skipped(check, why);
            }
            None
        }
        None if cfg!(not(feature = "fleet")) => return Err(no_place()),
        None => match Session::connect(settings).await {
            Ok(session) => Some(session),
            Err(error) => {
                let cure =
                    "are both servers up and reachable from here, and are the addresses right?";
                let found = Finding::new(Check::Store, "servers", error.to_string(), cure);
                report.checked(Check::Store, "connecting", vec![found]);
                None
            }
        },
    };
    if let Some(session) = &session {
        examine(session, &args, timing, &mut report).await;
    }
    ask::processes(&args.health, &mut report).await;
    if let Some(session) = session {
        session.close().await;
    }
    if args.at.json {
        putln!("{}", report.json());
    } else {
        put!("{}", report.text());
        match report.findings.len() {
            0 => putln!("\nall is well"),
            1 => putln!("\n1 finding"),
            n => putln!("\n{n} findings"),
        }
    }
    Ok(if report.findings.is_empty() {
        Ending::Finished
    } else {
        Ending::Failed
    })
}

fn names_servers(settings: &Settings) -> bool {
    !settings.fleet.kafka_bootstrap.is_empty() || !settings.fleet.mongo_uri.is_empty()
}

fn timing_of(worker: &WorkerSettings, coordinator: &CoordinatorSettings) -> Timing {
    // As the coordinator takes them: 2.01 s are 2,010 ms.
    let ms = |sec: f64| Duration::try_from_secs_f64(sec).map_or(0, |time| time.as_millis() as u64);
    Timing {
        lease_ttl_ms: ms(coordinator.lease_ttl_sec),
        lease_given: worker.lease_ttl_sec.is_some(),
        hb_interval_ms: ms(worker.hb_interval_sec),
        db_cancel_poll_ms: worker.db_cancel_poll_ms,
    }
}

async fn examine(session: &Session, args: &DoctorArgs, timing: Timing, report: &mut Report) {
    let client = session.client();
    let started = Instant::now();
    let workers = client.workers().await;
    let took = started.elapsed().as_millis();
    match workers {
        Ok(_) if took <= SLOW_MS => {
            report.checked(
                Check::Store,
                format!("it answered in {took} ms"),
                Vec::new(),
            );
        }
        Ok(_) => {
            let found = Finding::new(
                Check::Store,
                "store",
                format!("a small read took {took} ms"),
                "look at the server's load, its disk and the network to it",
            );
            report.checked(Check::Store, "a small read", vec![found]);
        }
        Err(error) => {
            let cure = "see what the error names; nothing else can be checked without it";
            let found = Finding::new(Check::Store, "store", error.to_string(), cure);
            return report.checked(Check::Store, "a small read", vec![found]);
        }
    }
    let tasks = Tasks::read(session, args.tasks_max).await;
    let seen = look::streams(session).await;
    let running = !session.is_folder();
    match seen {
        Err(error) if running => {
            let found = Finding::new(
                Check::Subscription,
                "streams",
                error.to_string(),
                "check kafka_bootstrap, topic_prefix and the rights on the three topics",
            );
            report.checked(Check::Subscription, "reading the streams", vec![found]);
        }
        Err(error) => report.skipped(Check::Subscription, &error.to_string()),
        Ok(seen) if running => of_what_runs(&seen, &tasks, timing, report),
        Ok(_) => {
            let why = "a data folder's streams go with its process, and none runs on it now";
            for check in [
                Check::Subscription,
                Check::Roles,
                Check::Conflicts,
                Check::Folding,
            ] {
                report.skipped(check, why);
            }
            let found = doctor::timing(timing, &[], &tasks.lapses);
            let looked_at = format!("{}{}", leases(&tasks), sooner(timing));
            report.checked(Check::Timing, looked_at, found);
        }
    }
    // Those who could be read were read before.
    let workers = client.unreadable_workers().await.unwrap_or_default();
    let mut findings: Vec<Finding> = workers.iter().map(tasks::of_worker).collect();
    let looked_at = tasks.looked_at();
    findings.extend(tasks.findings);
    report.checked(Check::State, looked_at, findings);
}

/// How many leases ran out.
fn leases(tasks: &Tasks) -> String {
    match tasks.lapses.values().sum() {
        0_u64 => "no lease ran out within a day".to_owned(),
        1 => "1 lease ran out within a day".to_owned(),
        n => format!("{n} leases ran out within a day"),
    }
}

/// What is told of the heartbeats beside what was looked at.
fn sooner(timing: Timing) -> String {
    doctor::beats_sooner(timing).map_or_else(String::new, |note| format!("; {note}"))
}

fn of_what_runs(seen: &Seen, tasks: &Tasks, timing: Timing, report: &mut Report) {
    let inboxes: BTreeMap<WorkerId, u32> = seen
        .records
        .iter()
        .map(|record| (record.worker_id.clone(), record.inbox))
        .collect();
    report.checked(
        Check::Subscription,
        format!(
            "the newest entries of {} streams",
            seen.presence.shards.len() + 1
        ),
        doctor::subscription(seen.presence.unreadable, seen.inboxes, &inboxes),
    );
    report.checked(
        Check::Roles,
        format!("{} roles have nodes that are ready", tasks.waiting.len()),
        doctor::roles(&tasks.waiting, &seen.listed),
    );
    report.checked(
        Check::Conflicts,
        format!("{} workers", seen.listed.len()),
        doctor::conflicts(&seen.listed),
    );
    let shards = seen.presence.shards.iter();
    let shards: Vec<_> = shards.map(|s| (s.shard, s.lag, s.oldest_ms)).collect();
    report.checked(
        Check::Folding,
        format!("{} shards", shards.len()),
        doctor::folding(&shards),
    );
    report.checked(
        Check::Timing,
        format!(
            "settings and heartbeats; {}{}",
            leases(tasks),
            sooner(timing)
        ),
        doctor::timing(timing, &seen.listed, &tasks.lapses),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::args::{FleetArgs, TaskArgs};
    use async_trait::async_trait;
    use flowkit::settings::Given;
    use flowkit_core::port::{ErrorKind, PortError, Store, StoreReply, StoreRequest};
    use flowkit_memory::{LocalTransport, MemoryStore};
    use std::sync::Arc;

    /// A store behind a way that takes so long.
    #[derive(Debug)]
    struct Far(MemoryStore, Duration);

    #[async_trait]
    impl Store for Far {
        async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
            if self.1.is_zero() {
                return Err(PortError::new(ErrorKind::Retry, request.name(), "no route"));
            }
            tokio::time::sleep(self.1).await;
            self.0.call(request).await
        }
    }

    async fn looked(far: Duration) -> Report {
        let store = Arc::new(Far(MemoryStore::new(), far));
        let engine = Engine::with(store, Arc::new(LocalTransport::new()));
        let settings = || Given::default().settings().expect("defaults fit");
        let timing = timing_of(&settings().worker, &settings().coordinator);
        let args = DoctorArgs {
            at: TaskArgs {
                data: None,
                fleet: FleetArgs::default(),
                json: false,
            },
            health: Vec::new(),
            tasks_max: 10,
        };
        let session = Session::over(engine, settings());
        let mut report = Report::default();
        examine(&session, &args, timing, &mut report).await;
        report
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_takes_longer_than_a_second_for_a_small_read_is_found_to_be_slow() {
        let well = looked(Duration::from_millis(1_000)).await;
        assert!(well.findings.is_empty(), "{}", well.text());
        assert!(
            well.text().contains("it answered in 1000 ms"),
            "{}",
            well.text()
        );

        let slow = looked(Duration::from_millis(1_001)).await;
        let [found] = &slow.findings[..] else {
            panic!("{}", slow.text());
        };
        assert_eq!(
            (found.check, &*found.finding),
            (Check::Store, "a small read took 1001 ms")
        );
        assert!(found.cure.contains("the server's load"), "{}", found.cure);

        let away = looked(Duration::ZERO).await;
        let [found] = &away.findings[..] else {
            panic!("{}", away.text());
        };
        assert!(found.finding.contains("no route"), "{}", found.finding);
        assert_eq!(away.checks.len(), 1, "nothing else can be checked");
    }
}
