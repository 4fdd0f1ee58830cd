//! A shard that its owner loads once more, since the store refuses a commit for good: what is carried over.

use super::context::Context;
use super::ownership::{CAREFUL_COMMITS, Phase, Slot};
use super::shard::Shard;
use super::spared::Spared;

/// Most refused submissions that are remembered; one that is forgotten is tried again.
const REFUSED_MAX: usize = 1_024;
/// Entries known as refused; the oldest are forgotten first, and refused once more.
const POISONED_MAX: usize = 1_024;

impl Slot {
    /// The store refuses a commit for good: read everything again and fold one entry per commit.
    pub(super) fn refused(&mut self, ctx: &mut Context<'_>) {
        let Some(shard) = self.owned() else { return };
        let (careful, blamed) = shard.blame();
        self.careful_until = self.careful_until.max(careful);
        self.reload(ctx);
        let Some(blamed) = blamed else { return };
        self.spare(ctx, &blamed.tasks);
        self.poisoned.extend(blamed.entry);
        while self.poisoned.len() > POISONED_MAX {
            self.poisoned.pop_first();
        }
        self.quarantine.extend(blamed.tasks);
        self.refused.extend(blamed.submissions);
        while self.refused.len() > REFUSED_MAX {
            self.refused.pop_first();
        }
    }

    /// Everything is read again, and what comes then is done with care: what must be done again, or is not
    /// to be done again, is carried over.
    pub(super) fn reload(&mut self, ctx: &mut Context<'_>) {
        if let Some(shard) = self.owned() {
            let quarantine = std::mem::take(&mut shard.quarantine);
            let refused = std::mem::take(&mut shard.refused);
            let starts = std::mem::take(&mut shard.meters).of_starts();
            let last = (shard.epoch, shard.commit_seq);
            self.reloading = Some((last, starts));
            self.quarantine.extend(quarantine);
            self.refused.extend(refused);
        }
        self.careful_left = CAREFUL_COMMITS;
        self.spared.reloads(ctx.now.mono);
        self.drop_memory(ctx);
        self.phase = Phase::Waiting(ctx.now.mono);
    }

    /// Starts that this owner knows of need not be guessed, if nobody owned the shard since, and no commit of
    /// its own that was given up came late.
    pub(super) fn carry_starts(&mut self, shard: &mut Shard) {
        let now = (shard.epoch, shard.commit_seq);
        if let Some((last, starts)) = &mut self.reloading
            && (last.0 + 1, last.1) == now
        {
            shard.meters = starts.clone();
            shard.starts_known = true;
            // This epoch is its own, too, should the load fail half-way.
            *last = now;
        }
    }

    /// Another one has the shard: what was left alone or to be set aside is its business, and may be well.
    pub(super) fn another_owns(&mut self) {
        self.spared = Spared::default();
        self.quarantine.clear();
        self.reloading = None;
    }
}
