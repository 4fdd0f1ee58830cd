//! What functions do to vars and what conditions say about them, written out anew: checkers and
//! expectations share no code with the engine.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::functions::{DOUBLE, LEAK, MUCH};
use crate::plan::FunctionPlan;

/// Vars as an object; `null` is an empty one.
pub(crate) fn object(vars: &Value) -> Value {
    if vars.is_null() {
        json!({})
    } else {
        vars.clone()
    }
}

/// What comes of a function: the new vars, or nothing if it fails. `told` is the result that one
/// had which tells of other nodes.
pub(crate) fn after(function: &FunctionPlan, vars: &Value, told: &Value) -> Option<Value> {
    let mut new = object(vars);
    let args = &function.args;
    match &*function.name {
        "vars.set" => {
            for (path, value) in args["kv"].as_object()? {
                let mut leaves = Vec::new();
                spread(path, value, &mut leaves);
                for (path, value) in leaves {
                    put(&mut new, &path, value, false)?;
                }
            }
        }
        "vars.merge" => {
            let mut leaves = Vec::new();
            for (key, value) in args["data"].as_object()? {
                spread(key, value, &mut leaves);
            }
            for (path, value) in leaves {
                let empty = value == json!({});
                if !(empty && get(&new, &path).is_some_and(Value::is_object)) {
                    put(&mut new, &path, value, true)?;
                }
            }
        }
        "vars.incr" => {
            let path = args["key"].as_str()?;
            let sum = match get(&new, path) {
                None => args["by"].clone(),
                Some(old) => match (old.as_i64(), args["by"].as_i64()) {
                    (Some(old), Some(by)) => json!(old.checked_add(by)?),
                    _ => json!(old.as_f64()? + args["by"].as_f64()?),
                },
            };
            put(&mut new, path, sum, false)?;
        }
        "vars.unset" => {
            for path in args["keys"].as_array()? {
                cut(&mut new, path.as_str()?);
            }
        }
        "merge.generic" | "metrics.aggregate" => {
            if let Some(path) = args["target"]["var"].as_str() {
                put(&mut new, path, told.clone(), false)?;
            }
        }
        "noop" => {}
        DOUBLE => {
            let path = args["path"].as_str()?;
            let number = get(&new, path)?.as_i64()?;
            if number.unsigned_abs() >= 1 << 40 {
                return None;
            }
            put(&mut new, path, json!(number * 2 + 1), false)?;
        }
        LEAK => {
            let number = get(&new, args["path"].as_str()?);
            let number = number.and_then(Value::as_i64).unwrap_or(0);
            if number % 2 != 0 {
                return None; // It would be a secret.
            }
            put(&mut new, args["to"].as_str()?, json!(number), false)?;
        }
        MUCH => {
            let leaves = much(args)?;
            let of_one = |value: &Value| value.as_str().is_some_and(|text| text.len() > 64 * 1024);
            if leaves.len() > 256 || leaves.iter().any(|(_, value)| of_one(value)) {
                return None;
            }
            for (path, value) in leaves {
                put(&mut new, &path, value, args["merge"] == json!(true))?;
            }
        }
        _ => return None,
    }
    let bytes = new.to_string().len();
    (bytes <= 96 * 1024 && depth(&new) <= 16).then_some(new)
}

/// The values of `sim.much`, by their paths.
fn much(args: &Value) -> Option<Vec<(String, Value)>> {
    let (path, n) = (args["path"].as_str()?, args["n"].as_u64()?);
    let count = usize::try_from(n).ok()?;
    Some(match args["of"].as_str()? {
        "paths" => {
            let paths = (0..n).map(|k| format!("{path}.k{k}"));
            paths.map(|path| (path, json!(1))).collect()
        }
        "keys" => {
            let mut keys: Vec<&str> = path.split('.').collect();
            keys.resize(count.max(keys.len()), "k");
            vec![(keys.join("."), json!(1))]
        }
        _ => vec![(path.to_owned(), json!("x".repeat(count)))],
    })
}

/// Keys of the longest path.
fn depth(vars: &Value) -> usize {
    let below = |map: &Map<String, Value>| map.values().map(depth).max();
    let map = vars.as_object().filter(|map| !map.is_empty());
    map.and_then(below).map_or(0, |below| 1 + below)
}

/// Whether a function may take so much of what all vars may have that others find no room.
pub(crate) fn crowds(function: &FunctionPlan) -> bool {
    function.name == MUCH && function.args["of"] == json!("bytes")
}

fn spread(path: &str, value: &Value, leaves: &mut Vec<(String, Value)>) {
    match value.as_object() {
        Some(map) if !map.is_empty() => {
            for (key, value) in map {
                spread(&format!("{path}.{key}"), value, leaves);
            }
        }
        _ => leaves.push((path.to_owned(), value.clone())),
    }
}

fn get<'v>(vars: &'v Value, path: &str) -> Option<&'v Value> {
    let mut at = vars;
    for key in path.split('.') {
        at = at.as_object()?.get(key)?;
    }
    Some(at)
}

/// `None` if a value is in the way that must not be replaced.
fn put(vars: &mut Value, path: &str, value: Value, replaces: bool) -> Option<()> {
    let keys: Vec<&str> = path.split('.').collect();
    let (last, parents) = keys.split_last()?;
    let mut at = vars;
    for key in parents {
        let next = at.as_object_mut()?.entry(*key).or_insert(json!({}));
        if !next.is_object() {
            if !replaces {
                return None;
            }
            *next = json!({});
        }
        at = next;
    }
    at.as_object_mut()?.insert((*last).to_owned(), value);
    Some(())
}

/// Removes a place, then every parent of it that is empty, from the inside to the outside.
fn cut(vars: &mut Value, path: &str) {
    if get(vars, path).is_none() {
        return;
    }
    let keys: Vec<&str> = path.split('.').collect();
    for length in (1..=keys.len()).rev() {
        let mut at = &mut *vars;
        for key in &keys[..length - 1] {
            at = &mut at[*key];
        }
        let Some(map) = at.as_object_mut() else {
            return;
        };
        let key = keys[length - 1];
        let empty = map
            .get(key)
            .and_then(Value::as_object)
            .is_some_and(Map::is_empty);
        if length == keys.len() || empty {
            map.remove(key);
        } else {
            return;
        }
    }
}

/// Whether a condition holds.
pub(crate) fn holds(when: &Value, vars: &Value) -> bool {
    let each = |key: &str| {
        when[key]
            .as_array()
            .map(|terms| terms.iter().map(|t| holds(t, vars)))
    };
    if let Some(mut terms) = each("all") {
        return terms.all(|holds| holds);
    }
    if let Some(mut terms) = each("any") {
        return terms.any(|holds| holds);
    }
    if let Some(term) = when.get("not") {
        return !holds(term, vars);
    }
    let var = get(vars, when["var"].as_str().unwrap_or_default());
    let value = &when["value"];
    match when["op"].as_str().unwrap_or_default() {
        "exists" => var.is_some() != (*value == json!(false)),
        "eq" => var.is_some_and(|var| alike(var, value)),
        "ne" => !var.is_some_and(|var| alike(var, value)),
        "in" => {
            let list = value.as_array();
            let mut items = list.into_iter().flatten();
            items.any(|item| var.is_some_and(|var| alike(var, item)))
        }
        op => match (var.and_then(Value::as_f64), value.as_f64()) {
            (Some(a), Some(b)) => match op {
                "lt" => a < b,
                "le" => a <= b,
                "gt" => a > b,
                _ => a >= b,
            },
            _ => false,
        },
    }
}

/// Generated numbers are small: a double holds them.
fn alike(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Names of the outermost vars that a function reads or writes.
pub(crate) fn touched(function: &FunctionPlan) -> BTreeSet<String> {
    let args = &function.args;
    let keys = |map: &Value| -> Vec<String> {
        let map = map.as_object();
        map.into_iter().flat_map(Map::keys).cloned().collect()
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let paths: Vec<String> = match &*function.name {
        "vars.set" => keys(&args["kv"]),
        "vars.merge" => keys(&args["data"]),
        "vars.unset" => {
            let list = args["keys"].as_array();
            list.into_iter().flatten().filter_map(text).collect()
        }
        _ => [
            &args["key"],
            &args["path"],
            &args["to"],
            &args["target"]["var"],
        ]
        .into_iter()
        .filter_map(text)
        .collect(),
    };
    paths.iter().map(|path| root(path)).collect()
}

/// Names of the outermost vars that a condition looks at.
pub(crate) fn looked_at(when: &Value) -> BTreeSet<String> {
    let mut roots = BTreeSet::new();
    if let Some(var) = when["var"].as_str() {
        roots.insert(root(var));
    }
    for key in ["all", "any"] {
        let terms = when[key].as_array();
        roots.extend(terms.into_iter().flatten().flat_map(looked_at));
    }
    if let Some(term) = when.get("not") {
        roots.extend(looked_at(term));
    }
    roots
}

fn root(path: &str) -> String {
    path.split('.').next().unwrap_or_default().to_owned()
}

/// What a function tells of its parents: `merge.generic` or `metrics.aggregate`.
pub(crate) fn told(function: &FunctionPlan, parents: &BTreeMap<String, Parent>) -> Option<Value> {
    let args = &function.args;
    match &*function.name {
        "merge.generic" => {
            let from = args["from_nodes"].as_array()?;
            let names = from.iter().filter_map(Value::as_str);
            let known: Vec<(&str, &Parent)> = names
                .filter_map(|name| Some((name, parents.get(name)?)))
                .collect();
            let mut complete: Vec<&str> = known
                .iter()
                .filter(|(_, parent)| parent.finished)
                .map(|(name, _)| *name)
                .collect();
            complete.sort_unstable();
            let results: Map<String, Value> = known
                .iter()
                .filter_map(|(name, parent)| Some(((*name).to_owned(), parent.result.clone()?)))
                .collect();
            let batches: u64 = known.iter().map(|(_, parent)| parent.batches).sum();
            Some(json!({
                "merged_from": from, "complete_nodes": complete, "batches": batches,
                "results": results,
            }))
        }
        "metrics.aggregate" => {
            let parent = parents.get(args["node_id"].as_str()?)?;
            let mode = args["mode"].as_str().unwrap_or("sum");
            let stats: Map<String, Value> = parent
                .metrics
                .iter()
                .map(|(name, values)| (name.clone(), json!(one_number(values, mode))))
                .collect();
            Some(json!({"node_id": args["node_id"], "mode": mode, "stats": stats}))
        }
        _ => None,
    }
}

/// A parent, as the store has it at the end.
#[derive(Debug, Default)]
pub(crate) struct Parent {
    pub(crate) finished: bool,
    pub(crate) batches: u64,
    pub(crate) result: Option<Value>,
    /// The numbers of each metric, batch by batch.
    pub(crate) metrics: BTreeMap<String, Vec<f64>>,
}

fn one_number(values: &[f64], mode: &str) -> f64 {
    let sum: f64 = values.iter().sum();
    match mode {
        #[expect(clippy::cast_precision_loss, reason = "few batches")]
        "mean" => sum / values.len().max(1) as f64,
        "min" => values.iter().copied().fold(f64::INFINITY, f64::min),
        "max" => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        _ => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, args: Value, vars: Value) -> Option<Value> {
        let function = FunctionPlan {
            name: name.to_owned(),
            args,
        };
        after(&function, &vars, &Value::Null)
    }

    #[test]
    fn the_model_says_what_the_format_says() {
        let vars = json!({"a": {"b": {"c": 1}}, "n": 2, "t": "x"});
        let set = json!({"kv": {"a.b": 5, "new.x": 1}});
        assert_eq!(
            run("vars.set", set, vars.clone()),
            Some(json!({"a": {"b": 5}, "n": 2, "t": "x", "new": {"x": 1}}))
        );
        assert_eq!(
            run("vars.set", json!({"kv": {"n.x": 1}}), vars.clone()),
            None
        );
        assert_eq!(
            run(
                "vars.merge",
                json!({"data": {"n": {"x": 1}, "a": {"b": 3}}}),
                vars.clone()
            ),
            Some(json!({"a": {"b": 3}, "n": {"x": 1}, "t": "x"}))
        );
        assert_eq!(
            run(
                "vars.unset",
                json!({"keys": ["a.b.c", "no.such"]}),
                vars.clone()
            ),
            Some(json!({"n": 2, "t": "x"}))
        );
        assert_eq!(
            run("vars.incr", json!({"key": "t", "by": 1}), vars.clone()),
            None
        );
        let add = json!({"key": "n", "by": 0.5});
        assert_eq!(
            run("vars.incr", add, vars).map(|v| v["n"].clone()),
            Some(json!(2.5))
        );
    }

    #[test]
    fn what_is_over_a_limit_fails() {
        let vars = json!({"b": "x".repeat(50 << 10)});
        let much = |of: &str, n: u64, merge: bool| {
            let args = json!({"path": "a", "of": of, "n": n, "merge": merge});
            run(MUCH, args, vars.clone()).is_some()
        };
        for merge in [false, true] {
            for (of, most) in [("paths", 256), ("keys", 16), ("bytes", 40 << 10)] {
                assert!(much(of, most, merge), "{of} {most}");
            }
            // All vars together have less room than one of them might take.
            for (of, over) in [("paths", 257), ("keys", 17), ("bytes", 50 << 10)] {
                assert!(!much(of, over, merge), "{of} {over}");
            }
        }
        let one = |n: u64| {
            let args = json!({"path": "a", "of": "bytes", "n": n, "merge": false});
            run(MUCH, args, json!({})).is_some()
        };
        assert!(one(64 << 10) && !one((64 << 10) + 1));
    }
}
