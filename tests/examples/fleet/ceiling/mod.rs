//! The ceiling: the messages and the transactions of a measured run, in the same numbers and sizes,
//! through the same Kafka and MongoDB at once, without the engine.

mod kafka;
mod mongo;

use std::time::Instant;

use crate::Outcome;
use crate::census::Census;
use crate::cpu::Cpu;
use crate::deployment::Deployment;

/// Nodes per second, if nothing but the servers and their clients had to work.
#[derive(Debug)]
pub(crate) struct Ceiling {
    /// Both at once.
    pub(crate) nodes_per_s: f64,
    /// When each was through, the other one beside it or done before.
    pub(crate) kafka_nodes_per_s: f64,
    pub(crate) mongo_nodes_per_s: f64,
    pub(crate) cpu_us_per_node: Vec<(&'static str, f64)>,
}

pub(crate) async fn measure(
    deployment: &Deployment,
    census: &Census,
    nodes: u64,
) -> Outcome<Ceiling> {
    // The collections with their indexes, as the engine has them.
    drop(deployment.engine().await?);
    let kafka = kafka::Run::prepare(deployment, census, nodes).await?;
    let mongo = mongo::Run::prepare(deployment, census, nodes).await?;
    let mut cpu = Cpu::default();
    cpu.watch_server("kafka", &deployment.servers.kafka);
    cpu.watch_server("mongodb", &deployment.servers.mongo);
    let (mark, started) = (cpu.mark(), Instant::now());
    let rate = || nodes as f64 / started.elapsed().as_secs_f64();
    let kafka = async { kafka.run().await.map(|()| rate()) };
    let mongo = async { mongo.run().await.map(|()| rate()) };
    let (kafka_nodes_per_s, mongo_nodes_per_s) = tokio::try_join!(kafka, mongo)?;
    let us = 1_000_000.0 * started.elapsed().as_secs_f64() / nodes as f64;
    let cores = cpu.cores_since(&mark).into_iter();
    Ok(Ceiling {
        cpu_us_per_node: cores.map(|(part, cores)| (part, cores * us)).collect(),
        nodes_per_s: kafka_nodes_per_s.min(mongo_nodes_per_s),
        kafka_nodes_per_s,
        mongo_nodes_per_s,
    })
}

/// Spreads a mean that is no whole number over many repeats.
#[derive(Clone, Copy, Debug)]
struct Share {
    each: f64,
    left: f64,
}

impl Share {
    fn of(each: f64) -> Self {
        Self { each, left: 0.0 }
    }

    fn next(&mut self) -> usize {
        self.left += self.each;
        let whole = self.left.floor();
        self.left -= whole;
        whole as usize
    }
}
