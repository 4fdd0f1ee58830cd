//! The queue of finished spans: bounded, sent from a thread of its own, counted.

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};
use std::sync::Arc;
use std::time::Duration;

use super::figures::Figures;

/// Most spans that wait.
const QUEUE_MAX: u32 = 2_048;
/// Most spans of one request.
const BATCH_MAX: usize = 512;

/// Takes finished spans; never waits. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    sender: Arc<BatchSpanProcessor>,
    figures: Arc<Figures>,
}

impl Queue {
    pub(super) fn new(exporter: impl SpanExporter + 'static, figures: Arc<Figures>) -> Self {
        let exporter = Counted {
            exporter,
            figures: figures.clone(),
        };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_MAX as usize)
            .with_max_export_batch_size(BATCH_MAX)
            .build();
        let sender = BatchSpanProcessor::builder(exporter)
            .with_batch_config(config)
            .build();
        Self {
            sender: Arc::new(sender),
            figures,
        }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.figures.enter(u64::from(QUEUE_MAX)) {
            self.sender.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.sender.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.sender.shutdown_with_timeout(timeout)
    }

    /// The exporter has it already.
    fn set_resource(&mut self, _: &Resource) {}
}

/// An exporter whose outcomes are counted.
#[derive(Debug)]
struct Counted<E> {
    exporter: E,
    figures: Arc<Figures>,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let result = self.exporter.export(batch).await;
        let error = result.as_ref().err().map(ToString::to_string);
        self.figures.answered(spans, error);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
