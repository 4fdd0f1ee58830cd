//! The tables of the file.

use redb::TableDefinition;

/// Keys and values are bytes of our own format.
type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// One table per kind of record. The order is the order in which a commit writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// task id -> task record
    Task,
    /// task id, node id -> node record
    Node,
    /// task id, node id, number -> artifact record
    Artifact,
    /// task id, node id, batch uid -> number
    Uid,
    /// shard, task id -> nothing: tasks that are not settled
    Unsettled,
    /// shard, failed or not, time of writing, task id -> nothing: settled tasks
    Ended,
    /// task id, task id -> nothing: the first is pointed to by the second
    Pointer,
    /// task id -> what is left of a swept task
    Tombstone,
    /// shard -> shard record
    Shard,
    /// worker id -> worker record
    Worker,
    /// task id, node id -> scratch record
    Scratch,
    /// task id, node id, batch uid, token -> body of a staged artifact
    Staged,
    /// name -> what belongs to the whole file
    Meta,
}

impl Table {
    pub(crate) const ALL: [Self; 13] = [
        Self::Task,
        Self::Node,
        Self::Artifact,
        Self::Uid,
        Self::Unsettled,
        Self::Ended,
        Self::Pointer,
        Self::Tombstone,
        Self::Shard,
        Self::Worker,
        Self::Scratch,
        Self::Staged,
        Self::Meta,
    ];

    pub(crate) const fn definition(self) -> Definition {
        TableDefinition::new(match self {
            Self::Task => "task",
            Self::Node => "node",
            Self::Artifact => "artifact",
            Self::Uid => "uid",
            Self::Unsettled => "unsettled",
            Self::Ended => "ended",
            Self::Pointer => "pointer",
            Self::Tombstone => "tombstone",
            Self::Shard => "shard",
            Self::Worker => "worker",
            Self::Scratch => "scratch",
            Self::Staged => "staged",
            Self::Meta => "meta",
        })
    }
}
