//! Transition tests: one input, the whole vector of effects. `random` throws everything at once.

mod bench;
mod life;
mod random;
