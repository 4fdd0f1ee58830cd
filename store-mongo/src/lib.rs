//! FlowKit's store on MongoDB.
