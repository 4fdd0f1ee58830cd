//! A run as one self-contained page: a lane per host, stream and client over time, and the table of
//! events below.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use flowkit_core::message::Body;
use flowkit_core::port::Stream;

use super::row::rows;
use crate::checkers::Broken;
use crate::history::{Event, Life, Place, Step, What};
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

/// A run on its way.
struct Open {
    since: u64,
    row: u64,
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
        let mut open: BTreeMap<(Place, u64), Open> = BTreeMap::new();
        for event in history {
            let What::Handler { run, step } = &event.what else {
                continue;
            };
            let key = (run.place, run.run_id);
            let top = self.top(&format!("h{}", run.place.host));
            match step {
                Step::Begin => {
                    let taken: Vec<u64> = open
                        .iter()
                        .filter(|((place, _), _)| place.host == run.place.host)
                        .map(|(_, open)| open.row)
                        .collect();
                    let row = (1..).find(|row| !taken.contains(row)).unwrap_or(1);
                    let since = event.at;
                    open.insert(
                        key,
                        Open {
                            since,
                            row,
                            batch_since: None,
                        },
                    );
                }
                Step::Process { .. } => {
                    if let Some(open) = open.get_mut(&key) {
                        open.batch_since = Some(event.at);
                    }
                }
                Step::Processed { .. } | Step::Failed { .. } => {
                    let span = open.get_mut(&key).and_then(|open| {
                        let since = open.batch_since.take()?;
                        Some((since, open.row))
                    });
                    if let Some((since, row)) = span {
                        let place = (top + row * ROW + 3, ROW - 6);
                        let title = format!("{} {step:?}", run.node);
                        self.bar("class=batch", (since, event.at), place, &title);
                    }
                }
                Step::Closed | Step::Lost => {
                    if let Some(Open { since, row, .. }) = open.remove(&key) {
                        let hue = run.node.as_str().bytes().map(u64::from).sum::<u64>() * 47 % 360;
                        let class = format!("class=run fill='hsl({hue} 60% 75% / .6)'");
                        let title = format!("{}/{} token {}", run.task, run.node, run.token);
                        let place = (top + row * ROW + 1, ROW - 2);
                        self.bar(&class, (since, event.at), place, &title);
                    }
                }
                _ => {}
            }
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
