//! How a handler says that something went wrong.

use flowkit_core::planted::{Bug, is_planted};
use flowkit_core::worker::RunFailure;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::run::panic_text;

/// Reason code of an error that was not classified.
pub(crate) const UNEXPECTED_ERROR: &str = "unexpected_error";
/// Reason code of input that does not have the handler's shape.
pub(crate) const BAD_INPUT: &str = "bad_input";
/// Reason code of a handler that panicked.
pub(crate) const PANIC: &str = "panic";
/// Reason code of a handler that ended because it was told to.
pub(crate) const CANCELLED: &str = "cancelled";

pub(crate) type Source = Box<dyn Error + Send + Sync + 'static>;

/// An error of a handler: what kind, and what to do about it.
///
/// Any [`std::error::Error`] becomes a *transient* one through `?`: the attempt fails and is
/// repeated after the node's backoff, as often as its retry policy says. What
/// [`Handler::classify_error`](crate::Handler::classify_error) says about it wins. Everything else
/// is said explicitly:
///
/// ```
/// use flowkit_runtime::HandlerError;
/// use std::time::Duration;
///
/// fn check(size: u64) -> Result<(), HandlerError> {
///     if size == 0 {
///         return Err(HandlerError::permanent("empty_page", "the page holds nothing"));
///     }
///     if size > 1_000 {
///         let later = HandlerError::transient("rate_limited", "the server asked to wait");
///         return Err(later.retry_after(Duration::from_secs(5)));
///     }
///     let _number: u64 = "12".parse()?; // a parse error would be transient
///     Ok(())
/// }
/// # check(1).unwrap();
/// ```
///
/// It does not implement [`std::error::Error`] itself; that is what makes the `?` possible.
#[must_use]
pub struct HandlerError {
    cause: Cause,
    retry_after: Option<Duration>,
}

enum Cause {
    /// Came through `?`; classified when the handler has returned.
    Unclassified(Source),
    Classified {
        class: ErrorClass,
        text: Arc<str>,
    },
    Cancelled,
    /// What the machine itself refused (a checkpoint that is too large, for instance).
    Machine(RunFailure),
}

/// A short, stable name of an error and whether trying again is of any use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorClass {
    /// The name, for retry policies (`permanent_on`), logs and metrics.
    pub code: Arc<str>,
    /// Trying again is of no use.
    pub permanent: bool,
}

impl ErrorClass {
    /// Worth another attempt.
    #[must_use]
    pub fn transient(code: impl Into<Arc<str>>) -> Self {
        Self {
            code: code.into(),
            permanent: false,
        }
    }

    /// Not worth another attempt.
    #[must_use]
    pub fn permanent(code: impl Into<Arc<str>>) -> Self {
        Self {
            code: code.into(),
            permanent: true,
        }
    }
}

impl HandlerError {
    /// Worth another attempt.
    pub fn transient(code: impl Into<Arc<str>>, text: impl fmt::Display) -> Self {
        Self::classified(ErrorClass::transient(code), text)
    }

    /// Not worth another attempt: the node fails.
    pub fn permanent(code: impl Into<Arc<str>>, text: impl fmt::Display) -> Self {
        Self::classified(ErrorClass::permanent(code), text)
    }

    /// The handler ends because it was told to. Without a cancel it counts as a transient failure.
    pub fn cancelled() -> Self {
        Self {
            cause: Cause::Cancelled,
            retry_after: None,
        }
    }

    /// No new attempt before this time has passed. The node's own backoff still applies.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same error, declared permanent under a name.
    pub fn into_permanent(self, code: impl Into<Arc<str>>) -> Self {
        Self::classified(ErrorClass::permanent(code), &self)
    }

    /// The input does not have the shape that the handler takes.
    pub(crate) fn bad_input(error: &serde_json::Error) -> Self {
        Self::permanent(
            BAD_INPUT,
            format_args!("the input does not decode: {error}"),
        )
    }

    pub(crate) fn panic(text: &str) -> Self {
        Self::machine(panicked(text))
    }

    pub(crate) fn machine(failure: RunFailure) -> Self {
        Self {
            cause: Cause::Machine(failure),
            retry_after: None,
        }
    }

    fn classified(class: ErrorClass, text: impl fmt::Display) -> Self {
        Self {
            cause: Cause::Classified {
                class,
                text: Arc::from(text.to_string()),
            },
            retry_after: None,
        }
    }

    /// The error as the machine takes it.
    pub(crate) fn into_failure(self, classify: impl Fn(&Source) -> ErrorClass) -> RunFailure {
        let retry_after_ms = self
            .retry_after
            .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let (class, error, cancelled) = match self.cause {
            Cause::Unclassified(source) => {
                let known = classified(&source, classify).map(|(class, text)| {
                    let unused = is_planted(Bug::ClassUnused);
                    let usual = || ErrorClass::transient(UNEXPECTED_ERROR);
                    (if unused { usual() } else { class }, text)
                });
                let gone = caught(|| drop(source));
                match known.and_then(|known| gone.map(|()| known)) {
                    Ok((class, text)) => (class, text.into(), false),
                    Err(panic) => return panicked(&panic),
                }
            }
            Cause::Classified { class, text } => (class, text, false),
            Cause::Cancelled => (
                ErrorClass::transient(CANCELLED),
                Arc::from("the handler ended as cancelled"),
                true,
            ),
            Cause::Machine(failure) => {
                return RunFailure {
                    retry_after_ms: retry_after_ms.or(failure.retry_after_ms),
                    ..failure
                };
            }
        };
        RunFailure {
            reason_code: class.code,
            permanent: class.permanent,
            error,
            retry_after_ms,
            cancelled,
        }
    }
}

/// A panic in a handler, as the machine takes it.
pub(crate) fn panicked(text: &str) -> RunFailure {
    RunFailure {
        reason_code: Arc::from(PANIC),
        permanent: false,
        error: Arc::from(format!("the handler panicked: {text}")),
        retry_after_ms: None,
        cancelled: false,
    }
}

/// The name of an error that came through `?`, and its text; or what panicked: both are the user's code.
fn classified(
    source: &Source,
    classify: impl Fn(&Source) -> ErrorClass,
) -> Result<(ErrorClass, String), String> {
    let text = caught(|| chain(&**source));
    let text = text.map_err(|panic| format!("as its error was written: {panic}"))?;
    let class = caught(|| classify(source));
    let class =
        class.map_err(|panic| format!("in classify_error: {panic}; of the error: {text}"))?;
    Ok((class, text))
}

fn caught<T>(of_the_handler: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(of_the_handler)).map_err(|panic| panic_text(&*panic))
}

/// The error and what caused it, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Many errors print their cause themselves.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

impl<E: Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self {
            cause: Cause::Unclassified(Box::new(error)),
            retry_after: None,
        }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Unclassified(source) => f.write_str(&chain(&**source)),
            Cause::Classified { text, .. } => f.write_str(text),
            Cause::Cancelled => f.write_str("cancelled"),
            Cause::Machine(failure) => f.write_str(&failure.error),
        }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = match &self.cause {
            Cause::Unclassified(_) => UNEXPECTED_ERROR,
            Cause::Classified { class, .. } => &class.code,
            Cause::Cancelled => CANCELLED,
            Cause::Machine(failure) => &failure.reason_code,
        };
        write!(f, "HandlerError({code}: {self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unexpected(_: &Source) -> ErrorClass {
        ErrorClass::transient(UNEXPECTED_ERROR)
    }

    #[test]
    fn any_error_is_transient_and_keeps_its_causes() {
        fn read() -> Result<u32, HandlerError> {
            Ok("x".parse::<u32>()?)
        }
        let failure = read().unwrap_err().into_failure(unexpected);
        assert_eq!(&*failure.reason_code, "unexpected_error");
        assert!(!failure.permanent);
        assert!(failure.error.contains("invalid digit"));
    }

    #[test]
    fn permanent_retry_after_and_cancelled_are_said_explicitly() {
        let failure = HandlerError::permanent("gone", "no such page").into_failure(unexpected);
        assert!(failure.permanent);
        assert_eq!(
            (&*failure.reason_code, &*failure.error),
            ("gone", "no such page")
        );

        let failure = HandlerError::transient("busy", "later")
            .retry_after(Duration::from_millis(1_500))
            .into_failure(unexpected);
        assert_eq!(failure.retry_after_ms, Some(1_500));
        assert!(!failure.permanent);

        let failure = HandlerError::cancelled().into_failure(unexpected);
        assert!(failure.cancelled && !failure.permanent);
    }

    #[test]
    fn an_error_can_be_declared_permanent_afterwards() {
        let error = HandlerError::from("x".parse::<u32>().unwrap_err()).into_permanent("no_number");
        let failure = error.into_failure(unexpected);
        assert!(failure.permanent);
        assert_eq!(&*failure.reason_code, "no_number");
        assert!(failure.error.contains("invalid digit"));
    }

    #[test]
    fn the_classifier_sees_the_original_error() {
        let error = HandlerError::from("x".parse::<u32>().unwrap_err());
        let failure = error.into_failure(|source| {
            if source.is::<std::num::ParseIntError>() {
                ErrorClass::permanent("validation_error")
            } else {
                ErrorClass::transient(UNEXPECTED_ERROR)
            }
        });
        assert!(failure.permanent);
        assert_eq!(&*failure.reason_code, "validation_error");
    }
}
