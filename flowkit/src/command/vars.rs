//! `--vars` and `--var`: a task's vars on the command line.

use clap::Args;
use flowkit::prelude::Json;
use flowkit_core::hash::stable128;
use flowkit_core::vars::{VarPath, check_vars};
use serde_json::{Map, Value};
use std::path::Path;

use super::failure::Failure;
use super::table::counted;

/// The vars that a task starts with.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct VarsArgs {
    /// The task's vars: a JSON object, or `@FILE` with one.
    #[arg(long, value_name = "JSON|@FILE")]
    pub(crate) vars: Option<String>,
    /// One var, as in `--var limits.pages=20`; may be repeated. What is no JSON is a text.
    #[arg(long = "var", value_name = "PATH=VALUE")]
    pub(crate) var: Vec<String>,
}

impl VarsArgs {
    /// The vars, checked; nothing if none are given.
    pub(crate) fn read(&self) -> Result<Option<Json>, Failure> {
        if self.vars.is_none() && self.var.is_empty() {
            return Ok(None);
        }
        let mut vars = match &self.vars {
            None => Map::new(),
            Some(given) => object(given)?,
        };
        for given in &self.var {
            set(&mut vars, given)?;
        }
        let vars = Json::from(Value::Object(vars));
        check_vars(&vars).map_err(|faults| {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            let count = counted(faults.len());
            Failure::input(format!(
                "{count} in the vars:\n  - {}",
                faults.join("\n  - ")
            ))
        })?;
        Ok(Some(vars))
    }
}

/// Names a command with these vars: with others it is another task.
pub(crate) fn key_with(key: &str, vars: Option<&Json>) -> String {
    match vars {
        None => key.to_owned(),
        Some(vars) => format!("{key} {:032x}", stable128(&[vars.text().as_bytes()])),
    }
}

fn object(given: &str) -> Result<Map<String, Value>, Failure> {
    let text = match given.strip_prefix('@') {
        None => given.to_owned(),
        Some(file) => std::fs::read_to_string(Path::new(file)).map_err(|e| {
            Failure::input(format!("--vars: cannot read {file} as UTF-8 text: {e}"))
        })?,
    };
    // Checked as written: a key that stands twice is a fault, not a choice.
    let json =
        Json::parse(&text).map_err(|e| Failure::input(format!("--vars: this is not JSON: {e}")))?;
    check_vars(&json).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Failure::input(format!("--vars:\n  - {}", faults.join("\n  - ")))
    })?;
    let value: Value = json
        .decode()
        .map_err(|e| Failure::input(format!("--vars: {e}")))?;
    match value {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

fn set(vars: &mut Map<String, Value>, given: &str) -> Result<(), Failure> {
    let Some((name, value)) = given.split_once('=') else {
        return Err(Failure::input(
            "--var: there is no `=`; write it as in --var limits.pages=20",
        ));
    };
    let path = VarPath::parse(name).map_err(|e| Failure::input(format!("--var: the path {e}")))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    let keys: Vec<&str> = path.keys().collect();
    let Some((last, parents)) = keys.split_last() else {
        return Ok(());
    };
    let mut at = vars;
    for key in parents {
        let next = at.entry(*key).or_insert_with(|| Value::Object(Map::new()));
        at = next.as_object_mut().ok_or_else(|| {
            Failure::input(format!(
                "--var {path}: `{key}` is no object, so nothing can stand below it"
            ))
        })?;
    }
    at.insert((*last).to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: Option<&str>, var: &[&str]) -> Result<String, String> {
        let args = VarsArgs {
            vars: vars.map(str::to_owned),
            var: var.iter().map(|&v| v.to_owned()).collect(),
        };
        let read = args.read().map_err(|failure| failure.to_string())?;
        Ok(read.map_or_else(String::new, |json| json.text().to_owned()))
    }

    #[test]
    fn single_vars_come_on_top_of_the_object() {
        assert_eq!(read(None, &[]), Ok(String::new()));
        let vars = Some(r#"{"a":1,"n":{"x":2}}"#);
        assert_eq!(
            read(vars, &["n.y=true", "a=text with = in it", "b.c=[1]"]),
            Ok(r#"{"a":"text with = in it","b":{"c":[1]},"n":{"x":2,"y":true}}"#.to_owned())
        );
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_option() {
        for (vars, var, said) in [
            (Some("{"), "a=1", "--vars: this is not JSON"),
            (Some("[1]"), "a=1", "are not an object"),
            (Some(r#"{"a":1,"a":2}"#), "b=1", "stands twice"),
            (Some("@/no/such/file"), "a=1", "/no/such/file"),
            (None, "a", "there is no `=`"),
            (None, "=1", "the path is empty"),
            (None, "a..b=1", "the path is empty"),
            (None, "$a=1", "starts with `$`"),
            (Some(r#"{"a":1}"#), "a.b=1", "`a` is no object"),
            (None, "a=18446744073709551615", "64 bits"),
        ] {
            let error = read(vars, &[var]).expect_err("refused");
            assert!(error.contains(said), "{said}: {error}");
        }
    }
}
