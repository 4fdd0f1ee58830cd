//! Traces of processes over servers, as a collector receives them.

use flowkit::traces::{span_id_of, trace_id_of};
use serde_json::json;
use std::collections::BTreeSet;

use super::collector::Collector;
use super::deployment::Deployment;

#[test]
fn a_task_over_servers_is_one_trace_whichever_processes_had_a_part_in_it() {
    let deployment = Deployment::new("traces", 1);
    let collector = Collector::start();
    let traced = |words: &[&str]| {
        let mut command = deployment.command(words);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OTEL_") {
                command.env_remove(name);
            }
        }
        command.env("FLOWKIT_OTLP_ENDPOINT", &collector.base);
        command.env("OTEL_BSP_SCHEDULE_DELAY", "50");
        deployment.started(command)
    };
    let _coordinator = traced(&["coordinator"]);
    let _first = traced(&["worker", "--worker-id", "first", "--role", "sleep"]);
    let _second = traced(&["worker", "--worker-id", "second", "--role", "echo"]);
    let file = deployment.graph(&json!({"nodes": [
        {"node_id": "wait", "type": "sleep", "io": {"input_inline": {"ms": 5, "batches": 2}}},
        {"node_id": "say", "type": "echo", "depends_on": ["wait"], "io": {"input_inline": {}}},
    ]}));
    let task = deployment.json(&["submit", &file, "--watch"], 0);
    let id = task["task_id"].as_str().expect("an id");
    let root = collector.wait(|span| span.name == "task");
    assert_eq!((root.trace, root.id), (trace_id_of(id), span_id_of(id)));
    assert_eq!(root.attributes["outcome"], "finished");
    let mut processes = BTreeSet::from([root.pid.clone()]);
    for (worker, batches) in [("first", 2), ("second", 1)] {
        let of = |name: &String| name == worker;
        let run = collector
            .wait(|span| span.name == "run" && span.attributes.get("worker").is_some_and(of));
        assert_eq!((run.trace, run.parent), (root.trace, root.id), "{run:?}");
        assert_ne!(run.status, 2, "{run:?}");
        // A span leaves when it has ended: those of a run's batches before that of the run.
        let spans = collector.spans();
        let below = spans.iter().filter(|span| span.parent == run.id);
        let below: Vec<_> = below.filter(|span| span.name == "batch").collect();
        assert_eq!(below.len(), batches, "{spans:?}");
        for batch in below {
            assert_eq!(
                (batch.trace, &batch.pid),
                (root.trace, &run.pid),
                "{batch:?}"
            );
            assert!(
                run.start <= batch.start && batch.end <= run.end,
                "{batch:?}"
            );
        }
        assert_eq!(run.service, "flowkit");
        processes.insert(run.pid);
    }
    assert_eq!(processes.len(), 3, "a coordinator and two workers");
}
