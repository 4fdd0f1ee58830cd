//! How far a task is: live bars on a terminal, plain lines elsewhere. Both on standard error.

use flowkit::prelude::{NodeState, NodeStatus, TaskStatus};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::colours;
use super::nodes::{in_order, word};
use super::output::eputln;
use super::table::{one_line, thousands};

/// Least time between two plain lines about counts.
const LINES_INTERVAL: Duration = Duration::from_secs(2);

/// Shows one task.
#[derive(Debug)]
pub(crate) struct Progress {
    view: View,
}

#[derive(Debug)]
enum View {
    Bars(MultiProgress, BTreeMap<String, ProgressBar>),
    Lines(BTreeMap<String, (NodeState, u64)>, Instant),
}

impl Progress {
    /// Bars if standard error is a terminal.
    pub(crate) fn new() -> Self {
        let view = if std::io::stderr().is_terminal() {
            View::Bars(MultiProgress::new(), BTreeMap::new())
        } else {
            View::Lines(BTreeMap::new(), Instant::now())
        };
        Self { view }
    }

    /// Shows a status.
    pub(crate) fn show(&mut self, task: &TaskStatus) {
        let steps = Steps::of(task);
        match &mut self.view {
            View::Bars(all, bars) => {
                for node in in_order(task) {
                    let name = node.node_id.to_string();
                    let bar = bars.entry(name).or_insert_with_key(|name| {
                        let bar = all.add(ProgressBar::new(0));
                        bar.set_style(style());
                        bar.set_prefix(one_line(name, 16));
                        bar.enable_steady_tick(Duration::from_millis(120));
                        bar
                    });
                    let (done, of) = steps.of_node(node);
                    bar.set_length(of);
                    bar.set_position(done);
                    bar.set_message(format!(
                        "{:9} {:>9} batches",
                        word(&node.state),
                        thousands(node.batches)
                    ));
                    if node.state.is_terminal() && !bar.is_finished() {
                        bar.abandon();
                    }
                }
            }
            View::Lines(seen, last) => {
                let due = last.elapsed() >= LINES_INTERVAL;
                for node in in_order(task) {
                    let now = (node.state, node.batches);
                    let before = seen.get(node.node_id.as_str()).copied();
                    let entered = before.is_none_or(|(state, _)| state != node.state);
                    if entered || (due && before != Some(now)) {
                        eputln!(
                            "{}: {}, {} batches",
                            one_line(node.node_id.as_str(), 40),
                            word(&node.state),
                            thousands(node.batches)
                        );
                        seen.insert(node.node_id.to_string(), now);
                        *last = Instant::now();
                    }
                }
            }
        }
    }

    /// Says something, above the bars.
    pub(crate) fn note(&self, text: &str) {
        match &self.view {
            // A terminal that cannot be written to shows no bars either.
            View::Bars(all, _) => drop(all.println(text)),
            View::Lines(..) => eputln!("{text}"),
        }
    }

    /// Ends the bars and leaves their last state on the screen.
    pub(crate) fn end(self) {
        if let View::Bars(_, bars) = self.view {
            for bar in bars.values() {
                bar.abandon();
            }
        }
    }
}

fn style() -> ProgressStyle {
    let template = format!("{{prefix:16}} {} {{msg}}", colours::bar());
    // The template is ours; were it wrong, the default style shows as much.
    ProgressStyle::with_template(&template).map_or_else(
        |_| ProgressStyle::default_bar(),
        |style| style.progress_chars("━╸─"),
    )
}

/// What the bars count: paths, where the nodes report them, else batches.
#[derive(Debug)]
struct Steps {
    found: u64,
}

impl Steps {
    fn of(task: &TaskStatus) -> Self {
        let found = task.nodes.iter().map(|node| sum(node, "found")).sum();
        Self { found }
    }

    /// How many are done, of how many.
    fn of_node(&self, node: &NodeStatus) -> (u64, u64) {
        let finished = node.state == NodeState::Finished;
        let counted = sum(node, "files") + sum(node, "unreadable");
        let (done, of) = match (sum(node, "found"), counted) {
            (0, 0) => (node.batches, node.batches + 1),
            (0, counted) => (counted, self.found),
            // While it walks nobody knows how much there is.
            (found, _) => (found, found + 1),
        };
        if finished {
            (of.max(1), of.max(1))
        } else {
            (done, of)
        }
    }
}

fn sum(node: &NodeStatus, metric: &str) -> u64 {
    // Sums of counts: whole and not negative.
    node.totals
        .get(metric)
        .map_or(0, |total| total.sum.0 as u64)
}
