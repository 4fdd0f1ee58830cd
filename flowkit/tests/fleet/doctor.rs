//! `flowkit doctor` over servers: everything that it can find, found.

use mongodb::bson::doc;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use super::damage::rot;
use super::deployment::{Deployment, sleepers, until};

/// Bytes of another program in a topic of the deployment.
fn write_foreign_bytes(deployment: &Deployment) {
    let mut client = ClientConfig::new();
    let kafka = std::env::var("FLOWKIT_KAFKA").expect("Kafka is up");
    client.set("bootstrap.servers", kafka);
    let producer: BaseProducer = client.create().expect("a producer");
    let topic = format!("{}.shards.v1", deployment.name);
    let record = BaseRecord::<str, str>::to(&topic).payload("GET / HTTP/1.1");
    producer.send(record.partition(0)).expect("queued");
    producer.flush(Duration::from_secs(30)).expect("written");
}

/// A process whose memory doubles; the address of its health.
fn leaking_process() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let mib = 1024 * 1024;
    let samples: Vec<Value> = (0..16)
        .map(|n: u64| json!([(16 - n) * 60_000, (200 + n * 40) * mib]))
        .collect();
    let body = json!({"worker_id": "leaks", "not_ready": [], "memory": samples}).to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}");
        }
    });
    address
}

#[test]
fn everything_that_is_not_well_is_found_with_its_cure() {
    let deployment = Deployment::new("doctor", 1);
    let coordinator = deployment.coordinator();
    // It reads its grants so seldom that it does not notice its successor.
    let mut older = deployment.command(&["worker", "--worker-id", "twice", "--role", "sleep"]);
    older.env("FLOWKIT_DB_CANCEL_POLL_MS", "3000000");
    let _older = deployment.started(older);
    let submit = |graph: &Value| {
        let file = deployment.graph(graph);
        let task = deployment.json(&["submit", &file], 0);
        task["task_id"].as_str().expect("an id").to_owned()
    };
    submit(&sleepers(1, 60_000, 1));
    deployment.until_runs("twice", "n0");
    let lonely = json!({"nodes": [{"node_id": "n", "type": "nobody"}]});
    submit(&lonely);
    let rotten = submit(&lonely);

    coordinator.kill();
    rot(&deployment, "tasks", &rotten, doc! { "v": 999 });
    write_foreign_bytes(&deployment);
    let words = ["worker", "--worker-id", "twice", "--role", "sleep"];
    let _newer = deployment.start(&words);
    let file = deployment.graph(&sleepers(1, 10, 1));
    let mut unheard = deployment
        .command(&["submit", &file])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");

    let leaks = leaking_process();
    let doctor = || {
        let words = ["doctor", "--health", &leaks, "--health", "127.0.0.1:1"];
        let mut doctor = deployment.command(&words);
        doctor.env("FLOWKIT_DB_CANCEL_POLL_MS", "5000");
        deployment.answer(doctor, 1)
    };
    let of_rotten = format!("task {rotten}");
    let expected = [
        ("subscription", "streams", "no messages of FlowKit"),
        ("roles", "nobody", "none lives"),
        ("conflicts", "twice", "two processes with this id"),
        ("folding", "shard 0", "no coordinator folds them"),
        ("timing", "db_cancel_poll_ms", "per lease of 3"),
        ("health", "127.0.0.1:1", "refused"),
        ("memory", "leaks", "its memory grew"),
        ("state", of_rotten.as_str(), "a record cannot be read"),
    ];
    let found = |ill: &Value, (check, subject, part): (&str, &str, &str)| {
        let mut findings = ill["findings"].as_array().expect("a list").iter();
        findings.any(|finding| {
            let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            let about = text("check") == check && text("subject") == subject;
            about && text("finding").contains(part) && !text("cure").is_empty()
        })
    };
    // A shard counts as unfolded after a while.
    let ill = until(doctor, |ill| found(ill, expected[3]));
    for finding in expected {
        assert!(found(&ill, finding), "{finding:?}: {ill}");
    }
    let _ = unheard.kill();
    let _ = unheard.wait();

    let mut away = deployment.command(&["doctor"]);
    away.args(["--mongo", "mongodb://127.0.0.1:1/?replicaSet=rs0"]);
    let ill = deployment.answer(away, 1);
    assert_eq!(ill["findings"][0]["check"], "store", "{ill}");
}
