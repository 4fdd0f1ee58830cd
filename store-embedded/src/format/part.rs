//! The first fields of a record, without the rest: a question about a state should not cost the
//! copy of a graph of a megabyte.
//!
//! A tuple reads as the fields of the same types in the same order; `agrees_with_the_whole` below
//! fails when a record's fields move.

use flowkit_core::id::{BatchUid, Epoch, Token};
use flowkit_core::port::TaskAnswer;
use flowkit_core::record::{Failure, Grant, NodeState, RECORD_VERSION, TaskState};
use serde::Deserialize;

use super::value::{Unreadable, unreadable};

type TaskPart<'a> = (
    u16,
    &'a str,
    u128,
    &'a str,
    &'a str,
    Option<&'a str>,
    TaskState,
    bool,
    Option<Failure>,
);
type NodePart<'a> = (
    u16,
    &'a str,
    &'a str,
    NodeState,
    Epoch,
    Token,
    Option<Grant>,
);
type ArtifactPart<'a> = (u16, &'a str, &'a str, u64, BatchUid);

fn part<'a, T: Deserialize<'a>>(what: &str, body: &'a [u8]) -> Result<T, Unreadable> {
    let failed = |error| unreadable(what, error);
    let (version, _) = postcard::take_from_bytes::<u16>(body).map_err(failed)?;
    if version > RECORD_VERSION {
        return Err(unreadable(
            what,
            format_args!("version {version} is not known"),
        ));
    }
    let (part, _) = postcard::take_from_bytes(body).map_err(failed)?;
    Ok(part)
}

/// What is told of a task that its owner does not hold.
pub(crate) fn task_answer_of(value: &[u8]) -> Result<TaskAnswer, Unreadable> {
    let body = value.get(9..).unwrap_or_default();
    let (_, _, submission_hash, _, _, _, state, settled, failure) =
        part::<TaskPart<'_>>("task", body)?;
    Ok(TaskAnswer {
        submission_hash,
        state,
        settled,
        failure,
        swept: false,
    })
}

/// Token and grant of a node.
pub(crate) fn grant_of(value: &[u8]) -> Result<(Token, Option<Grant>), Unreadable> {
    let body = value.get(9..).unwrap_or_default();
    let (_, _, _, _, _, token, grant) = part::<NodePart<'_>>("node", body)?;
    Ok((token, grant))
}

/// State of a node.
pub(crate) fn node_state_of(value: &[u8]) -> Result<NodeState, Unreadable> {
    let body = value.get(9..).unwrap_or_default();
    let (_, _, _, state, _, _, _) = part::<NodePart<'_>>("node", body)?;
    Ok(state)
}

/// Number and uid of an artifact.
pub(crate) fn batch_uid_of(value: &[u8]) -> Result<(u64, BatchUid), Unreadable> {
    let (_, _, _, number, uid) = part::<ArtifactPart<'_>>("artifact", value)?;
    Ok((number, uid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{encode_node, encode_plain, encode_task};
    use crate::tests::records;
    use flowkit_core::message::Artifact;

    #[test]
    fn agrees_with_the_whole() {
        let mut task = records::task("t");
        task.state = TaskState::Failed;
        task.settled = true;
        task.failure = Some(Failure {
            node_id: records::id("n"),
            reason_code: "code".into(),
            error: "why".into(),
        });
        let mut value = Vec::new();
        encode_task(&task, 7, &mut value).unwrap();
        let answer = task_answer_of(&value).unwrap();
        assert_eq!(answer.submission_hash, task.submission_hash);
        assert_eq!((answer.state, answer.settled), (task.state, task.settled));
        assert_eq!(answer.failure, task.failure);

        let mut node = records::node("t", "n");
        node.lease_no = Token(77);
        node.grant = Some(records::grant("w"));
        value.clear();
        encode_node(&node, 5, &mut value).unwrap();
        assert_eq!(grant_of(&value).unwrap(), (Token(77), node.grant));

        let artifact = records::artifact("t", "n", 9, Artifact::Staged(1));
        value.clear();
        encode_plain(&artifact, &mut value).unwrap();
        assert_eq!(batch_uid_of(&value).unwrap(), (9, artifact.batch_uid));
    }
}
