//! FlowKit's durable store for one machine.
