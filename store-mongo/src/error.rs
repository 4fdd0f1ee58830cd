//! What a driver's error means for the caller, decided in this one place.

use flowkit_core::port::{ErrorKind, PortError};
use mongodb::error::{Error, ErrorKind as Driver, WriteFailure};

/// A unique index, or an `_id`, is taken.
pub(crate) const DUPLICATE_KEY: i32 = 11_000;
/// Codes of documents that no server takes: bad value, failed validation, too large, too deep.
const REFUSED: [i32; 8] = [2, 14, 15, 121, 10_334, 17_280, 17_419, 17_420];

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The connection string is faulty. It is not shown: it may hold a password.
    #[error("the MongoDB URI is faulty: {0}")]
    Uri(String),
    /// No server answers.
    #[error("MongoDB cannot be reached: {0}; is it running, and is the URI right?")]
    Unreachable(String),
    /// The server knows no such user, or another password.
    #[error(
        "MongoDB lets nobody in by this URI: {0}; check user, password and authSource (the database \
         that knows the user)"
    )]
    Credentials(String),
    /// The user may not do what is needed.
    #[error(
        "the user of the URI may not use the database {database}: {reason}; give it the role \
         readWrite there"
    )]
    Unauthorized {
        /// The database.
        database: String,
        /// What the server says.
        reason: String,
    },
    /// An index under the name of one of ours, or on its fields, is another one.
    #[error(
        "the index {index} of {collection} is not as FlowKit needs it: {reason}; drop it, and FlowKit \
         makes its own at the next start"
    )]
    Index {
        /// The collection.
        collection: String,
        /// The name of our index.
        index: String,
        /// What the server says.
        reason: String,
    },
    /// A server that is alone has no transactions.
    #[error(
        "MongoDB is a standalone server; FlowKit needs transactions: make it a replica set (one \
         member is enough) and name the set in the URI (?replicaSet=NAME)"
    )]
    Standalone,
    /// The server lacks what is needed.
    #[error("MongoDB {0} is too old; FlowKit needs 6.0 or newer")]
    TooOld(String),
    /// A newer FlowKit has used the database.
    #[error("the database has layout {found}, this FlowKit knows {known}: use a newer FlowKit")]
    Layout {
        /// The layout's version in the database.
        found: i64,
        /// The newest one that this program knows.
        known: i64,
    },
    /// The collections or indexes cannot be made, or differ from what is needed.
    #[error("the database cannot be set up: {0}")]
    SetUp(String),
}

/// An index differs in its options, or in its keys.
const INDEX_DIFFERS: [i32; 2] = [85, 86];
/// The user may not do it; it has not said who it is.
const UNAUTHORIZED: i32 = 13;
/// Wrong user or password.
const AUTHENTICATION_FAILED: i32 = 18;

/// Whether the server did not let the user in.
pub(crate) fn is_login(error: &Error) -> bool {
    matches!(&*error.kind, Driver::Authentication { .. })
        || code_of(error) == Some(AUTHENTICATION_FAILED)
}

pub(crate) fn is_unauthorized(code: Option<i32>) -> bool {
    code == Some(UNAUTHORIZED)
}

pub(crate) fn is_other_index(code: Option<i32>) -> bool {
    code.is_some_and(|code| INDEX_DIFFERS.contains(&code))
}

/// What an operation does if it is carried out although no answer arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: it reads, or belongs to a transaction that is not committed.
    None,
    /// It writes.
    Write,
}

/// Whether the server will never take what it answered with this code.
pub(crate) fn is_refusal(code: i32) -> bool {
    code == DUPLICATE_KEY || REFUSED.contains(&code)
}

/// The server's code of an error, if it has one.
pub(crate) fn code_of(error: &Error) -> Option<i32> {
    match &*error.kind {
        Driver::Command(command) => Some(command.code),
        Driver::Write(WriteFailure::WriteError(write)) => Some(write.code),
        Driver::InsertMany(many) => many.write_errors.as_ref()?.first().map(|write| write.code),
        _ => None,
    }
}

/// An error of an operation as the port says it.
pub(crate) fn port_error(op: &str, effect: Effect, error: &Error) -> PortError {
    let kind = match (&*error.kind, code_of(error)) {
        (_, Some(code)) if is_refusal(code) => ErrorKind::Invalid,
        // Too large for a message, or no text that BSON holds.
        (Driver::InvalidArgument { .. } | Driver::BsonSerialization(_) | Driver::Bson(_), _) => {
            ErrorKind::Invalid
        }
        // No server was found: nothing was sent.
        (Driver::ServerSelection { .. }, _) => ErrorKind::Retry,
        _ if effect == Effect::None => ErrorKind::Retry,
        // The server refused it as a whole.
        (Driver::Command(_), _) if !error.contains_label("RetryableWriteError") => ErrorKind::Retry,
        _ => ErrorKind::Unknown,
    };
    PortError::new(kind, op, text(error))
}

/// The error for people, without addresses' credentials: the driver never puts them into its texts.
pub(crate) fn text(error: &Error) -> String {
    let text = error.kind.to_string();
    let mut end = text.len().min(500);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
