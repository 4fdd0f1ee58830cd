//! Names and arguments of the input adapters, checked at run time: a handler may propose them.

use serde::Serialize;
use std::sync::Arc;

use crate::graph::Adapter;
use crate::graph::adapter::{PULL, RECHUNK};
use crate::id::NodeId;
use crate::message::AdapterSpec;
use crate::worker::Config;

pub(super) const BAD_ARGS: &str = "bad_input_args";
const BAD_ADAPTER: &str = "bad_input_adapter";

/// Shortest poll and longest backoff that are taken as given, in milliseconds.
const POLL_MS_MIN: u64 = 10;
const BACKOFF_MS_MAX: u64 = 3_600_000;

/// How artifacts become batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::worker) enum Shape {
    /// One batch per artifact.
    Whole,
    /// Chunks of `size` items of `meta[list_key]`; artifacts without such a list are one item.
    Chunks {
        size: usize,
        list_key: Option<Arc<str>>,
    },
}

/// Checked arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::worker) struct Args {
    pub(super) from_nodes: Vec<NodeId>,
    pub(super) poll_ms: u64,
    pub(super) backoff_max_ms: u64,
    /// False: the end of all sources is believed only after one more look at the store finds
    /// nothing new. Nothing can follow the end of a source, so waiting for ever would be no use.
    pub(super) eof_on_task_done: bool,
    pub(super) shape: Shape,
}

pub(super) fn is_known(name: &str) -> bool {
    matches!(name, PULL | RECHUNK)
}

impl Args {
    /// Checks an adapter's name and arguments.
    ///
    /// # Errors
    /// Reason code and text of a permanent failure.
    pub(in crate::worker) fn parse(
        spec: &AdapterSpec,
        config: &Config,
    ) -> Result<Self, (&'static str, String)> {
        if !is_known(&spec.name) {
            let text = format!("input adapter `{}` is not known to this worker", spec.name);
            return Err((BAD_ADAPTER, text));
        }
        let bad = |text: String| (BAD_ARGS, format!("{}: {text}", spec.name));
        let adapter = Adapter::parse(spec).map_err(|faults| {
            let texts: Vec<String> = faults.iter().take(5).map(ToString::to_string).collect();
            bad(texts.join(" | "))
        })?;
        let pull = adapter.pull().clone();
        let shape = match adapter {
            Adapter::FromArtifacts(_) => Shape::Whole,
            Adapter::Rechunk {
                meta_list_key: None,
                ..
            } if config.strict_input_adapters => {
                let text = "`strict_input_adapters` demands `meta_list_key`";
                return Err(bad(text.into()));
            }
            Adapter::Rechunk {
                size,
                meta_list_key,
                ..
            } => Shape::Chunks {
                // Above 0 and far below a usize.
                size: size as usize,
                list_key: meta_list_key,
            },
        };
        let poll_ms = pull.poll_ms.unwrap_or(config.pull_poll_ms);
        let poll_ms = poll_ms.clamp(POLL_MS_MIN, BACKOFF_MS_MAX);
        let backoff = pull
            .backoff_max_ms
            .unwrap_or(config.pull_empty_backoff_ms_max);
        Ok(Self {
            from_nodes: pull.sources,
            poll_ms,
            backoff_max_ms: backoff.clamp(poll_ms, BACKOFF_MS_MAX),
            eof_on_task_done: pull.eof_on_task_done,
            shape,
        })
    }
}
