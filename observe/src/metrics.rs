//! Metrics in Prometheus' text format.
//!
//! Labels: workers of this process, their roles, names of requests, outcomes, shards: all bounded.

use flowkit_runtime::vitals::{Calls, Histogram, SECONDS};
use std::fmt::Write as _;

use crate::health::Process;

/// The format's media type.
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One metric with all its values, which stand together.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    lines: String,
}

impl Metric {
    const fn new(name: &'static str, kind: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind,
            help,
            lines: String::new(),
        }
    }

    fn value(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, None, value);
    }

    fn count(&mut self, labels: &[(&str, &str)], value: u64) {
        self.line("", labels, None, value as f64);
    }

    fn histogram(&mut self, labels: &[(&str, &str)], times: &Histogram) {
        let mut below = 0;
        for (bound, bucket) in SECONDS.iter().zip(times.buckets) {
            below += bucket;
            let bound = (*bound as f64 / 1_000.0).to_string();
            self.line("_bucket", labels, Some(&bound), below as f64);
        }
        self.line("_bucket", labels, Some("+Inf"), times.count as f64);
        self.line("_sum", labels, None, times.sum_ms as f64 / 1_000.0);
        self.line("_count", labels, None, times.count as f64);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], le: Option<&str>, value: f64) {
        let labels = labels.iter().copied().chain(le.map(|bound| ("le", bound)));
        let labels: Vec<String> = labels
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let labels = match &labels[..] {
            [] => String::new(),
            labels => format!("{{{}}}", labels.join(",")),
        };
        // Writing to a string does not fail.
        let _ = writeln!(self.lines, "{}{suffix}{labels} {value}", self.name);
    }

    fn text(&self, out: &mut String) {
        if !self.lines.is_empty() {
            let Self {
                name,
                kind,
                help,
                lines,
            } = self;
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
        }
    }
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

/// Metrics of the calls to both ports, of one part of the process.
struct Ports {
    store: Metric,
    store_failed: Metric,
    transport: Metric,
    transport_failed: Metric,
    reports: Metric,
}

impl Ports {
    fn new() -> Self {
        Self {
            store: Metric::new(
                "flowkit_store_call_seconds",
                "histogram",
                "Answered calls to the store.",
            ),
            store_failed: Metric::new(
                "flowkit_store_calls_failed_total",
                "counter",
                "Failed calls to the store.",
            ),
            transport: Metric::new(
                "flowkit_transport_call_seconds",
                "histogram",
                "Answered calls to the transport; reads wait for entries.",
            ),
            transport_failed: Metric::new(
                "flowkit_transport_calls_failed_total",
                "counter",
                "Failed calls to the transport.",
            ),
            reports: Metric::new(
                "flowkit_reports_total",
                "counter",
                "What the machines reported, by kind.",
            ),
        }
    }

    fn calls(answered: &mut Metric, failed: &mut Metric, part: &str, calls: &Calls) {
        for (op, times) in &calls.answered {
            answered.histogram(&[("part", part), ("op", op)], times);
        }
        for (op, times) in &calls.failed {
            failed.count(&[("part", part), ("op", op)], *times);
        }
    }

    fn part(&mut self, part: &str, store: &Calls, transport: &Calls) {
        Self::calls(&mut self.store, &mut self.store_failed, part, store);
        Self::calls(
            &mut self.transport,
            &mut self.transport_failed,
            part,
            transport,
        );
    }
}

/// All metrics of a process.
pub(crate) fn text(process: &Process) -> String {
    let mut metrics = engine(process);
    let mut ports = Ports::new();
    workers(process, &mut metrics, &mut ports);
    coordinator(process, &mut metrics, &mut ports);
    let Ports {
        store,
        store_failed,
        transport,
        transport_failed,
        reports,
    } = ports;
    metrics.extend([store, store_failed, transport, transport_failed, reports]);
    #[cfg(feature = "otel")]
    metrics.extend(traces());
    let mut out = String::new();
    for metric in &metrics {
        metric.text(&mut out);
    }
    out
}

fn engine(process: &Process) -> Vec<Metric> {
    let mut info = Metric::new("flowkit_build_info", "gauge", "The program's version.");
    info.count(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let mut alive = Metric::new(
        "flowkit_alive",
        "gauge",
        "Every driver of this process turns.",
    );
    alive.count(&[], u64::from(process.is_alive()));
    let mut ready = Metric::new(
        "flowkit_ready",
        "gauge",
        "The process is ready, as /readyz says.",
    );
    ready.count(&[], u64::from(process.not_ready().is_empty()));
    let mut uptime = Metric::new("flowkit_uptime_seconds", "gauge", "Since health is served.");
    uptime.value(&[], process.uptime.as_secs_f64());
    let mut memory = Metric::new("process_resident_memory_bytes", "gauge", "Resident memory.");
    if let Some(bytes) = process.resident_bytes {
        memory.count(&[], bytes);
    }
    vec![info, alive, ready, uptime, memory]
}

#[cfg(feature = "otel")]
fn traces() -> Option<Metric> {
    let figures = crate::traces::current_figures()?;
    let mut spans = Metric::new(
        "flowkit_trace_spans_total",
        "counter",
        "Spans of traces by what became of them.",
    );
    spans.count(&[("outcome", "delivered")], figures.delivered);
    spans.count(&[("outcome", "dropped")], figures.dropped);
    Some(spans)
}

fn workers(process: &Process, metrics: &mut Vec<Metric>, ports: &mut Ports) {
    let mut up = Metric::new("flowkit_worker_ready", "gauge", "The worker is ready.");
    let mut capacity = Metric::new("flowkit_worker_capacity", "gauge", "Nodes it runs at once.");
    let mut free = Metric::new(
        "flowkit_worker_free_slots",
        "gauge",
        "Free slots, as its messages say.",
    );
    let mut active = Metric::new("flowkit_worker_active_runs", "gauge", "Runs of it now.");
    let mut abandoned = Metric::new(
        "flowkit_worker_abandoned_runs",
        "gauge",
        "Handlers that ignore their end and hold a slot.",
    );
    let mut lag = Metric::new(
        "flowkit_worker_inbox_lag",
        "gauge",
        "Messages in its inbox that it has not read.",
    );
    let mut heartbeat = Metric::new(
        "flowkit_worker_heartbeat_age_seconds",
        "gauge",
        "Since a heartbeat was confirmed last.",
    );
    let mut answered = Metric::new(
        "flowkit_worker_store_age_seconds",
        "gauge",
        "Since the store answered it last.",
    );
    let mut started = Metric::new(
        "flowkit_worker_runs_started_total",
        "counter",
        "Runs whose handler was started, by node type.",
    );
    let mut ended = Metric::new(
        "flowkit_worker_runs_ended_total",
        "counter",
        "Ended runs by node type and outcome.",
    );
    let mut runs = Metric::new(
        "flowkit_worker_run_seconds",
        "histogram",
        "Ended runs, by node type.",
    );
    let mut batches = Metric::new(
        "flowkit_worker_batch_seconds",
        "histogram",
        "Batches that succeeded, by node type.",
    );
    let mut failed = Metric::new(
        "flowkit_worker_batches_failed_total",
        "counter",
        "Batches that failed, by node type.",
    );
    for worker in &process.workers {
        let id = worker.status.worker_id.as_str();
        let labels = [("worker", id)];
        up.count(&labels, u64::from(worker.not_ready().is_empty()));
        capacity.count(&labels, u64::from(worker.status.capacity));
        active.count(&labels, worker.status.running.len() as u64);
        if let Ok(messages) = worker.look.lag {
            lag.count(&labels, messages);
        }
        let Some(vitals) = &worker.vitals else {
            continue;
        };
        free.count(&labels, u64::from(vitals.free_slots));
        abandoned.count(&labels, vitals.abandoned as u64);
        if let Some(ms) = vitals.heartbeat_ms {
            heartbeat.value(&labels, seconds(ms));
        }
        if let Some(ms) = vitals.store_ok_ms {
            answered.value(&labels, seconds(ms));
        }
        for (role, figures) in &vitals.roles {
            let labels = [("worker", id), ("type", role.as_str())];
            started.count(&labels, figures.runs_started);
            for (outcome, runs) in &figures.runs_ended {
                let labels = [labels[0], labels[1], ("outcome", outcome)];
                ended.count(&labels, *runs);
            }
            runs.histogram(&labels, &figures.runs);
            batches.histogram(&labels, &figures.batches);
            failed.count(&labels, figures.batches_failed);
        }
        ports.part(id, &vitals.store, &vitals.transport);
        for (kind, times) in &vitals.reports {
            ports
                .reports
                .count(&[("part", id), ("kind", kind.name())], *times);
        }
    }
    metrics.extend([
        up, capacity, free, active, abandoned, lag, heartbeat, answered, started, ended, runs,
        batches, failed,
    ]);
}

fn coordinator(process: &Process, metrics: &mut Vec<Metric>, ports: &mut Ports) {
    const PART: &str = "coordinator";
    let Some(health) = &process.coordinator else {
        return;
    };
    let mut up = Metric::new(
        "flowkit_coordinator_ready",
        "gauge",
        "The coordinator is ready.",
    );
    up.count(&[], u64::from(health.not_ready().is_empty()));
    metrics.push(up);
    let Some(vitals) = &health.vitals else {
        return;
    };
    let mut owned = Metric::new(
        "flowkit_coordinator_shards_owned",
        "gauge",
        "Shards that it owns.",
    );
    owned.count(&[], vitals.shards.len() as u64);
    let mut tasks = Metric::new(
        "flowkit_coordinator_tasks_in_flight",
        "gauge",
        "Tasks that are not settled.",
    );
    tasks.count(&[], vitals.tasks_in_flight as u64);
    let mut waiting = Metric::new(
        "flowkit_coordinator_waiting_nodes",
        "gauge",
        "Ready nodes that wait for a slot, by type.",
    );
    for (role, nodes) in &vitals.waiting {
        waiting.count(&[("type", role.as_str())], *nodes as u64);
    }
    let mut commits = Metric::new(
        "flowkit_coordinator_commits_total",
        "counter",
        "Commits that the store has taken.",
    );
    commits.count(&[], vitals.commits);
    let mut records = Metric::new(
        "flowkit_coordinator_records_total",
        "counter",
        "Records in those commits.",
    );
    records.count(&[], vitals.records);
    let mut batches = Metric::new(
        "flowkit_coordinator_batches_accepted_total",
        "counter",
        "Batches that were accepted.",
    );
    batches.count(&[], vitals.batches_accepted);
    let mut settled = Metric::new(
        "flowkit_coordinator_tasks_settled_total",
        "counter",
        "Settled tasks by outcome.",
    );
    for (state, tasks) in &vitals.tasks_settled {
        settled.count(&[("outcome", state)], *tasks);
    }
    let mut times = Metric::new(
        "flowkit_coordinator_task_seconds",
        "histogram",
        "Settled tasks from submission to end, by outcome.",
    );
    for (state, tasks) in &vitals.tasks {
        times.histogram(&[("outcome", state)], tasks);
    }
    let mut entries = Metric::new(
        "flowkit_coordinator_entries_read_total",
        "counter",
        "Messages read from its shards' streams.",
    );
    entries.count(&[], vitals.entries_read);
    let mut lag = Metric::new(
        "flowkit_coordinator_shard_lag",
        "gauge",
        "Messages of a shard that are not folded.",
    );
    let mut lease = Metric::new(
        "flowkit_coordinator_lease_age_seconds",
        "gauge",
        "Since the lease on a shard was renewed.",
    );
    for (shard, state) in &vitals.shards {
        let shard_name = shard.to_string();
        if let Some(Ok(messages)) = health.lags.get(shard) {
            lag.count(&[("shard", &shard_name)], *messages);
        }
        if let Some(ms) = state.renewed_ms {
            lease.value(&[("shard", &shard_name)], seconds(ms));
        }
    }
    metrics.extend([
        owned, tasks, waiting, commits, records, batches, settled, times, entries, lag, lease,
    ]);
    ports.part(PART, &vitals.store, &vitals.transport);
    for (kind, times) in &vitals.reports {
        ports
            .reports
            .count(&[("part", PART), ("kind", kind.name())], *times);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_upwards_and_a_label_stays_on_its_line() {
        let mut metric = Metric::new("m", "histogram", "Some times.");
        let mut times = Histogram::default();
        times.buckets[0] = 2;
        times.buckets[1] = 1;
        (times.count, times.sum_ms) = (4, 7_500);
        metric.histogram(&[("type", "a\"b\\c\nd")], &times);
        let mut text = String::new();
        metric.text(&mut text);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "# HELP m Some times.");
        assert_eq!(lines[1], "# TYPE m histogram");
        assert_eq!(lines[2], r#"m_bucket{type="a\"b\\c\nd",le="0.001"} 2"#);
        assert_eq!(lines[3], r#"m_bucket{type="a\"b\\c\nd",le="0.005"} 3"#);
        let last = &lines[lines.len() - 3..];
        assert_eq!(last[0], r#"m_bucket{type="a\"b\\c\nd",le="+Inf"} 4"#);
        assert_eq!(last[1], r#"m_sum{type="a\"b\\c\nd"} 7.5"#);
        assert_eq!(last[2], r#"m_count{type="a\"b\\c\nd"} 4"#);
    }

    #[test]
    fn a_metric_without_values_is_left_out() {
        let mut text = String::new();
        Metric::new("m", "gauge", "Nothing.").text(&mut text);
        assert_eq!(text, "");
    }
}
