//! A task's vars at its submission.

use serde_json::Value;

use super::{VAR_BYTES_MAX, VARS_BYTES_MAX, VarPath, flatten, size_of};
use crate::graph::{Fault, quoted};
use crate::json::{JSON_DEPTH_MAX, Json, Limits, breaks};

/// Most faults listed.
const FAULTS_MAX: usize = 100;

/// Checks a task's vars: a JSON object or `null`, at most [`VARS_BYTES_MAX`] bytes, every value at
/// a path that the limits allow, and nothing in it that a store could refuse.
///
/// # Errors
/// Everything that is wrong, each with its path below `vars`.
pub fn check_vars(vars: &Json) -> Result<(), Vec<Fault>> {
    let mut faults = Vec::new();
    if vars.text() != "null" && !vars.text().starts_with('{') {
        faults.push(fault(
            "vars",
            "are not an object",
            "write {\"name\": value, …} or leave them out",
        ));
        return Err(faults);
    }
    let limits = Limits {
        bytes_max: VARS_BYTES_MAX,
        depth_max: JSON_DEPTH_MAX,
        unique_keys: true,
    };
    for found in breaks(vars.text(), limits) {
        let path = if found.path.is_empty() {
            "vars".to_owned()
        } else {
            format!("vars.{}", found.path)
        };
        faults.push(fault(path, found.problem, found.cure));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let root = match vars.decode::<Value>() {
        Ok(Value::Object(map)) if map.is_empty() => return Ok(()),
        Ok(Value::Null) => return Ok(()),
        Ok(root) => root,
        Err(error) => {
            let problem = format!("cannot be read: {error}");
            return Err(vec![fault("vars", problem, "mend the JSON text")]);
        }
    };
    let (mut leaves, mut wrong) = (Vec::new(), Vec::new());
    flatten(&VarPath::root(), &root, &mut leaves, &mut wrong);
    let below = |path: &VarPath| match path.keys().next() {
        Some(_) => format!("vars.{path}"),
        None => "vars".to_owned(),
    };
    for (path, found) in wrong {
        faults.push(fault(below(&path), found.problem, found.cure));
    }
    for (path, value) in leaves {
        if size_of(value) > VAR_BYTES_MAX {
            let problem = format!("has more than {VAR_BYTES_MAX} bytes");
            let cure = "make it smaller; large data belongs into artifacts or files";
            faults.push(fault(below(&path), problem, cure));
        }
    }
    faults.truncate(FAULTS_MAX);
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults)
    }
}

fn fault(path: impl Into<String>, problem: impl Into<String>, cure: &str) -> Fault {
    let path: String = path.into();
    let path = if path.chars().count() > 200 {
        quoted(&path)
    } else {
        path
    };
    Fault {
        path,
        problem: problem.into(),
        cure: cure.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vars_are_an_object_of_bounded_size() {
        let check = |text: &str| {
            let faults = check_vars(&Json::parse(text).expect("JSON"));
            faults.map_err(|faults| faults.iter().map(ToString::to_string).collect::<String>())
        };
        for text in ["null", "{}", r#"{"a":{"b":[1]}}"#, r#"{"a":{}}"#] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in ["[]", "1", "\"null\"", "true"] {
            assert!(
                check(text).is_err_and(|e| e.contains("not an object")),
                "{text}"
            );
        }
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(VARS_BYTES_MAX));
        assert!(check(&large).is_err_and(|e| e.contains("bytes of JSON")));
        let large = format!(r#"{{"a":{{"b":"{}"}}}}"#, "x".repeat(VAR_BYTES_MAX + 1));
        assert!(check(&large).is_err_and(|e| e.starts_with("vars.a.b: has more than")));
        let deep = r#"{"k":"#.repeat(17) + "1" + &"}".repeat(17);
        assert!(check(&deep).is_err_and(|e| e.contains("has more than 16 keys")));
    }

    #[test]
    fn every_bad_key_is_named_at_once() {
        let check = |text: &str| {
            let faults = check_vars(&Json::parse(text).expect("JSON")).expect_err("faults");
            let shown: Vec<String> = faults.iter().map(ToString::to_string).collect();
            shown.join("\n")
        };
        let said = check(r#"{"$a":1,"b":{"\u0000":1},"c":1,"c":2,"n":18446744073709551615}"#);
        for part in ["starts with `$`", "holds NUL", "stands twice", "64 bits"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let said = check(r#"{"a.b":1,"":1,"x":{"y.z":1}}"#);
        assert_eq!(said.lines().count(), 3, "{said}");
        assert!(said.contains("vars.x: a nested key holds a dot"), "{said}");
    }
}
