//! Transitions of the coordinator machine.
