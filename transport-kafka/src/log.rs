//! What librdkafka says goes to `tracing`: at most one warning in ten seconds for a whole
//! transport, since a broker that is away makes every client repeat itself.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::KafkaSettings;

/// Shortest time between two warnings.
const INTERVAL: Duration = Duration::from_secs(10);

/// Listens to the clients of one transport. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context(Arc<Inner>);

struct Inner {
    settings: KafkaSettings,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: Option<String>,
    login_refused: Option<String>,
    throttle: Throttle,
}

/// Lets one line through per interval.
#[derive(Default)]
struct Throttle {
    said_at: Option<Instant>,
    withheld: u64,
}

impl Throttle {
    /// How many were withheld since the last one, if this one may be said.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        if self
            .said_at
            .is_some_and(|at| now.duration_since(at) < INTERVAL)
        {
            self.withheld += 1;
            return None;
        }
        self.said_at = Some(now);
        Some(std::mem::take(&mut self.withheld))
    }
}

impl Context {
    pub(crate) fn new(settings: &KafkaSettings) -> Self {
        Self(Arc::new(Inner {
            settings: settings.clone(),
            state: Mutex::default(),
        }))
    }

    /// Says it, unless something was said a moment ago.
    pub(crate) fn warn(&self, text: &str) {
        let text = self.0.settings.without_values(text);
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = state.throttle.pass(Instant::now());
        state.last = Some(text.clone());
        drop(state);
        if let Some(withheld) = passed {
            tracing::warn!(withheld, "Kafka: {text}");
        }
    }

    /// The last thing that went wrong, which says more than the code of an error.
    pub(crate) fn last(&self) -> Option<String> {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last.clone()
    }

    /// What the brokers said when they refused the login, if they did.
    pub(crate) fn login_refused(&self) -> Option<String> {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.login_refused.clone()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => self.warn(message),
            _ => tracing::debug!(
                "librdkafka {facility}: {}",
                self.0.settings.without_values(message)
            ),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The same is in the log with its cause; here it comes once more per client.
        let reason = self.0.settings.without_values(reason);
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication) {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.login_refused = Some(reason.clone());
        }
        tracing::debug!("librdkafka: {}: {reason}", crate::error::text_of(&error));
    }
}

impl ConsumerContext for Context {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_warning_passes_per_interval_and_counts_the_others() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        assert_eq!(throttle.pass(start), Some(0));
        assert_eq!(throttle.pass(start), None);
        assert_eq!(throttle.pass(start + INTERVAL / 2), None);
        assert_eq!(throttle.pass(start + INTERVAL), Some(2));
    }

    #[test]
    fn what_is_said_last_is_kept_without_secrets() {
        let settings = KafkaSettings::new("k:1").property("sasl.password", "pw");
        let context = Context::new(&settings);
        context.log(RDKafkaLogLevel::Error, "FAIL", "login pw refused");
        assert_eq!(context.last().as_deref(), Some("login … refused"));
    }
}
