//! A task's vars at its submission.

use crate::json::{Json, check_value};

/// Most bytes of a task's vars: every message that starts a node carries them.
pub const VARS_BYTES_MAX: usize = 64 * 1024;

/// Checks a task's vars: a JSON object or `null`, at most [`VARS_BYTES_MAX`] bytes, and nothing in
/// it that a store could refuse.
///
/// # Errors
/// One sentence with the first thing that is wrong.
pub fn check_vars(vars: &Json) -> Result<(), String> {
    if vars.text() != "null" && !vars.text().starts_with('{') {
        return Err("they are not an object; write {\"name\": value, …} or leave them out".into());
    }
    check_value(vars, VARS_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vars_are_an_object_of_bounded_size() {
        let check = |text: &str| check_vars(&Json::parse(text).expect("JSON"));
        assert_eq!(check("null"), Ok(()));
        assert_eq!(check(r#"{"a":{"b":[1]}}"#), Ok(()));
        for text in ["[]", "1", "\"null\"", "true"] {
            assert!(
                check(text).is_err_and(|e| e.contains("not an object")),
                "{text}"
            );
        }
        assert!(check(r#"{"$a":1}"#).is_err_and(|e| e.contains("starts with `$`")));
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(VARS_BYTES_MAX));
        assert!(check(&large).is_err_and(|e| e.contains("bytes of JSON")));
    }
}
