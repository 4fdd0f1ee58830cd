//! The command line of `flowkit`: what can be typed, and the help that teaches it.

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use flowkit::{START_DELAY_MS_MAX, SubmitOptions, TaskOptions};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::help::{DEMO_HELP, DOCTOR_HELP, EXAMPLES, FLEET_HELP, RERUN_HELP, RUN_HELP};
use super::sim_args::SimCommand;
use super::vars::VarsArgs;

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
    /// Look at the tasks of a data folder or a deployment; pause, resume, cancel one or run one again.
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
    /// Say why a task is not running: one plain sentence for each node that waits, and the cure.
    Why {
        /// The task's id.
        id: String,
        #[command(flatten)]
        at: TaskArgs,
    },
    /// Check a data folder or a deployment: streams, roles, ids, times, memory, what is stored.
    #[command(after_help = DOCTOR_HELP)]
    Doctor(DoctorArgs),
    /// Run the simulator: the engine under injected faults.
    #[command(subcommand)]
    Sim(SimCommand),
    /// Print a shell's completions.
    #[command(after_help = "Example:\n  source <(flowkit completions bash)")]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the man page.
    #[command(after_help = "Example:\n  flowkit man | man -l -")]
    Man {
        /// Write a page per command into this folder instead.
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
}

/// `flowkit doctor`.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) at: TaskArgs,
    /// Where a worker serves health (its `health_listen`), for its memory over time; may be
    /// repeated.
    #[arg(long = "health", value_name = "HOST:PORT")]
    pub(crate) health: Vec<String>,
    /// Most tasks whose stored state is checked, by id.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000,
        allow_negative_numbers = true
    )]
    pub(crate) tasks_max: u32,
}

/// Whether the process can be watched.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct HealthArgs {
    /// Serve /healthz, /readyz and /metrics over HTTP there; default: nowhere.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) health_listen: Option<String>,
    /// Send traces to this OpenTelemetry collector, by OTLP over HTTP; default: OTEL_EXPORTER_OTLP_ENDPOINT,
    /// else nowhere. Needs a build with the feature `otel`.
    #[arg(long, value_name = "http://HOST:PORT")]
    pub(crate) otlp_endpoint: Option<String>,
}

/// Most workers of one process.
pub(crate) const WORKERS_MAX: u32 = 1_024;

/// Where state lives.
#[derive(Args, Clone, Debug)]
pub(crate) struct DataArgs {
    /// Folder for the engine's state; made if absent. Without it state goes to a temporary folder
    /// and is gone at the end.
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Workers, at most 1024; each runs one node at a time. Default: one per core, at least 2.
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(WORKERS_MAX)),
        allow_negative_numbers = true
    )]
    pub(crate) workers: Option<u32>,
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
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
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
    #[command(flatten)]
    pub(crate) health: HealthArgs,
}

/// `flowkit worker`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct WorkerArgs {
    #[command(subcommand)]
    pub(crate) command: Option<WorkerCommand>,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
    #[command(flatten)]
    pub(crate) health: HealthArgs,
    /// A role to run: a built-in one, or one that --exec gives to a program; may be repeated.
    #[arg(long = "role", value_name = "NAME")]
    pub(crate) roles: Vec<String>,
    /// A program that runs the one --role: one JSON line per batch on its standard input, results on
    /// its standard output. With several roles: ROLE=COMMAND, once for each.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) exec: Vec<String>,
    /// The worker's id: a restart under the same id goes on at once. Default: generated.
    #[arg(long, value_name = "ID")]
    pub(crate) worker_id: Option<String>,
    /// Nodes to run at once; default 1.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) capacity: Option<NonZeroU32>,
}

/// `flowkit worker …`.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// List every worker that ever registered, when it was heard and what it runs now.
    List(TaskArgs),
    /// Show one worker: its runs with their checkpoints, its last heartbeat, its process start.
    Show {
        /// The worker's id.
        id: String,
        #[command(flatten)]
        at: TaskArgs,
    },
}

/// What a submission may ask for beside the graph.
#[derive(Args, Clone, Debug)]
pub(crate) struct OperatedArgs {
    /// Ready nodes of the highest priority are granted first, among equals the oldest; default 0.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_hyphen_values = true
    )]
    pub(crate) priority: i32,
    /// No node starts before so many seconds after the submission; fractions are allowed.
    #[arg(
        long,
        value_name = "S",
        value_parser = delay,
        default_value = "0",
        allow_hyphen_values = true
    )]
    pub(crate) delay_sec: Duration,
    /// Count the task's nodes against the coordinator's limit for this key.
    #[arg(long, value_name = "KEY", value_parser = limit_key)]
    pub(crate) limit_key: Option<String>,
}

/// A key that says something: one that is empty comes from a variable that is not set.
fn key(text: &str) -> Result<String, String> {
    match text {
        "" => Err("it must not be empty; leave the flag out, or is a variable not set?".to_owned()),
        text => Ok(text.to_owned()),
    }
}

fn limit_key(text: &str) -> Result<String, String> {
    let key = key(text)?;
    let options = SubmitOptions::default().limit_key(text).operated;
    match options.faults().first() {
        None => Ok(key),
        Some(fault) => Err(fault.trim_start_matches("options.limit_key: ").to_owned()),
    }
}

/// Seconds of a delay, a fraction or not.
fn delay(text: &str) -> Result<Duration, String> {
    seconds(text, START_DELAY_MS_MAX, "ten years, in seconds")
}

/// Seconds of a grace, as of the setting `cancel_grace_sec`.
fn grace(text: &str) -> Result<Duration, String> {
    seconds(text, 86_400_000, "86,400 seconds")
}

fn seconds(text: &str, ms_max: u64, most: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "it must be a number of seconds".to_owned())?;
    let time = Duration::try_from_secs_f64(seconds).ok();
    time.filter(|time| *time <= Duration::from_millis(ms_max))
        .ok_or_else(|| format!("it must be from 0 to {most}"))
}

impl OperatedArgs {
    /// The same as options of a submission.
    pub(crate) fn given(&self, options: SubmitOptions) -> SubmitOptions {
        let options = options.priority(self.priority).start_delay(self.delay_sec);
        match &self.limit_key {
            Some(key) => options.limit_key(key.as_str()),
            None => options,
        }
    }
}

impl OperatedArgs {
    /// Flags that were typed and that a task with these options was not submitted with.
    pub(crate) fn unlike(&self, options: &TaskOptions) -> Vec<&'static str> {
        let asked = self.given(SubmitOptions::default()).operated;
        let mut unlike = Vec::new();
        if asked.priority != 0 && asked.priority != options.priority {
            unlike.push("--priority");
        }
        if asked.start_delay_ms != 0 && asked.start_delay_ms != options.start_delay_ms {
            unlike.push("--delay-sec");
        }
        if asked.limit_key.is_some() && asked.limit_key != options.limit_key {
            unlike.push("--limit-key");
        }
        unlike
    }
}

/// `flowkit submit`.
#[derive(Args, Debug)]
pub(crate) struct SubmitArgs {
    /// The graph file (JSON).
    #[arg(value_name = "GRAPH.json")]
    pub(crate) graph: PathBuf,
    #[command(flatten)]
    pub(crate) vars: VarsArgs,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
    #[command(flatten)]
    pub(crate) operated: OperatedArgs,
    /// Follow the task to its end; exit code 1 if it does not finish well.
    #[arg(long)]
    pub(crate) watch: bool,
    /// The same key with the same graph is the same task, however often it is submitted.
    #[arg(long, value_name = "KEY", value_parser = key)]
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
    #[command(flatten)]
    pub(crate) health: HealthArgs,
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
    /// A program that runs the nodes of a role; may be repeated.
    #[arg(long, value_name = "ROLE=COMMAND")]
    pub(crate) exec: Vec<String>,
    #[command(flatten)]
    pub(crate) vars: VarsArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Settings as a JSON or TOML file, such as limits and retention.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) health: HealthArgs,
    #[command(flatten)]
    pub(crate) operated: OperatedArgs,
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
        /// A program that is to run the nodes of a role; may be repeated.
        #[arg(long, value_name = "ROLE=COMMAND")]
        exec: Vec<String>,
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
        /// Every change of state as well, with time and cause. (With --json it is always there.)
        #[arg(long)]
        history: bool,
        #[command(flatten)]
        task: TaskArgs,
    },
    /// Cancel a task. It never runs again; what its batches gave stays.
    Cancel(CancelArgs),
    /// Hold a task back: no node of it starts until it is resumed; what runs goes on to its end.
    Pause(ControlArgs),
    /// Let a paused task go on.
    Resume(ControlArgs),
    /// Run a task that has ended again, as a new task that keeps the nodes that finished.
    #[command(after_help = RERUN_HELP)]
    Rerun(RerunArgs),
}

/// What `flowkit task cancel` takes.
#[derive(Args, Debug)]
pub(crate) struct CancelArgs {
    /// The task's id, as `task list` shows it.
    pub(crate) id: String,
    /// Why; kept in the histories of the task and its nodes.
    #[arg(long, value_name = "TEXT", default_value = "flowkit task cancel")]
    pub(crate) reason: String,
    /// Seconds that running handlers have to end, fractions are allowed; default: the coordinator's
    /// cancel_grace_sec.
    #[arg(long, value_name = "S", value_parser = grace, allow_hyphen_values = true)]
    pub(crate) grace_sec: Option<Duration>,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
}

/// What `flowkit task pause` and `resume` take.
#[derive(Args, Debug)]
pub(crate) struct ControlArgs {
    /// The task's id, as `task list` shows it.
    pub(crate) id: String,
    /// Why; kept in the task's history.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
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
    #[arg(long, value_name = "KEY", value_parser = key)]
    pub(crate) idempotency_key: Option<String>,
    /// In a data folder: a program that runs the nodes of a role; may be repeated.
    #[arg(long, value_name = "ROLE=COMMAND", requires = "data")]
    pub(crate) exec: Vec<String>,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
}

/// What every command takes that looks at a data folder or a deployment.
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

#[cfg(test)]
mod tests {
    use super::{Cli, Command};
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Commands that print no result of their own: they run until they are stopped, or write a text for
    /// another program.
    const WITHOUT_JSON: [&str; 4] = ["completions", "coordinator", "man", "worker"];

    #[test]
    fn every_command_that_prints_a_result_can_print_it_as_json() {
        fn walk(command: &clap::Command, path: &str, without: &mut Vec<String>, seen: &mut usize) {
            *seen += 1;
            let json = command
                .get_arguments()
                .any(|a| a.get_long() == Some("json"));
            let is_group = command.is_subcommand_required_set();
            if !json && !is_group {
                without.push(path.to_owned());
            }
            for sub in command.get_subcommands() {
                walk(
                    sub,
                    format!("{path} {}", sub.get_name()).trim(),
                    without,
                    seen,
                );
            }
        }
        let (mut without, mut seen) = (Vec::new(), 0);
        walk(&Cli::command(), "", &mut without, &mut seen);
        without.sort_unstable();
        assert_eq!(without, WITHOUT_JSON);
        assert!(seen > 20, "{seen}");
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
            &["flowkit", "run", "g", "--workers", "1025"],
            &["flowkit", "run", "g", "--workers", "-1"],
            &["flowkit", "worker", "--capacity", "0"],
            &["flowkit", "run", "g", "--delay-sec", "-1"],
            &["flowkit", "run", "g", "--delay-sec", "nan"],
            &["flowkit", "run", "g", "--delay-sec", "1e300"],
            &["flowkit", "run", "g", "--delay-sec", "soon"],
            &["flowkit", "submit", "g", "--priority", "2147483648"],
            &["flowkit", "submit", "g", "--priority", "high"],
            &["flowkit", "task", "pause"],
            &["flowkit", "task", "cancel", "t", "--grace-sec", "-1"],
            &["flowkit", "task", "cancel", "t", "--grace-sec", "nan"],
            &["flowkit", "task", "cancel", "t", "--grace-sec", "inf"],
            &["flowkit", "task", "cancel", "t", "--grace-sec", "86400.001"],
            &["flowkit", "task", "cancel", "t", "--grace-sec", "1e300"],
            &["flowkit", "task", "cancel", "t", "--grace-sec", "10s"],
            &["flowkit", "task", "cancel", "t", "--grace-sec", ""],
            &["flowkit", "task", "cancel", "--reason", "why"],
        ] {
            let error = Cli::try_parse_from(line).expect_err("refused");
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
    }
}
