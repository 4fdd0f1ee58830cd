//! A user's own handlers in the simulated world: what is wrong with them is found and told, and the
//! cure holds.

use flowkit::prelude::*;
use flowkit::sim::{End, Outside, Simulation};
use serde_json::{Value, json};

#[derive(serde::Deserialize)]
struct Orders {
    orders: Vec<u64>,
}

/// Pays every order of its input, one batch each.
struct Pay {
    bank: Outside,
    careful: bool,
}

impl Handler for Pay {
    type Run = ();
    type Input = u64;
    type Output = Value;

    async fn init(&self, _cx: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        _cx: &RunContext,
        input: TaskInput,
    ) -> Result<BatchStream<u64>, HandlerError> {
        let input: Orders = input.decode()?;
        let batches = input
            .orders
            .into_iter()
            .map(|n| Batch::new(format!("{n}"), n));
        Ok(BatchStream::iter(batches))
    }

    async fn process(
        &self,
        cx: &RunContext,
        _run: &mut (),
        batch: Batch<u64>,
    ) -> Result<BatchResult<Value>, HandlerError> {
        let order = format!("pay order {}", batch.payload);
        if self.careful {
            let key = cx.idempotency_key();
            self.bank.apply_once(cx, &key, order).await?;
        } else {
            self.bank.apply(cx, order).await?;
        }
        Ok(BatchResult::of(json!(batch.payload)).metric("paid", 1))
    }
}

fn paying(bank: &Outside, careful: bool) -> Simulation {
    let graph = json!({"nodes": [{
        "node_id": "pay", "type": "pay",
        "io": {"input_inline": {"orders": [11, 12, 13, 14, 15, 16, 17]}},
        "retry_policy": {"max": 20, "backoff_sec": 0.1},
    }]});
    let at = bank.clone();
    Simulation::new(graph)
        .role("pay", move || Pay {
            bank: at.clone(),
            careful,
        })
        .outside(bank)
        .seeds(0..60)
}

#[test]
fn a_handler_that_is_not_idempotent_is_told_which_batch_had_its_effect_twice() {
    let report = paying(&Outside::new("bank"), false).run();
    assert!(!report.is_clean());
    let found = report.found.as_ref().expect("some seed pays twice");
    assert_eq!(found.promise, "effect_twice");
    let text = report.to_string();
    for part in [
        "of node pay had its effect on the bank twice: \"pay order",
        "cure: ",
        "cx.idempotency_key()",
        "\nit takes 1 fault:\n  ",
        "again: FLOWKIT_SIM_SEED=",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // One that can stand behind it, and not only the first of the plan's.
    assert!(found.repeats);
    println!("{}", found.faults[0]);
    println!("{text}");
}

#[test]
fn with_an_idempotency_key_every_order_is_paid_once() {
    let bank = Outside::new("bank");
    let seen = bank.clone();
    paying(&bank, true)
        .verify(move |end| {
            end.finished()?;
            let paid: Vec<u64> = (11..18)
                .filter(|n| seen.count(&format!("pay order {n}")) == 1)
                .collect();
            let artifacts = end.artifacts_of("pay");
            if paid.len() == 7 && artifacts.len() == 7 {
                Ok(())
            } else {
                Err(format!("paid {paid:?}, artifacts {artifacts:?}"))
            }
        })
        .check();
}

#[test]
fn what_a_user_requires_of_the_end_is_told_with_the_seed() {
    let report = paying(&Outside::new("bank"), true)
        .verify(|end| Err(format!("{:?} is not enough", end.status.state)))
        .run();
    let text = report.to_string();
    assert!(text.contains("verify (seed 0"), "{text}");
    assert!(text.contains("Finished is not enough"), "{text}");
}

#[test]
fn a_graph_that_is_refused_is_told_with_its_faults() {
    let report = Simulation::new(json!({"nodes": [{"node_id": "a"}]}))
        .role("a", || {
            handler_fn(|_cx, _batch: Batch<Value>| async move { Ok(BatchResult::<()>::new()) })
        })
        .run();
    let text = report.to_string();
    assert!(text.contains("a task was refused"), "{text}");
}

#[test]
fn a_type_without_a_handler_is_told_at_once() {
    let report = Simulation::new(json!({"nodes": [
        {"node_id": "a", "type": "known"}, {"node_id": "b", "type": "unknown"},
    ]}))
    .role("known", || {
        handler_fn(|_cx, _batch: Batch<Value>| async move { Ok(BatchResult::<()>::new()) })
    })
    .run();
    let text = report.to_string();
    assert!(
        text.contains("no handler for nodes of type `unknown`"),
        "{text}"
    );
}

#[test]
fn long_work_is_given_the_time_that_it_is_said_to_need() {
    use std::time::Duration;
    // A quarter of an hour of work at its best; faults make parts of it happen again.
    let graph = json!({"nodes": [{
        "node_id": "a", "type": "slow", "retry_policy": {"max": 20, "backoff_sec": 0.1},
        "io": {"input_inline": {"orders": (0..15).collect::<Vec<u64>>()}},
    }]});
    struct Slow;
    impl Handler for Slow {
        type Run = ();
        type Input = u64;
        type Output = Value;

        async fn init(&self, _cx: &RunContext) -> Result<(), HandlerError> {
            Ok(())
        }

        async fn batches(
            &self,
            _cx: &RunContext,
            input: TaskInput,
        ) -> Result<BatchStream<u64>, HandlerError> {
            let input: Orders = input.decode()?;
            let batch = |n| Batch::new(format!("{n}"), n);
            Ok(BatchStream::iter(input.orders.into_iter().map(batch)))
        }

        async fn process(
            &self,
            cx: &RunContext,
            _run: &mut (),
            _batch: Batch<u64>,
        ) -> Result<BatchResult<Value>, HandlerError> {
            cx.sleep(Duration::from_secs(60)).await?;
            Ok(BatchResult::new())
        }
    }
    let simulation = || {
        Simulation::new(graph.clone())
            .role("slow", || Slow)
            .seeds(0..3)
    };
    let found = simulation().run().found.expect("not within the bound");
    assert_eq!(found.promise, "settle");
    assert!(found.to_string().contains(".patience("), "{found}");
    let report = simulation().patience(Duration::from_secs(3_600)).run();
    assert!(report.is_clean(), "{report}");
    assert!(!report.fired.is_empty());
}

#[test]
fn cancelled_tasks_end_too() {
    let bank = Outside::new("bank");
    paying(&bank, true)
        .cancels(100)
        .verify(End::finished)
        .seeds(0..20)
        .check();
}

#[test]
fn a_handler_that_draws_from_a_clock_is_told_that_seeds_do_not_repeat() {
    use std::sync::atomic::{AtomicU64, Ordering};
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let graph = json!({"nodes": [{"node_id": "a", "type": "a"}]});
    let report = Simulation::new(graph)
        .role("a", || {
            handler_fn(|cx, _batch: Batch<Value>| async move {
                // Stands for anything that differs from run to run.
                let wait = CALLS.fetch_add(1, Ordering::Relaxed) * 40;
                cx.sleep(std::time::Duration::from_millis(wait)).await?;
                Ok(BatchResult::<()>::new())
            })
        })
        .run();
    let found = report.found.expect("two runs differ");
    assert_eq!(found.promise, "determinism");
    assert!(!found.to_string().contains("it takes"), "{found}");
}

#[test]
fn what_breaks_once_only_is_blamed_on_no_fault() {
    use std::cell::Cell;
    let first = Cell::new(true);
    let report = paying(&Outside::new("bank"), true)
        .verify(move |_| {
            if first.replace(false) {
                Err("only the first time".to_owned())
            } else {
                Ok(())
            }
        })
        .run();
    let found = report.found.expect("the first look fails");
    let text = found.to_string();
    assert!(!found.repeats && found.faults.is_empty(), "{text}");
    assert!(text.contains("only the first time"), "{text}");
    assert!(
        text.contains("did not break when the seed was run again"),
        "{text}"
    );
}

#[test]
fn a_report_says_what_struck_and_how_often() {
    let report = paying(&Outside::new("bank"), true).seeds(0..20).run();
    assert!(report.is_clean() && report.drawn > 0, "{report}");
    let crashes = report.fired["crash"];
    let text = report.to_string();
    let told = "20 seeds held; what struck, and how often:\n  ";
    assert!(text.starts_with(told), "{text}");
    assert!(
        crashes > 0 && text.contains(&format!("crash {crashes},")),
        "{text}"
    );
}

#[test]
fn a_look_at_one_seed_is_well_whatever_strikes_in_it() {
    paying(&Outside::new("bank"), true).seeds(0..1).check();
}

#[test]
fn a_simulation_of_no_seed_proves_nothing() {
    let report = paying(&Outside::new("bank"), true).seeds(5..5).run();
    assert!(!report.is_clean());
    assert!(report.to_string().contains("no seed was run"));
}

/// The code of docs/guide/simulation.md, word for word.
mod guide {
    use flowkit::prelude::*;
    use flowkit::sim::{Outside, Simulation};
    use serde_json::{Value, json};

    #[should_panic(expected = "had its effect on the bank twice: \"pay order 17\"")]
    #[test]
    fn every_order_is_paid_once() {
        let bank = Outside::new("bank"); // lives through every crash, and knows what happened twice
        let at = bank.clone();
        let io = json!({"input_inline": {"order": 17}});
        Simulation::new(json!({"nodes": [{"node_id": "pay", "type": "pay", "io": io}]}))
            .role("pay", move || {
                let bank = at.clone();
                handler_fn(move |cx, batch: Batch<Value>| {
                    let bank = bank.clone();
                    async move {
                        let order = format!("pay order {}", batch.payload["order"]);
                        bank.apply(&cx, order).await?; // cure: apply_once(&cx, &cx.idempotency_key(), order)
                        Ok(BatchResult::<()>::new())
                    }
                })
            })
            .outside(&bank)
            .check();
    }
}

#[test]
fn the_guide_shows_code_that_is_run_here() {
    let words = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.contains("should_panic"));
        lines
            .flat_map(str::split_whitespace)
            .map(str::to_owned)
            .collect()
    };
    let guide = include_str!("../../docs/guide/simulation.md");
    let block = guide.split("```rust\n").nth(1).expect("a block");
    let shown = words(block.split("```").next().expect("its end"));
    let here = words(include_str!("simulated.rs"));
    let found = here.windows(shown.len()).any(|part| part == shown);
    assert!(found, "mod guide differs from the guide's code");
    // What that test must panic with.
    let told = "batch input of node pay had its effect on the bank twice: \"pay order 17\"";
    assert!(
        guide.contains(told),
        "the guide shows another program's output"
    );
}

#[test]
fn functions_of_users_run_in_the_simulated_world_too() {
    use flowkit::function::{Call, Changes, Functions};
    let functions = Functions::default().function("count.up", |call: &Call<'_>| {
        Ok(Changes::new().incr(call.text_arg("key")?, 1))
    });
    let graph = json!({"nodes": [
        {"node_id": "one", "type": "coordinator_fn",
         "io": {"fn": "count.up", "fn_args": {"key": "n"}}},
        {"node_id": "work", "type": "work", "depends_on": ["one"],
         "when": {"var": "n", "op": "eq", "value": 1}, "io": {"input_inline": {}}},
        {"node_id": "two", "type": "coordinator_fn", "depends_on": ["work"],
         "io": {"fn": "count.up", "fn_args": {"key": "n"}}},
    ]});
    let work = || handler_fn(|_cx, _: Batch<Value>| async move { Ok(BatchResult::<Value>::new()) });
    Simulation::new(graph)
        .functions(functions)
        .role("work", work)
        .seeds(0..20)
        .verify(|end: &End| {
            end.finished()?;
            let vars = end.status.vars.text();
            if vars == r#"{"n":2}"# {
                Ok(())
            } else {
                Err(format!("each counts once: {vars}"))
            }
        })
        .check();
}
