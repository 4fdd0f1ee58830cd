//! The `flowkit` command as a user meets it: every test starts the built program.

mod bad_input;
mod common;
mod crash;
mod demo;
mod graphs;
mod reruns;
mod sim;
mod tasks;
