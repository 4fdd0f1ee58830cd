//! Settings: what wins over what, and what is told about faults.

mod impossible;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Given {
    let mut given = Given::default();
    let pairs = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    given.environment(pairs);
    given
}

#[test]
fn a_flag_wins_over_the_environment_which_wins_over_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [
        (
            "a.json",
            r#"{"capacity": 2, "database": "f", "hb_interval_sec": 5}"#,
        ),
        (
            "a.toml",
            "capacity = 2\ndatabase = \"f\"\nhb_interval_sec = 5\n",
        ),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        let mut given = Given::default();
        given.file(&path).expect("read");
        let pairs = [("FLOWKIT_CAPACITY", "3"), ("FLOWKIT_DATABASE", "e")];
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        given.environment(pairs);
        given.flag("capacity", "--capacity", Some(json!(4)));
        let settings = given.settings().expect("they fit");
        assert_eq!(settings.fleet.capacity, 4);
        assert_eq!(settings.fleet.database, "e");
        assert!((settings.worker.hb_interval_sec - 5.0).abs() < f64::EPSILON);
    }
}

#[test]
fn lists_and_addresses_come_from_the_environment() {
    let pairs = [
        ("FLOWKIT_ROLES", "scan, measure"),
        ("FLOWKIT_KAFKA", "k:1"),
        ("FLOWKIT_CRASH_SEED", "7"),
        ("HOME", "/"),
    ];
    let settings = environment(&pairs).settings().expect("they fit");
    assert_eq!(settings.fleet.roles, ["scan", "measure"]);
    assert_eq!(settings.fleet.kafka_bootstrap, "k:1");
}

#[test]
fn no_error_shows_a_secret() {
    let texts = [
        ("a.json", r#"{"kafka_properties": "geheim"}"#),
        (
            "a.json",
            r#"{"kafka_properties": {"sasl.password": 7234561}}"#,
        ),
        ("a.json", r#"{"mongo_uri": 7234561}"#),
        ("a.json", r#""geheim""#),
        ("a.toml", "shards = 1\nmongo_uri = \"geheim\" \"\n"),
        ("a.toml", "mongo_uri = geheim\n"),
        ("a.toml", "mongo_uri = 7234561\nmongo_uri = 7234561\n"),
        ("a.toml", "kafka_properties = \"geheim\"\n"),
        ("a.json", r#"{"exec": "geheim"}"#),
        ("a.json", r#"{"exec": [["geheim"]]}"#),
        ("a.json", r#"{"exec": ["sh 'geheim"]}"#),
        ("a.json", r#"{"exec": ["a='geheim"]}"#),
        ("a.toml", "exec = 7234561\n"),
        ("a.json", r#"{"mongo_uri": "geheim"}"#),
    ];
    for (name, text) in texts {
        let mut given = Given::default();
        let error = given
            .text(Path::new(name), text)
            .and_then(|()| given.settings().map(|_| ()))
            .expect_err(text);
        assert!(
            !error.contains("geheim") && !error.contains("7234561"),
            "{error}"
        );
    }
    let mut given = Given::default();
    let toml = "shards = 1\nmongo_uri = \"geheim\" \"\n";
    let error = given
        .text(Path::new("a.toml"), toml)
        .expect_err("a quote too much");
    assert!(error.ends_with("at line 2 column 22"), "{error}");
}

#[test]
fn every_fault_is_listed_with_its_key_and_a_password_is_not_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bad.json");
    let text = r#"{"capcity": 1, "shards": "many", "mongo_uri": ["secret"], "lease_ttl_sec": -1}"#;
    std::fs::write(&path, text).expect("written");
    let mut given = Given::default();
    given.file(&path).expect("JSON");
    let text = given.settings().expect_err("faulty");
    for part in [
        "capcity",
        "did you mean `capacity`?",
        "shards",
        "many",
        "mongo_uri",
        "lease_ttl_sec (",
        "): must be from 0.01",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn a_file_is_loaded_with_overrides() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("worker.json");
    std::fs::write(&path, r#"{"roles": ["analyzer"], "lease_ttl_sec": 45}"#).expect("written");
    let roles = [("roles", json!(["processor"]))];
    let settings = Settings::load(&path, roles).expect("they fit");
    assert_eq!(settings.fleet.roles, ["processor"]);
    assert_eq!(all(&settings)["lease_ttl_sec"], json!(45.0));
    let absent = folder.path().join("absent.json");
    let error = Settings::load(&absent, []).expect_err("it is not there");
    assert!(error.starts_with("cannot read the settings "), "{error}");
}

/// Every key of a process's settings, with its value.
fn all(settings: &Settings) -> Map<String, Value> {
    let mut keys = keys_of(&settings.fleet);
    keys.extend(keys_of(&settings.worker));
    keys.extend(keys_of(&settings.coordinator));
    keys
}

/// Two values of a key that differ from its default and from each other, where it has so many.
fn samples(key: &str, default: &Value) -> [Value; 2] {
    match default {
        Value::String(_) if key == "health_listen" => [json!("127.0.0.1:1"), json!("[::1]:2")],
        Value::String(_) if key == "kafka_bootstrap" => [json!("a:1"), json!("b:2, [::1]:3")],
        Value::String(_) if key == "mongo_uri" => {
            [json!("mongodb://a"), json!("mongodb+srv://b/?tls=true")]
        }
        Value::String(_) if key == "otlp_endpoint" => {
            [json!("http://a:1"), json!("http://[::1]:2")]
        }
        Value::Bool(value) => [json!(!value), json!(value)],
        Value::String(_) => [json!("one"), json!("two")],
        Value::Array(_) => [json!(["one"]), json!(["two", "three"])],
        Value::Object(_) if key == "limits" => [
            json!({"running_max": 1}),
            json!({"types": {"ocr": {"window_ms": 5}}}),
        ],
        Value::Object(_) => [json!({"one": "1"}), json!({"two": "2"})],
        Value::Number(number) if number.is_f64() => [json!(7.5), json!(8.25)],
        Value::Number(_) => [json!(7_001), json!(7_002)],
        Value::Null => panic!("{key} has no default"),
    }
}

#[test]
fn every_key_comes_from_the_file_the_environment_and_the_code_each_over_the_one_before() {
    let defaults = all(&Given::default().settings().expect("the defaults fit"));
    assert_eq!(defaults, known_keys());
    for (key, default) in known_keys() {
        let [low, high] = samples(&key, &default);
        let variable = format!("FLOWKIT_{}", key.to_uppercase());
        let text = match &high {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        // But for tables, a value is written in both in the same way.
        let toml = match &low {
            Value::Object(_) if key == "limits" => "limits = { running_max = 1 }".to_owned(),
            Value::Object(_) => format!("{key} = {{ one = \"1\" }}"),
            value => format!("{key} = {value}"),
        };
        let json = json!({ key.as_str(): low }).to_string();
        // With what else must change for the value to make sense.
        let read = |name: &str, text: &str, above: &dyn Fn(&mut Given)| {
            let mut given = Given::default();
            given.text(Path::new(name), text).expect("it is read");
            if key == "pull_poll_ms_default" {
                given.set("pull_empty_backoff_ms_max", json!(10_000));
            }
            above(&mut given);
            let settings = given.settings().unwrap_or_else(|e| panic!("{key}: {e}"));
            all(&settings)[&key].clone()
        };
        let variables = || [(variable.clone(), text.clone())].into_iter();
        for (name, text) in [("a.json", &json), ("a.toml", &toml)] {
            assert_eq!(
                read(name, text, &|_| ()),
                low,
                "{key}: {name} over the default"
            );
            let environment = |given: &mut Given| given.environment(variables());
            assert_eq!(
                read(name, text, &environment),
                high,
                "{key}: the environment over {name}"
            );
            let code = |given: &mut Given| {
                given.environment(variables());
                given.set(&key, low.clone());
            };
            assert_eq!(
                read(name, text, &code),
                low,
                "{key}: the code over the environment"
            );
        }
    }
}

#[test]
fn a_value_of_the_wrong_type_is_told_for_every_key_at_once_wherever_it_stands() {
    let known = known_keys();
    let wrong = |default: &Value| match default {
        Value::String(_) => json!(17),
        _ => json!("nonsense"),
    };
    let mut given = Given::default();
    for (key, default) in &known {
        given.set(key, wrong(default));
    }
    let error = given.settings().expect_err("nothing fits");
    for key in known.keys() {
        assert!(
            error.contains(&format!("  - {key} (set in code): ")),
            "{key}: {error}"
        );
    }
    // The environment is text; what is no text by its default is judged.
    let mut given = Given::default();
    let texts: Vec<&String> = known
        .iter()
        .filter(|(_, default)| !default.is_string() && !default.is_array())
        .map(|(key, _)| key)
        .collect();
    let variables = texts.iter().map(|key| {
        (
            format!("FLOWKIT_{}", key.to_uppercase()),
            "nonsense".to_owned(),
        )
    });
    given.environment(variables);
    let error = given.settings().expect_err("nothing fits");
    for key in texts {
        let place = format!("  - {key} (FLOWKIT_{}): ", key.to_uppercase());
        assert!(error.contains(&place), "{key}: {error}");
    }
}

#[test]
fn limits_come_from_a_file_and_what_is_wrong_with_them_is_told_with_its_place() {
    let mut given = Given::default();
    let text = "[limits]\nrunning_max = 100\n[limits.types.ocr]\nrunning_max = 4\n\
                [limits.keys.\"api.example.org\"]\nstarts_max = 10\nwindow_ms = 60000\n\
                [limits.key_default]\nrunning_max = 2\n";
    given.text(Path::new("a.toml"), text).expect("TOML");
    let limits = given.settings().expect("they fit").coordinator.limits;
    assert_eq!(limits.running_max, Some(100));
    assert_eq!(limits.keys["api.example.org"].window_ms, 60_000);
    for (text, said) in [
        ("[limits]\nruning_max = 1\n", "unknown field `runing_max`"),
        (
            "[limits]\nrunning_max = -1\n",
            "invalid value: integer `-1`",
        ),
        ("[limits]\nrunning_max = nan\n", "limits (a.toml)"),
        ("[limits]\nrunning_max = 4294967296\n", "4294967296"),
        (
            "[limits]\nrunning_max = 0\n",
            "running_max must be 1 or more",
        ),
        (
            "[limits.types.ocr]\nstarts_max = 99999\n",
            "types.ocr.starts_max must be at most",
        ),
        (
            "[limits.types.ocr]\nwindow_ms = 0\n",
            "types.ocr.window_ms must be from 1",
        ),
        ("[limits.types]\nocr = 4\n", "limits (a.toml)"),
        ("limits = 4\n", "limits (a.toml)"),
    ] {
        let mut given = Given::default();
        given.text(Path::new("a.toml"), text).expect("TOML");
        let error = given.settings().expect_err(text);
        assert!(
            error.contains(said) && error.contains("limits"),
            "{text}: {error}"
        );
    }
}

#[test]
fn the_guide_lists_every_key_with_its_default() {
    let guide = include_str!("../../../docs/guide/settings.md");
    let mut listed = Map::new();
    for line in guide.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, key, default, meaning, _] = cells[..] else {
            continue;
        };
        let (Some(key), Some(default)) = (code(key), code(default)) else {
            continue;
        };
        let default: Value = serde_json::from_str(default).unwrap_or_else(|e| panic!("{key}: {e}"));
        assert!(meaning.len() > 10, "{key}: what is it for?");
        assert_eq!(
            listed.insert(key.to_owned(), default),
            None,
            "{key} is listed twice"
        );
    }
    let known = known_keys();
    for (key, default) in &known {
        let listed = listed.get(key).and_then(Value::as_f64).map_or_else(
            || listed.get(key).cloned(),
            |n| {
                // 60 and 60.0 are the same to a reader.
                if default.as_f64() == Some(n) {
                    Some(default.clone())
                } else {
                    Some(json!(n))
                }
            },
        );
        assert_eq!(
            listed.as_ref(),
            Some(default),
            "`{key}` in docs/guide/settings.md"
        );
    }
    assert_eq!(
        listed.len(),
        known.len(),
        "the guide lists a key that does not exist"
    );
}

/// What stands between backticks.
fn code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`')
}

#[test]
fn the_length_of_a_lease_is_for_both_sides_and_its_fault_is_told_once() {
    let mut given = Given::default();
    given.set("lease_ttl_sec", json!(12.5));
    let settings = given.settings().expect("it fits");
    assert_eq!(settings.coordinator.lease_ttl_sec, 12.5);
    assert_eq!(settings.worker.lease_ttl_sec, Some(12.5));
    let settings = Given::default().settings().expect("defaults fit");
    assert_eq!(settings.coordinator.lease_ttl_sec, 60.0);
    assert_eq!(settings.worker.lease_ttl_sec, None, "unchecked");
    for wrong in [json!("long"), json!(-1)] {
        let mut given = Given::default();
        given.set("lease_ttl_sec", wrong);
        let error = given.settings().expect_err("it does not fit");
        assert!(error.starts_with("1 fault in"), "{error}");
    }
}

#[test]
fn no_debug_text_shows_a_secret() {
    let mut given = Given::default();
    given.set("mongo_uri", json!("mongodb://me:hunter2@host"));
    given.set("mongo_url", json!("mongodb://me:hunter2@host"));
    given.set("kafka_properties", json!({"sasl.password": "hunter2"}));
    given.set("otlp_endpoint", json!("http://me:hunter2@host"));
    given.set("kafka_bootstrap", json!("k:9092"));
    let text = format!("{given:?}");
    assert!(
        text.contains("k:9092") && !text.contains("hunter2"),
        "{text}"
    );
    let error = given.settings().expect_err("two faults");
    assert!(
        error.contains("mongo_url") && !error.contains("hunter2"),
        "{error}"
    );
    let mut given = Given::default();
    given.set("mongo_uri", json!("mongodb://me:hunter2@host"));
    given.set("kafka_properties", json!({"sasl.password": "hunter2"}));
    let text = format!("{:?}", given.settings().expect("they fit"));
    assert!(
        text.contains("topic_prefix") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn whatever_a_key_is_given_it_is_taken_or_named_and_the_error_stays_readable() {
    let long = "x".repeat(100_000);
    let hostile = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(0),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("\u{0}\u{1b}[31m"),
        json!(long),
        json!([[]]),
        json!([long]),
        json!({"a": {"b": []}}),
        json!({"": null}),
    ];
    for (key, _) in known_keys() {
        let mut taken = 0;
        for value in &hostile {
            let mut given = Given::default();
            given.set(&key, value.clone());
            match given.settings() {
                Ok(_) => taken += 1,
                Err(error) => {
                    assert!(error.contains(&key), "{key}: {error}");
                    assert!(error.len() < 2_000, "{key}: {} bytes", error.len());
                }
            }
            // The same from the environment, where everything is text.
            let mut given = Given::default();
            let name = format!("FLOWKIT_{}", key.to_uppercase());
            given.environment([(name, value.to_string())].into_iter());
            if let Err(error) = given.settings() {
                assert!(error.contains(&key), "{key}: {error}");
                assert!(error.len() < 2_000, "{key}: {} bytes", error.len());
            }
        }
        assert!(taken < hostile.len(), "{key} takes anything");
    }
}

#[test]
fn a_key_that_stands_twice_in_a_file_is_refused_wherever_it_stands() {
    for (name, text, key) in [
        (
            "a.json",
            r#"{"capacity": 1, "roles": [], "capacity": 2}"#,
            "capacity",
        ),
        (
            "a.json",
            r#"{"limits": {"running_max": 1, "running_max": 2}}"#,
            "running_max",
        ),
        (
            "a.json",
            r#"{"kafka_properties": {"x": "geheim", "x": "geheim"}}"#,
            "x",
        ),
        ("a.toml", "capacity = 1\ncapacity = 2\n", "duplicate key"),
    ] {
        let mut given = Given::default();
        let error = given.text(Path::new(name), text).expect_err(text);
        assert!(error.starts_with(name) && error.contains(key), "{error}");
        assert!(
            error.contains("line") && !error.contains("geheim"),
            "{error}"
        );
    }
    let mut given = Given::default();
    let text = r#"{"limits": {"types": {"a": {"running_max": 1}, "b": {"running_max": 1}}}, "capacity": 7}"#;
    given.text(Path::new("a.json"), text).expect("no key twice");
    assert_eq!(given.settings().expect("they fit").fleet.capacity, 7);
}
