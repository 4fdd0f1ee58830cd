//! What shrinking prints is a test that compiles, and fails as the plan does.

use flowkit_sim::runner::{shrink, test_of};

#[test]
fn the_printed_test_stands_below_word_for_word() {
    // Without imports, as below: the printed test needs none.
    let tier = flowkit_sim::runner::Tier::Zero;
    let mut plan = flowkit_sim::plan::Plan::small();
    for worker in &mut plan.world.workers {
        worker.roles = vec!["nothing".to_owned()];
    }
    let mut shrunk = shrink(tier, &plan, &mut |_, _| {}).expect("nothing can run");
    // Its times are the checker's own affair.
    assert!(shrunk.explanation.starts_with("not settled"));
    shrunk.explanation = "task-0 is still queued".to_owned();
    let printed = test_of(&shrunk);
    let here = include_str!("printed.rs").replace("#[should_panic(expected = \"settle\")]\n", "");
    assert!(here.ends_with(&printed), "printed is\n{printed}");
}

/// settle: task-0 is still queued
#[should_panic(expected = "settle")]
#[test]
fn settle_holds_with_seed_1() {
    let plan = r#"{
  "seed": 1,
  "world": {
    "coordinators": 2,
    "workers": [
      {
        "id": "w0",
        "roles": [
          "nothing"
        ],
        "capacity": 2
      },
      {
        "id": "w1",
        "roles": [
          "nothing"
        ],
        "capacity": 2
      }
    ],
    "embedded": false,
    "shards": 1,
    "inboxes": 2,
    "clients": 1,
    "lease_ttl_ms": 3000,
    "hb_interval_ms": 800,
    "announce_interval_ms": 5000,
    "shard_lease_ttl_ms": 2000,
    "accept_timeout_ms": 2000,
    "cancel_grace_ms": 1000,
    "db_cancel_poll_ms": 500,
    "clock_rate_error_ppm": 500,
    "clocks": [],
    "latency_us_min": 200,
    "latency_us_max": 200,
    "slow_permille": 0,
    "sync_us": 2000,
    "yield_permille": 120,
    "call_timeout_ms": 1000,
    "slack_ms": 0,
    "limits": {},
    "prompt_restarts": false,
    "tasks_in_flight_max": null,
    "dedup_cache_size": null,
    "dedup_ttl_ms": null,
    "retention_finished_ms": null,
    "retention_failed_ms": null,
    "sweep_interval_ms": 60000
  },
  "tasks": [
    {
      "id": "task-0",
      "key": null,
      "options": {
        "priority": 0,
        "start_delay_ms": 0,
        "limit_key": null
      },
      "graph": {
        "nodes": [
          {
            "id": "scan",
            "role": "scan",
            "parents": [],
            "fan_in": "All",
            "first_batch": false,
            "reader": null,
            "retry_max": 2,
            "backoff_ms": 200,
            "script": {
              "batches": 4,
              "items": 3,
              "init_ms": 1,
              "batch_ms": 10,
              "finalize_ms": 1,
              "checkpoints": 1,
              "checkpoint_every": 0,
              "large_at": null,
              "says_last": false,
              "hasty": false,
              "marks": false,
              "trouble": [],
              "ignores_cancel": false,
              "blocks": false,
              "shrinks_at_epoch": null,
              "duplicate_at": null
            }
          }
        ]
      },
      "vars": null,
      "rerun": null
    }
  ],
  "actions": [
    {
      "when": {
        "At": {
          "ms": 100
        }
      },
      "client": 0,
      "kind": {
        "Submit": {
          "task": 0
        }
      }
    }
  ],
  "faults": [],
  "rates": {
    "append_refused": 0,
    "append_lost": 0,
    "append_twice": 0,
    "append_overtaken": 0,
    "confirm_late": 0,
    "confirm_lost": 0,
    "read_lost": 0,
    "store_refused": 0,
    "store_lost": 0,
    "store_reply_lost": 0,
    "store_late": 0,
    "client_reply_lost": 0
  },
  "heal_ms": 4000
}"#;
    let plan: flowkit_sim::plan::Plan = serde_json::from_str(plan).expect("a plan");
    let verdict = flowkit_sim::runner::check(flowkit_sim::runner::Tier::Zero, &plan, true);
    assert!(verdict.holds(), "{:#?}", verdict.failures);
}
