//! Tier 0 at work: named scenarios, the crash sweep, plans that once failed, fresh seeds.

mod scenarios;
mod seeds;
mod sweep;
