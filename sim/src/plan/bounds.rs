//! How long a plan may take: what `settle`, `capacity` and others hold a run against.

use super::{ActionKind, Fault, LATE_TIMEOUTS_MAX, Plan, TaskPlan};

impl Plan {
    /// How long after the faults healed every task must be settled: the stated bound of `settle`.
    ///
    /// One round of dispatch, two leases of a worker with their margins (of a run that was lost, and
    /// from the beginning once its shard has changed hands), the grace of runs that were told to
    /// end, the longest wait after losses in a row, that of a client before it asks again, what
    /// clients and limits hold back, and twice the work of all tasks one after the other with their
    /// back-offs: beside each batch stand the calls that its checkpoints and its turn take.
    #[must_use]
    pub fn settle_bound_ms(&self) -> u64 {
        let world = &self.world;
        let work = self.tasks.iter().map(|task| task.graph.work_ms());
        let work = work.fold(0, u64::saturating_add);
        // Each wait is as long as all before it together, and those are over by then.
        let after_losses_ms = (self.heal_ms + 1_000).min(64_000);
        // A task that cannot be set aside is tried again after a wait that doubles, too.
        let writes = |fault: &Fault| matches!(fault, Fault::RefuseWrites { .. });
        let after_refusals_ms = if self.faults.iter().any(writes) {
            (self.heal_ms + 1_000).min(60_000)
        } else {
            0
        };
        // The library doubles its patience, up to 15 s.
        let client_ms = if world.slack_ms > 0 { 16_000 } else { 3_000 };
        // Processes act late, at each of so many steps at most.
        let late_ms = 60 * world.slack_ms;
        // A handler that does not listen is dropped, and given up a second later.
        let ending_ms = self.grace_ms_max() + 2_000;
        let turn_ms = (self.round_ms() + 2 * (world.lease_ttl_ms + 1_000) + ending_ms)
            .saturating_add(client_ms + late_ms + self.paused_ms_max())
            .saturating_add(self.held_ms_max());
        // Where few tasks may be in flight, each waits for its turn.
        let turns = match world.tasks_in_flight_max {
            Some(_) => self.tasks.len() as u64,
            None => 1,
        };
        turn_ms
            .saturating_mul(turns)
            .saturating_add(after_losses_ms + after_refusals_ms)
            .saturating_add(work.saturating_mul(2))
    }

    /// One round of dispatch after the faults healed: the longest time that a node is ready beside a
    /// slot that fits it.
    ///
    /// It needs an owner: a call that was lost as faults ended is given up a time-out later and made
    /// again after 2.5 s at most, and the lease of an owner that died lapses. And it needs a worker
    /// that the owner knows: one whose announcement or START was lost announces itself, and a START
    /// that it does not answer is given up.
    #[must_use]
    pub(crate) fn round_ms(&self) -> u64 {
        let world = &self.world;
        let lease_ms = world.shard_lease_ttl_ms;
        let mut owner_ms = world.call_timeout_ms + 2_500 + lease_ms;
        if self.rates.store_late > 0 {
            // A dead owner's last renewal may still come.
            owner_ms += LATE_TIMEOUTS_MAX * world.call_timeout_ms + lease_ms;
        }
        // Leases last longer by what the store's clock was set back.
        let back = self.faults.iter().filter_map(|fault| match fault {
            Fault::StoreClock { by_ms, .. } if *by_ms < 0 => Some(by_ms.unsigned_abs()),
            _ => None,
        });
        let back_ms = back.fold(0, u64::saturating_add);
        let worker_ms = world.announce_interval_ms + world.accept_timeout_ms;
        (owner_ms + worker_ms + 15 * world.slack_ms).saturating_add(back_ms)
    }

    /// Nothing is planned to go wrong, but for handlers. A function that breaks the machine has commits hold
    /// one change each for a while.
    pub(crate) fn is_calm(&self) -> bool {
        let breaks = |task: &TaskPlan| crate::functions::breaks_machine(&task.graph);
        self.faults.is_empty() && self.rates.is_quiet() && !self.tasks.iter().any(breaks)
    }

    /// One round of dispatch in a calm plan. A slot became free: its worker says so (to the log, and
    /// from there to the owner), a commit under way ends (there and back), and the next one takes it.
    /// Of several owners some are told only of room that lasts, and a shard that is handed over rests
    /// until its next owner looks.
    pub(crate) fn calm_round_ms(&self) -> u64 {
        let world = &self.world;
        let slow = if world.slow_permille > 0 { 20 } else { 1 };
        let way_ms = slow * world.latency_us_max / 1_000;
        let syncs_ms = 4 * world.sync_us / 1_000;
        let one_ms = 8 * way_ms + syncs_ms + 15 * world.slack_ms + 10;
        if world.shards == 1 {
            return one_ms;
        }
        let room_ms = 250 + 2 * way_ms;
        let handover_ms = if world.coordinators > 1 {
            world.shard_lease_ttl_ms / 10 + 8 * way_ms + syncs_ms
        } else {
            0
        };
        one_ms + room_ms + handover_ms
    }

    /// The longest pause: a client may ask for one just before faults heal.
    fn paused_ms_max(&self) -> u64 {
        let pauses = self.actions.iter().filter_map(|action| match action.kind {
            ActionKind::Pause { for_ms, .. } => Some(for_ms.min(self.heal_ms)),
            _ => None,
        });
        pauses.max().unwrap_or(0)
    }

    /// How long nodes may wait although everything is well: for their task's delayed start, and for
    /// limits of starts (after a takeover everything counts as just started).
    fn held_ms_max(&self) -> u64 {
        let delays = self.tasks.iter().map(|task| task.options.start_delay_ms);
        let nodes = self.tasks.iter().flat_map(|task| &task.graph.nodes);
        let starts = nodes.map(|node| u64::from(node.retry_max).saturating_add(4));
        let starts = starts.fold(4, u64::saturating_add);
        let limits = &self.world.limits;
        let all = limits.types.values().chain(limits.keys.values());
        let each = all.chain(&limits.key_default).filter_map(|limit| {
            let max = u64::from(limit.starts_max?.max(1));
            Some((starts / max + 4).saturating_mul(limit.window_ms.saturating_add(1_000)))
        });
        let delay = delays.max().unwrap_or(0);
        each.max().unwrap_or(0).saturating_add(delay)
    }

    fn grace_ms_max(&self) -> u64 {
        let asked = self.actions.iter().filter_map(|action| match action.kind {
            ActionKind::Cancel { grace_ms, .. } => grace_ms,
            _ => None,
        });
        asked.max().unwrap_or(0).max(self.world.cancel_grace_ms)
    }
}
