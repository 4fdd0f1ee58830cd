//! Settings of processes: defaults, then a file, then the environment, then what code or flags say.
//! Every fault is listed at once, with its key, where it stands and the cure.
//!
//! `docs/guide/settings.md` lists the keys.

use flowkit_runtime::{CoordinatorSettings, WorkerSettings};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

mod check;
mod strict;

use strict::Strict;

/// Where the servers are, and who this process is. Its debug text leaves out what may be secret.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FleetSettings {
    /// `host:port` of Kafka brokers, joined by commas.
    pub kafka_bootstrap: String,
    /// URI of MongoDB. It may hold a password: never shown.
    pub mongo_uri: String,
    /// MongoDB database.
    pub database: String,
    /// Prefix of the topics.
    pub topic_prefix: String,
    /// Shards, used when the deployment is created.
    pub shards: u32,
    /// Inbox partitions, used when the deployment is created.
    pub inboxes: u32,
    /// Properties for the Kafka client (TLS, SASL), passed on as they are.
    pub kafka_properties: BTreeMap<String, String>,
    /// Roles of a worker.
    pub roles: Vec<String>,
    /// Programs that run roles, as `ROLE=COMMAND`; a worker of one role leaves `ROLE=` out.
    pub exec: Vec<String>,
    /// Id of a worker; generated if empty.
    pub worker_id: String,
    /// Nodes that a worker runs at once.
    pub capacity: u32,
    /// Where health and metrics are served over HTTP, as `IP:PORT`; nowhere if empty.
    pub health_listen: String,
    /// OpenTelemetry collector that traces are sent to, `http://HOST:PORT`; none if empty.
    pub otlp_endpoint: String,
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            kafka_bootstrap: String::new(),
            mongo_uri: String::new(),
            database: "flowkit".to_owned(),
            topic_prefix: "flowkit".to_owned(),
            shards: 1,
            inboxes: 16,
            kafka_properties: BTreeMap::new(),
            roles: Vec::new(),
            exec: Vec::new(),
            worker_id: String::new(),
            capacity: 1,
            health_listen: String::new(),
            otlp_endpoint: String::new(),
        }
    }
}

/// What was given, by key: the value, and where it stands. What is given later wins.
///
/// ```
/// use flowkit::settings::Given;
/// use serde_json::json;
///
/// let mut given = Given::default();
/// given.text("worker.toml".as_ref(), "capacity = 2\nhb_interval_sec = 5").unwrap();
/// given.environment(std::env::vars());
/// given.set("roles", json!(["processor"]));
/// let settings = given.settings().unwrap();
/// assert_eq!(settings.fleet.roles, ["processor"]);
/// ```
#[derive(Default)]
pub struct Given(BTreeMap<String, (Value, String)>);

impl fmt::Debug for FleetSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = keys_of(self);
        let shown = keys.iter().map(|(key, value)| (key, shown(key, value)));
        f.debug_map().entries(shown).finish()
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self
            .0
            .iter()
            .map(|(key, (value, from))| (key, (shown(key, value), from)));
        f.debug_map().entries(shown).finish()
    }
}

/// All settings of a process.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where the servers are, and who this process is.
    pub fleet: FleetSettings,
    /// If it is a worker.
    pub worker: WorkerSettings,
    /// If it is a coordinator.
    pub coordinator: CoordinatorSettings,
}

impl Settings {
    /// The settings of a JSON or TOML file, the environment of the process over them, and
    /// `overrides` over both.
    ///
    /// ```no_run
    /// use flowkit::settings::Settings;
    /// use serde_json::json;
    ///
    /// let settings = Settings::load("configs/worker.json", [("roles", json!(["processor"]))])?;
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    /// The file cannot be read; or every fault at once, a line each.
    pub fn load<'a>(
        path: impl AsRef<Path>,
        overrides: impl IntoIterator<Item = (&'a str, Value)>,
    ) -> Result<Self, String> {
        let mut given = Given::default();
        given.file(path.as_ref())?;
        // A name or value that is no text is none of ours.
        let variables = std::env::vars_os();
        given.environment(
            variables.filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))),
        );
        for (key, value) in overrides {
            given.set(key, value);
        }
        given.settings()
    }
}

impl Given {
    /// Reads a JSON or TOML file; the ending says which.
    ///
    /// # Errors
    /// One sentence: it cannot be read, or it is neither.
    pub fn file(&mut self, path: &Path) -> Result<(), String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|e| format!("cannot read the settings {shown}: {e}"))?;
        self.text(path, &text)
    }

    /// Takes the text of a file; the ending of its path says whether it is JSON or TOML.
    ///
    /// # Errors
    /// One sentence: it is neither.
    pub fn text(&mut self, path: &Path, text: &str) -> Result<(), String> {
        let shown = path.display();
        let is_toml = path.extension().is_some_and(|end| end == "toml");
        let values: Map<String, Value> = if is_toml {
            // The error's own text shows the line, which may hold a password.
            toml::from_str(text).map_err(|e| {
                let (line, column) = place(text, e.span().map_or(0, |span| span.start));
                let why = e.message();
                format!("{shown} is not TOML: {why} at line {line} column {column}")
            })?
        } else {
            let value = serde_json::from_str(text);
            match value.map_err(|e| format!("{shown} cannot be read as JSON: {e}"))? {
                Strict(Value::Object(values)) => values,
                _ => return Err(format!("{shown} is no JSON object: write {{…}} around it")),
            }
        };
        let known = known_keys();
        for (key, value) in values {
            // In JSON `null` is how to say "not given". TOML has none: there it was NaN.
            if is_toml || !value.is_null() || !known.contains_key(&key) {
                self.0.insert(key, (value, shown.to_string()));
            }
        }
        Ok(())
    }

    /// Takes `FLOWKIT_` + the key in capitals, and the addresses that `FLOWKIT_KAFKA` and
    /// `FLOWKIT_MONGO` give. Another variable that begins so is a fault, as it may be misspelt; but
    /// not those of FlowKit's own tests, and those by which Kubernetes tells of a service.
    pub fn environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        let known = known_keys();
        for (name, text) in variables {
            let key = match name.as_str() {
                "FLOWKIT_KAFKA" => "kafka_bootstrap".to_owned(),
                "FLOWKIT_MONGO" => "mongo_uri".to_owned(),
                name => match name.strip_prefix("FLOWKIT_") {
                    Some(key) => key.to_lowercase(),
                    None => continue,
                },
            };
            match known.get(&key) {
                Some(default) => {
                    self.0.insert(key, (parsed(default, &text), name));
                }
                None if is_of_others(&name) => {}
                // Its value is not kept: it may be a secret.
                None => {
                    self.0.insert(key, (Value::Null, name));
                }
            }
        }
    }

    /// Where the value of a key was given: a file, a variable, a flag, `set in code`; `None` if it was not.
    #[must_use]
    pub fn place(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|(_, from)| from.as_str())
    }

    /// Something was given for a key.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Sets a value in code.
    pub fn set(&mut self, key: &str, value: Value) {
        self.flag(key, "set in code", Some(value));
    }

    /// Sets a value given as a flag.
    pub fn flag(&mut self, key: &str, flag: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), (value, flag.to_owned()));
        }
    }

    /// All settings.
    ///
    /// # Errors
    /// Every fault at once, a line each.
    pub fn settings(self) -> Result<Settings, String> {
        let mut faults = Vec::new();
        let known = known_keys();
        for (key, (_, from)) in &self.0 {
            if !known.contains_key(key) {
                let cure = match nearest(key, known.keys()) {
                    Some(near) if from.starts_with("FLOWKIT_") => {
                        format!("did you mean FLOWKIT_{}?", near.to_uppercase())
                    }
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "take it out; docs/guide/settings.md lists them".to_owned(),
                };
                let (key, from) = (brief(key), brief(from));
                faults.push(format!("{key} ({from}): no such setting; {cure}"));
            }
        }
        let fleet = self.part(&mut faults);
        let coordinator = self.part(&mut faults);
        let settings = Settings {
            fleet,
            worker: self.part(&mut faults),
            coordinator,
        };
        let mut impossible = Vec::new();
        check::fleet(&settings.fleet, &mut impossible);
        settings.worker.faults(&mut impossible);
        settings.coordinator.faults(&mut impossible);
        // A key that both have has one fault.
        let mut told = BTreeSet::new();
        impossible.retain(|fault| told.insert(fault.clone()));
        faults.extend(impossible.into_iter().map(|fault| self.placed(&fault)));
        match faults.len() {
            0 => return Ok(settings),
            1 => faults.insert(0, "1 fault in the settings:".to_owned()),
            n => faults.insert(0, format!("{n} faults in the settings:")),
        }
        Err(faults.join("\n  - "))
    }

    /// `key: what is wrong`, with the place where the key's value stands.
    fn placed(&self, fault: &str) -> String {
        let Some((key, what)) = fault.split_once(": ") else {
            return fault.to_owned();
        };
        let from = self.0.get(key).map_or("the default", |(_, from)| from);
        format!("{key} ({}): {what}", brief(from))
    }

    /// The settings of one part; a value of the wrong type is a fault and stays at its default.
    fn part<T: Default + Serialize + DeserializeOwned>(&self, faults: &mut Vec<String>) -> T {
        let mut whole = keys_of(&T::default());
        for (key, default) in whole.clone() {
            let Some((value, from)) = self.0.get(&key) else {
                continue;
            };
            let place = format!("{key} ({from}): ");
            // Another part has this key, too.
            if faults.iter().any(|fault| fault.starts_with(&place)) {
                continue;
            }
            let alone = json!({ key.as_str(): value });
            match serde_json::from_value::<T>(alone) {
                Ok(_) => {
                    whole.insert(key, value.clone());
                }
                // What was found stands in the error's own words, too.
                Err(_) if is_secret(&key) => faults.push(format!(
                    "{key} ({from}): its value does not fit: it must be such as {default}"
                )),
                Err(error) => faults.push(format!(
                    "{key} ({from}): {} does not fit: {}; such as {default}",
                    brief(&value.to_string()),
                    brief(&error.to_string())
                )),
            }
        }
        serde_json::from_value(Value::Object(whole)).unwrap_or_default()
    }
}

/// Role and command of `ROLE=COMMAND`, an item of `exec`; `None` if it is a command alone. The first word
/// decides: no program is named so.
#[must_use]
pub fn role_and_command(item: &str) -> Option<(&str, &str)> {
    let (role, line) = item.split_once('=')?;
    let is_name =
        !role.is_empty() && !role.contains(|c: char| c.is_whitespace() || c == '\'' || c == '"');
    is_name.then_some((role, line))
}

/// The beginning of what was given, if it is long.
fn brief(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Line and column of a byte, from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let column = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, column.chars().count() + 1)
}

/// A value for a debug text. Keys that nobody knows may be misspelt secrets.
fn shown(key: &str, value: &Value) -> Value {
    if is_secret(key) || !known_keys().contains_key(key) {
        return Value::from("(not shown)");
    }
    value.clone()
}

fn is_secret(key: &str) -> bool {
    // An endpoint with a password in it is refused, but it may stand there. What a program is called with is
    // the user's business, and may be a token.
    matches!(
        key,
        "mongo_uri" | "kafka_properties" | "otlp_endpoint" | "exec"
    )
}

fn keys_of<T: Serialize>(settings: &T) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(keys)) => keys,
        _ => Map::new(),
    }
}

/// Every key with its default.
fn known_keys() -> Map<String, Value> {
    let mut keys = keys_of(&FleetSettings::default());
    keys.extend(keys_of(&WorkerSettings::default()));
    keys.extend(keys_of(&CoordinatorSettings::default()));
    keys
}

/// A variable's text as the type that the key has.
fn parsed(default: &Value, text: &str) -> Value {
    match default {
        Value::String(_) => Value::from(text),
        Value::Array(_) if !text.trim_start().starts_with('[') => {
            let items = text.split(',').map(str::trim);
            items.filter(|item| !item.is_empty()).collect()
        }
        _ => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
    }
}

/// The known key that an unknown one was probably meant to be.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a String> + Clone) -> Option<&'a String> {
    if key.len() > 100 {
        return None;
    }
    let by_slips = known.clone().map(|other| (slips(key, other), other));
    let begun = |other: &&String| {
        let pairs = key.chars().zip(other.chars());
        pairs.take_while(|(a, b)| a == b).count()
    };
    let near = by_slips
        .min()
        .filter(|(slips, _)| *slips <= 2.max(key.len() / 4))
        .map(|(_, near)| near);
    near.or_else(|| known.max_by_key(begun).filter(|other| begun(other) >= 3))
}

/// How many letters must be put in, taken out or changed to make one text of the other.
fn slips(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Variables that begin like ours and are none: those of FlowKit's tests and of its simulator, and those
/// by which Kubernetes tells every process of a service with such a name.
fn is_of_others(name: &str) -> bool {
    const TESTS: [&str; 5] = [
        "FLOWKIT_CRASH_SEED",
        "FLOWKIT_FIDELITY_",
        "FLOWKIT_OF_ITS_OWN",
        "FLOWKIT_SIM_SEED",
        "FLOWKIT_TEST_",
    ];
    TESTS.iter().any(|test| name.starts_with(test))
        || name.ends_with("_PORT")
        || ["_PORT_", "_SERVICE_HOST", "_SERVICE_PORT"]
            .iter()
            .any(|part| name.contains(part))
}

#[cfg(test)]
mod tests;
