//! Input adapters: where a node's batches come from when the handler does not make them itself.

use serde_json::Value;
use std::sync::Arc;

use super::fault::{Fault, Faults, Path, quoted, similar};
use super::read::{Fields, id, ids, text};
use crate::id::NodeId;
use crate::message::AdapterSpec;

/// A batch per upstream artifact.
pub const PULL: &str = "pull.from_artifacts";
/// Upstream artifacts cut into chunks of a size.
pub const RECHUNK: &str = "pull.from_artifacts.rechunk:size";

/// Largest `size` of a chunk.
pub const CHUNK_SIZE_MAX: u32 = 1_000_000;
/// Longest `poll_ms` and `backoff_max_ms`: a day.
pub const POLL_MS_MAX: u32 = 86_400_000;

const NAMES: [&str; 2] = [PULL, RECHUNK];

/// What every pulling adapter is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// The nodes to read, at least one, each once, in the order written.
    pub sources: Vec<NodeId>,
    /// `poll_ms`: the fallback when no wake-up arrives; the worker's setting if absent.
    pub poll_ms: Option<u64>,
    /// `eof_on_task_done`: end once every source has ended and is read. Default true.
    pub eof_on_task_done: bool,
    /// `backoff_max_ms`: longest fallback wait while nothing comes; the worker's setting if absent.
    pub backoff_max_ms: Option<u64>,
}

/// A known adapter with checked arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adapter {
    /// [`PULL`].
    FromArtifacts(Pull),
    /// [`RECHUNK`].
    Rechunk {
        /// What to read.
        pull: Pull,
        /// Items per chunk, 1 to [`CHUNK_SIZE_MAX`].
        size: u32,
        /// The list in an artifact's meta to cut; each artifact is one item if absent.
        meta_list_key: Option<Arc<str>>,
    },
}

impl Adapter {
    /// Checks an adapter and its arguments: of a graph, or proposed by a handler's loaded input.
    ///
    /// # Errors
    /// Every fault, with paths below `input_inline`.
    pub fn parse(spec: &AdapterSpec) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::default();
        let root = Path::Root;
        let base = root.key("input_inline");
        let args = match spec.args.decode::<Value>() {
            Ok(args) => args,
            Err(error) => {
                faults.add(
                    base.key("input_args"),
                    format!("cannot be read: {error}"),
                    "write an object",
                );
                return Err(faults.into_list());
            }
        };
        match read(&spec.name, &args, &base, &mut faults) {
            Some(adapter) if faults.is_empty() => Ok(adapter),
            _ => Err(faults.into_list()),
        }
    }

    /// The nodes it reads.
    #[must_use]
    pub fn pull(&self) -> &Pull {
        match self {
            Self::FromArtifacts(pull) | Self::Rechunk { pull, .. } => pull,
        }
    }
}

/// Reads an adapter; `base` is the path of `input_inline`. With faults noted, what is returned is
/// the best reading, for further checks only.
pub(super) fn read(
    name: &str,
    args: &Value,
    base: &Path<'_>,
    faults: &mut Faults,
) -> Option<Adapter> {
    if !NAMES.contains(&name) {
        let cure = match similar(name, NAMES) {
            Some(like) => format!("did you mean `{like}`?"),
            None => format!("use `{PULL}` or `{RECHUNK}`, or leave it out"),
        };
        let problem = format!("{} is not an input adapter", quoted(name));
        faults.add(base.key("input_adapter"), problem, cure);
        return None;
    }
    let path = base.key("input_args");
    let rechunk = name == RECHUNK;
    let known: &[&str] = if rechunk {
        &[
            "from_nodes",
            "from_node",
            "poll_ms",
            "eof_on_task_done",
            "backoff_max_ms",
            "size",
            "meta_list_key",
        ]
    } else {
        &[
            "from_nodes",
            "from_node",
            "poll_ms",
            "eof_on_task_done",
            "backoff_max_ms",
        ]
    };
    let nothing = Value::Object(serde_json::Map::new());
    let args = if args.is_null() { &nothing } else { args };
    let fields = Fields::of(args, &path, known, faults)?;
    let pull = pull(fields, &path, faults);
    if !rechunk {
        return Some(Adapter::FromArtifacts(pull));
    }
    if fields.get("size").is_none() {
        let problem = "`size` is missing";
        faults.add(path, problem, "add `size`, the number of items per batch");
    }
    let size = fields.whole("size", 1, CHUNK_SIZE_MAX, faults).unwrap_or(1);
    let meta_list_key = fields.text("meta_list_key", faults);
    if meta_list_key == Some("") {
        let cure = "name a list in the artifact's meta, or leave it out";
        faults.add(fields.path("meta_list_key"), "is empty", cure);
    }
    Some(Adapter::Rechunk {
        pull,
        size,
        meta_list_key: meta_list_key.map(Arc::from),
    })
}

fn pull(fields: Fields<'_>, path: &Path<'_>, faults: &mut Faults) -> Pull {
    let sources = sources(fields, path, faults);
    let mut millis = |key| {
        fields
            .number(key, 1.0, f64::from(POLL_MS_MAX), faults)
            // In range, so the conversion is exact up to the fraction, which rounds up.
            .map(|ms| ms.ceil() as u64)
    };
    let poll_ms = millis("poll_ms");
    let backoff_max_ms = millis("backoff_max_ms");
    if let (Some(poll), Some(most)) = (poll_ms, backoff_max_ms)
        && most < poll
    {
        faults.add(
            fields.path("backoff_max_ms"),
            format!("is {most}, below `poll_ms` {poll}"),
            "raise `backoff_max_ms` or lower `poll_ms`",
        );
    }
    Pull {
        sources,
        poll_ms,
        eof_on_task_done: fields.flag("eof_on_task_done", faults).unwrap_or(true),
        backoff_max_ms,
    }
}

fn sources(fields: Fields<'_>, path: &Path<'_>, faults: &mut Faults) -> Vec<NodeId> {
    match (fields.get("from_nodes"), fields.get("from_node")) {
        (Some(_), Some(_)) => {
            faults.add(
                path,
                "both `from_nodes` and `from_node` are given",
                "keep `from_nodes` and put every source into it",
            );
            Vec::new()
        }
        (None, None) => {
            let cure = "add `from_nodes` with the nodes to read";
            faults.add(path, "neither `from_nodes` nor `from_node` is given", cure);
            Vec::new()
        }
        (Some(many), None) => {
            let path = fields.path("from_nodes");
            if many.as_array().is_some_and(Vec::is_empty) {
                faults.add(path, "is empty", "name at least one node to read");
            }
            ids(many, |t| NodeId::new(t), &path, faults)
                .into_iter()
                .map(|(_, id)| id)
                .collect()
        }
        (None, Some(one)) => {
            let path = fields.path("from_node");
            let name = text(one, &path, faults);
            name.and_then(|name| id(name, |t| NodeId::new(t), &path, faults))
                .into_iter()
                .collect()
        }
    }
}
