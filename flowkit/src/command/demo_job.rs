//! What the demo runs and what it says at the end. Pure: no engine, no I/O.

use flowkit::prelude::TaskStatus;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;

use super::nodes::{counts, failure_value, nodes_table};
use super::table::{Table, one_line, thousands};
use crate::roles::{Counts, ENTRIES_KEY, FileReport, METRICS, SCAN_BATCH_SIZE, path_text};

/// Files per batch of the measuring node: a scan's batch gives several.
const MEASURE_BATCH_SIZE: usize = 16;

/// The node whose artifacts add up to the answer.
pub(crate) const LAST_NODE: &str = "summarize";
/// The node whose artifacts say how far an unfinished task is.
pub(crate) const COUNTING_NODE: &str = "measure";

/// Extensions shown in the table; the JSON has all of them.
const EXTENSIONS_SHOWN: usize = 10;
/// Unreadable paths shown below the table.
const UNREADABLE_SHOWN: usize = 5;

/// The graph over a folder; both paths are absolute.
pub(crate) fn graph(dir: &Path, data: Option<&Path>) -> Value {
    // A file system hiccup deserves a second look, soon: nobody waits five minutes for a demo.
    let retry = json!({"max": 3, "backoff_sec": 0.5});
    let text = path_text::encode;
    let exclude: Vec<_> = data.map(text).into_iter().collect();
    json!({"nodes": [
        {
            "node_id": "scan", "type": "scan", "retry_policy": retry,
            "io": {"input_inline": {
                "dir": text(dir), "exclude": exclude, "batch_size": SCAN_BATCH_SIZE,
            }},
        },
        {
            "node_id": COUNTING_NODE, "type": "measure", "depends_on": ["scan"], "retry_policy": retry,
            "io": {
                "start_when": "first_batch",
                "input_inline": {
                    "input_adapter": "pull.from_artifacts.rechunk:size",
                    "input_args": {
                        "from_nodes": ["scan"], "size": MEASURE_BATCH_SIZE,
                        "meta_list_key": ENTRIES_KEY,
                    },
                },
            },
        },
        {
            "node_id": LAST_NODE, "type": "summarize", "depends_on": [COUNTING_NODE],
            "retry_policy": retry,
            "io": {"input_inline": {
                "input_adapter": "pull.from_artifacts",
                "input_args": {"from_nodes": [COUNTING_NODE]},
            }},
        },
    ]})
}

/// What the demo says at the end.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    /// The task as it is now.
    pub(crate) task: &'a TaskStatus,
    /// The sum of accepted artifacts.
    pub(crate) report: FileReport,
}

impl Answer<'_> {
    /// What contradicts itself: the sums of the artifacts and of the metrics of a finished task are
    /// two ways to the same numbers.
    pub(crate) fn contradiction(&self) -> Option<String> {
        let result = self.task.node(LAST_NODE)?.result.as_ref()?;
        let result: Value = result.decode().ok()?;
        let json = self.json();
        let differs = METRICS.iter().find(|name| result[**name] != json[**name])?;
        Some(format!(
            "`{differs}` is {} by the artifacts and {} by the metrics",
            json[*differs], result[*differs]
        ))
    }

    /// The one JSON object.
    pub(crate) fn json(&self) -> Value {
        let report = &self.report;
        let mut value = json!({
            "task_id": self.task.task_id,
            "status": self.task.state,
            "files": report.all.files,
            "lines": report.all.lines,
            "words": report.all.words,
            "bytes": report.all.bytes,
            "by_extension": report.by_extension,
            "unreadable": report.unreadable,
            "nodes": counts(self.task),
        });
        if report.unreadable > 0 {
            value["unreadable_paths"] = json!(report.unreadable_paths);
        }
        if let Some(failure) = &self.task.failure {
            value["failure"] = failure_value(failure);
        }
        value
    }

    /// The tables for people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut files = Table::new(&["extension", "files", "lines", "words", "bytes"]);
        let mut by_size: Vec<_> = self.report.by_extension.iter().collect();
        by_size.sort_by_key(|(name, counts)| (std::cmp::Reverse(counts.lines), *name));
        let mut others = Counts::default();
        for (at, (name, counts)) in by_size.iter().enumerate() {
            if at < EXTENSIONS_SHOWN {
                let name = if name.is_empty() { "(none)" } else { name };
                row(&mut files, &one_line(name, 20), counts);
            } else {
                others += **counts;
            }
        }
        if by_size.len() > EXTENSIONS_SHOWN {
            let rest = by_size.len() - EXTENSIONS_SHOWN;
            row(&mut files, &format!("({rest} others)"), &others);
        }
        row(&mut files, "total", &self.report.all);
        // Writing to a text cannot fail.
        let _ = write!(text, "\n{files}\n{}", nodes_table(self.task));
        if self.report.unreadable > 0 {
            let _ = writeln!(text, "\nunreadable: {}", thousands(self.report.unreadable));
            for unreadable in self.report.unreadable_paths.iter().take(UNREADABLE_SHOWN) {
                let path = one_line(&unreadable.path, 100);
                let _ = writeln!(text, "  {path}: {}", one_line(&unreadable.reason, 100));
            }
            if self.report.unreadable > UNREADABLE_SHOWN as u64 {
                text.push_str("  …\n");
            }
        }
        text
    }
}

fn row(table: &mut Table, name: &str, counts: &Counts) {
    table.row([
        name.to_owned(),
        thousands(counts.files),
        thousands(counts.lines),
        thousands(counts.words),
        thousands(counts.bytes),
    ]);
}
