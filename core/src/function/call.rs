//! A call of a function, and what comes of it.

use serde_json::{Map, Number, Value};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::detect::flagged;
use super::registry::Functions;
use super::{Function, RESULT_BYTES_MAX};
use crate::id::NodeId;
use crate::json::{Json, check_value};
use crate::planted::{Bug, is_planted};
use crate::record::{NodeState, Totals};
use crate::vars::{Change, Problem, VarPath, apply, flatten};

/// What a function is called with.
#[derive(Debug)]
pub struct Call<'a> {
    /// The node.
    pub node_id: &'a NodeId,
    /// `io.fn_args`, an empty object if absent.
    pub args: &'a Value,
    /// The task's vars.
    pub vars: &'a Map<String, Value>,
    /// The node's parents.
    pub upstream: &'a [Upstream<'a>],
    /// What the coordinator knows.
    pub(crate) functions: &'a Functions,
}

/// A parent of the node, as it is now. A parent that has ended stays as it is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Upstream<'a> {
    /// The parent.
    pub node_id: &'a NodeId,
    /// Its state.
    pub state: NodeState,
    /// Its accepted batches, each with an artifact.
    pub batches: u64,
    /// Totals of its numeric metrics over them.
    pub totals: &'a Totals,
    /// What it marked complete, or its `finalize` or its function returned, once it finished.
    pub result: Option<&'a Json>,
}

impl<'a> Upstream<'a> {
    pub(crate) fn of(record: &'a crate::record::NodeRecord) -> Self {
        Self {
            node_id: &record.node_id,
            state: record.state,
            batches: record.accepted,
            totals: &record.totals,
            result: record
                .result
                .as_ref()
                .filter(|_| record.state == NodeState::Finished),
        }
    }
}

impl Call<'_> {
    /// What stands at a path of the vars.
    #[must_use]
    pub fn var(&self, path: &str) -> Option<&Value> {
        VarPath::read(path).ok()?.get(self.vars)
    }

    /// An argument that is a text.
    ///
    /// # Errors
    /// `bad_args` if it is absent or no text.
    pub fn text_arg(&self, name: &str) -> Result<&str, FunctionError> {
        self.args[name]
            .as_str()
            .ok_or_else(|| FunctionError::new("bad_args", format!("fn_args.{name} must be a text")))
    }

    /// A parent by its name.
    #[must_use]
    pub fn parent(&self, node: &str) -> Option<&Upstream<'_>> {
        self.upstream.iter().find(|up| up.node_id.as_str() == node)
    }
}

/// Why a function failed: the node fails for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionError {
    /// Short, stable name of the error class, as in `no_number`.
    pub reason_code: Arc<str>,
    /// One sentence for people. Never put a value into it that may be a secret.
    pub text: Arc<str>,
}

impl FunctionError {
    /// An error.
    pub fn new(reason_code: impl AsRef<str>, text: impl AsRef<str>) -> Self {
        Self {
            reason_code: Arc::from(reason_code.as_ref()),
            text: Arc::from(text.as_ref()),
        }
    }
}

impl fmt::Display for FunctionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason_code, self.text)
    }
}

impl std::error::Error for FunctionError {}

impl From<Problem> for FunctionError {
    fn from(problem: Problem) -> Self {
        Self::new(problem.reason_code, problem.text)
    }
}

/// What a function wants to be changed. All of it is made, in this order, or none.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "changes are made only if they are returned"]
pub struct Changes {
    steps: Vec<Step>,
    result: Option<Value>,
    detectors: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Set(String, Value),
    Merge(Value),
    Incr(String, Value),
    Unset(String),
    Ready(Change),
}

impl Changes {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a value at a path. A value on the way that is no object makes the node fail with
    /// `not_an_object`.
    pub fn set(mut self, path: impl Into<String>, value: impl Into<Value>) -> Self {
        self.steps.push(Step::Set(path.into(), value.into()));
        self
    }

    /// Merges an object into the vars, object by object; any other value replaces what is there.
    pub fn merge(mut self, object: impl Into<Value>) -> Self {
        self.steps.push(Step::Merge(object.into()));
        self
    }

    /// Adds to the number at a path, to 0 if nothing is there.
    pub fn incr(mut self, path: impl Into<String>, by: impl Into<Value>) -> Self {
        self.steps.push(Step::Incr(path.into(), by.into()));
        self
    }

    /// Removes what is at a path, and the parents that are empty then.
    pub fn unset(mut self, path: impl Into<String>) -> Self {
        self.steps.push(Step::Unset(path.into()));
        self
    }

    /// The node's result, at most [`RESULT_BYTES_MAX`] bytes of JSON.
    pub fn result(mut self, value: impl Into<Value>) -> Self {
        self.result = Some(value.into());
        self
    }

    /// Fails with `sensitive_value` if one of these detectors flags a new value, or the result.
    pub fn block_sensitive<N: Into<String>>(
        mut self,
        detectors: impl IntoIterator<Item = N>,
    ) -> Self {
        self.detectors.extend(detectors.into_iter().map(Into::into));
        self
    }

    pub(super) fn made_of(changes: Vec<Change>) -> Self {
        Self {
            steps: changes.into_iter().map(Step::Ready).collect(),
            ..Self::default()
        }
    }
}

/// A call that went well.
#[derive(Debug)]
pub(crate) struct Done {
    /// The new vars, if they changed.
    pub(crate) vars: Option<Map<String, Value>>,
    /// The node's result.
    pub(crate) result: Option<Json>,
}

/// Calls a function and makes its changes on a copy of the vars.
pub(crate) fn carry_out(function: &dyn Function, call: &Call<'_>) -> Result<Done, FunctionError> {
    let wanted = function.run(call)?;
    let result = match &wanted.result {
        None => None,
        Some(value) => Some(result_of(value)?),
    };
    let changes = wanted.changes()?;
    wanted.check_sensitive(&changes, call.functions)?;
    if changes.is_empty() {
        return Ok(Done { vars: None, result });
    }
    let mut vars = call.vars.clone();
    apply(&mut vars, &changes)?;
    let changed = vars != *call.vars;
    Ok(Done {
        vars: changed.then_some(vars),
        result,
    })
}

fn result_of(value: &Value) -> Result<Json, FunctionError> {
    let json = Json::from(value.clone());
    if json.len() > RESULT_BYTES_MAX {
        let text = format!(
            "its result has {} bytes; at most {RESULT_BYTES_MAX}",
            json.len()
        );
        return Err(FunctionError::new("result_too_large", text));
    }
    check_value(&json, RESULT_BYTES_MAX)
        .map_err(|text| FunctionError::new("bad_value", format!("its result: {text}")))?;
    Ok(json)
}

impl Changes {
    fn changes(&self) -> Result<Vec<Change>, FunctionError> {
        let path = |text: &str| {
            VarPath::read(text).map_err(|fault| {
                let text = format!("the path {} {fault}", crate::graph::quoted(text));
                FunctionError::new("bad_path", text)
            })
        };
        let mut changes = Vec::new();
        for step in &self.steps {
            match step {
                Step::Set(at, value) => changes.push(Change::Set(path(at)?, value.clone())),
                Step::Merge(value) => {
                    if !value.is_object() {
                        let text = "only an object can be merged into the vars";
                        return Err(FunctionError::new("not_an_object", text));
                    }
                    let (mut leaves, mut faults) = (Vec::new(), Vec::new());
                    flatten(&VarPath::root(), value, &mut leaves, &mut faults);
                    if let Some((at, fault)) = faults.first() {
                        let text = format!("what is merged has a bad key below `{at}`: {fault}");
                        return Err(FunctionError::new("bad_path", text));
                    }
                    // An empty object changes nothing.
                    let leaves = leaves
                        .into_iter()
                        .filter(|(at, _)| at.keys().next().is_some());
                    changes.extend(leaves.map(|(at, value)| Change::Merge(at, value.clone())));
                }
                Step::Incr(at, by) => {
                    let by: Option<&Number> = by.as_number();
                    let by = by.cloned().ok_or_else(|| {
                        FunctionError::new(
                            "not_a_number",
                            format!("`{at}` is increased by no number"),
                        )
                    })?;
                    changes.push(Change::Incr(path(at)?, by));
                }
                Step::Unset(at) => changes.push(Change::Unset(path(at)?)),
                Step::Ready(change) => changes.push(change.clone()),
            }
        }
        Ok(changes)
    }

    fn check_sensitive(
        &self,
        changes: &[Change],
        functions: &Functions,
    ) -> Result<(), FunctionError> {
        if let Some(unknown) = self
            .detectors
            .iter()
            .find(|name| functions.detector_named(name).is_none())
        {
            let text = format!("there is no detector {}", crate::graph::quoted(unknown));
            return Err(FunctionError::new("no_detector", text));
        }
        let refused = |place: Cow<'_, str>, name: &str| {
            if is_planted(Bug::SensitiveTaken) {
                return Ok(());
            }
            let text = format!("{place} looks sensitive to the detector `{name}`");
            Err(FunctionError::new("sensitive_value", text))
        };
        for change in changes {
            if let Change::Set(path, value) | Change::Merge(path, value) = change
                && let Some(name) = flagged(value, &self.detectors, functions)
            {
                return refused(format!("the value for `{path}`").into(), name);
            }
        }
        if let Some(result) = &self.result
            && let Some(name) = flagged(result, &self.detectors, functions)
        {
            return refused("the result".into(), name);
        }
        Ok(())
    }
}
