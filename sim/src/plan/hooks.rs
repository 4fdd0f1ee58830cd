//! Troubles outside of batches and `finalize`: in the other hooks, and in how an error is named. And
//! handlers that mark their result batch by batch.

use super::graph::{Hook, Trouble};
use super::swarm::{Draw, moment};
use super::{Action, ActionKind, Plan, TroubleKind};
use crate::script;

/// In some plans the handlers have trouble with hooks.
pub(super) fn troubles(draw: &mut Draw, plan: &mut Plan, span: u64) {
    if !draw.percent(25) {
        return;
    }
    let mut cancelled = Vec::new();
    for (number, task) in (0..).zip(&mut plan.tasks) {
        let handlers = task.graph.nodes.iter_mut();
        for node in handlers.filter(|node| node.function.is_none()) {
            for trouble in &mut node.script.trouble {
                if trouble.kind == TroubleKind::Panics && draw.percent(60) {
                    trouble.kind = TroubleKind::PanicsNaming;
                }
            }
            // One that cannot be ended is enough of a trouble.
            if !draw.percent(40) || node.script.blocks {
                continue;
            }
            let hooks: &[Hook] = match node.reader {
                None => &[Hook::Init, Hook::LoadInput, Hook::Batches, Hook::Cleanup],
                Some(_) => &[Hook::Init, Hook::LoadInput, Hook::Cleanup],
            };
            let hook = *draw.pick(hooks);
            let kind = kind(draw);
            // A cleanup is dropped in the end, whoever waits.
            if kind == TroubleKind::Hangs && hook != Hook::Cleanup {
                cancelled.push(number);
            }
            let first = Trouble {
                epoch: 1,
                batch: None,
                hook: Some(hook),
                kind,
            };
            let attempts = draw.small(1, 2);
            let troubles = (1..=attempts).map(|epoch| Trouble { epoch, ..first });
            node.script.trouble.extend(troubles);
        }
    }
    for task in cancelled {
        plan.actions.push(Action {
            when: moment(draw, span),
            client: draw.small(0, plan.world.clients - 1),
            kind: ActionKind::Cancel {
                task,
                grace_ms: draw.percent(50).then(|| draw.wide(0, 2_000)),
            },
        });
    }
}

/// Some errors are given a class by their handler, some failures are called permanent by the graph.
pub(super) fn named(draw: &mut Draw, plan: &mut Plan) {
    if !draw.percent(40) {
        return;
    }
    for node in plan.tasks.iter_mut().flat_map(|task| &mut task.graph.nodes) {
        let (classified, listed) = (draw.percent(35), draw.percent(20));
        for trouble in &mut node.script.trouble {
            match trouble.kind {
                TroubleKind::Transient if classified => {
                    trouble.kind = TroubleKind::Classified { permanent: false };
                }
                TroubleKind::Permanent if classified => {
                    trouble.kind = TroubleKind::Classified { permanent: true };
                }
                _ => {}
            }
        }
        if listed {
            let codes = node.script.trouble.iter();
            let codes = codes.filter_map(|trouble| script::code(trouble.kind));
            node.permanent_on = codes.map(str::to_owned).collect();
            node.permanent_on.dedup();
        }
    }
}

/// Some handlers mark their result.
pub(super) fn marks(draw: &mut Draw, plan: &mut Plan) {
    let nodes = plan.tasks.iter_mut().flat_map(|task| &mut task.graph.nodes);
    for node in nodes.filter(|node| node.function.is_none()) {
        node.script.marks = draw.percent(25);
    }
}

fn kind(draw: &mut Draw) -> TroubleKind {
    match draw.small(0, 19) {
        0..=5 => TroubleKind::Transient,
        6..=9 => TroubleKind::Panics,
        10..=13 => TroubleKind::PanicsNaming,
        14 => TroubleKind::RetryAfter {
            ms: draw.between(0, 800),
        },
        15 => TroubleKind::Permanent,
        16..=17 => TroubleKind::Hangs,
        _ => TroubleKind::Slow {
            ms: draw.between(100, 4_000),
        },
    }
}
