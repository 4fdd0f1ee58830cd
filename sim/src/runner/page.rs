//! A run as one self-contained page: a lane per host, stream and client over time, and the table of
//! events below.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use flowkit_core::message::Body;
use flowkit_core::port::Stream;

use super::row::rows;
use crate::checkers::Broken;
use crate::history::{Event, Life, Place, Run, Step, What};
use crate::plan::Plan;

/// Width of the time axis, in pixels.
const WIDTH: u64 = 2_000;
/// Where time begins, in pixels: names stand before it.
const LEFT: u64 = 110;
/// Height of one row of a lane, in pixels.
const ROW: u64 = 14;

const STYLE: &str = "body{font:13px/1.4 system-ui,sans-serif;margin:16px;color:#222}\
svg{background:#fff;border:1px solid #ddd}text{font:11px system-ui,sans-serif}\
.broken{color:#b00020;font-weight:600}.scroll{overflow-x:auto}\
pre{font:12px/1.35 ui-monospace,monospace}pre b{color:#b00020}\
.down{fill:#bbb}.stall{fill:#e8d28a}.run{stroke:#456;stroke-width:.5}.batch{fill:#0004}\
.lease{fill:#9fc5e8}.commit{stroke:#27632a}.takeover{stroke:#a0f;stroke-width:2}\
.fault{stroke:#d33;stroke-dasharray:3 3}.healed{stroke:#2a2;stroke-width:2}\
.bad{stroke:#b00020;stroke-width:2}.lane{stroke:#eee}";

const SCRIPT: &str = "const i=document.getElementById('f'),r=[...document.querySelectorAll('#t span')];\
i.oninput=()=>r.forEach(s=>s.hidden=!s.textContent.includes(i.value))";

/// The page.
pub(super) fn page(plan: &Plan, history: &[Event], broken: &[Broken]) -> String {
    let mut page = String::from("<!doctype html><meta charset=utf-8>");
    let seed = plan.seed;
    // Writing to text cannot fail.
    let _ = write!(
        page,
        "<title>FlowKit, seed {seed}</title><style>{STYLE}</style>"
    );
    let _ = write!(page, "<h2>Seed {seed}</h2>");
    if broken.is_empty() {
        page.push_str("<p>Every promise held.</p>");
    }
    for broken in broken {
        let (at_ms, promise) = (broken.at / 1_000, broken.promise);
        let what = escaped(&broken.what);
        let _ = write!(
            page,
            "<p class=broken>{promise} broken at {at_ms} ms: {what}</p>"
        );
    }
    page.push_str(
        "<p>Bars are runs (dark parts: batches; blue below: leases by their heartbeats), grey is a \
         dead process, yellow a frozen one. Green ticks are commits, violet ones takeovers, dots \
         messages; dashed red lines are faults, the green line is the end of them. Point at \
         anything to read what it is.</p><div class=scroll>",
    );
    page.push_str(&Drawing::new(plan, history).svg(history, broken));
    page.push_str("</div><p><input id=f placeholder='show rows with …' size=40></p><pre id=t>");
    let mut marks: Vec<&Broken> = broken.iter().collect();
    marks.sort_by_key(|broken| broken.at);
    let mut marks = marks.into_iter().peekable();
    for (event, row) in history.iter().zip(rows(history, true)) {
        while let Some(mark) = marks.next_if(|mark| mark.at < event.at) {
            page.push_str(&mark_row(mark));
        }
        let _ = writeln!(page, "<span>{}</span>", escaped(&row));
    }
    for mark in marks {
        page.push_str(&mark_row(mark));
    }
    let _ = write!(page, "</pre><script>{SCRIPT}</script>");
    page
}

fn mark_row(broken: &Broken) -> String {
    let what = escaped(&broken.what);
    format!("<b>        {} BROKEN {what}</b>\n", broken.promise)
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

/// A run on its way, and where it is drawn.
struct Open<'a> {
    run: &'a Run,
    since: u64,
    row: u64,
    top: u64,
    batch_since: Option<u64>,
}

/// Places things on the time axis and on lanes.
struct Drawing {
    end: u64,
    lease_us: u64,
    /// Top of each lane, by its name.
    lanes: BTreeMap<String, u64>,
    height: u64,
    svg: String,
}

impl Drawing {
    fn new(plan: &Plan, history: &[Event]) -> Self {
        let mut drawing = Self {
            end: history.last().map_or(1, |event| event.at).max(1),
            lease_us: plan.world.lease_ttl_ms * 1_000,
            lanes: BTreeMap::new(),
            height: 24,
            svg: String::new(),
        };
        let hosts = history.iter().filter_map(|event| match &event.what {
            What::Process { place, .. } => Some(place.host),
            _ => None,
        });
        let last = hosts.max().unwrap_or(0);
        let coordinators = plan.world.coordinators;
        for host in 0..=last {
            let worker = host
                .checked_sub(coordinators)
                .filter(|_| !plan.world.embedded)
                .and_then(|at| plan.world.workers.get(at as usize));
            let rows = worker.map_or(2, |worker| u64::from(worker.capacity) + 1);
            let rows = if plan.world.embedded { 8 } else { rows };
            let name = match worker {
                Some(worker) => format!("host {host}: {}", worker.id),
                None => format!("host {host}"),
            };
            drawing.lane(&format!("h{host}"), &name, rows);
        }
        for shard in 0..plan.world.shards {
            drawing.lane(&format!("S{shard}"), &format!("shard {shard}"), 1);
        }
        for inbox in 0..plan.world.inboxes {
            drawing.lane(&format!("in{inbox}"), &format!("inbox {inbox}"), 1);
        }
        for client in 0..plan.world.clients {
            drawing.lane(&format!("c{client}"), &format!("client {client}"), 1);
        }
        drawing
    }

    fn lane(&mut self, key: &str, name: &str, rows: u64) {
        let (top, below) = (self.height, self.height + rows * ROW + 6);
        self.lanes.insert(key.to_owned(), top);
        let _ = write!(
            self.svg,
            "<text x=4 y={}>{}</text><line class=lane x1=0 x2={} y1={below} y2={below} />",
            top + 11,
            escaped(name),
            LEFT + WIDTH
        );
        self.height = below;
    }

    fn x(&self, at: u64) -> u64 {
        LEFT + at.min(self.end) * WIDTH / self.end
    }

    fn top(&self, lane: &str) -> u64 {
        self.lanes.get(lane).copied().unwrap_or(0)
    }

    fn bar(&mut self, class: &str, (from, to): (u64, u64), (top, height): (u64, u64), title: &str) {
        let x = self.x(from);
        let width = self.x(to).saturating_sub(x).max(1);
        let _ = write!(
            self.svg,
            "<rect {class} x={x} y={top} width={width} height={height}><title>{}</title></rect>",
            escaped(title)
        );
    }

    fn line(&mut self, class: &str, at: u64, (top, bottom): (u64, u64), title: &str) {
        let x = self.x(at);
        let _ = write!(
            self.svg,
            "<line class={class} x1={x} x2={x} y1={top} y2={bottom}><title>{}</title></line>",
            escaped(title)
        );
    }

    fn svg(mut self, history: &[Event], broken: &[Broken]) -> String {
        self.times();
        self.processes(history);
        self.runs(history);
        let titles = rows(history, true);
        for (event, title) in history.iter().zip(&titles) {
            self.event(event, title);
        }
        for broken in broken {
            let title = format!("{}: {}", broken.promise, broken.what);
            self.line("bad", broken.at, (0, self.height), &title);
        }
        format!(
            "<svg width={} height={}>{}</svg>",
            LEFT + WIDTH + 10,
            self.height + 4,
            self.svg
        )
    }

    /// Ten marks on the time axis.
    fn times(&mut self) {
        for tenth in 0..=10 {
            let at = self.end * tenth / 10;
            let x = self.x(at);
            let _ = write!(self.svg, "<text x={x} y=14>{} ms</text>", at / 1_000);
        }
    }

    /// When processes were dead or frozen.
    fn processes(&mut self, history: &[Event]) {
        let mut since: BTreeMap<(String, &str), u64> = BTreeMap::new();
        let mut spans: Vec<(String, &str, u64, u64)> = Vec::new();
        for event in history {
            let (lane, what) = match &event.what {
                What::Process { place, what } => (format!("h{}", place.host), what),
                What::Client { client, what } => (format!("c{client}"), what),
                _ => continue,
            };
            let (begins, ends): (&[&str], &[&str]) = match what {
                Life::Asked { .. } => continue,
                Life::Started => (&[], &["down"]),
                Life::Crashed | Life::Stopped => (&["down"], &["stall"]),
                Life::Stalled => (&["stall"], &[]),
                Life::Resumed => (&[], &["stall"]),
            };
            for class in ends {
                if let Some(from) = since.remove(&(lane.clone(), *class)) {
                    spans.push((lane.clone(), class, from, event.at));
                }
            }
            for class in begins {
                since.insert((lane.clone(), class), event.at);
            }
        }
        let open = since.into_iter();
        spans.extend(open.map(|((lane, class), from)| (lane, class, from, self.end)));
        for (lane, class, from, to) in spans {
            let top = self.top(&lane);
            let bar = format!("class={class}");
            self.bar(&bar, (from, to), (top, ROW), class);
        }
    }

    /// Runs with their batches, each in a row of its host.
    fn runs(&mut self, history: &[Event]) {
        let mut open: BTreeMap<(Place, u64), Open<'_>> = BTreeMap::new();
        for event in history {
            let What::Handler { run, step } = &event.what else {
                continue;
            };
            let key = (run.place, run.run_id);
            match step {
                Step::Begin => {
                    let taken: Vec<u64> = open
                        .iter()
                        .filter(|((place, _), _)| place.host == run.place.host)
                        .map(|(_, open)| open.row)
                        .collect();
                    let row = (1..).find(|row| !taken.contains(row)).unwrap_or(1);
                    let began = Open {
                        run,
                        since: event.at,
                        row,
                        top: self.top(&format!("h{}", run.place.host)) + row * ROW,
                        batch_since: None,
                    };
                    open.insert(key, began);
                }
                Step::Process { .. } => {
                    if let Some(open) = open.get_mut(&key) {
                        open.batch_since = Some(event.at);
                    }
                }
                Step::Processed { .. } | Step::Failed { .. } => {
                    if let Some(open) = open.get_mut(&key) {
                        self.batch(open, event.at, &format!("{step:?}"));
                    }
                }
                Step::Closed | Step::Lost => {
                    if let Some(mut open) = open.remove(&key) {
                        self.run(&mut open, event.at, &format!("{step:?}"));
                    }
                }
                _ => {}
            }
        }
        // What never came to an end is what one looks for.
        for mut open in open.into_values() {
            self.run(&mut open, self.end, "has not ended");
        }
    }

    /// A run up to its end, with the batch that it was in.
    fn run(&mut self, open: &mut Open<'_>, until: u64, how: &str) {
        self.batch(open, until, how);
        let run = open.run;
        let hue = run.node.as_str().bytes().map(u64::from).sum::<u64>() * 47 % 360;
        let class = format!("class=run fill='hsl({hue} 60% 75% / .6)'");
        let title = format!("{}/{} token {}: {how}", run.task, run.node, run.token);
        let place = (open.top + 1, ROW - 2);
        self.bar(&class, (open.since, until), place, &title);
    }

    /// The batch that a run is in, if it is in one, up to its end.
    fn batch(&mut self, open: &mut Open<'_>, until: u64, how: &str) {
        if let Some(since) = open.batch_since.take() {
            let title = format!("{} {how}", open.run.node);
            let place = (open.top + 3, ROW - 6);
            self.bar("class=batch", (since, until), place, &title);
        }
    }

    fn event(&mut self, event: &Event, title: &str) {
        let (at, whole) = (event.at, (18, self.height));
        match &event.what {
            What::Fault { .. }
            | What::StoreClock { .. }
            | What::LogLost { .. }
            | What::Rotten { .. }
            | What::Broke => {
                self.line("fault", at, whole, title);
            }
            What::Healed => self.line("healed", at, whole, title),
            What::Committed { host, .. } => {
                let top = self.top(&format!("h{host}"));
                self.line("commit", at, (top + 2, top + ROW), title);
            }
            What::EpochRaised { host, .. } => {
                let top = self.top(&format!("h{host}"));
                self.line("takeover", at, (top, top + 2 * ROW), title);
            }
            What::Appended {
                stream, envelope, ..
            } => {
                let lane = match stream {
                    Stream::Shard(shard) => format!("S{shard}"),
                    Stream::Inbox(inbox) => format!("in{inbox}"),
                    Stream::Announcements => return,
                };
                let top = self.top(&lane);
                if let Body::Heartbeat(_) = envelope.body {
                    let lease = (at, at + self.lease_us);
                    self.bar("class=lease", lease, (top + ROW, 3), title);
                }
                let x = self.x(at);
                let _ = write!(
                    self.svg,
                    "<circle cx={x} cy={} r=2.5 fill='#345'><title>{}</title></circle>",
                    top + ROW / 2,
                    escaped(title)
                );
            }
            What::Asked { client, .. } | What::Answered { client, .. } => {
                let top = self.top(&format!("c{client}"));
                self.line("commit", at, (top, top + ROW), title);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::{Tier, outcome};

    /// A task of three nodes in which nothing goes wrong, and all that happened.
    fn healthy() -> (Plan, Vec<Event>) {
        let plan = Plan::small();
        let outcome = outcome(Tier::Zero, &plan, true).expect("no panic");
        assert!(outcome.broken.is_empty(), "{:?}", outcome.broken);
        (plan, outcome.history)
    }

    fn times(history: &[Event], is: impl Fn(&What) -> bool) -> usize {
        history.iter().filter(|event| is(&event.what)).count()
    }

    fn step_times(history: &[Event], is: impl Fn(&Step) -> bool) -> usize {
        times(
            history,
            |what| matches!(what, What::Handler { step, .. } if is(step)),
        )
    }

    #[test]
    fn each_run_batch_lease_message_and_commit_is_drawn() {
        let (plan, history) = healthy();
        let page = page(&plan, &history, &[]);
        let in_streams = |is: &dyn Fn(&Body) -> bool| {
            times(&history, |what| match what {
                What::Appended {
                    stream, envelope, ..
                } => *stream != Stream::Announcements && is(&envelope.body),
                _ => false,
            })
        };
        let happened = [
            (
                "class=run ",
                step_times(&history, |step| *step == Step::Begin),
            ),
            (
                "class=batch ",
                step_times(&history, |step| matches!(step, Step::Process { .. })),
            ),
            (
                "class=lease ",
                in_streams(&|body| matches!(body, Body::Heartbeat(_))),
            ),
            ("<circle ", in_streams(&|_| true)),
            (
                "class=commit ",
                times(&history, |what| {
                    matches!(
                        what,
                        What::Committed { .. } | What::Asked { .. } | What::Answered { .. }
                    )
                }),
            ),
            (
                "class=takeover ",
                times(&history, |what| matches!(what, What::EpochRaised { .. })),
            ),
            ("class=healed ", 1),
            ("class=bad ", 0),
        ];
        for (mark, times) in happened {
            assert_eq!(page.matches(mark).count(), times, "{mark}");
            assert!(times > 0 || mark == "class=bad ", "{mark}: none happened");
        }
        for said in ["task-0/scan token 1: Closed", "Every promise held."] {
            assert!(page.contains(said), "{said}");
        }
    }

    #[test]
    fn what_has_not_ended_is_drawn_up_to_the_end() {
        let (plan, mut history) = healthy();
        let in_work = history.iter().position(|event| {
            let What::Handler { step, .. } = &event.what else {
                return false;
            };
            matches!(step, Step::Process { .. })
        });
        history.truncate(in_work.expect("a batch") + 1);
        // Time goes on.
        let at = 2 * history.last().expect("an event").at;
        history.push(Event {
            at,
            what: What::Healed,
        });
        let page = page(&plan, &history, &[]);
        for mark in ["class=run ", "class=batch "] {
            let bar = page.split(mark).nth(1).expect(mark);
            let bar = bar.split("</rect>").next().expect("its end");
            assert!(bar.contains("has not ended"), "{bar}");
            let number = |name: &str| {
                let value = bar.split(name).nth(1).expect(name);
                let value = value.split(['>', ' ']).next().expect("a value");
                value.parse::<u64>().expect("a number")
            };
            let right = number("x=") + number("width=");
            assert_eq!(right, LEFT + WIDTH, "{bar}");
        }
    }

    #[test]
    fn a_process_is_grey_while_it_is_dead_and_yellow_while_it_is_frozen() {
        let place = Place {
            host: 2,
            generation: 0,
            machine: 0,
        };
        let event = |at, what| Event {
            at,
            what: What::Process { place, what },
        };
        let history = [
            event(0, Life::Started),
            event(100, Life::Stalled),
            event(300, Life::Resumed),
            event(500, Life::Crashed),
            event(900, Life::Started),
            event(1_000, Life::Stopped),
            event(2_000, Life::Asked { grace_ms: 1 }),
        ];
        let page = page(&Plan::small(), &history, &[]);
        let bar = |class: &str, from: u64, to: u64| {
            let (x, width) = (LEFT + from, to - from);
            let bar = format!("<rect class={class} x={x} ");
            let found = page.split(&bar).nth(1);
            assert!(
                found.is_some_and(|rest| rest.contains(&format!("width={width} "))),
                "{bar}"
            );
        };
        bar("stall", 100, 300);
        bar("down", 500, 900);
        bar("down", 1_000, 2_000);
        assert_eq!(page.matches("<rect ").count(), 3);
        assert!(page.contains("host 2: w0"));
    }
}
