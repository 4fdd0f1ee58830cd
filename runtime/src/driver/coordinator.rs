//! The coordinator's driver: one task that feeds the machine and carries out its effects.

use flowkit_core::coordinator::{Config, Coordinator, Effect, Input, Subject};
use flowkit_core::planted::{Bug, is_planted};
use flowkit_core::time::{Mono, Now};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::watch;

use super::calls::{Answer, Calls};
use super::worker::sleep_until;
use super::{INPUTS_PER_TURN, log};
use crate::engine::Engine;
use crate::run::panic_text;
use crate::vitals::{Asked, CoordinatorVitals, CoordinatorWatch, Overview};

/// How long a stopped coordinator waits for the answers of its last store calls.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// What the driver needs of the machine.
trait Machine: Send {
    fn handle(&mut self, now: Now, input: Input, out: &mut Vec<Effect>);
    fn poll_timeout(&self) -> Option<Mono>;
    fn wants_idle(&self) -> bool;
    fn subject(&self) -> Subject;
    fn overview(&self) -> Overview;
}

impl Machine for Coordinator {
    fn handle(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        self.handle(now, input, out);
    }

    fn poll_timeout(&self) -> Option<Mono> {
        self.poll_timeout()
    }

    fn wants_idle(&self) -> bool {
        self.wants_idle()
    }

    fn subject(&self) -> Subject {
        self.subject()
    }

    fn overview(&self) -> Overview {
        Overview {
            positions: self.positions(),
            waiting: self.waiting(),
            tasks_in_flight: self.tasks_in_flight(),
        }
    }
}

/// What a coordinator is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing.
    GoOn,
    /// To stop.
    Stop {
        /// As in [`Input::Shutdown`].
        workers_left: bool,
    },
}

impl Told {
    fn as_input(self) -> Option<Input> {
        match self {
            Self::GoOn => None,
            Self::Stop { workers_left } => Some(Input::Shutdown { workers_left }),
        }
    }
}

/// Returns when the coordinator is to stop, or when nobody is left who could tell it.
async fn told(stop: &mut watch::Receiver<Told>) -> Input {
    if is_planted(Bug::StopLost) {
        stop.borrow_and_update();
        let _ = stop.changed().await;
    } else {
        let _ = stop.wait_for(|told| *told != Told::GoOn).await;
    }
    let told = stop.borrow().as_input();
    told.unwrap_or(Input::Shutdown {
        workers_left: false,
    })
}

/// Drives a coordinator until it has stopped.
pub(crate) async fn drive_coordinator(
    engine: Engine,
    config: Config,
    stop: watch::Receiver<Told>,
    asked: Asked<CoordinatorVitals>,
) {
    drive(engine, config, stop, asked, Coordinator::new).await;
}

async fn drive<M: Machine>(
    engine: Engine,
    mut config: Config,
    mut stop: watch::Receiver<Told>,
    mut asked: Asked<CoordinatorVitals>,
    mut make: impl FnMut(Config) -> M,
) {
    let (clock, pace) = (engine.clock().clone(), engine.pace());
    let mut calls = Calls::new(engine.store(), engine.transport(), engine.rpc_timeout());
    let mut watch = CoordinatorWatch::new(config.shards, config.shard_lease_ttl_ms);
    let mut machine = make(config.clone());
    let mut next = VecDeque::from([Input::Wake]);
    let mut out = Vec::new();
    let mut stopping = None;
    let mut turn = 0;
    loop {
        pace.ready().await;
        let at_hand = match next.pop_front() {
            Some(input) => Some(input),
            None => {
                poll_fn(|cx| {
                    Poll::Ready(match calls.poll_ready(cx) {
                        Poll::Ready(answer) => Some(Input::from(answer)),
                        Poll::Pending => None,
                    })
                })
                .await
            }
        };
        let input = match at_hand {
            Some(input) => input,
            None if machine.wants_idle() => {
                // Whoever is ready to run may bring company for the next commit.
                tokio::task::yield_now().await;
                let more = poll_fn(|cx| Poll::Ready(calls.poll_ready(cx))).await;
                match more {
                    Poll::Ready(answer) => Input::from(answer),
                    Poll::Pending => Input::Idle,
                }
            }
            None => {
                let deadline = machine.poll_timeout().map(|at| clock.instant_of(at));
                tokio::select! {
                    biased;
                    answer = poll_fn(|cx| calls.poll_ready(cx)) => Input::from(answer),
                    () = sleep_until(deadline) => Input::Wake,
                    shutdown = told(&mut stop), if stopping.is_none() => {
                        stopping = Some(shutdown.clone());
                        shutdown
                    }
                    Some(answer) = asked.recv() => {
                        let _ = answer.send(watch.vitals(machine.overview(), clock.now().mono));
                        continue;
                    }
                }
            }
        };
        let handled = catch_unwind(AssertUnwindSafe(|| {
            let now = clock.now();
            watch.input(&input, now.mono);
            machine.handle(now, input, &mut out);
            now
        }));
        let now = match handled {
            Ok(now) => now,
            Err(panic) => {
                let text = panic_text(&*panic);
                tracing::error!("the coordinator machine panicked and is made anew: {text}");
                // What it had asked for is void: a new machine takes the shard over, and the store
                // fences the old one's commits.
                out.clear();
                watch.panicked(&text);
                if !is_planted(Bug::OldAnswers) {
                    calls.clear();
                }
                config.seed = config.seed.wrapping_add(1);
                // The workers of this process are alive.
                config.predecessors_dead = false;
                let subject = machine.subject();
                machine = make(config.clone());
                next = VecDeque::from([Input::Panicked { subject }, Input::Wake]);
                next.extend(stopping.clone());
                continue;
            }
        };
        for effect in out.drain(..) {
            watch.effect(&effect, now.mono);
            match effect {
                Effect::Store { op, request } => calls.store(op, request),
                Effect::Transport { op, request } => calls.transport(op, request),
                Effect::Report(report) => log::log(&report),
                Effect::Stopped => {
                    // The lease is being given up, and others are told: let that arrive.
                    calls.finish(STOP_PATIENCE).await;
                    return;
                }
            }
        }
        turn += 1;
        if turn == INPUTS_PER_TURN {
            turn = 0;
            tokio::task::yield_now().await;
            if let Ok(answer) = asked.try_recv() {
                let _ = answer.send(watch.vitals(machine.overview(), clock.now().mono));
            }
            // A stream of inputs must starve neither the timers nor a shutdown.
            if machine
                .poll_timeout()
                .is_some_and(|at| at <= clock.now().mono)
            {
                next.push_back(Input::Wake);
            }
            if stopping.is_none() {
                stopping = stop.borrow().as_input();
                next.extend(stopping.clone());
            }
        }
    }
}

impl From<Answer> for Input {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Store(op, result) => Self::StoreDone { op, result },
            Answer::Transport(op, result) => Self::TransportDone { op, result },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowkit_core::id::TaskId;
    use std::sync::{Arc, Mutex};

    type Log = Arc<Mutex<Vec<(u32, Input)>>>;

    /// Notes its inputs; the first one made panics at its first `Idle`.
    struct Scripted {
        number: u32,
        wants_idle: bool,
        log: Log,
    }

    impl Machine for Scripted {
        fn handle(&mut self, _: Now, input: Input, out: &mut Vec<Effect>) {
            self.log.lock().unwrap().push((self.number, input.clone()));
            assert!(
                self.number != 1 || input != Input::Idle,
                "a broken invariant"
            );
            self.wants_idle = input != Input::Idle;
            if matches!(input, Input::Shutdown { .. }) {
                out.push(Effect::Stopped);
            }
        }

        fn poll_timeout(&self) -> Option<Mono> {
            None
        }

        fn wants_idle(&self) -> bool {
            self.wants_idle
        }

        fn overview(&self) -> Overview {
            Overview::default()
        }

        fn subject(&self) -> Subject {
            Subject {
                task_id: TaskId::new(format!("task-{}", self.number)).ok(),
                ..Subject::default()
            }
        }
    }

    #[tokio::test]
    async fn a_panic_costs_its_subject_and_not_the_shard() {
        let engine = Engine::memory();
        let log = Log::default();
        let owner = engine.client_id("c");
        let mut config = Config::new(owner, 7);
        config.predecessors_dead = true;
        let (stop, stopped) = watch::channel(Told::GoOn);
        let (_asks, asked) = crate::vitals::Asks::channel();
        let mut made = Vec::new();
        let seen = log.clone();
        let driver = drive(engine, config, stopped, asked, |config| {
            made.push((config.seed, config.predecessors_dead));
            Scripted {
                number: u32::try_from(made.len()).unwrap(),
                wants_idle: false,
                log: seen.clone(),
            }
        });
        let stopper = async {
            // The second machine has seen all that it is told by itself.
            while log.lock().unwrap().len() < 5 {
                tokio::task::yield_now().await;
            }
            stop.send_replace(Told::Stop { workers_left: true });
        };
        tokio::join!(driver, stopper);
        let subject = Subject {
            task_id: TaskId::new("task-1").ok(),
            ..Subject::default()
        };
        let expected = [
            (1, Input::Wake),
            (1, Input::Idle),
            (2, Input::Panicked { subject }),
            (2, Input::Wake),
            (2, Input::Idle),
            (2, Input::Shutdown { workers_left: true }),
        ];
        assert_eq!(*log.lock().unwrap(), expected);
        assert_eq!(made, [(7, true), (8, false)], "the workers here are alive");
    }
}
