//! FlowKit's store on MongoDB: a replica set or a sharded cluster, server 6.0 or newer.
//!
//! **One transaction per commit.** The shard's record is written by compare-and-set on its epoch and
//! `commit_seq`, everything else plainly: one owner writes a shard. A commit of unknown outcome is
//! told apart by `commit_seq` and the commit's id when it is submitted again. What a dead owner left
//! open, the next one ends (`killSessions`, which needs no right for sessions of the same user).
//!
//! **Everything else** is one conditional write of one document, or reads that take many at once.
//! Writes are acknowledged by a majority and journalled; reads see what a majority has.
//!
//! | collection | a document is | `_id` |
//! |---|---|---|
//! | `meta` | the deployment; the version of this layout | name |
//! | `leases` | the lease on a shard, by the server's clock | shard |
//! | `shards` | a shard record, and the session of its owner's commits | shard |
//! | `tasks`, `nodes` | a record as JSON text, beside the fields that are searched | task; task, node |
//! | `tombstones` | what is left of a swept task: its id is taken | task |
//! | `artifacts` | an accepted batch; unique by number and by batch uid | task, node, number |
//! | `staged` | the body of a large artifact | task, node, uid, token |
//! | `scratch` | the checkpoint of a batch in work | task, node |
//! | `workers` | the newest process of a worker | worker |
//!
//! Nothing has a time to live: what goes is taken away by commits. A record that cannot be decoded costs its task only.
//!
//! **Cancel safety.** A call runs in a task of its own: one that is dropped goes on, and may or may
//! not have happened.

mod commit;
mod error;
mod keys;
mod open;
mod read;
mod records;
mod sessions;
mod settings;
mod side;
mod statements;
mod store;
mod sweep;

pub use error::OpenError;
pub use settings::MongoSettings;
pub use store::MongoStore;
