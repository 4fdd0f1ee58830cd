//! Reports of the machines as log lines.

use flowkit_core::report::{Report, ReportKind};

pub(crate) fn log(report: &Report) {
    let task = report.task_id.as_ref().map(tracing::field::display);
    let node = report.node_id.as_ref().map(tracing::field::display);
    let token = report.token.map(|token| token.0);
    let kind = report.kind;
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(task, node, token, ?kind, "{}", report.detail)
        };
    }
    match kind {
        ReportKind::Rejected | ReportKind::Run => line!(debug),
        ReportKind::ShardOwned => line!(info),
        ReportKind::Quarantined | ReportKind::StreamReplaced | ReportKind::Superseded => {
            line!(error)
        }
        _ => line!(warn),
    }
}
