//! Ids of traces: they follow from the task's id, so that processes meet without asking each other.

use flowkit_core::hash::{stable64, stable128};
use opentelemetry::trace::{SpanId, TraceId};

/// The trace of a task, 16 bytes.
#[must_use]
pub fn trace_id_of(task: &str) -> u128 {
    // All zeros would be no id.
    stable128(&[b"trace", task.as_bytes()]).max(1)
}

/// The span `task` of that trace, 8 bytes: the parent of all its runs.
#[must_use]
pub fn span_id_of(task: &str) -> u64 {
    stable64(&[b"trace", task.as_bytes()]).max(1)
}

/// Both as OpenTelemetry has them.
pub(super) fn of(task: &str) -> (TraceId, SpanId) {
    (
        TraceId::from(trace_id_of(task)),
        SpanId::from(span_id_of(task)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_a_task_never_change_between_versions() {
        // Processes of two versions that speak of one task must meet.
        let (trace, span) = of("task-1");
        assert_eq!(trace.to_string(), TRACE);
        assert_eq!(span.to_string(), SPAN);
        assert_ne!(of("task-2"), of("task-1"));
    }

    const TRACE: &str = "d1cbf1a10c5d315b0da7bfc4ce031880";
    const SPAN: &str = "38c1faa6ca5477e5";
}
