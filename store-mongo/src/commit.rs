//! One group commit: one transaction.

use flowkit_core::port::{Commit, ErrorKind, PortError, StoreReply};
use mongodb::ClientSession;
use mongodb::bson::{Bson, DateTime, Document, RawArrayBuf, RawBson, RawDocumentBuf, cstr, rawdoc};
use mongodb::error::{
    Error, ErrorKind as Driver, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT,
    WriteFailure,
};
use std::collections::BTreeSet;
use std::time::Duration;

use crate::error::{DUPLICATE_KEY, Effect, code_of, is_refusal, port_error, text};
use crate::keys;
use crate::statements::{Prepared, Statements};
use crate::store::Mongo;

const OP: &str = "commit";
/// Until what a cut-short commit wrote is seen by majority reads.
const PAUSE: Duration = Duration::from_millis(10);
/// `NoSuchTransaction`, `Interrupted`.
const ENDED: [i32; 2] = [251, 11_601];
/// A transaction that meets another one is tried so often.
const TRIES_MAX: u32 = 8;
/// Statements of one command: far below the server's limit, and so is their size: the records of a
/// commit are bounded in bytes, the largest of them in themselves.
const STATEMENTS_MAX: usize = 1_000;
/// Bytes of one command; messages end at 48 MB.
const COMMAND_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Tasks that may be new in a commit, from which on it pays to look which of them are: an insert
/// costs the server a third of an upsert, the look one more round trip.
const LOOK_TASKS_MIN: usize = 8;

/// How a transaction ended without having been committed.
pub(crate) enum Refused {
    /// The shard record is not as the commit expects.
    Moved,
    Driver(Error),
    /// The answer to the commit command is missing.
    InDoubt(Error),
    Write {
        code: i32,
        message: String,
    },
    /// A task or node that was taken to be new is there.
    NotNew,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

pub(crate) async fn commit(mongo: &Mongo, commit: &Commit) -> Result<StoreReply, PortError> {
    let prepared = match Prepared::new(commit) {
        Ok(prepared) => prepared,
        Err(detail) => {
            // Whether it is in order comes first.
            return match classify(mongo, commit).await? {
                Some(reply) => Ok(reply),
                None => Err(PortError::new(ErrorKind::Invalid, OP, detail)),
            };
        }
    };
    let mut tries = 0;
    let mut may_insert = true;
    loop {
        tries += 1;
        let refused = match attempt(mongo, commit, &prepared, may_insert).await {
            Ok(()) => return Ok(StoreReply::Committed { seq: commit.seq }),
            Err(refused) => refused,
        };
        return match refused {
            Refused::Moved => match classify(mongo, commit).await? {
                Some(reply) => Ok(reply),
                // It fits now: whoever was in between was fenced off, or a copy of the last one.
                None if tries < TRIES_MAX => {
                    tokio::time::sleep(PAUSE * (tries - 1)).await;
                    continue;
                }
                None => {
                    let detail = "others write the shard record all the time";
                    Err(PortError::new(ErrorKind::Retry, OP, detail))
                }
            },
            Refused::NotNew => {
                may_insert = false;
                continue;
            }
            // Somebody else writes the shard record at this moment: a copy, or the next owner.
            Refused::Driver(error) if is_conflict(&error) && tries < TRIES_MAX => continue,
            // The next owner ended our session. The same commit again tells what has happened.
            Refused::Driver(error) | Refused::InDoubt(error)
                if is_ended(&error) && tries < TRIES_MAX =>
            {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Refused::Driver(error) => Err(port_error(OP, Effect::None, &error)),
            Refused::Write { code, message } => Err(refusal(code, &message)),
            Refused::InDoubt(error) => Err(PortError::new(ErrorKind::Unknown, OP, text(&error))),
        };
    }
}

/// One transaction.
async fn attempt(
    mongo: &Mongo,
    commit: &Commit,
    prepared: &Prepared<'_>,
    may_insert: bool,
) -> Result<(), Refused> {
    let seat = mongo.sessions.of(commit.shard, commit.epoch);
    let (mut own, mut another);
    let session: &mut ClientSession = match &seat {
        Some(seat) => {
            // A copy of this commit may be under way still.
            own = seat.lock().await;
            &mut own
        }
        None => {
            another = mongo.client.start_session().await?;
            &mut another
        }
    };
    if let Err(refused) = write(mongo, session, commit, prepared, may_insert).await {
        // A transaction that is not aborted holds its locks until the server ends it.
        let _ = session.abort_transaction().await;
        return Err(refused);
    }
    match session.commit_transaction().await {
        Ok(()) => Ok(()),
        Err(error) if is_conflict(&error) => Err(Refused::Driver(error)),
        Err(error) => Err(Refused::InDoubt(error)),
    }
}

/// The server was told to end this session's transaction.
fn is_ended(error: &Error) -> bool {
    let code = match &*error.kind {
        // Committed, but the wait for the other members was cut short.
        Driver::Write(WriteFailure::WriteConcernError(unsure)) => Some(unsure.code),
        _ => code_of(error),
    };
    code.is_some_and(|code| ENDED.contains(&code))
}

/// The transaction was surely not committed, and may be tried again at once.
fn is_conflict(error: &Error) -> bool {
    error.contains_label(TRANSIENT_TRANSACTION_ERROR)
        && !error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT)
        && code_of(error).is_some()
}

async fn write(
    mongo: &Mongo,
    session: &mut ClientSession,
    commit: &Commit,
    prepared: &Prepared<'_>,
    may_insert: bool,
) -> Result<(), Refused> {
    let max = mongo.operation_timeout;
    session.start_transaction().max_commit_time(max).await?;
    // First what zombies trip over.
    let now = fence(mongo, session, commit).await?;
    let new = match may_insert {
        true => new_tasks(mongo, session, prepared).await?,
        false => BTreeSet::new(),
    };
    let Statements {
        new_tasks,
        tasks,
        new_nodes,
        nodes,
    } = prepared.statements(commit.shard, now, &new);
    for (collection, documents, mine) in [
        ("tasks", &new_tasks, true),
        ("nodes", &new_nodes, true),
        ("artifacts", &prepared.artifacts, false),
    ] {
        for documents in pieces(documents) {
            let command = rawdoc! {
                "insert": collection, "documents": documents, "ordered": false,
            };
            match in_transaction(mongo, session, command).await {
                Err(Refused::Write { code, .. }) if mine && code == DUPLICATE_KEY => {
                    return Err(Refused::NotNew);
                }
                outcome => outcome?,
            };
        }
    }
    for (collection, statements) in [("tasks", &tasks), ("nodes", &nodes)] {
        for statements in pieces(statements) {
            let command = rawdoc! {
                "update": collection, "updates": statements, "ordered": false,
            };
            in_transaction(mongo, session, command).await?;
        }
    }
    crate::sweep::write(mongo, session, prepared).await
}

/// Moves the shard record on if it is as the commit expects; the server's time.
async fn fence(
    mongo: &Mongo,
    session: &mut ClientSession,
    commit: &Commit,
) -> Result<DateTime, Refused> {
    let condition = rawdoc! {
        "_id": i64::from(commit.shard.0),
        "epoch": keys::int(commit.epoch),
        "commit_seq": keys::int(commit.seq.wrapping_sub(1)),
    };
    let last_entry = commit.last_entry.map(|id| keys::int(id.0));
    let last_entry = last_entry.map_or(RawBson::Null, RawBson::Int64);
    let change = rawdoc! {
        "$set": {
            "commit_seq": keys::int(commit.seq),
            "commit_id": keys::int(commit.id),
            "next": keys::int(commit.next.0),
            "last_entry": last_entry,
        },
        "$currentDate": { "written": true },
    };
    let command = rawdoc! {
        "findAndModify": "shards",
        "query": condition,
        "update": change,
        "new": true,
        "fields": { "written": 1 },
    };
    let reply = in_transaction(mongo, session, command).await?;
    let Ok(moved) = reply.get_document("value") else {
        return Err(Refused::Moved);
    };
    moved
        .get_datetime("written")
        .copied()
        .map_err(|_| Refused::Moved)
}

/// The tasks of a commit that are not there yet, if it may hold some.
async fn new_tasks<'a>(
    mongo: &Mongo,
    session: &mut ClientSession,
    prepared: &'a Prepared<'_>,
) -> Result<BTreeSet<&'a str>, Refused> {
    let mut new = prepared.maybe_new();
    if new.len() < LOOK_TASKS_MIN {
        return Ok(BTreeSet::new());
    }
    let ids: RawArrayBuf = new.iter().copied().collect();
    let command = rawdoc! {
        "find": "tasks",
        "filter": { "_id": { "$in": ids } },
        "projection": { "_id": 1 },
        "batchSize": i32::try_from(new.len()).unwrap_or(i32::MAX),
        "singleBatch": true,
    };
    let reply = in_transaction(mongo, session, command).await?;
    let found = reply.get_document("cursor").ok();
    let found = found.and_then(|cursor| cursor.get_array("firstBatch").ok());
    for task in found.into_iter().flatten() {
        if let Some(id) = task.as_document().and_then(|task| keys::text(task, "_id")) {
            new.remove(id);
        }
    }
    Ok(new)
}

/// Runs one command.
pub(crate) async fn in_transaction(
    mongo: &Mongo,
    session: &mut ClientSession,
    mut command: RawDocumentBuf,
) -> Result<Document, Refused> {
    // Others wait behind a transaction: the server gives up when nobody waits for this one any more.
    let max_ms = i64::try_from(mongo.operation_timeout.as_millis()).unwrap_or(i64::MAX);
    command.append(cstr!("maxTimeMS"), max_ms.clamp(1, i64::from(i32::MAX)));
    let reply = mongo.database.run_raw_command(command);
    let reply = reply.session(session).await?;
    no_write_errors(&reply)?;
    Ok(reply)
}

/// Statements in pieces that fit into one command each.
fn pieces(statements: &[RawDocumentBuf]) -> Vec<RawArrayBuf> {
    let mut pieces = Vec::new();
    let mut piece = RawArrayBuf::new();
    let (mut count, mut bytes) = (0, 0);
    for statement in statements {
        let size = statement.as_bytes().len();
        if count > 0 && (count == STATEMENTS_MAX || bytes + size > COMMAND_BYTES_MAX) {
            pieces.push(std::mem::take(&mut piece));
            (count, bytes) = (0, 0);
        }
        piece.push(statement);
        (count, bytes) = (count + 1, bytes + size);
    }
    if count > 0 {
        pieces.push(piece);
    }
    pieces
}

/// A command is `ok` although statements in it failed.
fn no_write_errors(reply: &Document) -> Result<(), Refused> {
    let errors = reply
        .get_array("writeErrors")
        .map_or(&[][..], Vec::as_slice);
    let Some(Bson::Document(first)) = errors.first() else {
        return Ok(());
    };
    Err(Refused::Write {
        code: first.get_i32("code").unwrap_or(0),
        message: first.get_str("errmsg").unwrap_or_default().to_owned(),
    })
}

fn refusal(code: i32, message: &str) -> PortError {
    let (kind, detail) = match code {
        DUPLICATE_KEY => (
            ErrorKind::Invalid,
            "an artifact of that number or batch exists already",
        ),
        code if is_refusal(code) => (ErrorKind::Invalid, message),
        // Nothing was committed, and what is not known to be for good may pass.
        _ => (ErrorKind::Retry, message),
    };
    PortError::new(kind, OP, detail)
}

/// Why the shard record was not as expected, in the order of the port's checks; `None` if it is as
/// expected by now.
async fn classify(mongo: &Mongo, commit: &Commit) -> Result<Option<StoreReply>, PortError> {
    let Some(stored) = mongo.shard(OP, commit.shard).await? else {
        let detail = "the shard was never taken over";
        return Err(PortError::new(ErrorKind::Fenced, OP, detail));
    };
    if stored.epoch != commit.epoch {
        let detail = format!("epoch is {}, not {}", stored.epoch, commit.epoch);
        return Err(PortError::new(ErrorKind::Fenced, OP, detail));
    }
    if stored.commit_seq == commit.seq && stored.commit_id == commit.id && commit.seq > 0 {
        return Ok(Some(StoreReply::Committed { seq: commit.seq }));
    }
    if stored.commit_seq.checked_add(1) == Some(commit.seq) {
        return Ok(None);
    }
    let detail = format!(
        "commit_seq is {}, cannot commit {}",
        stored.commit_seq, commit.seq
    );
    Err(PortError::new(ErrorKind::Conflict, OP, detail))
}

/// Whether a driver's error is one of a key that is taken.
pub(crate) fn is_duplicate(error: &Error) -> bool {
    code_of(error) == Some(DUPLICATE_KEY)
}
