//! Health and metrics as a monitoring system meets them, and as an attacker does.

mod client;
mod hostile;
mod parts;
