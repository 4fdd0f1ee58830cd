//! What the process says of itself while it runs: the log on standard error, and traces.

use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Registry};

use super::args::Command;
use super::colours;
use super::failure::Failure;
#[cfg(feature = "otel")]
use super::output::eputln;

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
        log(layer);
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
        log(None);
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

/// `RUST_LOG=flowkit=debug` shows the engine at work; results go to standard output alone.
fn log(traces: Option<Layer>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colours::on_stderr())
        .with_filter(filter);
    // Traces first: their layer takes the registry as it is.
    Registry::default().with(traces).with(lines).init();
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
