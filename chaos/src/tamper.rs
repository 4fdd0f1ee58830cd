//! Proof that the judge is awake: a history that broke no promise is bent in ways that break one.

use flowkit_core::port::Record;
use flowkit_core::record::TaskState;
use flowkit_sim::judge::{Seen, Step};

/// A history, by time.
pub(crate) type History = Vec<(u64, Seen)>;

/// Bends a history, if there is something in it to bend.
type Bend = fn(&mut History) -> Option<()>;

/// How the history was bent, and what came of it. A run in which nothing of the kind happened
/// cannot be bent that way.
pub(crate) fn bent(history: &History) -> Vec<(&'static str, History)> {
    let ways: [(&'static str, Bend); 5] = [
        ("a batch accepted twice", accepted_twice),
        ("a token that began twice", began_twice),
        ("a commit that was lost", commit_lost),
        ("a terminal state that changed", ended_twice),
        ("a run without a grant read", unchecked),
    ];
    let bent = ways.into_iter().filter_map(|(name, bend)| {
        let mut history = history.clone();
        bend(&mut history).map(|()| (name, history))
    });
    bent.collect()
}

/// The records of a commit.
fn records(seen: &mut Seen) -> Option<&mut Vec<Record>> {
    match seen {
        Seen::Committed { records, .. } => Some(records),
        _ => None,
    }
}

fn accepted_twice(history: &mut History) -> Option<()> {
    history.iter_mut().rev().find_map(|(_, seen)| {
        let records = records(seen)?;
        let artifact = records.iter().find_map(|record| match record {
            Record::Artifact(artifact) => Some(artifact.clone()),
            _ => None,
        });
        let mut again = artifact?;
        again.number += 1;
        records.push(Record::Artifact(again));
        Some(())
    })
}

fn began_twice(history: &mut History) -> Option<()> {
    let begin = history.iter().position(|(_, seen)| {
        let step = Step::Begin;
        matches!(seen, Seen::Handler { step: s, .. } if *s == step)
    })?;
    let again = history[begin].clone();
    history.insert(begin + 1, again);
    Some(())
}

/// One that accepted a batch or ended a node.
fn commit_lost(history: &mut History) -> Option<()> {
    let lost = history.iter_mut().position(|(_, seen)| {
        records(seen).is_some_and(|records| {
            let mut records = records.iter();
            records.any(|record| matches!(record, Record::Artifact(_)))
        })
    })?;
    history.remove(lost);
    Some(())
}

fn ended_twice(history: &mut History) -> Option<()> {
    let (at, mut task) = history.iter_mut().enumerate().find_map(|(at, (_, seen))| {
        let task = records(seen)?.iter().find_map(|record| match record {
            Record::Task(task) if task.state.is_terminal() => Some(task.clone()),
            _ => None,
        });
        Some((at, task?))
    })?;
    task.state = match task.state {
        TaskState::Finished => TaskState::Failed,
        _ => TaskState::Finished,
    };
    let mut again = history[at].clone();
    *records(&mut again.1)? = vec![Record::Task(task)];
    history.insert(at + 1, again);
    Some(())
}

fn unchecked(history: &mut History) -> Option<()> {
    let before = history.len();
    history.retain(|(_, seen)| !matches!(seen, Seen::GrantsRead { .. }));
    let begun = history.iter().any(|(_, seen)| {
        let step = Step::Begin;
        matches!(seen, Seen::Handler { step: s, .. } if *s == step)
    });
    (begun && history.len() < before).then_some(())
}
