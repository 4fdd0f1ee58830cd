//! Spans: what a log or a trace of a batch is about.

use flowkit_runtime::{Batch, BatchResult, HandlerError, Json, RunContext, handler_fn};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::support::{engine, one_node, submit, worker};

type Spans = Arc<Mutex<Vec<BTreeMap<String, String>>>>;

/// Keeps the fields of spans named `run` and `batch`, each with its name, id and parent.
struct Kept(Spans);

struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Kept {
    fn on_new_span(&self, span: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let name = span.metadata().name();
        if matches!(name, "run" | "batch") {
            let mut fields = Fields(BTreeMap::new());
            span.record(&mut fields);
            let mut note = |key: &str, value: String| fields.0.insert(key.to_owned(), value);
            note("name", name.to_owned());
            note("id", format!("{id:?}"));
            let parent = context.span(id).and_then(|span| span.parent());
            note(
                "parent",
                parent.map_or_else(String::new, |parent| format!("{:?}", parent.id())),
            );
            self.0.lock().unwrap().push(fields.0);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let id = format!("{id:?}");
        let mut spans = self.0.lock().unwrap();
        if let Some(span) = spans.iter_mut().find(|span| span["id"] == id) {
            let mut fields = Fields(std::mem::take(span));
            values.record(&mut fields);
            *span = fields.0;
        }
    }
}

fn kept() -> (
    Spans,
    (tracing::subscriber::DefaultGuard, tracing::Dispatch),
) {
    // While there is but one subscriber in the process, a span that another thread, which has none, meets first is
    // taken for one that nobody wants.
    let second = tracing::Dispatch::new(tracing_subscriber::registry());
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(Kept(spans.clone()));
    (
        spans,
        (tracing::subscriber::set_default(subscriber), second),
    )
}

#[tokio::test]
async fn a_batch_in_work_is_a_span_inside_one_that_names_task_node_attempt_and_worker() {
    let (spans, _guard) = kept();
    let engine = engine().await;
    let handler = handler_fn(|_: RunContext, _: Batch<Json>| async move {
        Ok::<_, HandlerError>(BatchResult::of(1))
    });
    let handle = worker(&engine, "r", handler);
    let task = submit(&engine, &one_node("r", json!({}))).await;
    task.wait().await.expect("it ends");
    engine.stop().await;
    let spans = spans.lock().unwrap();
    let [run, batch] = &spans[..] else {
        panic!("{spans:?}");
    };
    let worker_id = handle.id().to_string();
    for (field, value) in [
        ("name", "run"),
        ("task", task.id().as_str()),
        ("node", "n"),
        ("epoch", "1"),
        ("worker", worker_id.as_str()),
        ("role", "r"),
        ("outcome", "\"done\""),
    ] {
        assert_eq!(run.get(field).map(String::as_str), Some(value), "{run:?}");
    }
    assert_eq!(batch["name"], "batch");
    assert_eq!(batch["parent"], run["id"]);
    assert_eq!(batch["outcome"], "\"done\"");
    assert!(batch.contains_key("batch"), "{batch:?}");
}

#[tokio::test]
async fn a_span_says_the_class_of_an_error_and_never_the_error() {
    let (spans, _guard) = kept();
    let engine = engine().await;
    let handler = handler_fn(|_: RunContext, _: Batch<Json>| async move {
        Err::<BatchResult<()>, _>(HandlerError::permanent(
            "bad_page",
            "the password is hunter2",
        ))
    });
    let _handle = worker(&engine, "r", handler);
    let task = submit(&engine, &one_node("r", json!({}))).await;
    task.wait().await.expect("it ends");
    engine.stop().await;
    let spans = spans.lock().unwrap();
    assert_eq!(spans.len(), 2, "{spans:?}");
    for span in spans.iter() {
        assert_eq!(span["outcome"], "\"failed\"", "{span:?}");
        assert_eq!(span["reason"], "\"bad_page\"", "{span:?}");
        assert_eq!(span["otel.status_code"], "\"ERROR\"", "{span:?}");
    }
    assert!(!format!("{spans:?}").contains("hunter2"), "{spans:?}");
}
