//! Names and arguments of the input adapters, checked at run time: a handler may propose them.

use serde::Deserialize;
use std::sync::Arc;

use crate::id::NodeId;
use crate::message::AdapterSpec;
use crate::worker::Config;

pub(super) const BAD_ARGS: &str = "bad_input_args";
const BAD_ADAPTER: &str = "bad_input_adapter";

const FROM_ARTIFACTS: &str = "pull.from_artifacts";
const RECHUNK: &str = "pull.from_artifacts.rechunk:size";

/// Shortest poll and longest backoff that are taken as given, in milliseconds.
const POLL_MS_MIN: u64 = 10;
const BACKOFF_MS_MAX: u64 = 3_600_000;

/// How artifacts become batches.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::worker) struct Args {
    pub(super) from_nodes: Vec<NodeId>,
    pub(super) poll_ms: u64,
    pub(super) backoff_max_ms: u64,
    /// False: the end of all sources is believed only after one more look at the store finds
    /// nothing new. Nothing can follow the end of a source, so waiting for ever would be no use.
    pub(super) eof_on_task_done: bool,
    pub(super) shape: Shape,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    from_nodes: Option<Vec<NodeId>>,
    #[serde(default)]
    from_node: Option<NodeId>,
    #[serde(default)]
    poll_ms: Option<u64>,
    #[serde(default)]
    backoff_max_ms: Option<u64>,
    #[serde(default)]
    eof_on_task_done: Option<bool>,
    #[serde(default)]
    size: Option<usize>,
    #[serde(default)]
    meta_list_key: Option<Arc<str>>,
}

pub(super) fn is_known(name: &str) -> bool {
    matches!(name, FROM_ARTIFACTS | RECHUNK)
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
        let raw: Raw = spec.args.decode().map_err(|e| bad(e.to_string()))?;
        let from_nodes = match (raw.from_nodes, raw.from_node) {
            (Some(nodes), None) => nodes,
            (None, Some(node)) => vec![node],
            _ => return Err(bad("give either `from_nodes` or `from_node`".into())),
        };
        if from_nodes.is_empty() {
            return Err(bad("`from_nodes` is empty; name at least one parent".into()));
        }
        if let Some(twice) = twice(&from_nodes) {
            return Err(bad(format!("`from_nodes` names `{twice}` twice")));
        }
        let shape = match (&*spec.name, raw.size, raw.meta_list_key) {
            (FROM_ARTIFACTS, None, None) => Shape::Whole,
            (FROM_ARTIFACTS, ..) => {
                let text = format!("`size` and `meta_list_key` belong to `{RECHUNK}`");
                return Err(bad(text));
            }
            (_, None | Some(0), _) => return Err(bad("`size` must be a number above 0".into())),
            (_, Some(_), None) if config.strict_input_adapters => {
                let text = "`strict_input_adapters` demands `meta_list_key`";
                return Err(bad(text.into()));
            }
            (_, Some(size), list_key) => Shape::Chunks { size, list_key },
        };
        let poll_ms = raw.poll_ms.unwrap_or(config.pull_poll_ms);
        let poll_ms = poll_ms.clamp(POLL_MS_MIN, BACKOFF_MS_MAX);
        let backoff = raw
            .backoff_max_ms
            .unwrap_or(config.pull_empty_backoff_ms_max);
        Ok(Self {
            from_nodes,
            poll_ms,
            backoff_max_ms: backoff.clamp(poll_ms, BACKOFF_MS_MAX),
            eof_on_task_done: raw.eof_on_task_done.unwrap_or(true),
            shape,
        })
    }
}

fn twice(nodes: &[NodeId]) -> Option<&NodeId> {
    nodes
        .iter()
        .enumerate()
        .find(|(index, node)| nodes[..*index].contains(node))
        .map(|(_, node)| node)
}
