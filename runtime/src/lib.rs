//! FlowKit's tokio drivers and the handler API.
