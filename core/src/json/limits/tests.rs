//! Tests of what users' JSON may hold.

use super::*;

fn check(text: &str) -> Result<(), String> {
    check_value(&Json::parse(text).expect("JSON"), 10_000)
}

#[test]
fn ordinary_values_pass() {
    for text in [
        "null",
        r#"{"a":[1,-2,3.5,"$x",true,{"b.$c":"\u0000"}],"":0,"é":"\ud83d\ude00"}"#,
        "-9223372036854775808",
        "9223372036854775807",
        "-0",
        "1e308",
        r#""[[[{{{\"""#,
    ] {
        assert_eq!(check(text), Ok(()), "{text}");
    }
}

#[test]
fn each_break_is_named_with_its_place() {
    for (text, expected) in [
        (
            r#"{"a":[0,{"$set":1}]}"#,
            "at `a[1].$set`: a key starts with `$`; rename the key",
        ),
        (
            r#"{"\u0024x":1}"#,
            r"at `\u0024x`: a key starts with `$`; rename the key",
        ),
        (
            r#"{"x\u0000":1}"#,
            r"at `x\u0000`: a key holds NUL; rename the key",
        ),
        (
            "[9223372036854775808]",
            "at `[0]`: an integer is beyond 64 bits signed; write it as text or as a fraction",
        ),
        (
            r#"{"n":1e999}"#,
            "at `n`: a number is beyond what a double can hold; write it as text",
        ),
        (
            r#"["\ud800x"]"#,
            "at `[0]`: a text holds half of a surrogate pair; write the whole character",
        ),
        (
            r#"["\udc00"]"#,
            "at `[0]`: a text holds half of a surrogate pair; write the whole character",
        ),
        (
            r#"["\ud800"]"#,
            "at `[0]`: a text holds half of a surrogate pair; write the whole character",
        ),
    ] {
        assert_eq!(check(text), Err(expected.to_owned()), "{text}");
    }
}

#[test]
fn size_is_bounded_to_the_byte() {
    let json = Json::parse("[1,2]").expect("JSON");
    assert_eq!(check_value(&json, 5), Ok(()));
    assert!(check_value(&json, 4).is_err_and(|e| e.starts_with("it has 5 bytes")));
}

#[test]
fn depth_is_bounded_to_the_level_and_any_depth_is_safe() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(check(&nested(JSON_DEPTH_MAX)), Ok(()));
    assert!(check(&nested(JSON_DEPTH_MAX + 1)).is_err_and(|e| e.contains("nested deeper")));
    let text = nested(1_000_000);
    let limits = Limits {
        bytes_max: usize::MAX,
        depth_max: JSON_DEPTH_MAX,
        unique_keys: true,
    };
    assert_eq!(breaks(&text, limits).len(), 1);
}

#[test]
fn a_key_that_stands_twice_is_found_where_asked_for() {
    let limits = Limits {
        bytes_max: 100,
        depth_max: 8,
        unique_keys: true,
    };
    let found = breaks(r#"{"a":{"b":1,"c":2,"b":3},"b":4}"#, limits);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, "a.b");
}

proptest::proptest! {
    #[test]
    fn text_that_is_not_json_does_no_harm(text in r#"[\[\]{}",:\\u0a-f9$ -]{0,40}"#) {
        let limits = Limits { bytes_max: 100, depth_max: 4, unique_keys: true };
        let found = breaks(&text, limits);
        proptest::prop_assert!(found.len() <= BREAKS_MAX);
    }
}
