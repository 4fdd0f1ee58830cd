//! The simulator at work: named scenarios on both tiers, the crash sweep, recovery from random cuts, plans that once
//! failed, fresh seeds.

mod clients;
mod pieces;
mod printed;
mod processes;
mod recovery;
mod scenarios;
mod scenarios_tasks;
mod schedules;
mod schedules_servers;
mod seeds;
mod shards;
mod sweep;
mod tiers;
