//! Values that no process can have, known before any server is asked.

use flowkit_runtime::{Exec, Role, WorkerId};
use std::net::SocketAddr;

use super::{FleetSettings, brief, role_and_command};

/// Longest prefix of topics: a topic's name has 249 bytes at most.
const PREFIX_BYTES_MAX: usize = 249 - ".announcements.v1".len();
/// Longest name of a database of MongoDB.
const DATABASE_BYTES_MAX: usize = 63;

/// Adds one sentence for each value that is impossible, with its key.
pub(super) fn fleet(settings: &FleetSettings, faults: &mut Vec<String>) {
    for (key, value) in [
        ("shards", settings.shards),
        ("inboxes", settings.inboxes),
        ("capacity", settings.capacity),
    ] {
        if value == 0 {
            faults.push(format!("{key}: must be 1 or more, not 0"));
        }
    }
    let database = &settings.database;
    let odd = |c: char| c.is_control() || " /\\.\"$*<>:|?".contains(c);
    if database.is_empty() || database.len() > DATABASE_BYTES_MAX || database.contains(odd) {
        faults.push(format!(
            "database: must be 1 to {DATABASE_BYTES_MAX} bytes without spaces and without any of \
             /\\.\"$*<>:|?, not {}",
            quoted(database)
        ));
    }
    let prefix = &settings.topic_prefix;
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX || !prefix.chars().all(fits) {
        faults.push(format!(
            "topic_prefix: must be 1 to {PREFIX_BYTES_MAX} of the letters A to Z and a to z, digits and \
             ._-, not {}",
            quoted(prefix)
        ));
    }
    for role in &settings.roles {
        if let Some(fault) = fault_of_role(role) {
            faults.push(format!("roles: {} {fault}", quoted(role)));
        }
    }
    for (at, flag) in settings.exec.iter().enumerate() {
        let (role, line) = match role_and_command(flag) {
            Some((role, line)) => (format!("role {}", quoted(role)), line),
            None => (format!("command {}", at + 1), flag.as_str()),
        };
        // Whether the program is there is asked by who runs it.
        if let Err(error) = Exec::parse(line) {
            faults.push(format!("exec: {role}: {error}"));
        }
    }
    let brokers = &settings.kafka_bootstrap;
    if !brokers.is_empty() && !brokers.split(',').all(|broker| is_address(broker.trim())) {
        faults.push(format!(
            "kafka_bootstrap: must be HOST:PORT, or several joined by commas, such as 127.0.0.1:9092, not {}",
            quoted(brokers)
        ));
    }
    let uri = &settings.mongo_uri;
    let schemes = ["mongodb://", "mongodb+srv://"];
    let rest = schemes.iter().find_map(|scheme| uri.strip_prefix(scheme));
    if !uri.is_empty() && rest.is_none_or(str::is_empty) {
        // The value stays unsaid: it may hold a password.
        faults.push(
            "mongo_uri: must begin with mongodb:// or mongodb+srv://, such as \
             mongodb://127.0.0.1:27017/?replicaSet=rs0"
                .to_owned(),
        );
    }
    let id = &settings.worker_id;
    if !id.is_empty()
        && let Err(error) = WorkerId::new(id)
    {
        faults.push(format!(
            "worker_id: {} {error}; leave it out for a generated one",
            quoted(id)
        ));
    }
    let listen = &settings.health_listen;
    if !listen.is_empty() && listen.parse::<SocketAddr>().is_err() {
        faults.push(format!(
            "health_listen: must be IP:PORT, such as 127.0.0.1:9600, not {}",
            quoted(listen)
        ));
    }
    let traces = &settings.otlp_endpoint;
    if !traces.is_empty() && !is_collector(traces) {
        // The value stays unsaid: somebody may have put a password into it.
        faults.push(
            "otlp_endpoint: must be http://HOST:PORT without a user, such as http://127.0.0.1:4318"
                .to_owned(),
        );
    }
}

/// What is wrong with a role, if anything is. Workers join their roles by commas to announce them.
fn fault_of_role(role: &str) -> Option<String> {
    match Role::new(role) {
        Err(error) => Some(format!("{error}; name a type of nodes, such as `ocr`")),
        Ok(_) if role.contains(',') => {
            Some("must not hold a comma; give each role by itself".to_owned())
        }
        Ok(_) => None,
    }
}

/// `HOST:PORT`. Whether there is such a host, the client of the servers finds out.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let odd = |c: char| c.is_whitespace() || c.is_control();
        !host.is_empty() && !host.contains(odd) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn quoted(text: &str) -> String {
    format!("`{}`", brief(&text.escape_debug().to_string()))
}

/// Looks like `http://HOST:PORT`, maybe with a path; what is more, the exporter judges.
fn is_collector(url: &str) -> bool {
    url.strip_prefix("http://").is_some_and(|rest| {
        let host = rest.split('/').next().unwrap_or_default();
        let odd = |c: char| c == '@' || c.is_whitespace() || c.is_control();
        !host.is_empty() && !host.starts_with(':') && !rest.contains(odd)
    })
}
