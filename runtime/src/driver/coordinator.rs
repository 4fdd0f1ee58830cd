//! The coordinator's driver: one task that feeds the machine and carries out its effects.

use flowkit_core::coordinator::{Config, Coordinator as Machine, Effect, Input};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::watch;

use super::calls::{Answer, Calls};
use super::worker::{raised, sleep_until};
use super::{INPUTS_PER_TURN, log};
use crate::engine::Engine;
use crate::run::panic_text;

/// How long a stopped coordinator waits for the answers of its last store calls.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Drives a coordinator until it has stopped.
pub(crate) async fn drive_coordinator(
    engine: Engine,
    mut config: Config,
    mut stop: watch::Receiver<bool>,
) {
    let clock = engine.clock();
    let mut calls = Calls::new(engine.store(), engine.transport(), engine.rpc_timeout());
    let mut machine = Machine::new(config.clone());
    let mut next = VecDeque::from([Input::Wake]);
    let mut out = Vec::new();
    let mut stopping = false;
    // `Idle` is due once after other inputs, and not again before there were some.
    let mut idle_due = false;
    let mut turn = 0;
    loop {
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
            None if idle_due => {
                // Whoever is ready to run may bring company for the next commit.
                tokio::task::yield_now().await;
                idle_due = false;
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
                    () = raised(&mut stop), if !stopping => {
                        stopping = true;
                        Input::Shutdown
                    }
                }
            }
        };
        if input != Input::Idle {
            idle_due = true;
        }
        let handled = catch_unwind(AssertUnwindSafe(|| {
            machine.handle(clock.now(), input, &mut out);
        }));
        if let Err(panic) = handled {
            let text = panic_text(&*panic);
            tracing::error!("the coordinator machine panicked and is made anew: {text}");
            // What it had asked for is void: a new machine takes the shard over, and the store
            // fences the old one's commits.
            out.clear();
            calls.clear();
            config.seed = config.seed.wrapping_add(1);
            // The workers of this process are alive.
            config.predecessors_dead = false;
            let subject = machine.subject();
            machine = Machine::new(config.clone());
            next = VecDeque::from([Input::Panicked { subject }, Input::Wake]);
            if stopping {
                next.push_back(Input::Shutdown);
            }
            continue;
        }
        for effect in out.drain(..) {
            match effect {
                Effect::Store { op, request } => calls.store(op, request),
                Effect::Transport { op, request } => calls.transport(op, request),
                Effect::Report(report) => log::log(&report),
                Effect::Stopped => {
                    // The lease is being given up: let that arrive.
                    calls.finish_store_calls(STOP_PATIENCE).await;
                    return;
                }
            }
        }
        turn += 1;
        if turn == INPUTS_PER_TURN {
            turn = 0;
            tokio::task::yield_now().await;
            // A stream of inputs must starve neither the timers nor a shutdown.
            if machine
                .poll_timeout()
                .is_some_and(|at| at <= clock.now().mono)
            {
                next.push_back(Input::Wake);
            }
            if !stopping && *stop.borrow() {
                stopping = true;
                next.push_back(Input::Shutdown);
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
