//! Fidelity: the same generated sequences of operations run on a model and on a real backend, and
//! every answer is compared. A difference is a bug of the model or of the adapter.
//!
//! What may legally differ is taken out before two answers are compared, and nothing else is. Of
//! either port:
//!
//! | left out | because |
//! |---|---|
//! | the words of errors, not their kind | they are for people |
//!
//! Of a store ([`store`]):
//!
//! | left out | because |
//! |---|---|
//! | ages of records, rest of a lease | the server's clock is its own |
//! | why a record cannot be read | the words are for people |
//! | the order of workers and of active runs | the port promises none |
//! | what a crash took of what was not synced | any suffix is right; the model then loses the same |
//! | staging another body before the batch is accepted | the port leaves open which one stays |
//!
//! Of a transport ([`transport`]):
//!
//! | left out | because |
//! |---|---|
//! | how many entries one answer has | `limit` is the most. An answer must begin with the entries that the model gives and hold at least one of them; the rest is read on and compared |
//! | how long an empty answer took | clocks differ; a read that may not wait, or whose wait runs out, is empty in both |
//!
//! Offsets are *not* left out: without transactions in the log, Kafka counts them as the model does.

mod explore;
pub mod store;
pub mod transport;

pub use explore::{Budget, Compared, Difference, conclude};
