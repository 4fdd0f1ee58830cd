//! Functions: their arguments, what they change, and what they refuse.

use serde_json::{Map, Value, json};

use super::*;
use crate::graph::Graph;
use crate::id::NodeId;
use crate::json::Json;
use crate::record::{NodeState, Totals, add_metrics};

/// A graph of a parent `p` and a function node `f` below it.
fn graph(name: &str, args: &Value) -> Value {
    json!({"nodes": [
        {"node_id": "p", "type": "r"},
        {"node_id": "f", "type": "coordinator_fn", "depends_on": ["p"],
         "io": {"fn": name, "fn_args": args}},
    ]})
}

fn faults_with(functions: &Functions, name: &str, args: &Value) -> Vec<String> {
    match Graph::parse_with(&Json::from(graph(name, args)), functions) {
        Ok(graph) => {
            let again = Graph::parse_with(&graph.to_json(), functions);
            assert_eq!(again, Ok(graph), "written as it was read");
            Vec::new()
        }
        Err(faults) => faults.iter().map(ToString::to_string).collect(),
    }
}

fn faults(name: &str, args: Value) -> Vec<String> {
    faults_with(&Functions::default(), name, &args)
}

/// The vars and the result after a call, or the reason code of its failure.
fn ran_with(
    functions: &Functions,
    name: &str,
    args: &Value,
    vars: &Value,
) -> Result<(Value, Value), FunctionError> {
    let node_id = NodeId::new("f").expect("an id");
    let parent = NodeId::new("p").expect("an id");
    let mut totals = Totals::new();
    for n in [1, 2, 6] {
        let metrics = [("items".into(), Json::from(json!(n)))].into();
        add_metrics(&mut totals, &metrics);
    }
    let result = Json::from(json!({"pages": 9}));
    let upstream = [Upstream {
        node_id: &parent,
        state: NodeState::Finished,
        batches: 3,
        totals: &totals,
        result: Some(&result),
    }];
    let call = Call {
        node_id: &node_id,
        args,
        vars: vars.as_object().expect("an object"),
        upstream: &upstream,
        functions,
    };
    let function = functions.get(name).expect("a known function");
    let done = carry_out(function, &call)?;
    let after = done.vars.map_or_else(|| vars.clone(), Value::Object);
    let result = done.result.map(|r| r.decode().expect("JSON"));
    Ok((after, result.unwrap_or(Value::Null)))
}

fn ran(name: &str, args: Value, vars: Value) -> Result<Value, String> {
    let outcome = ran_with(&Functions::default(), name, &args, &vars);
    outcome
        .map(|(vars, _)| vars)
        .map_err(|error| error.reason_code.to_string())
}

#[test]
fn set_takes_paths_and_nested_objects_and_leaves_their_siblings() {
    let args = json!({"kv": {"plain": 7, "sla.max_delay": 500, "flags": {"ab": true}}});
    assert_eq!(faults("vars.set", args.clone()), [""; 0]);
    assert_eq!(
        ran("vars.set", args, json!({"flags": {"x": 1}})),
        Ok(json!({"plain": 7, "sla": {"max_delay": 500}, "flags": {"x": 1, "ab": true}}))
    );
}

#[test]
fn merge_goes_object_by_object_and_replaces_everything_else() {
    let args = json!({"data": {"a": {"b": 1}, "n": {"x": 1}, "o": 3, "l": [1]}});
    assert_eq!(faults("vars.merge", args.clone()), [""; 0]);
    assert_eq!(
        ran(
            "vars.merge",
            args,
            json!({"a": {"c": 2}, "n": 5, "o": {"deep": 1}, "l": [7, 8]})
        ),
        Ok(json!({"a": {"b": 1, "c": 2}, "n": {"x": 1}, "o": 3, "l": [1]}))
    );
    assert_eq!(
        ran("vars.merge", json!({"kv": {"a": 1}}), json!({})),
        Ok(json!({"a": 1}))
    );
}

#[test]
fn a_function_that_ran_before_the_crash_comes_to_the_same_again() {
    let vars = json!({"n": 2, "a": {"b": 1}});
    for (name, args) in [
        ("vars.incr", json!({"key": "n", "by": 3})),
        ("vars.unset", json!({"keys": ["a.b"]})),
        ("vars.set", json!({"kv": {"n": "text"}})),
        ("noop", json!({"anything": [1, 2]})),
    ] {
        let first = ran(name, args.clone(), vars.clone());
        assert_eq!(ran(name, args, vars.clone()), first, "{name}");
    }
    assert_eq!(
        ran("vars.incr", json!({"key": "n"}), vars.clone()),
        Ok(json!({"n": 3, "a": {"b": 1}}))
    );
    assert_eq!(
        ran("vars.unset", json!({"keys": ["a.b", "no.such"]}), vars),
        Ok(json!({"n": 2}))
    );
}

#[test]
fn a_runtime_failure_has_a_reason_and_changes_nothing() {
    let set = json!({"kv": {"x": 1, "n.y": 2}});
    for (name, args, reason) in [
        ("vars.set", set, "not_an_object"),
        ("vars.incr", json!({"key": "t"}), "not_a_number"),
        (
            "vars.incr",
            json!({"key": "big", "by": 1}),
            "number_overflow",
        ),
        ("vars.incr", json!({"key": "n.x"}), "not_an_object"),
        ("vars.incr", json!({"key": "n", "by": "1"}), "bad_args"),
    ] {
        let vars = json!({"n": 1, "t": "1", "big": i64::MAX});
        assert_eq!(ran(name, args, vars), Err(reason.to_owned()), "{name}");
    }
}

#[test]
fn merge_generic_and_metrics_aggregate_tell_of_the_parents() {
    let functions = Functions::default();
    let args = json!({"from_nodes": ["p"], "target": {"node_id": "f", "var": "sum.up"}});
    assert_eq!(faults("merge.generic", args.clone()), [""; 0]);
    let merged = json!({
        "merged_from": ["p"], "complete_nodes": ["p"], "batches": 3,
        "results": {"p": {"pages": 9}},
    });
    assert_eq!(
        ran_with(&functions, "merge.generic", &args, &json!({})),
        Ok((json!({"sum": {"up": merged}}), merged))
    );
    for (mode, number) in [("sum", 9.0), ("mean", 3.0), ("min", 1.0), ("max", 6.0)] {
        let args = json!({"node_id": "p", "mode": mode});
        assert_eq!(faults("metrics.aggregate", args.clone()), [""; 0]);
        let result = json!({"node_id": "p", "mode": mode, "stats": {"items": number}});
        assert_eq!(
            ran_with(&functions, "metrics.aggregate", &args, &json!({})),
            Ok((json!({}), result))
        );
    }
}

#[test]
fn bad_arguments_are_refused_at_submit_each_with_its_place_and_its_cure() {
    let at = "nodes[1].io.fn_args";
    let many: Map<String, Value> = (0..257).map(|n| (format!("k{n}"), json!(n))).collect();
    let paths: Vec<String> = (0..257).map(|n| format!("k{n}")).collect();
    for (name, args, said) in [
        (
            "vars.set",
            json!({}),
            ": `kv` is missing; add `kv`, an object of values",
        ),
        (
            "vars.set",
            json!({"kv": []}),
            ".kv: is a list; write an object of values",
        ),
        (
            "vars.set",
            json!({"kv": {}}),
            ".kv: is empty; add at least one value",
        ),
        (
            "vars.set",
            json!({"kv": {"": 1}}),
            ".kv: a path in it is empty, or holds an empty key; name a var as in `name` or `group.name`",
        ),
        (
            "vars.set",
            json!({"kv": {"a": {"b.c": 1}}}),
            ".kv.a: a path in it a nested key holds a dot; nest objects in place of it, or rename the key",
        ),
        (
            "vars.set",
            json!({"kv": {"a": 1, "a.b": 2}}),
            ".kv: gives both `a` and `a.b`, one of which holds the other; keep one of them",
        ),
        (
            "vars.set",
            json!({"kv": {"a.b": 1, "a": {"b": 2}}}),
            ".kv: gives both `a.b` and `a.b`, one of which holds the other; keep one of them",
        ),
        (
            "vars.set",
            json!({"kv": many}),
            ".kv: has 257 paths; at most 256: use several nodes",
        ),
        (
            "vars.set",
            json!({"kv": {"a": "x".repeat(64 * 1024 + 1)}}),
            ".kv.a: has 65537 bytes; at most 65536: keep large data in artifacts or files",
        ),
        (
            "vars.set",
            json!({"kv": {"a": 1}, "block_sensitive": "yes"}),
            ".block_sensitive: is none of these; write true, false, or a list of detectors",
        ),
        (
            "vars.set",
            json!({"kv": {"a": 1}, "block_sensitive": ["secret"]}),
            ".block_sensitive[0]: `secret` is not a detector; did you mean `secrets`?",
        ),
        (
            "vars.merge",
            json!({"data": {"a": 1}, "kv": {"b": 1}}),
            ": both `data` and `kv` are given; keep `data` and put everything into it",
        ),
        (
            "vars.merge",
            json!({"data": {"a.b": 1}}),
            ".data: a path in it a nested key holds a dot; nest objects in place of it, or rename the key",
        ),
        (
            "vars.incr",
            json!({"by": 1}),
            ": `key` is missing; add `key`, the path of a number",
        ),
        (
            "vars.incr",
            json!({"key": "a", "by": "1"}),
            ".by: is a text; write a number",
        ),
        (
            "vars.incr",
            json!({"key": (["k"; 17].join("."))}),
            ".key: has more than 16 keys; nest less deep",
        ),
        (
            "vars.unset",
            json!({"keys": []}),
            ".keys: is empty; name at least one path",
        ),
        (
            "vars.unset",
            json!({"keys": ["a", "b..c"]}),
            ".keys[1]: is empty, or holds an empty key; name a var as in `name` or `group.name`",
        ),
        (
            "vars.unset",
            json!({"keys": ["k".repeat(129)]}),
            ".keys[0]: a key has 129 characters; at most 128: shorten the key",
        ),
        (
            "vars.unset",
            json!({"keys": paths}),
            ".keys: has 257 paths; at most 256: use several nodes",
        ),
        (
            "vars.unset",
            json!({"key": "a", "keys": ["a"]}),
            ".key: is not a field of the format; did you mean `keys`?",
        ),
        (
            "merge.generic",
            json!({}),
            ": `from_nodes` is missing; add `from_nodes`, a list of parents",
        ),
        (
            "merge.generic",
            json!({"from_nodes": ["p"], "target": {"node_id": "x"}}),
            ".target.node_id: names another node; write the node's own id, or leave it out: the result is this node's",
        ),
        (
            "merge.generic",
            json!({"from_nodes": ["pp"]}),
            ": `pp` is not a node; did you mean `p`?",
        ),
        (
            "merge.generic",
            json!({"from_nodes": ["f"]}),
            ": reads `f`, which is not a parent of `f`; add `f` to nodes[1].depends_on",
        ),
        (
            "metrics.aggregate",
            json!({"node_id": "p", "mode": "men"}),
            ".mode: `men` is not a mode; did you mean `mean`?",
        ),
    ] {
        assert_eq!(faults(name, args.clone()), [format!("{at}{said}")]);
    }
    assert_eq!(
        faults("vars.put", json!({})),
        ["nodes[1].io.fn: `vars.put` is not a coordinator function; did you mean `vars.set`?"]
    );
    assert_eq!(
        faults("mail", json!({})),
        [
            "nodes[1].io.fn: `mail` is not a coordinator function; use one of merge.generic, \
             metrics.aggregate, noop, vars.incr, vars.merge, vars.set, vars.unset, or register it"
        ]
    );
    let both = faults("vars.set", json!({"kv": {"$a": 1, "b..c": 1}, "what": 1}));
    assert_eq!(both.len(), 4, "every fault at once: {both:?}");
}

#[test]
fn a_secret_is_refused_and_never_shown() {
    let secret = "password=Zk3vQ9xLm2Rt7YwPb5NcHd8";
    let args = |block: Value| json!({"kv": {"db.login": [secret]}, "block_sensitive": block});
    let said = faults("vars.set", args(json!(true)));
    assert_eq!(
        said,
        [
            "nodes[1].io.fn_args.kv.db.login: looks sensitive to the detector `secrets`; \
          keep secrets out of vars and graphs; name where the handler finds them"
        ]
    );
    assert_eq!(faults("vars.set", args(json!(false))), [""; 0]);
    // What a function makes up itself is looked at when it is made.
    let functions = Functions::default()
        .function("leak", move |_: &Call<'_>| {
            Ok(Changes::new().set("a", secret).block_sensitive(["secrets"]))
        })
        .detector("gold", |text: &str| text == "gold");
    let leak = ran_with(&functions, "leak", &json!({}), &json!({}));
    let error = leak.expect_err("refused");
    assert_eq!(&*error.reason_code, "sensitive_value");
    assert!(!error.to_string().contains("Zk3"), "{error}");
    let gold = json!({"kv": {"a": "gold"}, "block_sensitive": ["gold"]});
    assert!(faults_with(&functions, "vars.set", &gold)[0].contains("detector `gold`"));
}

#[test]
fn functions_of_users_are_bound_by_the_same_limits() {
    let functions = Functions::default()
        .function("deep", |call: &Call<'_>| {
            Ok(Changes::new().set(call.text_arg("path")?, 1))
        })
        .function("whole", |call: &Call<'_>| {
            Ok(Changes::new().set("a", call.args["value"].clone()))
        })
        .function("tell", |call: &Call<'_>| {
            Ok(Changes::new().result(call.args["value"].clone()))
        });
    let run = |name: &str, args: Value| {
        let outcome = ran_with(&functions, name, &args, &json!({}));
        outcome.map_err(|error| error.reason_code.to_string())
    };
    let long = "x".repeat(RESULT_BYTES_MAX);
    for (name, args, reason) in [
        ("deep", json!({}), "bad_args"),
        ("deep", json!({"path": (["k"; 17].join("."))}), "bad_path"),
        ("deep", json!({"path": "a.$b"}), "bad_path"),
        ("whole", json!({"value": {"b.c": 1}}), "bad_path"),
        ("whole", json!({"value": [{"$b": 1}]}), "bad_value"),
        ("whole", json!({"value": u64::MAX}), "bad_value"),
        (
            "whole",
            json!({"value": {"b": long.clone() + "xx"}}),
            "value_too_large",
        ),
        ("tell", json!({"value": long}), "result_too_large"),
        ("tell", json!({"value": {"a\0": 1}}), "bad_value"),
    ] {
        assert_eq!(run(name, args.clone()), Err(reason.to_owned()), "{name}");
    }
}

#[test]
fn a_check_that_panics_costs_its_graph_only() {
    struct Careless;
    impl Function for Careless {
        fn check(&self, _: &mut Check<'_>) {
            panic!("careless");
        }
        fn run(&self, _: &Call<'_>) -> Result<Changes, FunctionError> {
            Ok(Changes::new())
        }
    }
    let functions = Functions::default().function("careless", Careless);
    assert_eq!(
        faults_with(&functions, "careless", &json!({})),
        ["nodes[1].io.fn: panicked over its arguments; \
          mend the function that was registered under this name"]
    );
}

#[test]
fn names_that_are_taken_or_make_no_sense_are_faults() {
    let noop = |_: &Call<'_>| Ok(Changes::new());
    let functions = Functions::default()
        .function("", noop)
        .function("vars.set", noop)
        .function("a\0", noop)
        .function("k".repeat(129), noop)
        .detector("secrets", |_: &str| true)
        .function("fine", noop);
    assert_eq!(functions.faults().len(), 5, "{:?}", functions.faults());
    assert!(functions.names().any(|name| name == "fine"));
    assert!(!functions.names().any(str::is_empty));
}
