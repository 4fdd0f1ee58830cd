//! Values and keys that cannot be: named with their place and the cure.

use super::*;

/// For each key: a value that it cannot have, how its fault shows that value, and the cure.
fn impossible() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let from_0 = "must be from 0 to 86,400 seconds, not";
    let more = "must be from 0.001 to 86,400 seconds, not";
    let lease = "must be from 0.01 to 86,400 seconds, not";
    let kept = "must be 0 (for ever) or from 0.001 to 3,162,240,000 seconds, not";
    let one = "must be 1 or more, not";
    vec![
        ("kafka_bootstrap", json!("a:1,b"), "`a:1,b`", "HOST:PORT"),
        ("mongo_uri", json!("http://geheim"), "", "mongodb+srv://"),
        ("database", json!("a b"), "`a b`", "must be 1 to 63 bytes"),
        ("topic_prefix", json!("a/b"), "`a/b`", "must be 1 to 232 of"),
        ("shards", json!(0), "0", one),
        ("inboxes", json!(0), "0", one),
        ("kafka_properties", json!("geheim"), "", "must be such as"),
        ("roles", json!(["$a"]), "`$a`", "name a type of nodes"),
        ("exec", json!(["ocr=sh 'geheim"]), "`ocr`", "close it"),
        ("worker_id", json!("$a"), "`$a`", "leave it out"),
        ("capacity", json!(0), "0", one),
        ("health_listen", json!("nine"), "`nine`", "127.0.0.1:9600"),
        ("otlp_endpoint", json!("https://geheim"), "", "http://HOST"),
        (
            "worker_version",
            json!("x".repeat(201)),
            "201",
            "must be at most 200 bytes",
        ),
        ("hb_interval_sec", json!(0.0), "0", more),
        ("announce_interval_sec", json!(-1.5), "-1.5", more),
        ("dedup_cache_size", json!(0), "0", one),
        ("dedup_ttl_ms", json!(0), "0", one),
        ("pull_poll_ms_default", json!(0), "0", "milliseconds, not"),
        (
            "pull_empty_backoff_ms_max",
            json!(5),
            "5",
            "must be pull_poll_ms_default, which is 300, or more",
        ),
        ("db_cancel_poll_ms", json!(0), "0", one),
        ("strict_input_adapters", json!("so"), "\"so\"", "such as"),
        ("shutdown_grace_sec", json!(-1.0), "-1", from_0),
        ("cancel_grace_sec", json!(86_401.0), "86401", from_0),
        ("lease_ttl_sec", json!(0.009), "0.009", lease),
        ("shard_lease_ttl_sec", json!(1e9), "1000000000", lease),
        ("tasks_in_flight_max", json!(0), "0", one),
        ("limits", json!({"running_max": 0}), "0", "leave it out"),
        ("retention_finished_sec", json!(-1.0), "-1", kept),
        ("retention_failed_sec", json!(1e12), "1000000000000", kept),
        ("sweep_interval_sec", json!(0.0), "0", more),
    ]
}

#[test]
fn an_impossible_value_of_any_key_is_told_with_its_value_its_place_and_the_cure() {
    let table = impossible();
    let keys: BTreeSet<&str> = table.iter().map(|row| row.0).collect();
    let known = known_keys();
    let known: BTreeSet<&str> = known.keys().map(String::as_str).collect();
    assert_eq!(keys, known, "every key has a row");
    for (key, value, shown, cure) in &table {
        let variable = format!("FLOWKIT_{}", key.to_uppercase());
        let typed = match value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        let mut file = Given::default();
        let text = json!({ *key: value }).to_string();
        file.text(Path::new("a.json"), &text).expect("JSON");
        let mut code = Given::default();
        code.set(key, value.clone());
        let environment = environment(&[(&variable, &typed)]);
        for (given, place) in [
            (file, "a.json"),
            (code, "set in code"),
            (environment, &variable),
        ] {
            // In a variable, what looks like a number is as good a text, alone or in a list.
            let default = &known_keys()[*key];
            let is_text = default.is_string() || default.is_array();
            if place == variable && is_text && value.is_number() {
                continue;
            }
            let error = given.settings().expect_err(key);
            let line = error.strip_prefix("1 fault in the settings:\n  - ");
            let line = line.unwrap_or_else(|| panic!("{key} at {place}: {error}"));
            let said = line.strip_prefix(&format!("{key} ({place}): "));
            let said = said.unwrap_or_else(|| panic!("{key} at {place}: {error}"));
            assert!(said.contains(shown), "{key} at {place}: {error}");
            assert!(said.contains(cure), "{key} at {place}: {error}");
            for secret in ["geheim", "7234561"] {
                assert!(!said.contains(secret), "{key} at {place}: {error}");
            }
        }
    }
    // All of them at once, but for the one that goes by another's value.
    let mut given = Given::default();
    for (key, value, ..) in &table {
        if *key != "pull_empty_backoff_ms_max" {
            given.set(key, value.clone());
        }
    }
    let error = given.settings().expect_err("nothing fits");
    let count = format!("{} faults in the settings:", table.len() - 1);
    assert_eq!(error.lines().next(), Some(count.as_str()), "{error}");
    assert_eq!(error.lines().count(), table.len(), "{error}");
}

#[test]
fn a_misspelt_variable_is_refused_with_the_one_that_was_meant_and_its_value_unsaid() {
    for (name, cure) in [
        (
            "FLOWKIT_HB_INTERVL_SEC",
            "hb_intervl_sec (FLOWKIT_HB_INTERVL_SEC): no such setting; did you mean \
             FLOWKIT_HB_INTERVAL_SEC?",
        ),
        (
            "FLOWKIT_LESE_TTL_SEC",
            "lese_ttl_sec (FLOWKIT_LESE_TTL_SEC): no such setting; did you mean FLOWKIT_LEASE_TTL_SEC?",
        ),
        (
            "FLOWKIT_mongo_url",
            "mongo_url (FLOWKIT_mongo_url): no such setting; did you mean FLOWKIT_MONGO_URI?",
        ),
        (
            "FLOWKIT_XYZZY",
            "xyzzy (FLOWKIT_XYZZY): no such setting; take it out; docs/guide/settings.md lists them",
        ),
    ] {
        let error = environment(&[(name, "geheim")]).settings().expect_err(name);
        assert_eq!(error, format!("1 fault in the settings:\n  - {cure}"));
    }
}

#[test]
fn variables_of_others_that_begin_like_ours_are_let_be() {
    let of_others = [
        "FLOWKIT_CRASH_SEED",
        "FLOWKIT_FIDELITY_SEED",
        "FLOWKIT_FIDELITY_OPERATIONS",
        "FLOWKIT_OF_ITS_OWN",
        "FLOWKIT_SIM_SEED",
        "FLOWKIT_TEST_KILLED_FOLDER",
        // Kubernetes says so of a service `flowkit` or `flowkit-health`.
        "FLOWKIT_PORT",
        "FLOWKIT_PORT_9600_TCP_ADDR",
        "FLOWKIT_SERVICE_HOST",
        "FLOWKIT_HEALTH_SERVICE_PORT",
        "FLOWKIT_HEALTH_SERVICE_PORT_HTTP",
        "FLOWKITTEN",
    ];
    let pairs: Vec<(&str, &str)> = of_others.iter().map(|name| (*name, "7")).collect();
    let settings = environment(&pairs).settings().expect("they are let be");
    assert_eq!(all(&settings), known_keys());
    // None of them hides one of ours.
    for key in known_keys().keys() {
        let name = format!("FLOWKIT_{}", key.to_uppercase());
        assert!(!is_of_others(&name), "{name}");
    }
}

#[test]
fn null_in_json_is_not_given_and_no_number_in_toml_is_a_fault() {
    let mut given = Given::default();
    let text = r#"{"worker_id": null, "lease_ttl_sec": null, "limits": null, "capacity": 3}"#;
    given.text(Path::new("a.json"), text).expect("JSON");
    let settings = given.settings().expect("they fit");
    assert_eq!(settings.fleet.worker_id, "");
    assert_eq!(settings.fleet.capacity, 3);
    assert_eq!(settings.coordinator, CoordinatorSettings::default());
    let mut given = Given::default();
    given
        .text(Path::new("a.json"), r#"{"worker_idd": null}"#)
        .expect("JSON");
    let error = given.settings().expect_err("no such key");
    assert!(error.contains("did you mean `worker_id`?"), "{error}");
    let mut given = Given::default();
    given
        .text(Path::new("a.toml"), "lease_ttl_sec = nan\n")
        .expect("TOML");
    let error = given.settings().expect_err("no number");
    assert!(error.contains("lease_ttl_sec (a.toml)"), "{error}");
}

#[test]
fn addresses_of_servers_are_judged_before_they_are_asked() {
    let fits = |key: &str, value: &str| {
        let mut given = Given::default();
        given.set(key, json!(value));
        given.settings().is_ok()
    };
    for brokers in ["k:9092", "10.0.0.1:1,k-2.example.org:65535", "[::1]:9092"] {
        assert!(fits("kafka_bootstrap", brokers), "{brokers}");
    }
    for brokers in [
        "k", "k:", ":9092", "k:0", "k:65536", "k:1,", "k:1 k:2", "a b:1",
    ] {
        assert!(!fits("kafka_bootstrap", brokers), "{brokers}");
    }
    for uri in ["mongodb://h", "mongodb+srv://u:p@h/db"] {
        assert!(fits("mongo_uri", uri), "{uri}");
    }
    for uri in [
        "h:27017",
        "mongodb:/h",
        "mongodb://",
        "mongo://h",
        " mongodb://h",
    ] {
        assert!(!fits("mongo_uri", uri), "{uri}");
    }
}
