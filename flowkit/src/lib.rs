//! FlowKit: durable task graphs. The facade crate and the flowkit command.
