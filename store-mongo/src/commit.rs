//! One group commit: one transaction.

use flowkit_core::port::{Commit, ErrorKind, PortError, Record, StoreReply};
use mongodb::ClientSession;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::{Error, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT};
use std::collections::BTreeSet;

use crate::error::{DUPLICATE_KEY, Effect, code_of, is_refusal, port_error, text};
use crate::store::Mongo;
use crate::{keys, records};

const OP: &str = "commit";
/// A transaction that meets another one is tried so often.
const TRIES_MAX: u32 = 8;
/// Statements of one command: far below the server's limit, and so is their size: the records of a
/// commit are bounded in bytes, the largest of them in themselves.
const STATEMENTS_MAX: usize = 1_000;
/// Bytes of one command; messages end at 48 MB.
const COMMAND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a commit writes, ready to be sent.
struct Prepared {
    tasks: Vec<Document>,
    nodes: Vec<Document>,
    artifacts: Vec<Document>,
}

/// How a transaction ended without having been committed.
enum Refused {
    /// The shard record is not as the commit expects.
    Moved,
    Driver(Error),
    /// The answer to the commit command is missing.
    InDoubt(Error),
    Write {
        code: i32,
        message: String,
    },
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

pub(crate) async fn commit(mongo: &Mongo, commit: &Commit) -> Result<StoreReply, PortError> {
    let prepared = match prepare(commit) {
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
    loop {
        tries += 1;
        let refused = match attempt(mongo, commit, &prepared).await {
            Ok(()) => return Ok(StoreReply::Committed { seq: commit.seq }),
            Err(refused) => refused,
        };
        return match refused {
            Refused::Moved => match classify(mongo, commit).await? {
                Some(reply) => Ok(reply),
                // It fits now: whoever was in between was fenced off, or a copy of the last one.
                None if tries < TRIES_MAX => continue,
                None => {
                    let detail = "others write the shard record all the time";
                    Err(PortError::new(ErrorKind::Retry, OP, detail))
                }
            },
            // Somebody else writes the shard record at this moment: a copy, or the next owner.
            Refused::Driver(error) if is_conflict(&error) && tries < TRIES_MAX => continue,
            Refused::Driver(error) => Err(port_error(OP, Effect::None, &error)),
            Refused::Write { code, message } => Err(refusal(code, &message)),
            Refused::InDoubt(error) => Err(PortError::new(ErrorKind::Unknown, OP, text(&error))),
        };
    }
}

/// One transaction.
async fn attempt(mongo: &Mongo, commit: &Commit, prepared: &Prepared) -> Result<(), Refused> {
    let mut session = mongo.client.start_session().await?;
    if let Err(refused) = write(mongo, &mut session, commit, prepared).await {
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

/// The transaction was surely not committed, and may be tried again at once.
fn is_conflict(error: &Error) -> bool {
    error.contains_label(TRANSIENT_TRANSACTION_ERROR)
        && !error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT)
        && code_of(error).is_some()
}

/// The documents of a commit; refuses one that names a key twice.
fn prepare(commit: &Commit) -> Result<Prepared, String> {
    let mut prepared = Prepared {
        tasks: Vec::new(),
        nodes: Vec::new(),
        artifacts: Vec::new(),
    };
    let mut keys_met = BTreeSet::new();
    let mut uids_met = BTreeSet::new();
    for record in &commit.records {
        let key = match record {
            Record::Task(record) => {
                let fields = records::task(commit.shard.0, record)?;
                let id = record.task_id.as_str();
                prepared.tasks.push(doc! {
                    "q": { "_id": id }, "u": { "$set": fields }, "upsert": true,
                });
                id.to_owned()
            }
            Record::Node(record) => {
                let id = keys::node(&record.task_id, &record.node_id);
                let fields = records::node(record)?;
                prepared.nodes.push(doc! {
                    "q": { "_id": id.as_str() },
                    "u": { "$set": fields, "$currentDate": { "written": true } },
                    "upsert": true,
                });
                id
            }
            Record::Artifact(record) => {
                let uid = (&record.task_id, &record.node_id, &record.batch_uid);
                if !uids_met.insert(uid) {
                    return Err(format!("batch {} is accepted twice", record.batch_uid));
                }
                prepared.artifacts.push(records::artifact(record)?);
                keys::artifact(&record.task_id, &record.node_id, record.number)
            }
        };
        if !keys_met.insert(key) {
            return Err("a key is written twice in one commit".to_owned());
        }
    }
    Ok(prepared)
}

async fn write(
    mongo: &Mongo,
    session: &mut ClientSession,
    commit: &Commit,
    prepared: &Prepared,
) -> Result<(), Refused> {
    let max = mongo.operation_timeout;
    session.start_transaction().max_commit_time(max).await?;
    // First what zombies trip over: this is the fence.
    let condition = doc! {
        "_id": i64::from(commit.shard.0),
        "epoch": keys::int(commit.epoch),
        "commit_seq": keys::int(commit.seq.wrapping_sub(1)),
    };
    let fields = doc! {
        "commit_seq": keys::int(commit.seq),
        "commit_id": keys::int(commit.id),
        "next": keys::int(commit.next.0),
        "last_entry": commit.last_entry.map(|id| keys::int(id.0)),
    };
    let fence = doc! { "q": condition, "u": { "$set": fields } };
    let command = doc! { "update": "shards", "updates": [fence] };
    if in_transaction(mongo, session, command).await? == 0 {
        return Err(Refused::Moved);
    }
    for (collection, statements) in [("tasks", &prepared.tasks), ("nodes", &prepared.nodes)] {
        for statements in pieces(statements) {
            let command = doc! { "update": collection, "updates": statements, "ordered": false };
            in_transaction(mongo, session, command).await?;
        }
    }
    for documents in pieces(&prepared.artifacts) {
        let command = doc! { "insert": "artifacts", "documents": documents, "ordered": false };
        in_transaction(mongo, session, command).await?;
    }
    Ok(())
}

/// Runs one command, and says how many documents it met.
async fn in_transaction(
    mongo: &Mongo,
    session: &mut ClientSession,
    mut command: Document,
) -> Result<u64, Refused> {
    // Others wait behind a transaction: the server gives up when nobody waits for this one any more.
    let max_ms = i64::try_from(mongo.operation_timeout.as_millis()).unwrap_or(i64::MAX);
    command.insert("maxTimeMS", max_ms.clamp(1, i64::from(i32::MAX)));
    let reply = mongo.database.run_command(command).session(session).await?;
    no_write_errors(&reply)?;
    Ok(keys::number(&reply, "n"))
}

/// Statements in pieces that fit into one command each.
fn pieces(statements: &[Document]) -> Vec<Vec<Document>> {
    let mut pieces: Vec<Vec<Document>> = Vec::new();
    let mut bytes = 0;
    for statement in statements {
        let size = size_of(statement);
        match pieces.last_mut() {
            Some(piece) if piece.len() < STATEMENTS_MAX && bytes + size <= COMMAND_BYTES_MAX => {
                bytes += size;
                piece.push(statement.clone());
            }
            _ => {
                bytes = size;
                pieces.push(vec![statement.clone()]);
            }
        }
    }
    pieces
}

/// About the size of a document: its texts.
fn size_of(document: &Document) -> usize {
    document
        .iter()
        .map(|(key, value)| {
            key.len()
                + match value {
                    Bson::String(text) => text.len() + 16,
                    Bson::Document(document) => size_of(document) + 16,
                    _ => 16,
                }
        })
        .sum()
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
