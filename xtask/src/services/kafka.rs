//! Apache Kafka: one node without ZooKeeper, its jars by Maven coordinates.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::install;
use super::process::{Process, connect, free_port};
use super::service::Service;
use crate::run::{Outcome, output, step};

const VERSION: &str = "4.3.0";

/// One Kafka in a folder of its own, and where its jars are.
pub(crate) struct Kafka {
    process: Process,
    jars: PathBuf,
    /// More listeners, for clients behind proxies.
    listeners: u16,
}

impl Kafka {
    pub(crate) fn new(downloads: &Path, services: &Path, listeners: u16) -> Self {
        Self {
            process: Process::new(services, "kafka"),
            jars: downloads.join("jars"),
            listeners,
        }
    }

    fn config(&self) -> PathBuf {
        self.process.folder().join("server.properties")
    }

    fn java(&self) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xmx384m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
        java.arg("-Dorg.slf4j.simpleLogger.showDateTime=true");
        java.arg("-cp").arg(self.jars.join("libs/*"));
        java
    }
}

impl Service for Kafka {
    fn variable(&self) -> &'static str {
        super::KAFKA
    }

    fn process(&self) -> &Process {
        &self.process
    }

    fn address_at(&self, port: u16) -> String {
        format!("127.0.0.1:{port}")
    }

    fn fetch(&self) -> Outcome {
        install::java()?;
        let (pom, libs) = (self.jars.join("pom.xml"), self.jars.join("libs"));
        // Written last, and with all that was fetched: neither half a download nor that of
        // another version counts.
        let done = self.jars.join("fetched");
        if fs::read_to_string(&done).is_ok_and(|text| text == pom_xml()) {
            return Ok(());
        }
        install::program("mvn", &["--version"], &["maven"])?;
        let failed = |e: std::io::Error| format!("{}: {e}", self.jars.display());
        if libs.exists() {
            fs::remove_dir_all(&libs).map_err(failed)?;
        }
        fs::create_dir_all(&self.jars).map_err(failed)?;
        fs::write(&pom, pom_xml()).map_err(failed)?;
        let mut mvn = Command::new("mvn");
        mvn.args(["-q", "-B", "-f"]).arg(&pom);
        mvn.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
        mvn.arg(format!("-DoutputDirectory={}", libs.display()));
        step("Kafka's jars (about 54 MB)", &mut mvn)?;
        fs::write(done, pom_xml()).map_err(failed)
    }

    fn create(&self, port: u16) -> Outcome {
        let mut taken = BTreeSet::from([port]);
        let mut another = || loop {
            let port = free_port()?;
            if taken.insert(port) {
                return Ok::<u16, String>(port);
            }
        };
        let controller = another()?;
        let mut more: Vec<(u16, u16)> = Vec::new();
        for _ in 0..self.listeners {
            more.push((another()?, another()?));
        }
        let lines = more.iter().map(|(at, told)| format!("{at} {told}\n"));
        let listeners = self.process.folder().join("listeners");
        fs::write(&listeners, lines.collect::<String>())
            .map_err(|e| format!("{}: {e}", listeners.display()))?;
        let config = self.config();
        let text = properties(self.process.folder(), port, controller, &more);
        fs::write(&config, text).map_err(|e| format!("{}: {e}", config.display()))?;
        println!("kafka: formatting its storage");
        let id = output(self.java().args(["kafka.tools.StorageTool", "random-uuid"]))?;
        let id = id.lines().last().unwrap_or_default().trim().to_owned();
        let mut format = self.java();
        format
            .args(["kafka.tools.StorageTool", "format", "-t", &id, "-c"])
            .arg(&config);
        output(&mut format).map(|_| ())
    }

    fn command(&self, _port: u16) -> Command {
        let mut java = self.java();
        java.arg("kafka.Kafka").arg(self.config());
        java
    }

    fn wait_ready(&self, port: u16) -> Outcome {
        self.process.wait_until(|| brokers(port).unwrap_or(0) > 0)
    }
}

/// How many brokers Kafka names. It listens before the controller trusts the broker; until then
/// it names none, and refuses topics.
fn brokers(port: u16) -> std::io::Result<u32> {
    let mut stream = connect(port)?;
    stream.write_all(&METADATA_REQUEST)?;
    // Length, our correlation number, then how many brokers.
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    let [.., a, b, c, d] = answer;
    Ok(u32::from_be_bytes([a, b, c, d]))
}

/// Metadata, version 1, about no topics: so small that no client library is worth its build.
#[rustfmt::skip]
const METADATA_REQUEST: [u8; 18] = [
    0, 0, 0, 14, // length of the rest
    0, 3, 0, 1, // Metadata, version 1
    0, 0, 0, 7, // correlation number
    0xff, 0xff, // no client id
    0, 0, 0, 0, // no topics
];

fn pom_xml() -> String {
    let dependency = |artifact: &str, group: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        )
    };
    let dependencies = [
        dependency("kafka_2.13", "org.apache.kafka", VERSION),
        dependency("kafka-tools", "org.apache.kafka", VERSION),
        // Without it Kafka fails in silence.
        dependency("slf4j-simple", "org.slf4j", "1.7.36"),
    ];
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>flowkit</groupId><artifactId>services</artifactId><version>1</version>\
         <packaging>pom</packaging><dependencies>{}</dependencies></project>\n",
        dependencies.concat()
    )
}

/// What the server is told; `more` listeners each with the port that clients are told.
fn properties(folder: &Path, port: u16, controller: u16, more: &[(u16, u16)]) -> String {
    let data = folder.join("data");
    let data = data.display();
    let named = |n: usize, port: u16| format!(",PROXIED{n}://127.0.0.1:{port}");
    let listeners = more.iter().enumerate();
    let listeners: String = listeners.map(|(n, (at, _))| named(n, *at)).collect();
    let told = more.iter().enumerate();
    let told: String = told.map(|(n, (_, told))| named(n, *told)).collect();
    let plain = (0..more.len()).map(|n| format!(",PROXIED{n}:PLAINTEXT"));
    let plain: String = plain.collect();
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{told}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{plain}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
# After kill -9 the controller waits for the old session: not for long. Many heartbeats fit into
# one session, so that a busy machine does not lose it.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_listens_on_this_machine_alone() {
        let text = properties(Path::new("/x"), 1, 2, &[(3, 4)]);
        assert!(text.contains("PROXIED0://127.0.0.1:3\n"), "{text}");
        assert!(text.contains("PROXIED0://127.0.0.1:4\n"), "{text}");
        let mut listeners = text.lines().filter(|line| line.contains("listeners="));
        assert!(listeners.all(|line| line.contains("127.0.0.1")), "{text}");
        assert!(text.contains("\nlog.dirs=/x/data\n"), "{text}");
        assert!(pom_xml().contains("kafka_2.13</artifactId><version>4"));
    }

    #[test]
    fn the_request_says_its_own_length() {
        let [a, b, c, d, rest @ ..] = METADATA_REQUEST;
        assert_eq!(u32::from_be_bytes([a, b, c, d]) as usize, rest.len());
    }
}
