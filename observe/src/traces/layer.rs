//! From `tracing` to traces: a run's span belongs to its task's trace, and a settled task is its root.

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceState,
};
use opentelemetry::{Context as OtelContext, ContextGuard, InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{
    Sampler, SdkTracer, ShouldSample, SpanData, SpanEvents, SpanLinks, SpanProcessor,
};
use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, SystemTime};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::ids;
use super::queue::Queue;

/// Where runs' spans are made, in the runtime.
const RUN: (&str, &str) = ("flowkit_runtime::run", "run");
/// What a coordinator says when a task is settled.
const TASK: &str = "flowkit_runtime::task";

thread_local! {
    /// The parent of the span that is being made, between the layer before and the one after.
    static PARENT: RefCell<Option<ContextGuard>> = const { RefCell::new(None) };
}

/// Spans at `info` and above; `RUST_LOG`, which is for the log, changes nothing here.
pub(super) fn layer<S>(
    tracer: &SdkTracer,
    queue: Queue,
    by_id: Sampler,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracer.clone())
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false);
    let wanted = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target(TASK, LevelFilter::DEBUG);
    Before { queue, by_id }
        .and_then(spans)
        .and_then(After)
        .with_filter(wanted)
        .boxed()
}

/// Seen before the span is made.
struct Before {
    queue: Queue,
    by_id: Sampler,
}

/// Seen after.
struct After;

impl<S: Subscriber> Layer<S> for Before {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let about = attributes.metadata();
        if (about.target(), about.name()) != RUN {
            return;
        }
        let mut said = Said::default();
        attributes.record(&mut said);
        let parent = self.span_context(&said.task, true);
        let parent = OtelContext::new().with_remote_span_context(parent);
        PARENT.with(|slot| *slot.borrow_mut() = Some(parent.attach()));
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == TASK {
            let mut said = Said::default();
            event.record(&mut said);
            self.queue.on_end(self.root(said));
        }
    }
}

impl<S: Subscriber> Layer<S> for After {
    fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        drop(PARENT.take());
    }
}

impl Before {
    /// The span `task` of a task; whether it is sampled follows from its id.
    fn span_context(&self, task: &str, is_remote: bool) -> SpanContext {
        let (trace, span) = ids::of(task);
        let sampled = self
            .by_id
            .should_sample(None, trace, "task", &SpanKind::Internal, &[], &[]);
        let sampled =
            sampled.decision == opentelemetry_sdk::trace::SamplingDecision::RecordAndSample;
        let flags = TraceFlags::default().with_sampled(sampled);
        SpanContext::new(trace, span, flags, is_remote, TraceState::default())
    }

    /// The root of a settled task's trace.
    fn root(&self, said: Said) -> SpanData {
        let end_time = SystemTime::now();
        // People's clocks: a submission from the future is one at its end.
        let start_time = SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_millis(said.created_at_ms))
            .map_or(end_time, |start| start.min(end_time));
        let span_context = self.span_context(&said.task, false);
        let status = match said.outcome.as_str() {
            "finished" => Status::Ok,
            "cancelled" => Status::Unset,
            _ => Status::error(said.reason.clone()),
        };
        let mut attributes = vec![
            KeyValue::new("task", said.task),
            KeyValue::new("outcome", said.outcome),
        ];
        if !said.reason.is_empty() {
            attributes.push(KeyValue::new("reason", said.reason));
        }
        SpanData {
            span_context,
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "task".into(),
            start_time,
            end_time,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: InstrumentationScope::builder("flowkit").build(),
        }
    }
}

/// The fields that are read here.
#[derive(Default)]
struct Said {
    task: String,
    outcome: String,
    reason: String,
    created_at_ms: u64,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = match field.name() {
            "task" => &mut self.task,
            "outcome" => &mut self.outcome,
            "reason" => &mut self.reason,
            _ => return,
        };
        *text = format!("{value:?}");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "created_at_ms" {
            self.created_at_ms = value;
        }
    }
}
