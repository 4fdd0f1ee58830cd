//! Changes of the vars. Each list of them happens as a whole or not at all.

use serde_json::{Map, Number, Value};
use std::fmt;

use super::path::PathFault;
use super::{PATHS_MAX, VAR_BYTES_MAX, VARS_BYTES_MAX, VarPath};
use crate::json::{Json, check_value};
use crate::planted::{Bug, is_planted};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Puts a value there; every key on the way must be an object or absent.
    Set(VarPath, Value),
    /// Puts a value there; what is in the way is replaced by objects. An empty object leaves an
    /// object that is there as it is.
    Merge(VarPath, Value),
    /// Adds to the number there, 0 if absent.
    Incr(VarPath, Number),
    /// Removes what is there, and every parent that is empty then.
    Unset(VarPath),
}

/// Why changes cannot be made. Never holds a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Short, stable name of the kind of problem.
    pub reason_code: &'static str,
    /// One sentence for people.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

pub(crate) fn problem(reason_code: &'static str, text: impl Into<String>) -> Problem {
    Problem {
        reason_code,
        text: text.into(),
    }
}

/// Takes objects apart: the path of every value in them that is no object, or an empty one. A fault
/// comes with the path that it lies below.
pub(crate) fn flatten<'v>(
    at: &VarPath,
    value: &'v Value,
    out: &mut Vec<(VarPath, &'v Value)>,
    faults: &mut Vec<(VarPath, PathFault)>,
) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                match at.key(key) {
                    // A path has at most 16 keys, so this ends.
                    Ok(path) => flatten(&path, value, out, faults),
                    Err(fault) => faults.push((at.clone(), fault)),
                }
            }
        }
        leaf => out.push((at.clone(), leaf)),
    }
}

/// Makes all of the changes, or none and says why.
pub(crate) fn apply(vars: &mut Map<String, Value>, changes: &[Change]) -> Result<(), Problem> {
    if is_over(changes.len(), PATHS_MAX) {
        let text = format!("{} paths at once; at most {PATHS_MAX}", changes.len());
        return Err(problem("too_many_paths", text));
    }
    let mut new = vars.clone();
    for change in changes {
        let made = make(&mut new, change);
        if made.is_err() && is_planted(Bug::SetPartly) {
            continue;
        }
        made?;
    }
    let new = Value::Object(new);
    let (mut leaves, mut faults) = (Vec::new(), Vec::new());
    flatten(&VarPath::root(), &new, &mut leaves, &mut faults);
    if let Some((at, fault)) = faults.first() {
        let text = format!("what would stand at `{at}` has a bad path: {fault}");
        return Err(problem("bad_path", text));
    }
    let json = Json::from(new.clone());
    if is_over(json.len(), VARS_BYTES_MAX) {
        let text = format!(
            "the vars would have {} bytes of JSON; at most {VARS_BYTES_MAX}",
            json.len()
        );
        return Err(problem("vars_too_large", text));
    }
    check_value(&json, json.len().max(VARS_BYTES_MAX))
        .map_err(|text| problem("bad_value", text))?;
    if let Value::Object(new) = new {
        *vars = new;
    }
    Ok(())
}

fn is_over(number: usize, most: usize) -> bool {
    number > most && !is_planted(Bug::LimitOfVarsIgnored)
}

/// The bytes that count for a value's limit.
pub(crate) fn size_of(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        other => other.to_string().len(),
    }
}

fn make(vars: &mut Map<String, Value>, change: &Change) -> Result<(), Problem> {
    if let Change::Set(path, value) | Change::Merge(path, value) = change
        && is_over(size_of(value), VAR_BYTES_MAX)
    {
        let text = format!("`{path}` would have more than {VAR_BYTES_MAX} bytes");
        return Err(problem("value_too_large", text));
    }
    match change {
        Change::Set(path, value) => {
            let (last, at) = parent(vars, path, false)?;
            at.insert(last.to_owned(), value.clone());
        }
        Change::Merge(path, value) => {
            let (last, at) = parent(vars, path, !is_planted(Bug::MergeIsSet))?;
            let keeps = value.as_object().is_some_and(Map::is_empty)
                && at.get(last).is_some_and(Value::is_object);
            if !keeps {
                at.insert(last.to_owned(), value.clone());
            }
        }
        Change::Incr(path, by) => {
            let (last, at) = parent(vars, path, false)?;
            let sum = match at.get(last) {
                None => by.clone(),
                Some(Value::Number(old)) => add(old, by).ok_or_else(|| {
                    let text = format!("the sum at `{path}` is beyond what a number can hold");
                    problem("number_overflow", text)
                })?,
                Some(other) => {
                    let kind = crate::graph::kind(other);
                    let text = format!("`{path}` is {kind}; only a number can be increased");
                    return Err(problem("not_a_number", text));
                }
            };
            let sum = if is_planted(Bug::IncrTwice) {
                add(&sum, by).unwrap_or(sum)
            } else {
                sum
            };
            at.insert(last.to_owned(), Value::Number(sum));
        }
        Change::Unset(path) => unset(vars, path),
    }
    Ok(())
}

/// The object that holds the last key of a path, made if absent.
fn parent<'v, 'p>(
    vars: &'v mut Map<String, Value>,
    path: &'p VarPath,
    replace: bool,
) -> Result<(&'p str, &'v mut Map<String, Value>), Problem> {
    let Some((last, parents)) = path.split() else {
        return Err(problem("bad_path", "a path is empty"));
    };
    let mut at = vars;
    for key in parents {
        let next = at
            .entry(key.as_str())
            .or_insert_with(|| Value::Object(Map::new()));
        if replace && !next.is_object() {
            *next = Value::Object(Map::new());
        }
        let kind = crate::graph::kind(next);
        at = next.as_object_mut().ok_or_else(|| {
            let text = format!("`{key}` in `{path}` is {kind}, so nothing can stand below it");
            problem("not_an_object", text)
        })?;
    }
    Ok((last, at))
}

fn unset(vars: &mut Map<String, Value>, path: &VarPath) {
    let keys: Vec<&str> = path.keys().collect();
    remove(vars, &keys);
}

/// Removes the place below; true if that left the object empty.
fn remove(at: &mut Map<String, Value>, keys: &[&str]) -> bool {
    let Some((key, rest)) = keys.split_first() else {
        return false;
    };
    let removed = if rest.is_empty() {
        at.remove(*key).is_some()
    } else {
        let Some(next) = at.get_mut(*key).and_then(Value::as_object_mut) else {
            return false;
        };
        let empty = remove(next, rest) && !is_planted(Bug::UnsetUnpruned);
        empty && at.remove(*key).is_some()
    };
    removed && at.is_empty()
}

/// Whole numbers stay whole; `None` beyond 64 bits signed, or beyond a double.
fn add(a: &Number, b: &Number) -> Option<Number> {
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
        return a.checked_add(b).map(Number::from);
    }
    // `None` for what is not finite.
    Number::from_f64(a.as_f64()? + b.as_f64()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path(text: &str) -> VarPath {
        VarPath::read(text).expect("a path")
    }

    fn after(vars: Value, changes: &[Change]) -> Result<Value, &'static str> {
        let Value::Object(mut map) = vars.clone() else {
            panic!("an object");
        };
        let made = apply(&mut map, changes);
        if made.is_err() {
            assert_eq!(Value::Object(map.clone()), vars, "all or nothing");
        }
        made.map(|()| Value::Object(map)).map_err(|p| p.reason_code)
    }

    fn set(at: &str, value: Value) -> Change {
        Change::Set(path(at), value)
    }

    fn merge(at: &str, value: Value) -> Change {
        Change::Merge(path(at), value)
    }

    fn incr(at: &str, by: Value) -> Change {
        let Value::Number(by) = by else {
            panic!("a number")
        };
        Change::Incr(path(at), by)
    }

    fn unset(at: &str) -> Change {
        Change::Unset(path(at))
    }

    #[test]
    fn set_makes_what_is_missing_and_refuses_what_is_in_the_way() {
        assert_eq!(
            after(
                json!({"a": 1}),
                &[set("b.c.d", json!(2)), set("a", json!([]))]
            ),
            Ok(json!({"a": [], "b": {"c": {"d": 2}}}))
        );
        // The first of the two could be made: neither is.
        let both = [set("x", json!(1)), set("a.b", json!(2))];
        assert_eq!(after(json!({"a": 1}), &both), Err("not_an_object"));
        assert_eq!(after(json!({"a": null}), &both), Err("not_an_object"));
    }

    #[test]
    fn merge_replaces_an_object_by_a_number_and_the_reverse() {
        assert_eq!(
            after(json!({"a": {"b": 1}}), &[merge("a", json!(5))]),
            Ok(json!({"a": 5}))
        );
        assert_eq!(
            after(json!({"a": 5}), &[merge("a.b", json!(1))]),
            Ok(json!({"a": {"b": 1}}))
        );
        assert_eq!(
            after(
                json!({"a": {"b": 1}, "n": 2}),
                &[merge("a", json!({})), merge("n", json!({}))]
            ),
            Ok(json!({"a": {"b": 1}, "n": {}}))
        );
    }

    #[test]
    fn incr_adds_numbers_and_nothing_else() {
        let vars = json!({"n": 1, "f": 0.5, "t": "1", "z": null, "o": {}});
        assert_eq!(
            after(
                vars.clone(),
                &[
                    incr("n", json!(2)),
                    incr("f", json!(1)),
                    incr("new.x", json!(-3))
                ]
            ),
            Ok(json!({"n": 3, "f": 1.5, "t": "1", "z": null, "o": {}, "new": {"x": -3}}))
        );
        for at in ["t", "z", "o"] {
            assert_eq!(
                after(vars.clone(), &[incr(at, json!(1))]),
                Err("not_a_number")
            );
        }
        assert_eq!(
            after(json!({"n": i64::MAX}), &[incr("n", json!(1))]),
            Err("number_overflow")
        );
        assert_eq!(
            after(json!({"n": f64::MAX}), &[incr("n", json!(f64::MAX))]),
            Err("number_overflow")
        );
    }

    #[test]
    fn unset_prunes_the_parents_that_it_emptied_and_no_others() {
        let vars = json!({"a": {"b": {"c": 1}}, "e": {}, "k": {"x": 1, "y": 2}});
        assert_eq!(
            after(
                vars.clone(),
                &[unset("a.b.c"), unset("k.x"), unset("e.none")]
            ),
            Ok(json!({"e": {}, "k": {"y": 2}}))
        );
        assert_eq!(after(vars.clone(), &[unset("k.x.deeper")]), Ok(vars));
    }

    #[test]
    fn sizes_are_bounded() {
        let most = "x".repeat(VAR_BYTES_MAX);
        assert!(after(json!({}), &[set("a", json!(most))]).is_ok());
        assert_eq!(
            after(json!({}), &[set("a", json!(most.clone() + "x"))]),
            Err("value_too_large")
        );
        // Bytes of UTF-8, not characters.
        let wide = "ü".repeat(VAR_BYTES_MAX / 2 + 1);
        assert_eq!(
            after(json!({}), &[set("a", json!(wide))]),
            Err("value_too_large")
        );
        let two = [set("a", json!(most)), set("b", json!(most))];
        assert_eq!(after(json!({}), &two), Err("vars_too_large"));
        let many: Vec<Change> = (0..=PATHS_MAX)
            .map(|n| set(&format!("k{n}"), json!(1)))
            .collect();
        assert_eq!(after(json!({}), &many), Err("too_many_paths"));
        assert!(after(json!({}), &many[1..]).is_ok());
    }

    #[test]
    fn what_a_store_could_refuse_is_refused() {
        for value in [json!(u64::MAX), json!([{"$a": 1}]), json!([{"a\0": 1}])] {
            assert_eq!(after(json!({}), &[set("a", value)]), Err("bad_value"));
        }
        let mut deep = json!(1);
        for _ in 0..70 {
            deep = json!([deep]);
        }
        assert_eq!(after(json!({}), &[set("a", deep)]), Err("bad_value"));
    }
}
