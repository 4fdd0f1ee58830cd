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
/// Up to so many nodes each have a bar. Of more, one bar counts them, beside those that run.
const NODES_MAX: usize = 30;
/// Most bars of running nodes beside the one that counts all.
const RUNNING_MAX: usize = 10;
/// What a burst of changes left undrawn is drawn after so long.
const DRAW_INTERVAL: Duration = Duration::from_millis(120);

/// Shows one task.
#[derive(Debug)]
pub(crate) struct Progress {
    view: View,
}

#[derive(Debug)]
enum View {
    Bars(Bars),
    Lines(BTreeMap<String, (NodeState, u64)>, Instant),
}

/// Live bars; none of them has a thread of its own.
#[derive(Debug, Default)]
struct Bars {
    all: MultiProgress,
    /// Counts the nodes, where they are many.
    summary: Option<ProgressBar>,
    nodes: BTreeMap<String, ProgressBar>,
    /// Not all that was shown need be drawn: what comes at once is drawn a few times only.
    undrawn: bool,
}

impl Bars {
    fn show(&mut self, task: &TaskStatus) {
        let steps = Steps::of(task);
        let shown = if task.nodes.len() <= NODES_MAX {
            in_order(task)
        } else {
            self.summarize(task);
            let running = |node: &&NodeStatus| node.state == NodeState::Running;
            let running: Vec<_> = task.nodes.iter().filter(running).collect();
            // Who has a bar keeps it; the next one gets a place that becomes free.
            self.nodes.retain(|name, bar| {
                let runs = running.iter().any(|node| node.node_id.as_str() == name);
                if !runs {
                    self.all.remove(bar);
                }
                runs
            });
            running
        };
        for node in shown {
            let full = task.nodes.len() > NODES_MAX && self.nodes.len() >= RUNNING_MAX;
            if full && !self.nodes.contains_key(node.node_id.as_str()) {
                continue;
            }
            let name = node.node_id.to_string();
            let bar = self.nodes.entry(name).or_insert_with_key(|name| {
                let bar = self.all.add(ProgressBar::new(0));
                bar.set_style(style());
                bar.set_prefix(one_line(name, 16));
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
        self.undrawn = true;
    }

    /// One bar for all nodes.
    fn summarize(&mut self, task: &TaskStatus) {
        let bar = self.summary.get_or_insert_with(|| {
            let bar = self.all.insert(0, ProgressBar::new(0));
            bar.set_style(style());
            bar.set_prefix("all nodes");
            bar
        });
        let count = |is: fn(NodeState) -> bool| {
            let nodes = task.nodes.iter().filter(|node| is(node.state));
            nodes.count() as u64
        };
        let (ended, nodes) = (count(NodeState::is_terminal), task.nodes.len() as u64);
        bar.set_length(nodes);
        bar.set_position(ended);
        bar.set_message(format!(
            "{} of {} ended, {} running",
            thousands(ended),
            thousands(nodes),
            thousands(count(|state| state == NodeState::Running))
        ));
        if ended == nodes && !bar.is_finished() {
            bar.abandon();
        }
    }

    fn every(&self) -> impl Iterator<Item = &ProgressBar> {
        self.summary.iter().chain(self.nodes.values())
    }
}

impl Progress {
    /// Bars if standard error is a terminal.
    pub(crate) fn new() -> Self {
        let view = if std::io::stderr().is_terminal() {
            View::Bars(Bars::default())
        } else {
            View::Lines(BTreeMap::new(), Instant::now())
        };
        Self { view }
    }

    /// Shows a status.
    pub(crate) fn show(&mut self, task: &TaskStatus) {
        match &mut self.view {
            View::Bars(bars) => bars.show(task),
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

    /// Draws what a burst of changes left out, a moment after it; else never ready. Cancel safe.
    pub(crate) async fn draw(&mut self) {
        match &mut self.view {
            View::Bars(bars) if bars.undrawn => {
                tokio::time::sleep(DRAW_INTERVAL).await;
                bars.undrawn = false;
                // One draws all.
                if let Some(bar) = bars.every().find(|bar| !bar.is_finished()) {
                    bar.tick();
                }
            }
            _ => std::future::pending().await,
        }
    }

    /// Says something, above the bars.
    pub(crate) fn note(&self, text: &str) {
        match &self.view {
            // A terminal that cannot be written to shows no bars either.
            View::Bars(bars) => drop(bars.all.println(text)),
            View::Lines(..) => eputln!("{text}"),
        }
    }

    /// Ends the bars and leaves their last state on the screen.
    pub(crate) fn end(self) {
        if let View::Bars(bars) = self.view {
            for bar in bars.every() {
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
