//! Deterministic simulation of FlowKit: fault plans, checkers, tier 0.
