//! `vars.set`, `vars.merge`, `vars.incr`, `vars.unset` and `noop`.

use serde_json::{Map, Number, Value};

use super::detect::flagged;
use super::{Call, Changes, Check, Function, FunctionError};
use crate::graph::{Faults, Fields, Path, list, text};
use crate::vars::{Change, PATHS_MAX, VAR_BYTES_MAX, VarPath, flatten, size_of};

/// `vars.set {kv: {path: value, …}, block_sensitive?}`.
#[derive(Debug)]
pub(super) struct Set;
/// `vars.merge {data: {…}, block_sensitive?}`; `kv` is another name of `data`.
#[derive(Debug)]
pub(super) struct Merge;
/// `vars.incr {key, by = 1}`.
#[derive(Debug)]
pub(super) struct Incr;
/// `vars.unset {keys: […]}`.
#[derive(Debug)]
pub(super) struct Unset;
/// `noop`, which takes any arguments.
#[derive(Debug)]
pub(super) struct Noop;

impl Function for Set {
    fn check(&self, check: &mut Check<'_>) {
        let known = ["kv", "block_sensitive"];
        assignments(check, &known, "kv", true);
    }

    fn run(&self, call: &Call<'_>) -> Result<Changes, FunctionError> {
        with_args(call, |check| {
            let known = ["kv", "block_sensitive"];
            let (leaves, detectors) = assignments(check, &known, "kv", true);
            let set = leaves.into_iter().map(|(at, v)| Change::Set(at, v.clone()));
            Changes::made_of(set.collect()).block_sensitive(detectors)
        })
    }
}

impl Function for Merge {
    fn check(&self, check: &mut Check<'_>) {
        merge_args(check);
    }

    fn run(&self, call: &Call<'_>) -> Result<Changes, FunctionError> {
        with_args(call, |check| {
            let (leaves, detectors) = merge_args(check);
            let merge = leaves
                .into_iter()
                .map(|(at, v)| Change::Merge(at, v.clone()));
            Changes::made_of(merge.collect()).block_sensitive(detectors)
        })
    }
}

impl Function for Incr {
    fn check(&self, check: &mut Check<'_>) {
        incr_args(check);
    }

    fn run(&self, call: &Call<'_>) -> Result<Changes, FunctionError> {
        with_args(call, |check| {
            let change = incr_args(check).map(|(path, by)| Change::Incr(path, by));
            Changes::made_of(change.into_iter().collect())
        })
    }
}

impl Function for Unset {
    fn check(&self, check: &mut Check<'_>) {
        unset_args(check);
    }

    fn run(&self, call: &Call<'_>) -> Result<Changes, FunctionError> {
        with_args(call, |check| {
            let unset = unset_args(check).into_iter().map(Change::Unset);
            Changes::made_of(unset.collect())
        })
    }
}

impl Function for Noop {
    fn run(&self, _: &Call<'_>) -> Result<Changes, FunctionError> {
        Ok(Changes::new())
    }
}

/// Reads the arguments of a call as at submit: a graph of another version may hold others.
pub(super) fn with_args<T>(
    call: &Call<'_>,
    read: impl FnOnce(&mut Check<'_>) -> T,
) -> Result<T, FunctionError> {
    let mut faults = Faults::default();
    let root = Path::Root;
    let base = root.key("fn_args");
    let mut check = Check::new(
        call.args,
        Some(call.node_id),
        base,
        call.functions,
        &mut faults,
    );
    let args = read(&mut check);
    match faults.into_list().first() {
        None => Ok(args),
        Some(fault) => Err(FunctionError::new("bad_args", fault.to_string())),
    }
}

type Leaves<'a> = Vec<(VarPath, &'a Value)>;

fn merge_args<'a>(check: &mut Check<'a>) -> (Leaves<'a>, Vec<String>) {
    let key = match (check.args.get("data"), check.args.get("kv")) {
        (Some(_), Some(_)) => {
            let cure = "keep `data` and put everything into it";
            check.fault("", "both `data` and `kv` are given", cure);
            "data"
        }
        (None, Some(_)) => "kv",
        _ => "data",
    };
    assignments(check, &["data", "kv", "block_sensitive"], key, false)
}

/// Values by path. With `dotted`, keys of the outermost object are paths.
fn assignments<'a>(
    check: &mut Check<'a>,
    known: &[&'static str],
    key: &'static str,
    dotted: bool,
) -> (Leaves<'a>, Vec<String>) {
    let base = check.base;
    let mut leaves = Leaves::new();
    let Some(fields) = Fields::of(check.args, &base, known, check.faults) else {
        return (leaves, Vec::new());
    };
    let detectors = check.detectors(fields.get("block_sensitive"));
    let args = check.args;
    let Some(given) = args.get(key).filter(|value| !value.is_null()) else {
        let cure = format!("add `{key}`, an object of values");
        check.fault("", format!("`{key}` is missing"), cure);
        return (leaves, detectors);
    };
    let Some(map) = given.as_object() else {
        let problem = format!("is {}", crate::graph::kind(given));
        check.fault(key, problem, "write an object of values");
        return (leaves, detectors);
    };
    if map.is_empty() {
        check.fault(key, "is empty", "add at least one value");
    }
    flatten_all(check, key, map, dotted, &mut leaves);
    sizes(check, key, &leaves);
    if let Some((a, b)) = overlapping(&leaves) {
        let problem = format!("gives both `{a}` and `{b}`, one of which holds the other");
        check.fault(key, problem, "keep one of them");
    }
    for (path, value) in &leaves {
        // The value itself must not be shown.
        if let Some(name) = flagged(value, &detectors, check.functions) {
            let problem = format!("looks sensitive to the detector `{name}`");
            let cure = "keep secrets out of vars and graphs; name where the handler finds them";
            check.fault(format!("{key}.{path}"), problem, cure);
        }
    }
    (leaves, detectors)
}

fn flatten_all<'a>(
    check: &mut Check<'_>,
    key: &str,
    map: &'a Map<String, Value>,
    dotted: bool,
    leaves: &mut Leaves<'a>,
) {
    let mut faults = Vec::new();
    for (name, value) in map {
        let path = if dotted {
            VarPath::read(name)
        } else {
            VarPath::root().key(name)
        };
        match path {
            Ok(path) => flatten(&path, value, leaves, &mut faults),
            Err(fault) => faults.push((VarPath::root(), fault)),
        }
    }
    for (at, fault) in faults {
        let place = match at.keys().next() {
            Some(_) => format!("{key}.{at}"),
            None => key.to_owned(),
        };
        check.fault(place, format!("a path in it {}", fault.problem), fault.cure);
    }
}

fn sizes(check: &mut Check<'_>, key: &str, leaves: &Leaves<'_>) {
    if leaves.len() > PATHS_MAX {
        let problem = format!("has {} paths", leaves.len());
        let cure = format!("at most {PATHS_MAX}: use several nodes");
        check.fault(key, problem, cure);
    }
    for (path, value) in leaves {
        let bytes = size_of(value);
        if bytes > VAR_BYTES_MAX {
            let cure = format!("at most {VAR_BYTES_MAX}: keep large data in artifacts or files");
            check.fault(format!("{key}.{path}"), format!("has {bytes} bytes"), cure);
        }
    }
}

/// Two of the paths of which one leads to or through the other.
fn overlapping<'l>(leaves: &'l Leaves<'_>) -> Option<(&'l VarPath, &'l VarPath)> {
    let mut paths: Vec<&VarPath> = leaves.iter().map(|(path, _)| path).collect();
    paths.sort();
    // What a path leads to stands right behind it.
    let mut pairs = paths.windows(2);
    let pair = pairs.find(|pair| pair[0].overlaps(pair[1]))?;
    Some((pair[0], pair[1]))
}

fn incr_args(check: &mut Check<'_>) -> Option<(VarPath, Number)> {
    let base = check.base;
    let fields = Fields::of(check.args, &base, &["key", "by"], check.faults)?;
    if fields.get("key").is_none() {
        let cure = "add `key`, the path of a number";
        check.fault("", "`key` is missing", cure);
    }
    let path = fields.text("key", check.faults);
    let path = path.and_then(|text| path_of(check, "key", text));
    let by = match fields.get("by") {
        None => Number::from(1),
        Some(Value::Number(by)) => by.clone(),
        Some(other) => {
            let problem = format!("is {}", crate::graph::kind(other));
            check.fault("by", problem, "write a number");
            return None;
        }
    };
    Some((path?, by))
}

fn unset_args(check: &mut Check<'_>) -> Vec<VarPath> {
    let base = check.base;
    let Some(fields) = Fields::of(check.args, &base, &["keys"], check.faults) else {
        return Vec::new();
    };
    let Some(keys) = fields.get("keys") else {
        check.fault("", "`keys` is missing", "add `keys`, a list of paths");
        return Vec::new();
    };
    let at = fields.path("keys");
    let keys = list(keys, &at, "a list of paths", check.faults);
    if keys.is_empty() && fields.get("keys").is_some_and(Value::is_array) {
        check.fault("keys", "is empty", "name at least one path");
    }
    if keys.len() > PATHS_MAX {
        let cure = format!("at most {PATHS_MAX}: use several nodes");
        check.fault("keys", format!("has {} paths", keys.len()), cure);
    }
    let mut paths = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        if let Some(key) = text(key, &at.index(index), check.faults) {
            paths.extend(path_of(check, &format!("keys[{index}]"), key));
        }
    }
    paths
}

/// A path of an argument; the place is below `fn_args`.
pub(super) fn path_of(check: &mut Check<'_>, place: &str, text: &str) -> Option<VarPath> {
    match VarPath::read(text) {
        Ok(path) => Some(path),
        Err(fault) => {
            check.fault(place, fault.problem, fault.cure);
            None
        }
    }
}
