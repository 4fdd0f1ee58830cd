//! A handler that does what the script of its node says, and writes down what it does.

use flowkit_core::id::BatchUid;
use flowkit_core::json::Json;
use flowkit_runtime::{
    Batch, BatchResult, BatchStream, ErrorClass, FinalizeResult, Handler, HandlerError, RunContext,
    TaskInput,
};
use serde_json::{Value, json};
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use super::Journal;
use crate::judge::Step;
use crate::plan::{Hook, NodePlan, Plan, Reader, TroubleKind};
use crate::script;

/// Works for any role.
#[derive(Debug)]
pub struct Scripted<J> {
    /// Whose scripts.
    pub plan: Arc<Plan>,
    /// Where it says what it does.
    pub journal: Arc<J>,
}

/// Notes that a handler was ended when its future is dropped before it was done.
struct Unfinished<'a, J: Journal> {
    scripted: &'a Scripted<J>,
    cx: &'a RunContext,
    done: bool,
}

impl<J: Journal> Drop for Unfinished<'_, J> {
    fn drop(&mut self) {
        if !self.done {
            self.scripted.step(self.cx, Step::Abort);
        }
    }
}

/// What a script throws that panics; nothing else does.
#[derive(Debug)]
pub(crate) struct PlannedPanic;

/// An error of a script that cannot be named.
#[derive(Debug)]
struct Unnamed;

/// An error of a script that its handler knows.
#[derive(Debug)]
struct Known {
    permanent: bool,
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("as the script says")
    }
}

impl Error for Known {}

impl fmt::Display for Unnamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("as the script says")
    }
}

impl Error for Unnamed {}

/// Says that nothing is left of a run when it is dropped: its cleanup may panic or be cut short.
struct Closes<'a, J: Journal> {
    scripted: &'a Scripted<J>,
    cx: &'a RunContext,
}

impl<J: Journal> Drop for Closes<'_, J> {
    fn drop(&mut self) {
        self.scripted.step(self.cx, Step::Closed);
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl<J: Journal> Scripted<J> {
    fn step(&self, cx: &RunContext, step: Step) {
        self.journal.step(cx.info(), step);
    }

    fn node(&self, cx: &RunContext) -> Result<&NodePlan, HandlerError> {
        let info = cx.info();
        let mut tasks = self.plan.tasks.iter();
        let task = tasks.find(|task| task.id == info.task_id.as_str());
        task.and_then(|task| task.graph.node(info.node_id.as_str()))
            .ok_or_else(|| HandlerError::permanent("not_in_plan", "the plan has no such node"))
    }

    /// Runs a part of a handler; whatever ends it is written down.
    async fn part<T>(
        &self,
        cx: &RunContext,
        part: impl Future<Output = Result<T, HandlerError>>,
    ) -> Result<T, HandlerError> {
        let mut unfinished = Unfinished {
            scripted: self,
            cx,
            done: false,
        };
        let outcome = part.await;
        unfinished.done = true;
        outcome
    }

    /// Works for a time, or until it is told to end, if it listens.
    async fn work(
        &self,
        cx: &RunContext,
        node: &NodePlan,
        time: Duration,
    ) -> Result<(), HandlerError> {
        if node.script.ignores_cancel {
            tokio::time::sleep(time).await;
            return Ok(());
        }
        let slept = cx.sleep(time).await;
        if slept.is_err() {
            self.ended(cx, None, true);
        }
        slept
    }

    /// Lets go wrong what the script says of another hook.
    async fn troubled_hook(
        &self,
        cx: &RunContext,
        node: &NodePlan,
        hook: Hook,
    ) -> Result<(), HandlerError> {
        let troubles = script::hook_troubles(node, cx.info().epoch.0, hook);
        if !troubles.is_empty() {
            self.journal.struck(script::IN_HOOK);
        }
        self.troubled(cx, node, &troubles).await
    }

    /// The same where nobody asks how it went.
    async fn troubled_cleanup(&self, cx: &RunContext) {
        let Ok(node) = self.node(cx) else {
            return;
        };
        for trouble in script::hook_troubles(node, cx.info().epoch.0, Hook::Cleanup) {
            self.journal.struck(script::IN_HOOK);
            if script::lasting(trouble).is_some() {
                self.step(cx, Step::CleansUp);
            }
            match trouble {
                TroubleKind::Panics | TroubleKind::PanicsNaming => {
                    std::panic::panic_any(PlannedPanic)
                }
                TroubleKind::Hangs => tokio::time::sleep(Duration::from_secs(86_400)).await,
                TroubleKind::Slow { ms: more } => tokio::time::sleep(ms(more)).await,
                TroubleKind::Transient
                | TroubleKind::RetryAfter { .. }
                | TroubleKind::Classified { .. }
                | TroubleKind::Permanent => {}
            }
        }
    }

    /// Says how it ends: by a trouble of its script, or because it was told to.
    fn ended(&self, cx: &RunContext, trouble: Option<TroubleKind>, cancelled: bool) {
        let step = Step::Failed {
            permanent: matches!(
                trouble,
                Some(TroubleKind::Permanent | TroubleKind::Classified { permanent: true })
            ),
            cancelled,
            retry_after_ms: match trouble {
                Some(TroubleKind::RetryAfter { ms }) => Some(ms),
                _ => None,
            },
        };
        self.step(cx, step);
    }

    /// Saves the `part`-th checkpoint of a batch.
    async fn save(
        &self,
        cx: &RunContext,
        uid: &BatchUid,
        index: Option<u32>,
        part: u32,
    ) -> Result<(), HandlerError> {
        let value = script::checkpoint(index, uid.as_str(), part, cx.info().token);
        let kept = Json::from(value.clone());
        let step = Step::Checkpoint {
            uid: uid.clone(),
            value: kept.clone(),
        };
        self.step(cx, step);
        let saved = cx.save_checkpoint(&value).await;
        let step = Step::CheckpointSaved {
            uid: uid.clone(),
            value: kept,
            ok: saved.is_ok(),
        };
        self.step(cx, step);
        saved
    }

    /// Lets go wrong what the script says.
    async fn troubled(
        &self,
        cx: &RunContext,
        node: &NodePlan,
        troubles: &[TroubleKind],
    ) -> Result<(), HandlerError> {
        for trouble in troubles {
            self.journal.struck(script::family(*trouble));
            let error = match trouble {
                TroubleKind::Transient => HandlerError::transient("flaky", "as the script says"),
                TroubleKind::RetryAfter { ms: wait } => {
                    HandlerError::transient("busy", "as the script says").retry_after(ms(*wait))
                }
                TroubleKind::Permanent => HandlerError::permanent("hopeless", "as the script says"),
                TroubleKind::Panics => {
                    self.ended(cx, Some(*trouble), false);
                    std::panic::panic_any(PlannedPanic);
                }
                TroubleKind::PanicsNaming => HandlerError::from(Unnamed),
                TroubleKind::Classified { permanent } => HandlerError::from(Known {
                    permanent: *permanent,
                }),
                TroubleKind::Hangs => {
                    self.work(cx, node, Duration::from_secs(86_400)).await?;
                    continue;
                }
                TroubleKind::Slow { ms: more } => {
                    self.work(cx, node, ms(*more)).await?;
                    continue;
                }
            };
            self.ended(cx, Some(*trouble), false);
            return Err(error);
        }
        Ok(())
    }

    async fn batch(
        &self,
        cx: &RunContext,
        node: &NodePlan,
        done: &mut u32,
        batch: &Batch<Value>,
    ) -> Result<BatchResult<Value>, HandlerError> {
        let uid = BatchUid::new(&batch.uid)
            .map_err(|e| HandlerError::permanent("bad_uid", format_args!("{}: {e}", batch.uid)))?;
        let step = Step::Process {
            uid: uid.clone(),
            checkpoint: batch.checkpoint.clone(),
        };
        self.step(cx, step);
        let index = batch.payload["i"].as_u64();
        let index = index.and_then(|index| u32::try_from(index).ok());
        let saves = script::checkpoints(node, index);
        let share = ms(node.script.batch_ms) / (saves + 1);
        self.work(cx, node, share).await?;
        let mut part = 1;
        while part <= saves {
            let saved = if node.script.hasty && part < saves {
                let first = self.save(cx, &uid, index, part);
                let second = self.save(cx, &uid, index, part + 1);
                part += 1;
                let (first, second) = tokio::join!(biased; first, second);
                first.and(second)
            } else {
                self.save(cx, &uid, index, part).await
            };
            part += 1;
            if let Err(error) = saved {
                self.ended(cx, None, true);
                return Err(error);
            }
            self.work(cx, node, share).await?;
        }
        let troubles = script::troubles(node, cx.info().epoch.0, index);
        self.troubled(cx, node, &troubles).await?;
        let (artifact, count) = script::artifact(node, index, &batch.payload);
        let result = if script::writes(uid.as_str()) {
            cx.artifacts().upsert_partial(&artifact)?;
            BatchResult::new()
        } else {
            BatchResult::of(artifact)
        };
        if let Some(mark) = script::marked(node, uid.as_str()) {
            cx.artifacts().mark_complete(&mark)?;
        }
        self.step(cx, Step::Processed { uid });
        *done += 1;
        let result = result.metric("items", count).metric("label", &*batch.uid);
        let result = result.metric("nth", script::nth(cx.info().token, *done));
        Ok(result.metric("key", cx.idempotency_key()))
    }
}

impl<J: Journal> Handler for Scripted<J> {
    /// Batches that it has done.
    type Run = u32;
    type Input = Value;
    type Output = Value;

    async fn init(&self, cx: &RunContext) -> Result<u32, HandlerError> {
        let node = self.node(cx)?;
        self.journal.began(cx.info(), cx.checkpoint()?);
        let (told, journal) = (cx.clone(), self.journal.clone());
        let ignores = node.script.ignores_cancel;
        let watch = tokio::spawn(async move {
            let cancel = told.cancelled().await;
            if ignores {
                journal.struck(script::IGNORES_CANCEL);
            }
            let left = cancel.deadline.saturating_duration_since(Instant::now());
            let step = Step::Cancel {
                reason: cancel.reason,
                grace_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            };
            journal.step(told.info(), step);
        });
        cx.on_cleanup(async move { watch.abort() });
        for number in 1..=script::HOOKS {
            let (ended, journal) = (cx.info().clone(), self.journal.clone());
            cx.on_cleanup(async move { journal.step(&ended, Step::Hook { number }) });
        }
        let init = async {
            self.work(cx, node, ms(node.script.init_ms)).await?;
            self.troubled_hook(cx, node, Hook::Init).await
        };
        self.part(cx, init).await.map(|()| 0)
    }

    async fn load_input(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> Result<TaskInput, HandlerError> {
        let node = self.node(cx)?;
        let load = self.troubled_hook(cx, node, Hook::LoadInput);
        self.part(cx, load).await?;
        let reference = input.reference.as_ref();
        let reference = reference.and_then(|input| input.decode::<Value>().ok());
        if reference != node.input_ref {
            let what = format!("its input is {reference:?}");
            return Err(HandlerError::permanent("other_input", what));
        }
        Ok(match node.reader.as_ref().and_then(Reader::proposal) {
            Some((name, args)) => input.with_adapter(name, Json::from(args)),
            None => input,
        })
    }

    async fn batches(
        &self,
        cx: &RunContext,
        _input: TaskInput,
    ) -> Result<BatchStream<Value>, HandlerError> {
        let node = self.node(cx)?.clone();
        let open = self.troubled_hook(cx, &node, Hook::Batches);
        self.part(cx, open).await?;
        let checkpoint: Option<Value> = cx.checkpoint()?;
        let first = script::resumes_at(checkpoint.as_ref());
        let last = script::source_len(&node, cx.info().epoch.0);
        let says_last = node.script.says_last;
        let batch =
            move |index: u32| Batch::new(script::source_uid(&node, index), json!({ "i": index }));
        if says_last {
            return Ok(BatchStream::iter((first..last).map(batch)));
        }
        let batch = Arc::new(batch);
        Ok(BatchStream::unfold(first, move |index| {
            let batch = batch.clone();
            async move { Ok((index < last).then(|| (batch(index), index + 1))) }
        }))
    }

    async fn process(
        &self,
        cx: &RunContext,
        done: &mut u32,
        batch: Batch<Value>,
    ) -> Result<BatchResult<Value>, HandlerError> {
        let node = self.node(cx)?;
        self.part(cx, self.batch(cx, node, done, &batch)).await
    }

    async fn finalize(&self, cx: &RunContext, _run: u32) -> Result<FinalizeResult, HandlerError> {
        let node = self.node(cx)?;
        self.step(cx, Step::Finalize);
        let end = async {
            self.work(cx, node, ms(node.script.finalize_ms)).await?;
            let troubles = script::final_troubles(node, cx.info().epoch.0);
            self.troubled(cx, node, &troubles).await
        };
        self.part(cx, end).await?;
        self.step(cx, Step::Finalized);
        let result = script::result(node, &cx.totals());
        let end = result.map_or_else(FinalizeResult::new, FinalizeResult::of);
        Ok(end.metric("finals", 1))
    }

    fn classify_error(&self, error: &(dyn Error + Send + Sync + 'static)) -> ErrorClass {
        if error.is::<Unnamed>() {
            std::panic::panic_any(PlannedPanic);
        }
        match error.downcast_ref::<Known>() {
            Some(Known { permanent: true }) => ErrorClass::permanent("named"),
            Some(_) => ErrorClass::transient("named"),
            None => ErrorClass::transient("unexpected_error"),
        }
    }

    async fn cleanup(&self, cx: &RunContext) {
        let _closes = Closes { scripted: self, cx };
        self.troubled_cleanup(cx).await;
    }
}
