//! What stands in the file: tables, keys and values.

mod key;
mod part;
mod table;
mod value;

pub(crate) use key::Key;
pub(crate) use part::{batch_uid_of, grant_of, node_state_of, task_answer_of};
pub(crate) use table::Table;
pub(crate) use value::{
    Unreadable, decode_artifact, decode_node, decode_plain, decode_task, decode_tombstone,
    decode_worker, encode_artifact, encode_node, encode_plain, encode_task, ended_of, is_granted,
    is_settled,
};

/// Version of tables and keys. A file of another one is refused.
///
/// Raise it when an older program could not read, or would damage, what a newer one writes. Values
/// of records carry a version of their own, which costs a task and not the whole file.
pub(crate) const SCHEMA_VERSION: u32 = 4;
