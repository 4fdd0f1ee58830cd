//! Tier 0 at work: named scenarios, the crash sweep, recovery from random cuts, plans that once
//! failed, fresh seeds.

mod processes;
mod recovery;
mod scenarios;
mod schedules;
mod seeds;
mod sweep;
