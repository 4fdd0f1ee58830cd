//! Where limits meet dispatch: nodes that a limit holds back, and grants that count against it.

use super::context::Context;
use super::limits::Room;
use super::shard::Shard;
use super::task::NodeKey;
use crate::id::Role;
use crate::planted::{Bug, is_planted};

impl Shard {
    /// Whether a limit holds back the first ready node of a role. `Some(true)`: it stands aside, and
    /// another node of the role may go; `Some(false)`: no node of the role may.
    pub(super) fn held_by_limit(
        &mut self,
        ctx: &mut Context<'_>,
        role: &Role,
        key: NodeKey,
    ) -> Option<bool> {
        let now = ctx.now.mono;
        if self.meters.room_of_all() != Room::Free {
            let told = self.readers_to_recall(self.ready.waiting(role), |_, _, _| true);
            self.recall(ctx, told);
            return Some(false);
        }
        match self.meters.room_of_type(now, role) {
            Room::Free => {}
            Room::Running => {
                let told = self.readers_to_recall(self.ready.waiting(role), |shard, reader, _| {
                    let task = shard.task(reader);
                    task.is_some_and(|task| task.plan.node(reader.node).role == *role)
                });
                self.recall(ctx, told);
                return Some(false);
            }
            Room::Starts => return Some(false),
        }
        let limit = self.task(key)?.limit_key.clone()?;
        let room = self.meters.room_of_key(now, &limit);
        if room == Room::Free {
            return None;
        }
        let waiting = self.ready.set_aside(role, &limit);
        if room == Room::Running {
            let told = self.readers_to_recall(waiting, |shard, reader, _| {
                let task = shard.task(reader);
                task.is_some_and(|task| task.limit_key.as_ref() == Some(&limit))
            });
            self.recall(ctx, told);
        }
        Some(true)
    }

    /// A grant begins (made now, or found in the store) or has ended.
    pub(super) fn count_grant(&mut self, key: NodeKey, begins: bool, made: bool) {
        let Some(task) = self.tasks.get(&key.task) else {
            return;
        };
        let role = &task.plan.node(key.node).role;
        let limit = task.limit_key.as_ref();
        if begins {
            let starts = made.then_some(&mut self.open.starts);
            return self.meters.begin(role, limit, starts);
        }
        self.meters.end(role, limit);
        if let Some(limit) = limit
            && !is_planted(Bug::LimitUnwoken)
        {
            self.ready.take_back(limit);
        }
    }
}
