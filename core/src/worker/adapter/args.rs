//! Names and arguments of the input adapters, checked at run time: a handler may propose them.

use serde::Serialize;
use std::sync::Arc;

use crate::graph::Adapter;
use crate::graph::adapter::{PULL, RECHUNK};
use crate::id::NodeId;
use crate::message::AdapterSpec;
use crate::planted::{Bug, is_planted};
use crate::worker::Config;

pub(super) const BAD_ARGS: &str = "bad_input_args";
const BAD_ADAPTER: &str = "bad_input_adapter";

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
            } if config.strict_input_adapters && !is_planted(Bug::StrictIgnored) => {
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
        // What is given is within the bounds of graphs. What is not is the worker's setting, and
        // gives way to what is.
        let poll_ms = match (pull.poll_ms, pull.backoff_max_ms) {
            (Some(given), _) => given,
            (None, Some(most)) => config.pull_poll_ms.min(most),
            (None, None) => config.pull_poll_ms,
        };
        let backoff = pull.backoff_max_ms;
        let backoff = backoff.unwrap_or(config.pull_empty_backoff_ms_max);
        Ok(Self {
            from_nodes: pull.sources,
            poll_ms: poll_ms.max(1),
            backoff_max_ms: backoff.max(poll_ms).max(1),
            eof_on_task_done: pull.eof_on_task_done,
            shape,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::WorkerId;
    use crate::json::Json;

    fn times(args: &str) -> Result<(u64, u64), String> {
        let text = format!("{{\"from_node\":\"a\"{args}}}");
        let spec = AdapterSpec {
            name: Arc::from(PULL),
            args: Json::parse(&text).expect("JSON"),
        };
        let worker = WorkerId::new("w").expect("an id");
        let config = Config::new(worker, Vec::new(), 1, 1);
        let args = Args::parse(&spec, &config).map_err(|(_, text)| text)?;
        Ok((args.poll_ms, args.backoff_max_ms))
    }

    #[test]
    fn times_within_the_bounds_of_graphs_are_taken_as_given() {
        for (args, expected) in [
            (r#","poll_ms":1,"backoff_max_ms":1"#, (1, 1)),
            (r#","poll_ms":7,"backoff_max_ms":86400000"#, (7, 86_400_000)),
            (r#","poll_ms":86400000"#, (86_400_000, 86_400_000)),
        ] {
            assert_eq!(times(args), Ok(expected), "{args}");
        }
        for (args, field) in [
            (r#","poll_ms":0"#, "poll_ms"),
            (r#","poll_ms":86400001"#, "poll_ms"),
            (r#","backoff_max_ms":0.5"#, "backoff_max_ms"),
            (r#","backoff_max_ms":86400001"#, "backoff_max_ms"),
        ] {
            let error = times(args).expect_err(field);
            let bounds = error.contains("86400000") || error.contains("86,400,000");
            assert!(error.contains(field) && bounds, "{error}");
        }
    }

    #[test]
    fn a_setting_gives_way_to_what_the_graph_says() {
        assert_eq!(times(""), Ok((300, 4_000)));
        assert_eq!(times(r#","poll_ms":5000"#), Ok((5_000, 5_000)));
        assert_eq!(times(r#","backoff_max_ms":100"#), Ok((100, 100)));
    }
}
