//! What the machine itself can do.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use crate::Outcome;

/// Times to append 4 KiB to a file and make it durable.
pub(crate) fn fdatasync_ms(folder: &Path, repeats: usize) -> Outcome<Vec<f64>> {
    let mut file = File::create(folder.join("sync"))?;
    let page = [7_u8; 4_096];
    let mut times = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        file.write_all(&page)?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(started.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(times)
}

/// Resident memory of a process in bytes (Linux).
pub(crate) fn resident_bytes(pid: u32) -> Outcome<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .ok_or("no VmRSS line")?
        .trim()
        .parse()?;
    Ok(kib * 1_024.0)
}
