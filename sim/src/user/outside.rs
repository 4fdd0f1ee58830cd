//! The outside world of a user's handlers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flowkit_core::id::BatchUid;
use flowkit_runtime::{HandlerError, RunContext, RunInfo};

use crate::checkers::Broken;
use crate::dice::Dice;
use crate::tier1;

/// A system outside of the engine that handlers have effects on: a bank, a mail server, a table.
///
/// It outlives every crash. A call takes a moment, may fail before anything happened, and its
/// answer may be lost after it did, as with any real one; a worker may die in between. Cheap to
/// clone; clones are the same system. Outside of a simulation it answers at once.
#[derive(Clone, Debug)]
pub struct Outside {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seed: u64,
    calls: u64,
    keys: BTreeSet<String>,
    effects: Vec<Effect>,
}

/// One effect.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Effect {
    /// What happened.
    pub what: String,
    /// The run that it happened in.
    pub run: RunInfo,
    /// The batch that was in work.
    pub batch: Option<BatchUid>,
    /// Time of the simulation, in milliseconds.
    pub at_ms: u64,
}

impl Outside {
    /// A system on which nothing has happened yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            shared: Arc::new(Shared {
                name: name.into(),
                state: Mutex::default(),
            }),
        }
    }

    /// Has an effect, whatever happened before.
    ///
    /// # Errors
    /// Transient, `outside_failed`: the effect may have happened, or not.
    pub async fn apply(
        &self,
        cx: &RunContext,
        what: impl Into<String>,
    ) -> Result<(), HandlerError> {
        self.call(cx, None, what.into()).await
    }

    /// Has an effect unless one with this key has happened, as systems do that know idempotency
    /// keys. [`RunContext::idempotency_key`] is the same in every attempt of a batch.
    ///
    /// # Errors
    /// Transient, `outside_failed`: the effect may have happened, or not.
    pub async fn apply_once(
        &self,
        cx: &RunContext,
        key: &str,
        what: impl Into<String>,
    ) -> Result<(), HandlerError> {
        self.call(cx, Some(key.to_owned()), what.into()).await
    }

    /// What has happened in this run, in order.
    #[must_use]
    pub fn effects(&self) -> Vec<Effect> {
        self.state().effects.clone()
    }

    /// How often something has happened in this run.
    #[must_use]
    pub fn count(&self, what: &str) -> usize {
        let state = self.state();
        let mut effects = state.effects.iter();
        effects
            .by_ref()
            .filter(|effect| effect.what == what)
            .count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    async fn call(
        &self,
        cx: &RunContext,
        key: Option<String>,
        what: String,
    ) -> Result<(), HandlerError> {
        let Some(now) = tier1::now() else {
            self.happens(cx, key, what, 0);
            return Ok(());
        };
        let mut dice = {
            let mut state = self.state();
            state.calls += 1;
            Dice::keyed(state.seed, [300, state.calls, 0])
        };
        let (there, back) = (dice.between(1, 30), dice.between(1, 30));
        let lost = (!now.healed).then(|| dice.between(0, 99));
        tokio::time::sleep(Duration::from_millis(there)).await;
        if lost.is_some_and(|lost| lost < 4) {
            return Err(self.failed());
        }
        let at_ms = tier1::now().map_or(0, |now| now.ms);
        self.happens(cx, key, what, at_ms);
        tokio::time::sleep(Duration::from_millis(back)).await;
        if lost.is_some_and(|lost| (4..8).contains(&lost)) {
            return Err(self.failed());
        }
        Ok(())
    }

    fn failed(&self) -> HandlerError {
        HandlerError::transient(
            "outside_failed",
            format_args!("{} did not answer", self.shared.name),
        )
    }

    fn happens(&self, cx: &RunContext, key: Option<String>, what: String, at_ms: u64) {
        let mut state = self.state();
        if key.is_some_and(|key| !state.keys.insert(key)) {
            return;
        }
        state.effects.push(Effect {
            what,
            run: cx.info().clone(),
            batch: cx.batch_uid(),
            at_ms,
        });
    }

    /// A run begins: nothing has happened.
    pub(super) fn begin(&self, seed: u64) {
        *self.state() = State {
            seed,
            ..State::default()
        };
    }

    /// What happened twice, if something did.
    pub(super) fn twice(&self) -> Option<Broken> {
        let state = self.state();
        let mut first: BTreeMap<&str, &Effect> = BTreeMap::new();
        for effect in &state.effects {
            let Some(before) = first.insert(&effect.what, effect) else {
                continue;
            };
            let batch = effect.batch.as_ref().map_or("no batch", BatchUid::as_str);
            let what = format!(
                "batch {batch} of node {} had its effect on the {} twice: {:?}\n  first  {}\n  again  {}",
                effect.run.node_id,
                self.shared.name,
                effect.what,
                told(before),
                told(effect)
            );
            return Some(Broken::new("effect_twice", effect.at_ms * 1_000, what));
        }
        None
    }
}

fn told(effect: &Effect) -> String {
    let run = &effect.run;
    format!(
        "at {} ms by {}: {}/{}, attempt {}, token {}",
        effect.at_ms, run.worker_id, run.task_id, run.node_id, run.epoch, run.token
    )
}
