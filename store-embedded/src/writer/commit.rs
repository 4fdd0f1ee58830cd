//! Group commits and epochs: everything that writes a shard record.

use flowkit_core::id::{ClientId, Offset, ShardId};
use flowkit_core::port::{ErrorKind, PortError, StoreReply};
use flowkit_core::record::ShardRecord;
use redb::ReadableTable;

use super::opened::Opened;
use super::prepared::{Prepared, name_of};
use crate::error::Stop;
use crate::format::{Key, Table, decode_plain, encode_plain, ended_of, is_settled};

/// The shard record of a shard that was never taken over.
pub(crate) const fn zero_shard(shard: ShardId) -> ShardRecord {
    ShardRecord {
        shard,
        epoch: 0,
        commit_seq: 0,
        commit_id: 0,
        next: Offset(0),
        last_entry: None,
    }
}

pub(crate) fn decode_shard(op: &str, bytes: &[u8]) -> Result<ShardRecord, PortError> {
    decode_plain("shard", bytes).map_err(|why| PortError::new(ErrorKind::Corrupt, op, why))
}

fn read_shard(
    op: &str,
    open: &mut Opened<'_>,
    shard: ShardId,
) -> Result<Option<ShardRecord>, Stop> {
    let table = open.read(Table::Shard)?;
    let found = table.get(&Key::shard(shard)[..])?;
    Ok(found
        .map(|bytes| decode_shard(op, bytes.value()))
        .transpose()?)
}

fn write_shard(op: &str, open: &mut Opened<'_>, record: &ShardRecord) -> Result<(), Stop> {
    let mut bytes = Vec::with_capacity(64);
    encode_plain(record, &mut bytes)
        .map_err(|error| PortError::new(ErrorKind::Invalid, op, error.to_string()))?;
    open.write(Table::Shard)?
        .insert(&Key::shard(record.shard)[..], &bytes[..])?;
    Ok(())
}

/// Applies a commit. On `Stop::Answer` nothing was written.
///
/// The order of the checks: epoch (`Fenced`), the same commit again (`Committed`), its place
/// (`Conflict`), its records (`Invalid`).
pub(super) fn commit(open: &mut Opened<'_>, commit: &Prepared) -> Result<StoreReply, Stop> {
    const OP: &str = "commit";
    let error = |kind, detail: String| Err(PortError::new(kind, OP, detail).into());
    let new = &commit.shard;
    let Some(stored) = read_shard(OP, open, new.shard)? else {
        return error(
            ErrorKind::Fenced,
            "the shard was never taken over".to_owned(),
        );
    };
    if stored.epoch != new.epoch {
        let detail = format!("epoch is {}, not {}", stored.epoch, new.epoch);
        return error(ErrorKind::Fenced, detail);
    }
    let seq = new.commit_seq;
    if stored.commit_seq == seq && stored.commit_id == new.commit_id && seq > 0 {
        return Ok(StoreReply::Committed { seq });
    }
    if stored.commit_seq + 1 != seq {
        let detail = format!("commit_seq is {}, cannot commit {seq}", stored.commit_seq);
        return error(ErrorKind::Conflict, detail);
    }
    if let Some(refusal) = &commit.refusal {
        return error(ErrorKind::Invalid, refusal.clone());
    }
    for (table, key, _) in commit.rows() {
        // Tasks and nodes are written over; artifacts and their uids are inserted.
        if matches!(table, Table::Artifact | Table::Uid) && open.read(table)?.get(key)?.is_some() {
            let detail = format!("{} exists already", name_of(table, key));
            return error(ErrorKind::Invalid, detail);
        }
    }
    write_shard(OP, open, new)?;
    for (table, key, value) in commit.rows() {
        let before = open.write(table)?.insert(key, value)?;
        if table != Table::Task {
            continue;
        }
        let was_listed = before.as_ref().is_some_and(|old| !is_settled(old.value()));
        let was_ended = before.and_then(|old| ended_of(old.value()));
        let listed = !is_settled(value);
        for (ended, stays) in [(was_ended, false), (ended_of(value), true)] {
            let Some((failed, written_ms)) = ended else {
                continue;
            };
            let entry = Key::ended(new.shard, failed, written_ms, key);
            let index = open.write(Table::Ended)?;
            if stays {
                index.insert(&entry[..], &[][..])?;
            } else {
                index.remove(&entry[..])?;
            }
        }
        if was_listed == listed {
            continue;
        }
        let entry = Key::unsettled(new.shard, key);
        let index = open.write(Table::Unsettled)?;
        if listed {
            index.insert(&entry[..], &[][..])?;
        } else {
            index.remove(&entry[..])?;
        }
    }
    for removal in &commit.removals {
        super::sweep::remove(open, new.shard, removal)?;
    }
    Ok(StoreReply::Committed { seq })
}

/// Raises a shard's epoch if the record is as the asker read it.
pub(super) fn raise_epoch(
    open: &mut Opened<'_>,
    holds: impl FnOnce(ShardId, &ClientId) -> bool,
    shard: ShardId,
    owner: &ClientId,
    (epoch, commit_seq): (u64, u64),
) -> Result<StoreReply, Stop> {
    const OP: &str = "raise_epoch";
    let fenced = |detail| Err(PortError::new(ErrorKind::Fenced, OP, detail).into());
    let stored = read_shard(OP, open, shard)?.unwrap_or(zero_shard(shard));
    if !holds(shard, owner) {
        return fenced("the lease is not the asker's");
    }
    if (stored.epoch, stored.commit_seq) != (epoch, commit_seq) {
        return fenced("epoch or commit_seq moved on");
    }
    let raised = ShardRecord {
        epoch: stored.epoch + 1,
        ..stored
    };
    write_shard(OP, open, &raised)?;
    Ok(StoreReply::Shard(raised))
}
