//! Tests of messages: round trips, unknown fields, hostile bytes.

mod any;
mod hostile;
mod wire;
