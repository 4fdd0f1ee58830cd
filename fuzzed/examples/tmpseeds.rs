//! tmp
use std::fs;
fn main() {
    let out = std::env::args().nth(1).unwrap();
    for t in ["envelope","graph","config","store","plan"] { fs::create_dir_all(format!("{out}/{t}")).unwrap(); }
    for (n, line) in include_str!("../src/envelopes.jsonl").lines().enumerate() { fs::write(format!("{out}/envelope/kind-{n:02}.json"), line).unwrap(); }
    for n in 0..14 { fs::write(format!("{out}/graph/made-{n:02}.json"), flowkit_fuzzed::graph::donor(n).to_string()).unwrap(); }
    fs::write(format!("{out}/config/all.json"), flowkit_fuzzed::config::donor(0).to_string()).unwrap();
    for n in 0..4 { let t = flowkit_fuzzed::plan::donor(n).to_string(); fs::write(format!("{out}/plan/made-{n:02}.json"), t).unwrap(); }
}
