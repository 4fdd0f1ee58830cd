//! What a terminal is shown of a task over servers.

use super::deployment::{Deployment, sleepers};
use super::on_terminal::{CYAN, UP, colours, on_a_terminal};

#[test]
fn a_watched_submission_has_live_bars_on_a_terminal_and_colours_unless_they_are_not_wanted() {
    let deployment = Deployment::new("bars", 1);
    let _coordinator = deployment.coordinator();
    let _worker = deployment.worker("w");
    let name = &deployment.name;
    let file = deployment.graph(&sleepers(2, 200, 5));
    let line = format!("flowkit submit {file} --watch --database {name} --topic-prefix {name}");
    let said = on_a_terminal(&line, &[]);
    for part in [
        "n0",
        "n1",
        "━",
        "running",
        "5 batches",
        "finished",
        UP,
        CYAN,
    ] {
        assert!(said.contains(part), "{part:?}: {said:?}");
    }
    // Lines are what a pipe gets.
    assert!(!said.contains("n0: running"), "{said:?}");
    let plain = on_a_terminal(&line, &[("NO_COLOR", "1")]);
    for part in ["━", "5 batches", UP] {
        assert!(plain.contains(part), "{part:?}: {plain:?}");
    }
    assert_eq!(colours(&plain), Vec::<&str>::new(), "{plain:?}");
}
