//! One run, with the test in the place of the worker machine.

use flowkit_core::id::{Epoch, NodeId, Role, TaskId, Token, WorkerId};
use flowkit_core::message::CancelReason;
use flowkit_core::worker::RunFailure;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

use super::*;
use crate::clock::Clock;
use crate::context::Outlet;
use crate::mailbox::{Commands, mailbox};
use crate::{BatchResult, ErrorClass, FinalizeResult, handler_fn};

mod panics;
#[cfg(unix)]
mod programs;
#[cfg(unix)]
mod resources;

const RUN: RunId = RunId(1);

/// The machine's side of a run.
struct Machine {
    cx: RunContext,
    commands: Commands,
    events: mpsc::UnboundedReceiver<(RunId, RunEvent)>,
    task: tokio::task::JoinHandle<()>,
}

fn start(handler: impl Handler) -> Machine {
    let (commands, from_machine) = mailbox();
    let (to_machine, events) = mpsc::unbounded_channel();
    let outlet = Outlet::Worker {
        run: RUN,
        events: to_machine.clone(),
    };
    let worker = WorkerId::new("w").unwrap();
    let cx = RunContext::new(&spec("null"), worker, Clock::new(), outlet);
    let seat = RunSeat::new(RUN, cx.clone(), from_machine, to_machine);
    let handler: Arc<dyn ErasedHandler> = Arc::new(handler);
    Machine {
        cx,
        commands,
        events,
        task: tokio::spawn(handler.run(seat)),
    }
}

fn spec(inline: &str) -> RunSpec {
    RunSpec {
        task_id: TaskId::new("t").unwrap(),
        node_id: NodeId::new("n").unwrap(),
        role: Role::new("r").unwrap(),
        epoch: Epoch(1),
        token: Token(1),
        input: Json::parse(&format!("{{\"input_inline\":{inline}}}")).unwrap(),
        adapter: None,
        checkpoint: None,
        accepted: 0,
        totals: Totals::new(),
        vars: Json::null(),
    }
}

fn begin(inline: &str) -> RunCommand {
    RunCommand::Begin(Box::new(spec(inline)))
}

fn process(uid: &str, payload: &str) -> RunCommand {
    RunCommand::Process {
        batch_uid: BatchUid::new(uid).unwrap(),
        payload: Json::parse(payload).unwrap(),
        checkpoint: None,
    }
}

impl Machine {
    fn send(&self, command: RunCommand) {
        self.commands.send(command).unwrap();
    }

    async fn event(&mut self) -> RunEvent {
        let (run, event) = self.events.recv().await.unwrap();
        assert_eq!(run, RUN);
        event
    }

    async fn ask(&mut self, command: RunCommand) -> RunEvent {
        self.send(command);
        self.event().await
    }

    async fn failure(&mut self, command: RunCommand) -> RunFailure {
        match self.ask(command).await {
            RunEvent::Failed(failure) => failure,
            other => panic!("not a failure: {other:?}"),
        }
    }

    async fn close(mut self) {
        assert_eq!(self.ask(RunCommand::Close).await, RunEvent::Closed);
        self.task.await.unwrap();
    }
}

type Log = Arc<Mutex<Vec<String>>>;

/// Notes every hook that is called.
struct Noted(Log);

impl Noted {
    fn note(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }
}

impl Handler for Noted {
    type Run = u32;
    type Input = u32;
    type Output = u32;

    async fn init(&self, cx: &RunContext) -> Result<u32, HandlerError> {
        self.note("init");
        let log = self.0.clone();
        cx.on_cleanup(async move { log.lock().unwrap().push("first cleanup".into()) });
        let log = self.0.clone();
        cx.on_cleanup(async move { log.lock().unwrap().push("second cleanup".into()) });
        Ok(100)
    }

    async fn load_input(
        &self,
        _: &RunContext,
        input: TaskInput,
    ) -> Result<TaskInput, HandlerError> {
        self.note("load_input");
        Ok(input)
    }

    async fn batches(
        &self,
        _: &RunContext,
        input: TaskInput,
    ) -> Result<BatchStream<u32>, HandlerError> {
        self.note("batches");
        let count: u32 = input.decode()?;
        let batches = (0..count).map(|n| Batch::new(format!("b{n}"), n));
        Ok(BatchStream::iter(batches.collect::<Vec<_>>()))
    }

    async fn process(
        &self,
        cx: &RunContext,
        run: &mut u32,
        batch: Batch<u32>,
    ) -> Result<BatchResult<u32>, HandlerError> {
        self.note(format!("process {}", batch.uid));
        if batch.payload > 5 {
            "x".parse::<u32>()?;
        }
        *run += batch.payload;
        cx.artifacts().upsert_partial(&"written beside")?;
        if batch.payload == 0 {
            return Ok(BatchResult::new().metric("n", 1));
        }
        Ok(BatchResult::of(*run).metric("n", 2))
    }

    async fn finalize(&self, cx: &RunContext, run: u32) -> Result<FinalizeResult, HandlerError> {
        let sum = cx.totals().get("n").map(|total| total.sum.0);
        self.note(format!("finalize {run} {sum:?}"));
        Ok(FinalizeResult::of(run).metric("end", true))
    }

    fn classify_error(
        &self,
        error: &(dyn std::error::Error + Send + Sync + 'static),
    ) -> ErrorClass {
        assert!(error.is::<std::num::ParseIntError>());
        ErrorClass::permanent("validation_error")
    }

    async fn cleanup(&self, _: &RunContext) {
        self.note("cleanup");
    }
}

#[tokio::test]
async fn every_hook_is_called_in_its_order() {
    let log = Log::default();
    let mut machine = start(Noted(log.clone()));
    let loaded = machine.ask(begin("2")).await;
    assert_eq!(loaded, RunEvent::Loaded { adapter: None });
    for (n, last) in [(0, false), (1, true)] {
        let RunEvent::Batch {
            batch_uid,
            payload,
            last: is_last,
        } = machine.ask(RunCommand::NextBatch).await
        else {
            panic!("no batch");
        };
        assert_eq!((batch_uid.as_str(), is_last), (&*format!("b{n}"), last));
        let processed = machine.ask(process(&format!("b{n}"), payload.text())).await;
        let RunEvent::Processed {
            metrics, artifact, ..
        } = processed
        else {
            panic!("{processed:?}");
        };
        assert_eq!(metrics["n"].text(), (n + 1).to_string());
        let expected = ["\"written beside\"", "101"][n];
        assert_eq!(artifact.unwrap().text(), expected);
    }
    assert_eq!(
        machine.ask(RunCommand::NextBatch).await,
        RunEvent::BatchesEnded
    );
    let mut totals = Totals::new();
    totals.entry("n".into()).or_default().add(40.0);
    let finalized = machine.ask(RunCommand::Finalize { totals }).await;
    let RunEvent::Finalized { metrics, result } = finalized else {
        panic!("{finalized:?}");
    };
    assert_eq!(
        (metrics["end"].text(), result.unwrap().text()),
        ("true", "101")
    );
    machine.close().await;
    let expected = [
        "init",
        "load_input",
        "batches",
        "process b0",
        "process b1",
        "finalize 101 Some(40.0)",
        "second cleanup",
        "first cleanup",
        "cleanup",
    ];
    assert_eq!(*log.lock().unwrap(), expected);
}

#[tokio::test]
async fn an_error_is_named_by_the_handlers_own_classifier() {
    let mut machine = start(Noted(Log::default()));
    machine.ask(begin("1")).await;
    let failure = machine.failure(process("adapter-made", "9")).await;
    assert_eq!(&*failure.reason_code, "validation_error");
    assert!(failure.permanent);
    machine.close().await;
}

#[tokio::test]
async fn input_that_does_not_decode_is_permanent() {
    let mut machine = start(Noted(Log::default()));
    machine.ask(begin("1")).await;
    let failure = machine.failure(process("b", "\"text\"")).await;
    assert_eq!(
        (&*failure.reason_code, failure.permanent),
        ("bad_input", true)
    );
    machine.close().await;

    let mut machine = start(handler_fn(|_, batch: Batch<u32>| async move {
        Ok(BatchResult::of(batch.payload))
    }));
    machine.ask(begin("{\"not\":\"a number\"}")).await;
    let failure = machine.failure(RunCommand::NextBatch).await;
    assert_eq!(
        (&*failure.reason_code, failure.permanent),
        ("bad_input", true)
    );
    machine.close().await;
}

#[tokio::test]
async fn a_panic_is_a_transient_failure_and_the_run_can_be_closed() {
    let mut machine = start(handler_fn(|_, batch: Batch<u32>| async move {
        assert!(batch.payload > 100, "too small");
        Ok(BatchResult::of(batch.payload))
    }));
    machine.ask(begin("1")).await;
    machine.ask(RunCommand::NextBatch).await;
    let failure = machine.failure(process("input", "1")).await;
    assert_eq!((&*failure.reason_code, failure.permanent), ("panic", false));
    assert!(failure.error.contains("too small"));
    machine.close().await;
}

#[tokio::test]
async fn a_panic_in_a_cleanup_does_not_hide_the_others() {
    let log = Log::default();
    let seen = log.clone();
    let mut machine = start(handler_fn(move |cx: RunContext, batch: Batch<u32>| {
        let log = seen.clone();
        async move {
            cx.on_cleanup(async move { log.lock().unwrap().push("ran".into()) });
            cx.on_cleanup(async { panic!("broken cleanup") });
            Ok(BatchResult::of(batch.payload))
        }
    }));
    machine.ask(begin("1")).await;
    machine.ask(process("b", "1")).await;
    machine.close().await;
    assert_eq!(*log.lock().unwrap(), ["ran"]);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_visible_with_its_reason_and_deadline() {
    let mut machine = start(handler_fn(|cx: RunContext, _: Batch<u32>| async move {
        cx.check_cancelled()?;
        let info = cx.cancelled().await;
        assert_eq!(info.reason, CancelReason::Shutdown);
        assert_eq!(cx.cancel_info(), Some(info));
        assert_eq!(info.deadline - Instant::now(), Duration::from_secs(7));
        assert!(cx.is_cancelled());
        cx.sleep(Duration::from_secs(3_600)).await?;
        Ok(BatchResult::of(1))
    }));
    machine.ask(begin("1")).await;
    machine.send(process("b", "1"));
    tokio::task::yield_now().await;
    let deadline = Instant::now() + Duration::from_secs(7);
    machine.cx.raise_cancel(CancelReason::Shutdown, deadline);
    let RunEvent::Failed(failure) = machine.event().await else {
        panic!("not a failure");
    };
    assert!(failure.cancelled);
    machine.close().await;
}

/// Says so when it is dropped.
struct Dropped(Log);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("dropped".into());
    }
}

#[tokio::test]
async fn an_aborted_handler_answers_once_it_is_really_gone() {
    let log = Log::default();
    let seen = log.clone();
    let mut machine = start(handler_fn(move |_, _: Batch<u32>| {
        let guard = Dropped(seen.clone());
        async move {
            let _guard = guard;
            std::future::pending::<()>().await;
            Ok(BatchResult::of(1))
        }
    }));
    machine.ask(begin("1")).await;
    machine.send(process("b", "1"));
    machine.send(RunCommand::Abort);
    let RunEvent::Failed(failure) = machine.event().await else {
        panic!("not a failure");
    };
    assert!(failure.cancelled);
    assert_eq!(*log.lock().unwrap(), ["dropped"]);
    // An abort that comes late hits nothing: cleanup still runs.
    machine.send(RunCommand::Abort);
    machine.close().await;
}

/// Where a log goes.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_command_that_comes_out_of_turn_is_logged_without_its_payload() {
    let log = Written::default();
    let to = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false);
    let subscriber = subscriber.with_writer(move || to.clone()).finish();
    // Beside it: an only subscriber misses what another thread met before it (see the tests of `exec`).
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut machine = start(handler_fn(|_, _: Batch<String>| async move {
        std::future::pending::<()>().await;
        Ok(BatchResult::of(1))
    }));
    machine.ask(begin("1")).await;
    for payload in ["\"first hunter2\"", "\"second hunter2\""] {
        machine.send(process("b", payload));
    }
    machine.send(RunCommand::Abort);
    machine.event().await;
    machine.close().await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("process"), "{text}");
    assert!(text.contains("dropped"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn a_run_whose_worker_is_gone_drops_its_handler() {
    let log = Log::default();
    let seen = log.clone();
    let mut machine = start(handler_fn(move |_, _: Batch<u32>| {
        let guard = Dropped(seen.clone());
        async move {
            let _guard = guard;
            std::future::pending::<()>().await;
            Ok(BatchResult::of(1))
        }
    }));
    machine.ask(begin("1")).await;
    machine.send(process("b", "1"));
    tokio::task::yield_now().await;
    drop(machine.commands);
    machine.task.await.unwrap();
    assert_eq!(*log.lock().unwrap(), ["dropped"]);
}

#[tokio::test]
async fn a_checkpoint_waits_for_the_store_and_tells_a_refusal() {
    let mut machine = start(handler_fn(|cx: RunContext, _: Batch<u32>| async move {
        cx.save_checkpoint(&1).await?;
        cx.save_checkpoint(&2).await?;
        Ok(BatchResult::of(1))
    }));
    machine.ask(begin("1")).await;
    let first = machine.ask(process("b", "1")).await;
    assert_eq!(first, RunEvent::Checkpoint(Json::parse("1").unwrap()));
    machine.cx.checkpoint_answered(Ok(()));
    let second = machine.event().await;
    assert_eq!(second, RunEvent::Checkpoint(Json::parse("2").unwrap()));
    let refusal = RunFailure {
        reason_code: "checkpoint_too_large".into(),
        permanent: true,
        error: "too large".into(),
        retry_after_ms: None,
        cancelled: false,
    };
    machine.cx.checkpoint_answered(Err(refusal.clone()));
    assert_eq!(machine.event().await, RunEvent::Failed(refusal));
    machine.close().await;
}

#[tokio::test]
async fn a_checkpoint_outside_of_a_batch_is_refused() {
    struct Early;
    impl Handler for Early {
        type Run = ();
        type Input = ();
        type Output = ();
        async fn init(&self, cx: &RunContext) -> Result<(), HandlerError> {
            cx.save_checkpoint(&1).await
        }
        async fn process(
            &self,
            _: &RunContext,
            (): &mut (),
            _: Batch<()>,
        ) -> Result<BatchResult<()>, HandlerError> {
            Ok(BatchResult::new())
        }
    }
    let mut machine = start(Early);
    let failure = machine.failure(begin("null")).await;
    assert_eq!(
        (&*failure.reason_code, failure.permanent),
        ("no_batch", true)
    );
    machine.close().await;
}

#[tokio::test]
async fn the_idempotency_key_is_the_same_in_every_attempt_of_a_batch() {
    let keys = |uids: [&'static str; 2]| async move {
        let mut machine = start(handler_fn(|cx: RunContext, _: Batch<u32>| async move {
            Ok(BatchResult::of(cx.idempotency_key()))
        }));
        machine.ask(begin("1")).await;
        let mut keys = Vec::new();
        for uid in uids {
            match machine.ask(process(uid, "1")).await {
                RunEvent::Processed { artifact, .. } => keys.push(artifact.unwrap()),
                other => panic!("{other:?}"),
            }
        }
        machine.close().await;
        keys
    };
    let first = keys(["a", "b"]).await;
    assert_ne!(first[0], first[1]);
    assert_eq!(first, keys(["a", "b"]).await);
}

#[tokio::test]
async fn an_adapter_is_proposed_by_the_hook_or_by_the_input() {
    struct Proposes;
    impl Handler for Proposes {
        type Run = ();
        type Input = ();
        type Output = ();
        async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
            Ok(())
        }
        async fn load_input(
            &self,
            _: &RunContext,
            input: TaskInput,
        ) -> Result<TaskInput, HandlerError> {
            Ok(input.with_adapter("mine", Json::null()))
        }
        async fn process(
            &self,
            _: &RunContext,
            (): &mut (),
            _: Batch<()>,
        ) -> Result<BatchResult<()>, HandlerError> {
            Ok(BatchResult::new())
        }
    }
    let name = |event| match event {
        RunEvent::Loaded { adapter } => adapter.map(|a| (a.name, a.args)),
        other => panic!("{other:?}"),
    };
    let mut machine = start(Proposes);
    let proposed = name(machine.ask(begin("null")).await);
    assert_eq!(proposed, Some(("mine".into(), Json::null())));
    machine.close().await;

    let mut machine = start(handler_fn(|_, _: Batch<()>| async move {
        Ok(BatchResult::<()>::new())
    }));
    let inline = r#"{"input_adapter":"pull.from_artifacts","input_args":{"from_node":"a"}}"#;
    let args = Json::parse(r#"{"from_node":"a"}"#).unwrap();
    let proposed = name(machine.ask(begin(inline)).await);
    assert_eq!(proposed, Some(("pull.from_artifacts".into(), args)));
    machine.close().await;
}

#[test]
fn the_future_of_a_run_stays_small() {
    // It is allocated once per run; a small one comes from the allocator's fast path.
    let (_commands, from_machine) = mailbox();
    let (events, _) = mpsc::unbounded_channel();
    let worker = WorkerId::new("w").unwrap();
    let outlet = Outlet::Test(Mutex::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    let cx = RunContext::new(&spec("null"), worker, Clock::new(), outlet);
    let seat = RunSeat::new(RUN, cx, from_machine, events);
    let handler = handler_fn(|_, _: Batch<u32>| async move { Ok(BatchResult::of(1)) });
    let size = size_of_val(&within_span(Arc::new(handler), seat));
    assert!(size <= 1_024, "{size} bytes");
}
