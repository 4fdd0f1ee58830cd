//! `when`: a condition over the task's vars.
//!
//! It never fails: a var that is absent, or of another type than it is compared with, is simply not
//! equal to anything, nor less, nor greater.

use serde_json::{Map, Number, Value, json};
use std::cmp::Ordering;
use std::fmt;

use super::{Fields, Path, kind, list, quoted, similar};
use crate::graph::fault::Faults;
use crate::vars::VarPath;

/// Most comparisons and groups of one condition.
const TERMS_MAX: usize = 256;
/// Deepest nesting of groups.
const DEPTH_MAX: usize = 16;

/// A checked condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `{"var": …, "op": …, "value": …}`.
    Var {
        /// Which var.
        path: VarPath,
        /// How it is compared.
        op: Op,
        /// With what; for `exists` whether it is to be there.
        value: Value,
    },
    /// `{"all": […]}`: every one holds.
    All(Vec<Self>),
    /// `{"any": […]}`: at least one holds.
    Any(Vec<Self>),
    /// `{"not": …}`.
    Not(Box<Self>),
}

/// How a var is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Equal. Numbers by their value (1 and 1.0 are equal), lists and objects part by part.
    Eq,
    /// Not equal; also if the var is absent.
    Ne,
    /// Less: a number than a number, a text than a text (by code points).
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// Equal to one of a list.
    In,
    /// It is there, `null` or not.
    Exists,
}

const OPS: [(&str, Op); 8] = [
    ("eq", Op::Eq),
    ("ne", Op::Ne),
    ("lt", Op::Lt),
    ("le", Op::Le),
    ("gt", Op::Gt),
    ("ge", Op::Ge),
    ("in", Op::In),
    ("exists", Op::Exists),
];

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = OPS.iter().find(|(_, op)| op == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

/// Reads the condition of a node; notes every fault of it.
pub(super) fn read(value: &Value, path: &Path<'_>, faults: &mut Faults) -> Option<Condition> {
    let mut terms = 0;
    let condition = read_term(value, path, 1, &mut terms, faults);
    if terms > TERMS_MAX {
        let cure = format!("at most {TERMS_MAX}: let a handler or a function decide");
        faults.add(path, format!("has {terms} parts"), cure);
        return None;
    }
    condition
}

fn read_term(
    value: &Value,
    path: &Path<'_>,
    depth: usize,
    terms: &mut usize,
    faults: &mut Faults,
) -> Option<Condition> {
    *terms += 1;
    if depth > DEPTH_MAX {
        let problem = format!("nests deeper than {DEPTH_MAX} groups");
        faults.add(path, problem, "flatten the condition");
        return None;
    }
    let known = &["var", "op", "value", "all", "any", "not"];
    let fields = Fields::of(value, path, known, faults)?;
    let given: Vec<&str> = ["var", "all", "any", "not"]
        .into_iter()
        .filter(|key| fields.get(key).is_some())
        .collect();
    let [which] = given[..] else {
        let problem = if given.is_empty() {
            "names none of `var`, `all`, `any`, `not`".to_owned()
        } else {
            format!("names `{}` at once", given.join("`, `"))
        };
        faults.add(path, problem, "write exactly one of them");
        return None;
    };
    if which == "var" {
        return read_var(fields, path, faults);
    }
    for key in ["op", "value"] {
        if fields.get(key).is_some() {
            let cure = "move it to the `var` that it belongs to";
            faults.add(fields.path(key), format!("stands beside `{which}`"), cure);
        }
    }
    let at = fields.path(which);
    let inner = fields.get(which)?;
    if which == "not" {
        let inner = read_term(inner, &at, depth + 1, terms, faults)?;
        return Some(Condition::Not(Box::new(inner)));
    }
    let items = list(inner, &at, "a list of conditions", faults);
    if inner.as_array().is_some_and(Vec::is_empty) {
        faults.add(at, "is empty", "add a condition, or remove the group");
    }
    // All of them, so that every fault is noted.
    let read: Vec<Option<Condition>> = items
        .iter()
        .enumerate()
        .map(|(index, item)| read_term(item, &at.index(index), depth + 1, terms, faults))
        .collect();
    let read: Option<Vec<Condition>> = read.into_iter().collect();
    read.map(|terms| match which {
        "all" => Condition::All(terms),
        _ => Condition::Any(terms),
    })
}

fn read_var(fields: Fields<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<Condition> {
    let var = fields.text("var", faults).and_then(|text| {
        let read = VarPath::read(text);
        read.map_err(|fault| faults.add(fields.path("var"), fault.problem, fault.cure))
            .ok()
    });
    if fields.get("op").is_none() {
        faults.add(path, "`op` is missing", "add `op`, as in \"op\": \"eq\"");
    }
    let op = fields.text("op", faults).and_then(|name| {
        let known = OPS.iter().find(|(op, _)| *op == name);
        if known.is_none() {
            let names = OPS.map(|(name, _)| name);
            let cure = match similar(name, names) {
                Some(like) => format!("did you mean `{like}`?"),
                None => format!("use one of {}", names.join(", ")),
            };
            let problem = format!("{} is not a comparison", quoted(name));
            faults.add(fields.path("op"), problem, cure);
        }
        known.map(|(_, op)| *op)
    });
    // `null` is a value to compare with, not an absence.
    let value = fields.raw("value");
    let op = op?;
    let at = fields.path("value");
    let value = match (op, value) {
        (Op::Exists, None | Some(Value::Null)) => Value::Bool(true),
        (_, None) => {
            faults.add(path, "`value` is missing", "add `value` to compare with");
            return None;
        }
        (_, Some(value)) => value.clone(),
    };
    let wanted = match (op, &value) {
        (Op::Exists, Value::Bool(_)) | (Op::In, Value::Array(_)) | (Op::Eq | Op::Ne, _) => None,
        (Op::Exists, _) => Some("write true or false, or leave it out"),
        (Op::In, _) => Some("write a list of values"),
        (_, Value::Number(_) | Value::String(_)) => None,
        _ => Some("write a number or a text"),
    };
    if let Some(cure) = wanted {
        faults.add(at, format!("is {}, for `{op}`", kind(&value)), cure);
        return None;
    }
    Some(Condition::Var {
        path: var?,
        op,
        value,
    })
}

impl Condition {
    /// Whether it holds over these vars.
    #[must_use]
    pub fn holds(&self, vars: &Map<String, Value>) -> bool {
        match self {
            Self::Var { path, op, value } => compare(path.get(vars), *op, value),
            Self::All(terms) => terms.iter().all(|term| term.holds(vars)),
            Self::Any(terms) => terms.iter().any(|term| term.holds(vars)),
            Self::Not(term) => !term.holds(vars),
        }
    }

    /// In a few words what does not hold. Says what the graph says, never what the vars hold.
    pub(crate) fn why_not(&self, vars: &Map<String, Value>) -> String {
        match self {
            Self::Var { path, op, value } => {
                let path = quoted(&path.to_string());
                match (op, value) {
                    (Op::Exists, Value::Bool(false)) => format!("{path} exists"),
                    (Op::Exists, _) => format!("{path} does not exist"),
                    (op, value) => format!("{path} {op} {} is false", quoted(&value.to_string())),
                }
            }
            Self::All(terms) => {
                let first = terms.iter().find(|term| !term.holds(vars));
                first.map_or_else(String::new, |term| term.why_not(vars))
            }
            Self::Any(_) => "none of `any` holds".to_owned(),
            Self::Not(_) => "what is under `not` holds".to_owned(),
        }
    }

    /// As it is written in a graph.
    pub(super) fn to_value(&self) -> Value {
        let values = |terms: &[Self]| -> Vec<Value> { terms.iter().map(Self::to_value).collect() };
        match self {
            Self::Var { path, op, value } => {
                json!({"var": path.to_string(), "op": op.to_string(), "value": value})
            }
            Self::All(terms) => json!({"all": values(terms)}),
            Self::Any(terms) => json!({"any": values(terms)}),
            Self::Not(term) => json!({"not": term.to_value()}),
        }
    }
}

fn compare(var: Option<&Value>, op: Op, value: &Value) -> bool {
    let order =
        |wanted: fn(Ordering) -> bool| var.and_then(|var| order_of(var, value)).is_some_and(wanted);
    match op {
        Op::Eq => var.is_some_and(|var| same(var, value)),
        Op::Ne => !var.is_some_and(|var| same(var, value)),
        Op::Lt => order(Ordering::is_lt),
        Op::Le => order(Ordering::is_le),
        Op::Gt => order(Ordering::is_gt),
        Op::Ge => order(Ordering::is_ge),
        Op::In => value
            .as_array()
            .is_some_and(|list| var.is_some_and(|var| list.iter().any(|item| same(var, item)))),
        Op::Exists => var.is_some() == (value != &Value::Bool(false)),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => number_order(a, b) == Some(Ordering::Equal),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn order_of(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => number_order(a, b),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// By value, exactly: no whole number is rounded to a double first.
fn number_order(a: &Number, b: &Number) -> Option<Ordering> {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        (None, None) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Some(a), None) => whole_order(a, b.as_f64()?),
        (None, Some(b)) => whole_order(b, a.as_f64()?).map(Ordering::reverse),
    }
}

fn whole_order(whole: i128, double: f64) -> Option<Ordering> {
    // Every 64-bit number lies between these.
    const BEYOND: f64 = 36_893_488_147_419_103_232.0;
    if double.is_nan() {
        return None;
    }
    if double >= BEYOND {
        return Some(Ordering::Less);
    }
    if double <= -BEYOND {
        return Some(Ordering::Greater);
    }
    // In range, so the conversion only drops the fraction.
    let floor = double.floor() as i128;
    Some(match whole.cmp(&floor) {
        Ordering::Equal if double > double.floor() => Ordering::Less,
        order => order,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(value: Value) -> Result<Condition, Vec<String>> {
        let mut faults = Faults::default();
        let path = Path::Root.key("when");
        let read = read(&value, &path, &mut faults);
        let list = faults.into_list();
        if list.is_empty() {
            return Ok(read.expect("no fault, so a condition"));
        }
        Err(list.iter().map(ToString::to_string).collect())
    }

    fn holds(vars: Value, when: Value) -> bool {
        let condition = condition(when).expect("no fault");
        let again = self::condition(condition.to_value());
        assert_eq!(again, Ok(condition.clone()), "written as it was read");
        condition.holds(vars.as_object().expect("an object"))
    }

    #[test]
    fn numbers_are_compared_by_value_exactly() {
        let vars = json!({"i": 9_007_199_254_740_993_i64, "f": 0.5, "one": 1, "neg": -2});
        for (var, op, value, expected) in [
            ("one", "eq", json!(1.0), true),
            ("i", "eq", json!(9_007_199_254_740_992.0), false),
            ("i", "gt", json!(9_007_199_254_740_992.0), true),
            ("f", "lt", json!(1), true),
            ("f", "ge", json!(0), true),
            ("neg", "lt", json!(-1.5), true),
            ("neg", "gt", json!(-2.5), true),
            ("one", "le", json!(1e300), true),
            ("one", "gt", json!(-1e300), true),
            ("one", "lt", json!(i64::MAX), true),
        ] {
            let when = json!({"var": var, "op": op, "value": value});
            assert_eq!(holds(vars.clone(), when), expected, "{var} {op} {value}");
        }
    }

    #[test]
    fn a_var_that_is_absent_or_of_another_type_is_equal_to_nothing() {
        let vars = json!({"t": "5", "z": null, "l": [1, {"a": 2}], "o": {"k": 1}});
        for (when, expected) in [
            (json!({"var": "no", "op": "eq", "value": null}), false),
            (json!({"var": "no", "op": "ne", "value": 1}), true),
            (json!({"var": "no", "op": "lt", "value": 1}), false),
            (json!({"var": "no", "op": "in", "value": [null]}), false),
            (json!({"var": "no", "op": "exists"}), false),
            (json!({"var": "no", "op": "exists", "value": false}), true),
            (json!({"var": "z", "op": "exists"}), true),
            (json!({"var": "z", "op": "eq", "value": null}), true),
            (json!({"var": "t", "op": "eq", "value": 5}), false),
            (json!({"var": "t", "op": "ge", "value": 5}), false),
            (json!({"var": "t", "op": "ge", "value": "10"}), true),
            (
                json!({"var": "l", "op": "eq", "value": [1.0, {"a": 2}]}),
                true,
            ),
            (json!({"var": "l.0", "op": "exists"}), false),
            (json!({"var": "o", "op": "in", "value": [{"k": 1}]}), true),
            (json!({"var": "o.k", "op": "eq", "value": 1}), true),
        ] {
            assert_eq!(holds(vars.clone(), when.clone()), expected, "{when}");
        }
    }

    #[test]
    fn groups_say_first_what_does_not_hold() {
        let vars = json!({"a": 1});
        let (yes, no) = (
            json!({"var": "a", "op": "eq", "value": 1}),
            json!({"var": "a", "op": "gt", "value": 5}),
        );
        assert!(holds(vars.clone(), json!({"any": [no, yes]})));
        assert!(!holds(vars.clone(), json!({"all": [yes, no]})));
        assert!(holds(vars.clone(), json!({"not": {"all": [yes, no]}})));
        let why = |when: Value| {
            let map = vars.as_object().expect("an object");
            condition(when).expect("no fault").why_not(map)
        };
        assert_eq!(why(json!({"all": [yes, no]})), "`a` gt `5` is false");
        assert_eq!(why(json!({"any": [no]})), "none of `any` holds");
        assert_eq!(why(json!({"not": yes})), "what is under `not` holds");
        assert_eq!(
            why(json!({"var": "x.y", "op": "exists"})),
            "`x.y` does not exist"
        );
    }

    #[test]
    fn every_fault_has_its_place_and_its_cure() {
        let deep = |levels: usize| {
            let mut when = json!({"var": "a", "op": "exists"});
            for _ in 0..levels {
                when = json!({"not": when});
            }
            when
        };
        assert!(condition(deep(15)).is_ok());
        let wide: Vec<Value> = (0..256).map(|_| deep(0)).collect();
        for (when, said) in [
            (json!(true), "when: is true or false; write an object"),
            (
                json!({}),
                "when: names none of `var`, `all`, `any`, `not`; write exactly one of them",
            ),
            (
                json!({"var": "a", "op": "exists", "any": [deep(0)]}),
                "when: names `var`, `any` at once; write exactly one of them",
            ),
            (
                json!({"any": []}),
                "when.any: is empty; add a condition, or remove the group",
            ),
            (
                json!({"all": {"var": "a"}}),
                "when.all: is an object; write a list of conditions",
            ),
            (
                json!({"var": "a", "op": "eqq", "value": 1}),
                "when.op: `eqq` is not a comparison; did you mean `eq`?",
            ),
            (
                json!({"var": "a", "op": "matches", "value": 1}),
                "when.op: `matches` is not a comparison; use one of eq, ne, lt, le, gt, ge, in, exists",
            ),
            (
                json!({"var": "a", "value": 1}),
                "when: `op` is missing; add `op`, as in \"op\": \"eq\"",
            ),
            (
                json!({"var": "a", "op": "eq"}),
                "when: `value` is missing; add `value` to compare with",
            ),
            (
                json!({"var": "a..b", "op": "exists"}),
                "when.var: is empty, or holds an empty key; name a var as in `name` or `group.name`",
            ),
            (
                json!({"var": 7, "op": "exists"}),
                "when.var: is a number; write a text",
            ),
            (
                json!({"var": "a", "op": "in", "value": 1}),
                "when.value: is a number, for `in`; write a list of values",
            ),
            (
                json!({"var": "a", "op": "lt", "value": null}),
                "when.value: is null, for `lt`; write a number or a text",
            ),
            (
                json!({"var": "a", "op": "exists", "value": 1}),
                "when.value: is a number, for `exists`; write true or false, or leave it out",
            ),
            (
                json!({"not": deep(0), "value": 1}),
                "when.value: stands beside `not`; move it to the `var` that it belongs to",
            ),
            (
                json!({"var": "a", "ops": "eq", "op": "exists"}),
                "when.ops: is not a field of the format; did you mean `op`?",
            ),
            (
                deep(16),
                &*format!(
                    "when{}: nests deeper than 16 groups; flatten the condition",
                    ".not".repeat(16)
                ),
            ),
            (
                json!({"any": wide}),
                "when: has 257 parts; at most 256: let a handler or a function decide",
            ),
        ] {
            assert_eq!(
                condition(when.clone()),
                Err(vec![said.to_owned()]),
                "{when}"
            );
        }
        let two = json!({"all": [{"var": "", "op": "exists"}, {"var": "b", "op": "no"}]});
        assert_eq!(condition(two).map_err(|faults| faults.len()), Err(2));
    }
}
