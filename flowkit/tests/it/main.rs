//! The `flowkit` command as a user meets it: every test starts the built program.

mod bad_input;
mod common;
mod crash;
mod demo;
mod doctor;
mod exec;
mod graphs;
mod guide;
mod guide_graphs;
mod guide_reasons;
mod observe;
#[path = "../shared/terminal.rs"]
mod on_terminal;
mod reruns;
mod settings;
mod signals;
mod sim;
mod tasks;
mod terminal;
mod why;
mod workers;
