//! Transition tests: one input, the whole vector of effects.

mod bench;
mod life;
