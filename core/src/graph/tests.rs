//! Tests of graphs: faults, bounds, hostile input, random lives.

mod bounds;
mod faults;
mod hostile;
mod life;
mod plan;
mod rules;
mod shapes;

use serde_json::Value;

use super::{Fault, Graph};
use crate::json::Json;

fn parse(value: Value) -> Result<Graph, Vec<Fault>> {
    Graph::parse(&Json::from(value))
}

/// The faults as text, one per line.
fn faults(value: Value) -> Vec<String> {
    match parse(value) {
        Ok(graph) => panic!("no fault found in {}", graph.to_json().text()),
        Err(faults) => faults.iter().map(ToString::to_string).collect(),
    }
}

fn graph(value: Value) -> Graph {
    match parse(value) {
        Ok(graph) => graph,
        Err(faults) => panic!("{faults:#?}"),
    }
}
