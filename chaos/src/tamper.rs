//! Proof that the judge is awake: a history that broke no promise is bent in ways that break one.

use flowkit_core::port::Record;
use flowkit_core::record::TaskState;
use flowkit_sim::judge::{Ask, Seen, Step};

/// A history, by time.
pub(crate) type History = Vec<(u64, Seen)>;

/// Bends a history, if there is something in it to bend.
type Bend = fn(&mut History) -> Option<()>;

/// A way to bend a history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// The promise that it breaks.
    pub(crate) promise: &'static str,
    bend: Bend,
}

const WAYS: [Way; 7] = [
    Way {
        name: "a batch accepted twice",
        promise: "effect_once",
        bend: accepted_twice,
    },
    Way {
        name: "a token that began twice",
        promise: "single_owner",
        bend: began_twice,
    },
    Way {
        name: "a commit that was lost",
        promise: "single_owner",
        bend: commit_lost,
    },
    Way {
        name: "a commit of an owner that was replaced",
        promise: "single_owner",
        bend: old_epoch,
    },
    Way {
        name: "a terminal state that changed",
        promise: "cancel_final",
        bend: ended_twice,
    },
    Way {
        name: "a run without a read of its grant",
        promise: "cancel_final",
        bend: unchecked,
    },
    Way {
        name: "a task that was acknowledged and not stored",
        promise: "no_lost_task",
        bend: never_stored,
    },
];

/// The history bent in every way for which there is something to bend.
pub(crate) fn bent(history: &History) -> Vec<(Way, History)> {
    let bent = WAYS.into_iter().filter_map(|way| {
        let mut history = history.clone();
        (way.bend)(&mut history).map(|()| (way, history))
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
        // The newest of its node: behind another one it would stand in the place of the next.
        let artifact = records.iter().rev().find_map(|record| match record {
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

/// The first one that accepted a batch: others of its shard follow.
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

fn old_epoch(history: &mut History) -> Option<()> {
    history.iter_mut().rev().find_map(|(_, seen)| match seen {
        Seen::Committed { epoch, .. } => {
            *epoch -= 1;
            Some(())
        }
        _ => None,
    })
}

/// The answer comes before anything was written.
fn never_stored(history: &mut History) -> Option<()> {
    let answered = history.iter().position(|(_, seen)| {
        let submitted = |ask: &Ask, ok: bool| *ask == Ask::Submit && ok;
        matches!(seen, Seen::Answered { ask, reply, .. } if submitted(ask, reply.ok))
    })?;
    let (_, answer) = history.remove(answered);
    history.insert(0, (0, answer));
    Some(())
}
