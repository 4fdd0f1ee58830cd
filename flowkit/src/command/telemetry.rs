//! What the process says of itself while it runs: the log on standard error, and traces.

use std::io::{self, Write};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Registry};

use super::args::Command;
use super::colours;
use super::failure::Failure;
use super::output::eputln;
use super::table::one_line;

type Layer = Box<dyn tracing_subscriber::Layer<Registry> + Send + Sync>;

/// What ends with the process.
pub(crate) struct Telemetry {
    #[cfg(feature = "otel")]
    traces: Option<flowkit::traces::Traces>,
}

/// Starts the log; and traces, if the command runs work and is told where to.
pub(crate) fn start(command: &Command) -> Result<Telemetry, Failure> {
    let endpoint = endpoint(command);
    #[cfg(feature = "otel")]
    {
        let (traces, layer) = traces(endpoint.as_deref())?.unzip();
        log(command, layer);
        Ok(Telemetry { traces })
    }
    #[cfg(not(feature = "otel"))]
    {
        if endpoint.is_some_and(|endpoint| !endpoint.is_empty()) {
            return Err(Failure::input(
                "otlp_endpoint: this `flowkit` is built without OpenTelemetry; build it with it: cargo \
                 build --release --features otel",
            ));
        }
        log(command, None);
        Ok(Telemetry {})
    }
}

impl Telemetry {
    /// Sends what still waits, within a few seconds.
    #[cfg_attr(not(feature = "otel"), expect(clippy::unused_self))]
    pub(crate) fn end(self) {
        #[cfg(feature = "otel")]
        if let Some(traces) = self.traces {
            let spans = traces.end();
            if spans.dropped > 0 {
                let all = spans.delivered + spans.dropped;
                eputln!(
                    "note: {} of {all} spans could not be delivered to the collector",
                    spans.dropped
                );
            }
        }
    }
}

/// What is logged unless `RUST_LOG` says something else. What simulated processes warn of was injected.
const fn logged(command: &Command) -> &'static str {
    match command {
        Command::Sim(_) => "error",
        _ => "warn",
    }
}

/// `RUST_LOG=flowkit=debug` shows the engine at work; results go to standard output alone.
fn log(command: &Command, traces: Option<Layer>) {
    let default = logged(command);
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let filter = match asked.as_str() {
        "" => EnvFilter::new(default),
        asked => EnvFilter::try_new(asked).unwrap_or_else(|error| {
            let asked = one_line(asked, 60);
            eputln!(
                "note: RUST_LOG=`{asked}` is not understood ({error}) and not obeyed; write it as in \
                 RUST_LOG=info or RUST_LOG=flowkit=debug"
            );
            EnvFilter::new(default)
        }),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| OneLine(io::stderr()))
        .with_ansi(colours::on_stderr())
        .with_filter(filter);
    // Traces first: their layer takes the registry as it is.
    Registry::default().with(traces).with(lines).init();
}

/// Writes a record, which comes at once, as one line: what handlers and programs log must not look like others.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let (text, end) = match record.strip_suffix(b"\n") {
            Some(text) => (text, &b"\n"[..]),
            None => (record, &b""[..]),
        };
        let mut line = Vec::with_capacity(record.len());
        for byte in text {
            match byte {
                b'\n' => line.extend(b"\\n"),
                b'\r' => line.extend(b"\\r"),
                byte => line.push(*byte),
            }
        }
        line.extend(end);
        self.0.write_all(&line).map(|()| record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Where the command's settings say that traces go, an empty text if nowhere; `None` if it runs no work.
fn endpoint(command: &Command) -> Option<String> {
    let given = match command {
        Command::Demo(args) => args.given(),
        Command::Run(args) => args.given(),
        Command::Coordinator(args) => args.given(),
        Command::Worker(args) if args.command.is_none() => args.given(),
        _ => return None,
    };
    // Faults in them are told by the command itself, all at once.
    Some(given.ok()?.settings().ok()?.fleet.otlp_endpoint)
}

#[cfg(feature = "otel")]
fn traces(endpoint: Option<&str>) -> Result<Option<(flowkit::traces::Traces, Layer)>, Failure> {
    use flowkit::traces::{Endpoint, TraceOptions, start};
    let Some(setting) = endpoint else {
        return Ok(None);
    };
    let chosen = Endpoint::chosen(setting, |name| std::env::var(name).ok());
    let started = chosen.and_then(|endpoint| {
        let started = endpoint.map(|endpoint| start(TraceOptions::new(endpoint)));
        started.transpose()
    });
    match started {
        Ok(started) => Ok(started),
        Err(error) if !setting.is_empty() => Err(Failure::input(error)),
        // The variables are other programs' as well: work goes on without traces.
        Err(error) => {
            eputln!("note: no traces are sent: {error}");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_logged_with_a_new_line_in_it_stays_one_line() {
        let mut written = Vec::new();
        let record = "WARN page 1\r\nERROR forged\n";
        OneLine(&mut written)
            .write_all(record.as_bytes())
            .expect("written");
        let line = String::from_utf8(written).expect("UTF-8");
        assert_eq!(line, "WARN page 1\\r\\nERROR forged\n");
    }
}
