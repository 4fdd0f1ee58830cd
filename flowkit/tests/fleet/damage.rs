//! Records that rot on the server.

use mongodb::bson::{Document, doc};
use serde_json::{Value, json};

use super::deployment::{Deployment, sleepers, until};

/// Damages a record; it must be there.
pub(crate) fn rot(deployment: &Deployment, collection: &str, id: &str, how: Document) {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let uri = std::env::var("FLOWKIT_MONGO").expect("MongoDB is up");
        let client = mongodb::Client::with_uri_str(uri).await;
        let database = client.expect("MongoDB is up").database(&deployment.name);
        let records = database.collection::<Document>(collection);
        let set = doc! { "$set": how };
        let done = records.update_one(doc! { "_id": id }, set).await;
        assert_eq!(done.expect("MongoDB is up").matched_count, 1, "{id}");
    });
}

#[test]
fn a_record_that_rots_costs_its_task_and_is_named_by_all_who_look() {
    let deployment = Deployment::new("rot", 1);
    let first = deployment.coordinator();
    let _worker = deployment.worker("w");
    let submit = |key: &str, nodes: &Value| {
        let file = deployment.graph(nodes);
        let task = deployment.json(&["submit", &file, "--idempotency-key", key], 0);
        task["task_id"].as_str().expect("an id").to_owned()
    };
    let long = sleepers(1, 60_000, 1);
    let (body, node) = (submit("body", &long), submit("node", &long));
    let sound = submit("sound", &sleepers(2, 50, 3));
    first.kill();
    rot(&deployment, "tasks", &body, doc! { "v": 999 });
    let key = format!("{node}\nn0");
    rot(&deployment, "nodes", &key, doc! { "body": "rotten" });

    let second = deployment.coordinator();
    // The two that rotted hold the slots of this one, as far as anybody knows.
    let _other = deployment.worker("other");
    let show = || deployment.json(&["task", "show", &sound], 0);
    let shown = until(show, |shown| shown["status"] == "finished");
    assert_eq!(shown["nodes"]["n1"]["batches"], 3, "{shown}");
    let said = second.said().join("\n");
    for id in [&body, &node] {
        let named = |line: &str| line.contains("unreadable") && line.contains(id.as_str());
        assert!(said.lines().any(named), "{id}: {said}");
    }

    let shown = deployment.json(&["worker", "show", "w"], 0);
    let unreadable = shown["unreadable"].as_array().expect("a list");
    let tasks: Vec<_> = unreadable.iter().map(|found| &found["task_id"]).collect();
    assert_eq!(tasks.len(), 2, "{shown}");
    assert!(
        tasks.contains(&&json!(body)) && tasks.contains(&&json!(node)),
        "{shown}"
    );
    let ill = deployment.json(&["doctor"], 1);
    for id in [&body, &node] {
        let subject = json!(format!("task {id}"));
        let findings = ill["findings"].as_array().expect("a list").iter();
        let mut state = findings.filter(|finding| finding["check"] == "state");
        assert!(
            state.any(|finding| finding["subject"] == subject),
            "{id}: {ill}"
        );
    }

    rot(&deployment, "workers", "w", doc! { "v": 999 });
    let list = deployment.json(&["worker", "list"], 0);
    assert_eq!(list["unreadable"][0]["worker_id"], "w", "{list}");
    assert_eq!(list["workers"][0]["worker_id"], "other", "{list}");
    let ill = deployment.json(&["doctor"], 1);
    let subjects = ill["findings"].as_array().expect("a list").iter();
    let subjects: Vec<_> = subjects.map(|finding| &finding["subject"]).collect();
    assert!(subjects.contains(&&json!("worker w")), "{ill}");
    // It is heard, and known: no worker of another deployment.
    assert!(!subjects.contains(&&json!("w")), "{ill}");
}
