//! Spans: what a log or a trace of a batch is about.

use flowkit_runtime::{Batch, BatchResult, HandlerError, Json, RunContext, handler_fn};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::support::{engine, one_node, submit, worker};

type Spans = Arc<Mutex<Vec<BTreeMap<String, String>>>>;

/// Keeps the fields of spans named `batch`.
struct Kept {
    spans: Spans,
    newest: AtomicU64,
}

struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl Subscriber for Kept {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        if span.metadata().name() == "batch" {
            let mut fields = Fields(BTreeMap::new());
            span.record(&mut fields);
            self.spans.lock().unwrap().push(fields.0);
        }
        Id::from_u64(self.newest.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_batch_in_work_is_a_span_that_names_task_node_attempt_and_worker() {
    let spans = Spans::default();
    let _guard = tracing::subscriber::set_default(Kept {
        spans: spans.clone(),
        newest: AtomicU64::new(0),
    });
    let engine = engine().await;
    let handler = handler_fn(|_: RunContext, _: Batch<Json>| async move {
        Ok::<_, HandlerError>(BatchResult::of(1))
    });
    let handle = worker(&engine, "r", handler);
    let task = submit(&engine, &one_node("r", json!({}))).await;
    task.wait().await.expect("it ends");
    engine.stop().await;
    let spans = spans.lock().unwrap();
    assert_eq!(spans.len(), 1, "{spans:?}");
    let worker_id = handle.id().to_string();
    for (field, value) in [
        ("task", task.id().as_str()),
        ("node", "n"),
        ("epoch", "1"),
        ("worker", worker_id.as_str()),
    ] {
        assert_eq!(
            spans[0].get(field).map(String::as_str),
            Some(value),
            "{spans:?}"
        );
    }
    assert!(spans[0].contains_key("batch"), "{spans:?}");
}
