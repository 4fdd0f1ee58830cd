//! What came of a run.

use std::any::Any;
use std::collections::BTreeMap;

use crate::checkers::Broken;
use crate::history::Event;
use crate::plan::Call;

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) broken: Vec<Broken>,
    pub(crate) fired: BTreeMap<&'static str, u64>,
    /// Calls that went wrong by the plan's rates, and how.
    pub(crate) struck: BTreeMap<Call, &'static str>,
    pub(crate) trace_hash: u64,
    pub(crate) trace_events: u64,
    /// True time at the end.
    pub(crate) ended_ms: u64,
    /// Time from healing until every task was settled; absent if they never were.
    pub(crate) settled_after_ms: Option<u64>,
    /// Longest time two handlers of one node overlapped.
    pub(crate) overlap_ms: u64,
    /// Effects of each host until every client had its last answer: the tasks' life.
    pub(crate) effects: Vec<u64>,
    pub(crate) history: Vec<Event>,
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
    text.unwrap_or_else(|| "a panic without words".to_owned())
}
