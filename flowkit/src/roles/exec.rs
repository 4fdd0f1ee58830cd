//! The role `exec`: a program that the graph names. Only `flowkit run` has it: whoever may submit to a
//! deployment must not thereby run commands on its workers.

use flowkit::prelude::*;
use serde_json::Value;

/// Its name.
pub(crate) const EXEC: &str = "exec";

/// `exec`: runs the `command` of its `input_inline`.
#[derive(Debug)]
pub(crate) struct GraphExec;

impl Handler for GraphExec {
    type Run = (Exec, ExecRun);
    type Input = Json;
    type Output = Json;

    async fn init(&self, cx: &RunContext) -> Result<Self::Run, HandlerError> {
        let inline: Value = cx.input()?.decode()?;
        let exec = command_of(&inline).map_err(|fault| {
            HandlerError::permanent("bad_input", format_args!("`command`: {fault}"))
        })?;
        let run = exec.init(cx).await?;
        Ok((exec, run))
    }

    async fn process(
        &self,
        cx: &RunContext,
        (exec, run): &mut Self::Run,
        batch: Batch<Json>,
    ) -> Result<BatchResult<Json>, HandlerError> {
        exec.process(cx, run, batch).await
    }

    async fn finalize(
        &self,
        cx: &RunContext,
        (exec, run): Self::Run,
    ) -> Result<FinalizeResult, HandlerError> {
        exec.finalize(cx, run).await
    }
}

/// The program that an `input_inline` names, or what is wrong with it.
pub(crate) fn command_of(inline: &Value) -> Result<Exec, String> {
    match &inline["command"] {
        Value::String(line) => Exec::parse(line).map_err(|error| error.to_string()),
        Value::Null => Err("missing; such as \"python3 ocr.py\"".to_owned()),
        other => Err(format!(
            "{other} is no text; such as \"python3 ocr.py --fast\""
        )),
    }
}
