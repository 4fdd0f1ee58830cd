//! What is the handler's may panic anywhere: the machine gets its answer all the same.

use std::error::Error;
use std::fmt;

use super::*;

/// Where something of the handler's panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Classify,
    Display,
    Source,
    ErrorsDrop,
    CleanupsCall,
    RunsDrop,
    SourcesDrop,
    BatchsDrop,
}

#[derive(Debug)]
struct Broken(At);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert!(self.0 != At::Display, "on purpose");
        f.write_str("it broke")
    }
}

impl Error for Broken {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        assert!(self.0 != At::Source, "on purpose");
        None
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        let drops = [
            At::ErrorsDrop,
            At::RunsDrop,
            At::SourcesDrop,
            At::BatchsDrop,
        ];
        assert!(!drops.contains(&self.0), "on purpose");
    }
}

/// Batches bring none.
impl<'de> Deserialize<'de> for Broken {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self(At::Classify))
    }
}

struct Panics(At);

impl Panics {
    fn broken(&self, at: At) -> Option<Broken> {
        (self.0 == at).then(|| Broken(at))
    }
}

impl Handler for Panics {
    type Run = Option<Broken>;
    type Input = Option<Broken>;
    type Output = u32;

    async fn init(&self, _: &RunContext) -> Result<Option<Broken>, HandlerError> {
        Ok(self.broken(At::RunsDrop))
    }

    async fn batches(
        &self,
        _: &RunContext,
        _: TaskInput,
    ) -> Result<BatchStream<Option<Broken>>, HandlerError> {
        let held = self.broken(At::SourcesDrop);
        let batch = self.broken(At::BatchsDrop);
        Ok(BatchStream::unfold(Some((held, batch)), |state| async {
            Ok(state.map(|(held, batch)| (Batch::new("b", batch), Some((held, None)))))
        }))
    }

    async fn process(
        &self,
        _: &RunContext,
        _: &mut Option<Broken>,
        _: Batch<Option<Broken>>,
    ) -> Result<BatchResult<u32>, HandlerError> {
        Err(Broken(self.0))?
    }

    fn classify_error(&self, _: &(dyn Error + Send + Sync + 'static)) -> ErrorClass {
        assert!(self.0 != At::Classify, "on purpose");
        ErrorClass::permanent("known")
    }

    /// Panics before it is a future.
    fn cleanup(&self, _: &RunContext) -> impl Future<Output = ()> + Send {
        assert!(self.0 != At::CleanupsCall, "on purpose");
        async {}
    }
}

#[tokio::test]
async fn an_error_that_panics_as_it_is_named_is_a_transient_panic() {
    let told = [
        (
            At::Classify,
            "in classify_error: on purpose; of the error: it broke",
        ),
        (At::Display, "as its error was written: on purpose"),
        (At::Source, "as its error was written: on purpose"),
        (At::ErrorsDrop, "on purpose"),
    ];
    for (at, text) in told {
        let mut machine = start(Panics(at));
        machine.ask(begin("null")).await;
        let failure = machine.failure(process("b", "null")).await;
        let named = (&*failure.reason_code, failure.permanent);
        assert_eq!(named, ("panic", false), "{at:?}");
        assert!(failure.error.contains(text), "{at:?}: {}", failure.error);
        machine.close().await;
    }
}

#[tokio::test]
async fn a_run_whose_parts_panic_as_they_are_dropped_is_closed() {
    for at in [
        At::CleanupsCall,
        At::RunsDrop,
        At::SourcesDrop,
        At::BatchsDrop,
    ] {
        let mut machine = start(Panics(at));
        machine.ask(begin("null")).await;
        machine.ask(RunCommand::NextBatch).await;
        machine.close().await;
    }
}

/// Panics when it is dropped, and says so before.
struct Falls(Log);

impl Drop for Falls {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("dropped".into());
        panic!("on purpose");
    }
}

#[tokio::test]
async fn an_aborted_step_that_panics_as_it_is_dropped_ends_as_cancelled() {
    let log = Log::default();
    let seen = log.clone();
    let mut machine = start(handler_fn(move |_, _: Batch<u32>| {
        let falls = Falls(seen.clone());
        async move {
            let _falls = falls;
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
    machine.close().await;
}

#[tokio::test]
async fn cleanups_that_are_cut_short_are_dropped_before_the_run_counts_as_closed() {
    let log = Log::default();
    let seen = log.clone();
    let mut machine = start(handler_fn(move |cx: RunContext, _: Batch<u32>| {
        for _ in 0..2 {
            let falls = Falls(seen.clone());
            cx.on_cleanup(async move {
                let _falls = falls;
                std::future::pending().await
            });
        }
        async { Ok(BatchResult::of(1)) }
    }));
    machine.ask(begin("1")).await;
    machine.ask(process("b", "1")).await;
    machine.send(RunCommand::Close);
    tokio::task::yield_now().await;
    assert!(log.lock().unwrap().is_empty());
    machine.send(RunCommand::Abort);
    assert_eq!(machine.event().await, RunEvent::Closed);
    // One was begun, one was not; neither is left to whoever holds the context last.
    assert_eq!(*log.lock().unwrap(), ["dropped", "dropped"]);
}

#[tokio::test]
async fn a_run_whose_task_ends_without_a_word_is_answered_for() {
    for owes in [Owes::Answer, Owes::Closed, Owes::Nothing] {
        let (_commands, from_machine) = mailbox();
        let (to_machine, mut events) = mpsc::unbounded_channel();
        let worker = WorkerId::new("w").unwrap();
        let outlet = Outlet::Test(Mutex::default());
        let cx = RunContext::new(&spec("null"), worker, Clock::new(), outlet);
        let mut seat = RunSeat::new(RUN, cx, from_machine, to_machine);
        let closes = matches!(owes, Owes::Closed);
        let answers = matches!(owes, Owes::Answer);
        seat.owes = owes;
        drop(seat);
        match events.recv().await {
            Some((RUN, RunEvent::Failed(failure))) if answers => {
                assert_eq!((&*failure.reason_code, failure.permanent), ("panic", false));
            }
            Some((RUN, RunEvent::Closed)) if closes => {}
            None if !answers && !closes => {}
            other => panic!("{other:?}"),
        }
    }
}
