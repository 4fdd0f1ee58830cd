//! One command per job of the FlowKit repository.
fn main() {}
