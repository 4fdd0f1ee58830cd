//! What `--help` teaches beside the list of arguments.

pub(super) const EXAMPLES: &str = "\
Examples:
  flowkit demo                          count lines, words and bytes below this folder
  flowkit demo ~/src --data /tmp/count  the same, and what is done survives kill -9:
                                        type it again and it goes on where it was
  flowkit run graph.json --data state   run a graph of your own with the built-in roles
  flowkit task list --data state        what the folder holds

Exit codes:
  0    done; a followed task finished
  1    a task failed, was cancelled or stayed as it was; something was found or a promise broke;
       the engine, its disk or a server failed
  2    bad usage, input or settings, a refusal, or a data folder or server that cannot be opened
  3    `flowkit worker`: a newer process of the same worker id is alive; do not start this one again
  130  a command that runs or follows a task was interrupted (Ctrl-C, SIGTERM, a terminal that went away);
       `worker` and `coordinator` stop in order and end with 0";

pub(super) const DEMO_HELP: &str = "\
The graph is `scan -> measure -> summarize`: `scan` walks the folder, `measure` starts with its
first batch and counts, `summarize` adds up. Every regular file counts, hidden ones too; links are
not followed and the data folder is left out. Lines are newline bytes, words are runs of bytes
other than ASCII white space, bytes are sizes. What cannot be read is counted as unreadable.

Examples:
  flowkit demo
  flowkit demo /usr/include --json
  flowkit demo /usr --data /tmp/usr     stop it with Ctrl-C or kill -9, type it again: it goes on

Over Kafka and MongoDB it runs if a flag, or the file of --config without --data, names them.";

pub(super) const FLEET_HELP: &str = "\
The servers come from the flags, else from the environment (FLOWKIT_KAFKA, FLOWKIT_MONGO, and
FLOWKIT_ + any setting's key in capitals), else from --config FILE (JSON or TOML, the same keys).

Examples:
  export FLOWKIT_KAFKA=127.0.0.1:9092 FLOWKIT_MONGO='mongodb://127.0.0.1/?replicaSet=rs0'
  flowkit coordinator &
  flowkit worker --role echo --role sleep --capacity 4 &
  flowkit worker --role ocr --exec 'python3 ocr.py' &
  flowkit submit graph.json --watch --idempotency-key monday
  flowkit worker list

Needs a build with the adapters: cargo build --release --features fleet";

pub(super) const RERUN_HELP: &str = "\
The old task stays as it is. A node that finished is kept, unless a node above it runs again: the
new task has its batches and result from the start. Vars are those of the submission with what kept
functions did to them. Priority and limit key are the old task's; it starts at once.

Examples:
  flowkit task rerun ID --data state                    what did not finish, and all below it
  flowkit task rerun ID --data state --from transform   that node, too
  flowkit task rerun ID --data state --all --json       everything; nothing is kept

In a data folder the same command again goes on with an unfinished rerun.";

pub(super) const DOCTOR_HELP: &str = "\
Exit codes: 0 all is well, 1 something was found, 2 it could not look.

Examples:
  flowkit doctor --data state
  flowkit doctor --kafka 127.0.0.1:9092 --mongo 'mongodb://127.0.0.1/?replicaSet=rs0'
  flowkit doctor --health 10.0.0.5:9600 --health 10.0.0.6:9600 --json";

pub(super) const RUN_HELP: &str = "\
Built-in roles (a node's `type`) and their `io.input_inline`:
  scan       {dir, exclude?, batch_size?}  paths of the files below a folder; relative to where you are
  measure    (reads a scan: pull.from_artifacts.rechunk:size, meta_list_key \"entries\")
  summarize  (reads a measure: pull.from_artifacts)
  echo       anything; each batch becomes its artifact
  sleep      {ms, batches?}
  fail       {times?, permanent?, panic?, reason_code?, error?}
  exec       {command, …}                  any program: one JSON line per batch on its standard input,
             its results on standard output (docs/guide/exec.md)

--exec ROLE='COMMAND' gives a role of your own to a program, for every node of that type.

Nodes of type `coordinator_fn` run inside the coordinator: {fn, fn_args} in their `io`, with the
built-in functions vars.set, vars.merge, vars.incr, vars.unset, merge.generic, metrics.aggregate, noop.

Example graph:
  {\"nodes\": [
    {\"node_id\": \"wait\", \"type\": \"sleep\", \"io\": {\"input_inline\": {\"ms\": 500}}},
    {\"node_id\": \"say\", \"type\": \"echo\", \"depends_on\": [\"wait\"],
     \"io\": {\"input_inline\": {\"text\": \"done\"}}}]}

With --data the same command continues the file's unfinished task; a changed file,
or other vars, is a new task. --priority, --delay-sec and --limit-key count for a new task only.

While it runs, its workers run every unfinished task of the folder, other files' too, and stop when this
file's task has ended: what they run of others then is cut off and goes on with the next command.

Limits, retention and other settings come from --config FILE (JSON or TOML), and over it from the
environment: FLOWKIT_ + a setting's key in capitals, as FLOWKIT_RETENTION_FINISHED_SEC=3600.";
