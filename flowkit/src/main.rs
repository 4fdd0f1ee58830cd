//! The `flowkit` command.
fn main() {}
