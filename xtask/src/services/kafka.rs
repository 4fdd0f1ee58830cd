//! Apache Kafka: one node without ZooKeeper, its jars by Maven coordinates.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::install;
use super::process::{Server, free_port};
use crate::run::{Outcome, output, step};

const VERSION: &str = "4.3.0";

/// The server, and where its jars are.
pub(crate) struct Kafka {
    server: Server,
    jars: PathBuf,
}

impl Kafka {
    pub(crate) fn new(services: &Path) -> Self {
        Self {
            server: Server::new(services, "kafka"),
            jars: services.join("jars"),
        }
    }

    /// `host:port`, if it runs.
    pub(crate) fn running(&self) -> Option<String> {
        self.server.port().map(|port| format!("127.0.0.1:{port}"))
    }

    pub(crate) fn up(&self, started: &mut bool) -> Outcome<String> {
        if let Some(address) = self.running() {
            return Ok(address);
        }
        self.fetch()?;
        self.server.down()?;
        *started = true;
        let folder = self.server.folder().to_owned();
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let (port, controller) = (free_port()?, free_port()?);
        let config = folder.join("server.properties");
        let text = properties(&folder, port, controller);
        fs::write(&config, text).map_err(|e| format!("{}: {e}", config.display()))?;
        let id = output(self.java().args(["kafka.tools.StorageTool", "random-uuid"]))?;
        let id = id.lines().last().unwrap_or_default().trim().to_owned();
        let mut format = self.java();
        format
            .args(["kafka.tools.StorageTool", "format", "-t", &id, "-c"])
            .arg(&config);
        output(&mut format)?;
        println!("kafka: starting on port {port}");
        let mut java = Command::new("java");
        java.args(["-Xmx384m", "-cp"]).arg(self.class_path());
        java.arg("kafka.Kafka").arg(&config);
        self.server.start(&mut java, port)?;
        Ok(format!("127.0.0.1:{port}"))
    }

    pub(crate) fn down(&self) -> Outcome {
        self.server.down()
    }

    fn class_path(&self) -> PathBuf {
        self.jars.join("libs/*")
    }

    fn java(&self) -> Command {
        let mut java = Command::new("java");
        java.arg("-cp").arg(self.class_path());
        java
    }

    /// Fetches the jars, once.
    fn fetch(&self) -> Outcome {
        install::program("java", &["-version"], &["openjdk-17-jre-headless"])?;
        let done = self.jars.join(VERSION);
        if done.exists() {
            return Ok(());
        }
        install::program("mvn", &["--version"], &["maven"])?;
        let failed = |e: std::io::Error| format!("{}: {e}", self.jars.display());
        fs::create_dir_all(&self.jars).map_err(failed)?;
        let pom = self.jars.join("pom.xml");
        fs::write(&pom, pom_xml()).map_err(failed)?;
        let mut mvn = Command::new("mvn");
        mvn.args(["-q", "-B", "-f"]).arg(&pom);
        mvn.args([
            "dependency:copy-dependencies",
            "-DoutputDirectory=libs",
            "-DincludeScope=runtime",
        ]);
        step("Kafka's jars (about 54 MB)", &mut mvn)?;
        fs::write(done, "").map_err(failed)
    }
}

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
        dependency("slf4j-nop", "org.slf4j", "1.7.36"),
    ];
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>flowkit</groupId><artifactId>services</artifactId><version>1</version>\
         <packaging>pom</packaging><dependencies>{}</dependencies></project>\n",
        dependencies.concat()
    )
}

fn properties(folder: &Path, port: u16, controller: u16) -> String {
    let data = folder.join("data");
    let data = data.display();
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
# After kill -9 the controller waits for the old session: not for long.
broker.session.timeout.ms=3000
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_listens_on_this_machine_alone() {
        let text = properties(Path::new("/x"), 1, 2);
        let mut listeners = text.lines().filter(|line| line.contains("listeners="));
        assert!(listeners.all(|line| line.contains("127.0.0.1")), "{text}");
        assert!(pom_xml().contains("kafka_2.13</artifactId><version>4"));
    }
}
