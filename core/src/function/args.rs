//! Checking the arguments of a function when a graph is submitted.

use serde_json::Value;
use std::fmt;

use super::registry::Functions;
use crate::graph::{Faults, Path, quoted, similar};
use crate::id::NodeId;

/// The arguments of a node, and the faults found in them so far.
pub struct Check<'a> {
    pub(super) args: &'a Value,
    pub(super) node_id: Option<&'a NodeId>,
    pub(super) base: Path<'a>,
    pub(super) functions: &'a Functions,
    pub(super) faults: &'a mut Faults,
    pub(super) reads: Vec<NodeId>,
}

impl fmt::Debug for Check<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").finish_non_exhaustive()
    }
}

impl<'a> Check<'a> {
    pub(crate) fn new(
        args: &'a Value,
        node_id: Option<&'a NodeId>,
        base: Path<'a>,
        functions: &'a Functions,
        faults: &'a mut Faults,
    ) -> Self {
        Self {
            args,
            node_id,
            base,
            functions,
            faults,
            reads: Vec::new(),
        }
    }

    /// `io.fn_args`, an empty object if absent.
    #[must_use]
    pub fn args(&self) -> &'a Value {
        self.args
    }

    /// Notes a fault at a place below `fn_args` (an empty place is `fn_args` itself): what is wrong
    /// and what to do about it. Never put a value into either that may be a secret.
    pub fn fault(
        &mut self,
        place: impl fmt::Display,
        problem: impl Into<String>,
        cure: impl Into<String>,
    ) {
        let place = place.to_string();
        if place.is_empty() {
            self.faults.add(self.base, problem, cure);
        } else {
            let path = format!("{}.{place}", self.base);
            self.faults.add(path, problem, cure);
        }
    }

    /// Says that the function reads a node: it must be a parent.
    pub fn reads(&mut self, node: NodeId) {
        self.reads.push(node);
    }

    pub(crate) fn into_reads(self) -> Vec<NodeId> {
        self.reads
    }

    /// The detectors that `block_sensitive` asks for: `true` for `secrets`, or a list of names.
    pub(super) fn detectors(&mut self, value: Option<&Value>) -> Vec<String> {
        let path = self.base.key("block_sensitive");
        let items = match value {
            None | Some(Value::Bool(false)) => return Vec::new(),
            Some(Value::Bool(true)) => return vec![super::SECRETS.to_owned()],
            Some(Value::Array(items)) if !items.is_empty() => items,
            Some(_) => {
                let cure = "write true, false, or a list of detectors";
                self.faults.add(path, "is none of these", cure);
                return Vec::new();
            }
        };
        let mut names = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let at = path.index(index);
            let Some(name) = crate::graph::text(item, &at, self.faults) else {
                continue;
            };
            if self.functions.detector_named(name).is_none() {
                let known: Vec<&str> = self.functions.detector_names().collect();
                let cure = match similar(name, known.iter().copied()) {
                    Some(like) => format!("did you mean `{like}`?"),
                    None => format!("use one of {}", known.join(", ")),
                };
                let problem = format!("{} is not a detector", quoted(name));
                self.faults.add(at, problem, cure);
            }
            names.push(name.to_owned());
        }
        names
    }
}
