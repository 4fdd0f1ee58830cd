//! The command line of `flowkit`: what can be typed, and the help that teaches it.

use clap::{Args, Parser, Subcommand};
use flowkit_sim::runner::Tier;
use std::num::NonZeroU32;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  flowkit demo                          count lines, words and bytes below this folder
  flowkit demo ~/src --data /tmp/count  the same, and what is done survives kill -9:
                                        type it again and it goes on where it was
  flowkit run graph.json --data state   run a graph of your own with the built-in roles
  flowkit task list --data state        what the folder holds

Exit codes: 0 finished, 1 task failed or cancelled, 2 bad usage or input, 130 interrupted.";

const DEMO_HELP: &str = "\
The graph is `scan -> measure -> summarize`: `scan` walks the folder, `measure` starts with its
first batch and counts, `summarize` adds up. Every regular file counts, hidden ones too; links are
not followed and the data folder is left out. Lines are newline bytes, words are runs of bytes
other than ASCII white space, bytes are sizes. What cannot be read is counted as unreadable.

Examples:
  flowkit demo
  flowkit demo /usr/include --json
  flowkit demo /usr --data /tmp/usr     stop it with Ctrl-C or kill -9, type it again: it goes on";

const FLEET_HELP: &str = "\
The servers come from the flags, else from the environment (FLOWKIT_KAFKA, FLOWKIT_MONGO, and
FLOWKIT_ + any setting's key in capitals), else from --config FILE (JSON or TOML, the same keys).

Examples:
  export FLOWKIT_KAFKA=127.0.0.1:9092 FLOWKIT_MONGO='mongodb://127.0.0.1/?replicaSet=rs0'
  flowkit coordinator &
  flowkit worker --role echo --role sleep --capacity 4 &
  flowkit submit graph.json --watch --idempotency-key monday
  flowkit worker list

Needs a build with the adapters: cargo build --release --features fleet";

const RUN_HELP: &str = "\
Built-in roles (a node's `type`) and their `io.input_inline`:
  scan       {dir, exclude?, batch_size?}  paths of the files below a folder; relative to where you are
  measure    (reads a scan: pull.from_artifacts.rechunk:size, meta_list_key \"entries\")
  summarize  (reads a measure: pull.from_artifacts)
  echo       anything; each batch becomes its artifact
  sleep      {ms, batches?}
  fail       {times?, permanent?, panic?, reason_code?, error?}

Example graph:
  {\"nodes\": [
    {\"node_id\": \"wait\", \"type\": \"sleep\", \"io\": {\"input_inline\": {\"ms\": 500}}},
    {\"node_id\": \"say\", \"type\": \"echo\", \"depends_on\": [\"wait\"],
     \"io\": {\"input_inline\": {\"text\": \"done\"}}}]}

With --data the same command continues the file's unfinished task; a changed file is a new task.";

/// Durable task graphs: on one machine, or on many over Kafka and MongoDB.
#[derive(Debug, Parser)]
#[command(name = "flowkit", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Count lines, words and bytes of every file below a folder, durably.
    #[command(after_help = DEMO_HELP)]
    Demo(DemoArgs),
    /// Run a graph file with the built-in roles.
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Look at graph files.
    #[command(subcommand)]
    Graph(GraphCommand),
    /// Look at the tasks of a data folder or a deployment, cancel one or run one again.
    #[command(subcommand)]
    Task(TaskCommand),
    /// Run a coordinator of a deployment over Kafka and MongoDB.
    #[command(after_help = FLEET_HELP)]
    Coordinator(CoordinatorArgs),
    /// Run a worker of a deployment over Kafka and MongoDB, or list the workers.
    #[command(after_help = FLEET_HELP)]
    Worker(WorkerArgs),
    /// Submit a graph file to a deployment over Kafka and MongoDB.
    #[command(after_help = FLEET_HELP)]
    Submit(SubmitArgs),
    /// Run the simulator: the engine under injected faults.
    #[command(subcommand)]
    Sim(SimCommand),
}

/// Where state lives.
#[derive(Args, Clone, Debug)]
pub(crate) struct DataArgs {
    /// Folder for the engine's state; made if absent. Without it state goes to a temporary folder
    /// and is gone at the end.
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Workers; each runs one node at a time. Default: one per core, at least 2.
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<NonZeroU32>,
}

/// Where a deployment's servers are.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct FleetArgs {
    /// Kafka brokers as HOST:PORT, joined by commas.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) kafka: Option<String>,
    /// URI of MongoDB, a replica set or a sharded cluster.
    #[arg(long, value_name = "URI")]
    pub(crate) mongo: Option<String>,
    /// MongoDB database; default `flowkit`.
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Prefix of the topics; default `flowkit`.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) topic_prefix: Option<String>,
    /// Shards of the deployment, fixed when it is created; default 1.
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<NonZeroU32>,
    /// Settings as a JSON or TOML file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// `flowkit coordinator`.
#[derive(Args, Debug)]
pub(crate) struct CoordinatorArgs {
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
}

/// `flowkit worker`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct WorkerArgs {
    #[command(subcommand)]
    pub(crate) command: Option<WorkerCommand>,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
    /// A built-in role to run; may be repeated.
    #[arg(long = "role", value_name = "NAME")]
    pub(crate) roles: Vec<String>,
    /// The worker's id: a restart under the same id goes on at once. Default: generated.
    #[arg(long, value_name = "ID")]
    pub(crate) worker_id: Option<String>,
    /// Nodes to run at once; default 1.
    #[arg(long, value_name = "N")]
    pub(crate) capacity: Option<NonZeroU32>,
}

/// `flowkit worker …`.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// List every worker that ever registered, and what each runs now.
    List {
        #[command(flatten)]
        fleet: FleetArgs,
        /// Print one JSON object on standard output instead of a table.
        #[arg(long)]
        json: bool,
    },
}

/// `flowkit submit`.
#[derive(Args, Debug)]
pub(crate) struct SubmitArgs {
    /// The graph file (JSON).
    #[arg(value_name = "GRAPH.json")]
    pub(crate) graph: PathBuf,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
    /// Follow the task to its end; exit code 1 if it does not finish well.
    #[arg(long)]
    pub(crate) watch: bool,
    /// The same key with the same graph is the same task, however often it is submitted.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Print one JSON object on standard output instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `flowkit demo`.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Folder to walk.
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
    /// Print one JSON object on standard output instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `flowkit run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The graph file (JSON).
    #[arg(value_name = "GRAPH.json")]
    pub(crate) graph: PathBuf,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Print one JSON object on standard output instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `flowkit graph …`.
#[derive(Debug, Subcommand)]
pub(crate) enum GraphCommand {
    /// Check a graph file and list every fault, each with its place and cure.
    Check {
        /// The graph file (JSON).
        file: PathBuf,
        /// Print one JSON object on standard output.
        #[arg(long)]
        json: bool,
    },
}

/// `flowkit task …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// List the tasks, oldest first.
    List(TaskArgs),
    /// Show one task: its nodes, what they did, and why it failed if it did.
    Show {
        /// The task's id, as `task list` shows it.
        id: String,
        #[command(flatten)]
        task: TaskArgs,
    },
    /// Cancel a task. It never runs again; what its batches gave stays.
    Cancel {
        /// The task's id, as `task list` shows it.
        id: String,
        #[command(flatten)]
        task: TaskArgs,
    },
    /// Run a task that has ended again, as a new task that keeps the nodes that finished.
    Rerun(RerunArgs),
}

/// `flowkit task rerun`.
#[derive(Args, Debug)]
pub(crate) struct RerunArgs {
    /// The task's id, as `task list` shows it. It must have ended.
    pub(crate) id: String,
    /// Run this node again although it finished, and everything below it; may be repeated.
    #[arg(long, value_name = "NODE", conflicts_with = "all")]
    pub(crate) from: Vec<String>,
    /// Run every node again; nothing is kept.
    #[arg(long)]
    pub(crate) all: bool,
    /// Follow the new task to its end; exit code 1 if it does not finish well. (In a data folder
    /// this command runs it, so it always follows.)
    #[arg(long)]
    pub(crate) watch: bool,
    /// The same key with the same nodes is the same rerun, however often it is asked for.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
}

/// What every `flowkit task` command takes.
#[derive(Args, Debug)]
pub(crate) struct TaskArgs {
    /// The data folder of an earlier `demo` or `run`; without it, a deployment's servers.
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
    /// Print one JSON object on standard output instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which plan.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct PlanArgs {
    /// The plan of a seed.
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// The plan of a file (JSON), as failures leave it.
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
}

fn tier(text: &str) -> Result<Tier, String> {
    match text {
        "0" => Ok(Tier::Zero),
        "1" => Ok(Tier::One),
        _ => Err("there are tiers 0 and 1".to_owned()),
    }
}

/// `flowkit sim …`.
#[derive(Debug, Subcommand)]
pub(crate) enum SimCommand {
    /// Run seeds; exit code 1 and a replay line on a broken promise.
    Run {
        /// 0 = the machines, exact in time and fastest; 1 = whole processes on a simulated network.
        #[arg(long, value_name = "0|1", value_parser = tier, default_value = "0")]
        tier: Tier,
        /// How many seeds.
        #[arg(long, value_name = "N", required_unless_present = "minutes")]
        seeds: Option<u64>,
        /// Stop after so many minutes.
        #[arg(long, value_name = "M")]
        minutes: Option<f64>,
        /// The first seed.
        #[arg(long, value_name = "S", default_value_t = 0)]
        from: u64,
        /// Print one JSON object on standard output.
        #[arg(long)]
        json: bool,
    },
    /// Run one seed and print its trace.
    Replay {
        /// 0 = the machines, exact in time and fastest; 1 = whole processes on a simulated network.
        #[arg(long, value_name = "0|1", value_parser = tier, default_value = "0")]
        tier: Tier,
        #[command(flatten)]
        what: PlanArgs,
        /// Show reads and checks too.
        #[arg(long)]
        verbose: bool,
        /// Write the run to this file as a page to look at, too.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Reduce a failing plan to what it takes to break the promise, and print it as a test.
    Shrink {
        /// The tier on which it fails.
        #[arg(long, value_name = "0|1", value_parser = tier, default_value = "0")]
        tier: Tier,
        #[command(flatten)]
        what: PlanArgs,
        /// Write the small plan to this file, too.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use super::{Cli, Command};
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn demo_walks_the_current_folder_by_default() {
        let Ok(Cli {
            command: Command::Demo(demo),
        }) = Cli::try_parse_from(["flowkit", "demo"])
        else {
            panic!("`flowkit demo` must be understood");
        };
        assert_eq!(demo.dir.to_str(), Some("."));
        assert!(demo.data.data.is_none() && !demo.json);
    }

    #[test]
    fn what_makes_no_sense_is_bad_usage() {
        for line in [
            &["flowkit", "sim", "run", "--tier", "2", "--seeds", "1"][..],
            &["flowkit", "demo", "--workers", "0"],
            &["flowkit", "worker", "--capacity", "0"],
        ] {
            let error = Cli::try_parse_from(line).expect_err("refused");
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
    }
}
