//! Memory and decisions with many hosts. The bars are ours; there is no peer in it.

mod fleet;
mod fleet_run;
mod paper;

use anyhow::Result;
use comfy_table::Table;
use serde_json::json;

/// A size beyond the one asked for, to see how it grows: hosts. A platform has at most 256, but to fill that many on paper
/// takes several minutes.
const GROWTH: [usize; 1] = [100];
/// Most memory of a coordinator, MiB.
const MEMORY_MAX: f64 = 40.0;
/// Longest look at the size asked for, milliseconds.
const LOOK_MAX: f64 = 10.0;

/// Runs it; how many bars were missed.
///
/// # Errors
/// A platform cannot be filled.
pub async fn scale(hosts: usize, members: usize) -> Result<usize> {
    let fleet = fleet_run::run(hosts, members).await?;
    println!(
        "{}",
        json!({ "hosts": hosts, "members": hosts * members, "filled_s": fleet.filled.as_secs_f64(),
                "coordinators_mib": fleet.memory_mib, "leader_idle_percent_of_a_core": fleet.idle_percent })
    );
    let mut missed = usize::from(fleet.memory_mib.iter().any(|mib| *mib > MEMORY_MAX));
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["HOSTS", "MEMBERS", "FILLED, S", "ENTRIES", "LOOK, MS", "A REPORT, MS"]);
    for size in std::iter::once(hosts).chain(GROWTH.into_iter().filter(|size| *size > hosts)) {
        let paper = paper::paper(size, members)?;
        eprintln!("{size} hosts on paper: filled in {:.1} s", paper.filled.as_secs_f64());
        if size == hosts && paper.look_ms > LOOK_MAX {
            missed += 1;
        }
        table.add_row([
            paper.hosts.to_string(),
            paper.members.to_string(),
            format!("{:.1}", paper.filled.as_secs_f64()),
            paper.entries.to_string(),
            format!("{:.2}", paper.look_ms),
            format!("{:.3}", paper.report_ms),
        ]);
    }
    println!(
        "Decisions alone (a look: all reconcilers at a finished platform; bar {LOOK_MAX} ms at {hosts} hosts):\n{table}"
    );
    Ok(missed)
}
