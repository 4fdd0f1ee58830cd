//! Traces over OpenTelemetry's protocol: every task is one trace.
//!
//! A task's trace id follows from its id, so what all processes of a deployment say of it meets in one
//! trace: `task` (by the coordinator, when it is settled), below it a `run` per grant, below that a `batch`
//! each, and below those whatever spans a handler makes itself with `tracing`.
//!
//! Spans are exported in the background: OTLP as protobuf over HTTP. At most 2,048 wait; what comes when the
//! queue is full, and what the collector did not take, is dropped and counted. Work never waits for it.
//!
//! ```no_run
//! use flowkit_observe::traces::{Endpoint, TraceOptions, start};
//! use tracing_subscriber::prelude::*;
//!
//! let endpoint = Endpoint::of_base("http://127.0.0.1:4318")?;
//! let (traces, layer) = start(TraceOptions::new(endpoint))?;
//! tracing_subscriber::registry().with(layer).init();
//! // ... engines, workers ...
//! let sent = traces.end(); // what still waits is sent, within three seconds
//! println!("{} spans delivered, {} dropped", sent.delivered, sent.dropped);
//! # Ok::<(), flowkit_observe::traces::TraceError>(())
//! ```

mod client;
mod endpoint;
mod figures;
mod ids;
mod layer;
mod queue;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanExporter as _};
use std::sync::Arc;
use std::time::Duration;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

pub use endpoint::{Endpoint, TraceError};
pub use figures::TraceFigures;
pub(crate) use figures::current as current_figures;
pub use ids::{span_id_of, trace_id_of};

/// How long the last spans may take to be sent.
const FLUSH: Duration = Duration::from_secs(3);
/// Once more after a moment, and once more; then the batch is dropped. New ones come all the time.
const RETRIES_MAX: usize = 2;

/// How traces are exported.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TraceOptions {
    /// Where the collector is.
    pub endpoint: Endpoint,
    /// Name of this service in traces; default `flowkit`. The variable `OTEL_SERVICE_NAME` wins.
    pub service_name: String,
    /// How long [`Traces::end`] waits for the last spans; default 3 s.
    pub flush: Duration,
}

impl TraceOptions {
    /// The defaults.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            service_name: "flowkit".to_owned(),
            flush: FLUSH,
        }
    }
}

/// Traces that are being exported.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    figures: Arc<figures::Figures>,
    flush: Duration,
}

impl Traces {
    /// What became of the spans so far.
    #[must_use]
    pub fn figures(&self) -> TraceFigures {
        self.figures.read()
    }

    /// Sends what still waits and ends. It blocks its thread, at most for [`TraceOptions::flush`].
    #[must_use = "what was dropped should be said"]
    pub fn end(self) -> TraceFigures {
        // A timeout shows in the figures: those spans are neither delivered nor dropped by then.
        let _ = self.provider.shutdown_with_timeout(self.flush);
        self.figures.ended()
    }
}

/// Starts the export, and gives the layer that makes spans of what `tracing` says.
///
/// Beside the endpoint, the standard variables hold: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
/// `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_TIMEOUT`, `OTEL_TRACES_SAMPLER` with its argument,
/// `OTEL_BSP_SCHEDULE_DELAY`. Whether a task is sampled follows from its trace id: all processes agree.
///
/// # Errors
/// [`TraceError`]: the exporter cannot be made of what the variables say.
pub fn start<S>(
    options: TraceOptions,
) -> Result<(Traces, Box<dyn Layer<S> + Send + Sync>), TraceError>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let figures = figures::start(options.endpoint.shown());
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client::Client::new(endpoint::timeout()))
        .with_retry_policy(RetryPolicy::recommended().with_max_retries(RETRIES_MAX))
        .with_endpoint(options.endpoint.url())
        .with_protocol(Protocol::HttpBinary)
        .build()
        .map_err(TraceError::exporter)?;
    exporter.set_resource(&resource(&options.service_name));
    let queue = queue::Queue::new(exporter, figures.clone());
    let ratio = endpoint::sampled_ratio(|name| std::env::var(name).ok());
    let by_id = Sampler::TraceIdRatioBased(ratio);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(queue.clone())
        .with_sampler(Sampler::ParentBased(Box::new(by_id.clone())))
        .build();
    let layer = layer::layer(&provider.tracer("flowkit"), queue, by_id);
    let traces = Traces {
        provider,
        figures,
        flush: options.flush,
    };
    Ok((traces, layer))
}

/// Who this process is, in every trace.
fn resource(service_name: &str) -> Resource {
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty());
    let builder = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ]);
    // Also in the attributes that the environment gives.
    let attributes = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    if named || attributes.contains("service.name=") {
        return builder.build();
    }
    builder.with_service_name(service_name.to_owned()).build()
}
