//! The figures of a run, as JSON and as a table with the aims.

use serde_json::{Map, Value, json};
use std::fmt::Write as _;

use crate::ceiling::Ceiling;
use crate::latency::Latency;
use crate::load::{Nodes, SLOTS};
use crate::takeover::Takeover;
use crate::{LEASE_MARGIN_SEC, LEASE_TTL_SEC, SHARD_LEASE_TTL_SEC, percentile};

#[derive(Debug)]
pub(crate) struct Report {
    figures: Map<String, Value>,
    /// What the figure is, its value, the aim, and whether it is met.
    aims: Vec<(String, String, String, bool)>,
}

impl Report {
    pub(crate) fn new(shards: u32) -> Self {
        let mut report = Self {
            figures: Map::new(),
            aims: Vec::new(),
        };
        let loads = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = loads.split(' ').next().and_then(|load| load.parse().ok());
        report.figure("load_average_before", load.unwrap_or(f64::NAN));
        report.figure("shards", f64::from(shards));
        report.figure("slots", f64::from(SLOTS));
        report
    }

    pub(crate) fn figure(&mut self, name: &str, value: f64) {
        let value = round(value);
        eprintln!("  {name}: {value}");
        self.figures.insert(name.to_owned(), json!(value));
    }

    fn at_least(&mut self, what: &str, value: f64, aim: f64, unit: &str) {
        let texts = (format!("{}{unit}", round(value)), format!(">= {aim}{unit}"));
        self.aims
            .push((what.to_owned(), texts.0, texts.1, value >= aim));
    }

    fn at_most(&mut self, what: &str, value: f64, aim: f64, unit: &str) {
        let texts = (format!("{}{unit}", round(value)), format!("<= {aim}{unit}"));
        self.aims
            .push((what.to_owned(), texts.0, texts.1, value <= aim));
    }

    pub(crate) fn load(&mut self, load: &Nodes) {
        self.figure("noop_nodes_per_s", load.nodes_per_s);
        self.at_least("no-op nodes per second", load.nodes_per_s, 5_000.0, "");
        // The machine is shared by all of them, and time per node is what each of them costs.
        for (part, cores) in &load.cores {
            self.figure(&format!("cores_{part}"), *cores);
            let us = 1_000_000.0 * cores / load.nodes_per_s;
            self.figure(&format!("cpu_us_per_node_{part}"), us);
        }
        let census = &load.census;
        self.figure("messages_per_node", census.messages_per_node());
        self.figure("message_bytes_per_node", census.message_bytes_per_node());
        self.figure(
            "transactions_per_s",
            census.transactions_per_node * load.nodes_per_s,
        );
        let records = census.records_per_transaction();
        self.figure("records_per_transaction", records);
        self.figure("records_per_node", records * census.transactions_per_node);
        let bytes = census.record_bytes_per_transaction();
        self.figure(
            "record_bytes_per_node",
            bytes * census.transactions_per_node,
        );
        let kinds = census.messages.iter().map(|m| {
            let figures = json!({"per_node": round(m.per_node), "mean_bytes": round(m.mean_bytes)});
            (m.kind.to_lowercase(), figures)
        });
        let kinds: Map<String, Value> = kinds.collect();
        self.figures.insert("messages".to_owned(), kinds.into());
        let writes = census.writes.iter().map(|w| {
            let each = |number: f64| round(number * census.transactions_per_node);
            let figures = json!({"inserts_per_node": each(w.inserts),
                "updates_per_node": each(w.updates), "bytes_per_node": each(w.bytes)});
            (w.collection.clone(), figures)
        });
        let writes: Map<String, Value> = writes.collect();
        self.figures.insert("writes".to_owned(), writes.into());
    }

    pub(crate) fn ceiling(&mut self, load: &Nodes, ceiling: &Ceiling) {
        self.figure("ceiling_nodes_per_s", ceiling.nodes_per_s);
        self.figure("ceiling_kafka_nodes_per_s", ceiling.kafka_nodes_per_s);
        self.figure("ceiling_mongodb_nodes_per_s", ceiling.mongo_nodes_per_s);
        for (part, us) in &ceiling.cpu_us_per_node {
            self.figure(&format!("ceiling_cpu_us_per_node_{part}"), *us);
        }
        let share = 100.0 * load.nodes_per_s / ceiling.nodes_per_s;
        self.figure("percent_of_ceiling", share);
        self.at_least("of the servers' ceiling", share, 50.0, " %");
    }

    pub(crate) fn latency(&mut self, latency: &Latency) {
        self.figure("node_ms_p50", latency.node_ms_p50);
        self.figure("node_ms_p99", latency.node_ms_p99);
        self.figure("chain3_ms_p50", latency.chain3_ms_p50);
        self.figure("chain3_ms_p99", latency.chain3_ms_p99);
    }

    pub(crate) fn worker(&mut self, restart: bool, times: &mut [f64]) {
        let p50 = percentile(times, 0.5);
        let worst = percentile(times, 1.0);
        let (name, what, aim) = if restart {
            let what = "dead worker, restarted at once: node granted anew";
            ("worker_restart", what, 1_000.0)
        } else {
            self.figure("worker_lease_ttl_sec", LEASE_TTL_SEC);
            let aim = 1_000.0 * (LEASE_TTL_SEC + LEASE_MARGIN_SEC + 1.0);
            let what = "dead worker: node granted anew (lease + margin + 1 s)";
            ("worker_takeover", what, aim)
        };
        self.figure(&format!("{name}_ms_p50"), p50);
        self.figure(&format!("{name}_ms_max"), worst);
        self.at_most(what, worst, aim, " ms");
    }

    pub(crate) fn coordinator(&mut self, takeovers: &[Takeover]) {
        let worst = |of: fn(&Takeover) -> f64| takeovers.iter().map(of).fold(f64::NAN, f64::max);
        let in_flight = takeovers.iter().map(|t| t.in_flight).min().unwrap_or(0);
        self.figure("coordinator_takeover_in_flight", in_flight as f64);
        self.figure("shard_lease_ttl_sec", SHARD_LEASE_TTL_SEC);
        self.figure("coordinator_takeover_epoch_ms_max", worst(|t| t.epoch_ms));
        self.figure("coordinator_takeover_commit_ms_max", worst(|t| t.commit_ms));
        let settled = worst(|t| t.settled_ms);
        self.figure("coordinator_takeover_settled_ms_max", settled);
        let aim = 1_000.0 * (SHARD_LEASE_TTL_SEC + 1.0);
        let what = "dead coordinator: work goes on (shard lease + 1 s)";
        self.at_most(what, settled, aim, " ms");
    }

    pub(crate) fn json(&self) -> Value {
        let mut figures = self.figures.clone();
        let aims = self.aims.iter().map(|(what, value, aim, met)| {
            json!({"what": what, "measured": value, "aim": aim, "met": met})
        });
        figures.insert("aims".to_owned(), aims.collect());
        figures.into()
    }

    pub(crate) fn table(&self) -> String {
        let mut table = String::from("\n");
        for (what, value, aim, met) in &self.aims {
            let met = if *met { "met" } else { "NOT MET" };
            let _ = writeln!(table, "{what:<56} {value:>12}   aim {aim:<11} {met}");
        }
        table
    }
}

/// Three significant digits behind the point at most; more would be noise.
fn round(value: f64) -> f64 {
    if value >= 100.0 {
        value.round()
    } else {
        (value * 1_000.0).round() / 1_000.0
    }
}
