//! The coordinator functions of a user that generated graphs name beside the built-in ones.

use flowkit_core::function::{Call, Changes, Check, Function, FunctionError, Functions, SECRETS};
use flowkit_core::vars::VarPath;
use serde_json::{Value, json};

use crate::acting::PlannedPanic;
use crate::plan::GraphPlan;

/// Its name: `sim.double {path}` makes a whole number twice as large and one more.
pub const DOUBLE: &str = "sim.double";

/// Its name: `sim.panics` breaks the machine that calls it. Only whole processes know it: they survive
/// that.
pub const PANICS: &str = "sim.panics";
/// `sim.leak {path, to, card?}` puts what looks like a secret at `to` if the number at `path` is odd, else the
/// number; and wants no secrets. With `card` it is what only [`CARDS`] flags, and that is asked.
pub const LEAK: &str = "sim.leak";
/// The name of a detector: it flags numbers of cards.
pub const CARDS: &str = "sim.cards";
/// `sim.much {path, of, n, merge}` sets, or merges, `n` of something at a `path`: `paths` below it, `keys` of
/// a path that begins with it, or `bytes` of one value.
pub const MUCH: &str = "sim.much";

struct Double;
struct Leak;
struct Much;

impl Function for Double {
    fn check(&self, check: &mut Check<'_>) {
        match check.args()["path"].as_str().map(VarPath::parse) {
            Some(Ok(_)) => {}
            Some(Err(error)) => check.fault("path", error, "name a var"),
            None => check.fault("path", "is no text", "name a var"),
        }
    }

    fn run(&self, call: &Call<'_>) -> Result<Changes, FunctionError> {
        let path = call.text_arg("path")?;
        let number = call.var(path).and_then(Value::as_i64);
        let number = number.filter(|number| number.unsigned_abs() < 1 << 40);
        let number =
            number.ok_or_else(|| FunctionError::new("no_number", "it is no small whole number"))?;
        Ok(Changes::new().set(path, 2 * number + 1))
    }
}

/// Whether a function of the graph breaks the machine that calls it.
pub(crate) fn breaks_machine(graph: &GraphPlan) -> bool {
    let mut functions = graph.nodes.iter().filter_map(|node| node.function.as_ref());
    functions.any(|function| function.name == PANICS)
}

struct Panics(fn());

impl Function for Panics {
    fn check(&self, _check: &mut Check<'_>) {}

    fn run(&self, _call: &Call<'_>) -> Result<Changes, FunctionError> {
        (self.0)();
        std::panic::panic_any(PlannedPanic)
    }
}

/// What coordinators in whole processes know, too; `struck` hears of each panic.
#[must_use]
pub(crate) fn functions_of_processes(struck: fn()) -> Functions {
    functions().function(PANICS, Panics(struck))
}

impl Function for Leak {
    fn run(&self, call: &Call<'_>) -> Result<Changes, FunctionError> {
        let number = call.var(call.text_arg("path")?);
        let number = number.and_then(Value::as_i64).unwrap_or(0);
        let (secret, detector) = match call.args["card"].as_bool() {
            Some(true) => (format!("card {number}"), CARDS),
            _ => (format!("sk-{number:024}"), SECRETS),
        };
        let to = call.text_arg("to")?;
        let changes = if number % 2 == 0 {
            Changes::new().set(to, number)
        } else {
            Changes::new().set(to, secret)
        };
        Ok(changes.block_sensitive([detector]))
    }
}

impl Function for Much {
    fn run(&self, call: &Call<'_>) -> Result<Changes, FunctionError> {
        let path = call.text_arg("path")?;
        let n = call.args["n"].as_u64().unwrap_or(0);
        let values: Vec<(String, Value)> = match call.text_arg("of")? {
            "paths" => (0..n).map(|k| (format!("{path}.k{k}"), json!(1))).collect(),
            "keys" => {
                let more = n.saturating_sub(path.split('.').count() as u64);
                let below = ".k".repeat(usize::try_from(more).unwrap_or(usize::MAX));
                vec![(format!("{path}{below}"), json!(1))]
            }
            _ => {
                let text = "x".repeat(usize::try_from(n).unwrap_or(usize::MAX));
                vec![(path.to_owned(), json!(text))]
            }
        };
        if call.args["merge"].as_bool() != Some(true) {
            let set = |changes: Changes, (path, value)| changes.set(path, value);
            return Ok(values.into_iter().fold(Changes::new(), set));
        }
        let mut object = json!({});
        for (path, value) in values {
            let place = path.split('.').fold(&mut object, |at, key| &mut at[key]);
            *place = value;
        }
        Ok(Changes::new().merge(object))
    }
}

/// What coordinators of a simulation know.
#[must_use]
pub fn functions() -> Functions {
    Functions::default()
        .function(DOUBLE, Double)
        .function(LEAK, Leak)
        .function(MUCH, Much)
        .detector(CARDS, |text: &str| text.starts_with("card "))
}
