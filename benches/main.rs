//! What an edit, a join and a commit cost, with the figures that were promised. `benches/README.md` has command and results.
//!
//! Criterion samples; [`report`] makes rounds of it and a table. Where yrs can do the same work it is measured beside us,
//! in the same rounds, since only ratios travel from machine to machine.

mod document;
mod hot;
mod report;
mod storage;
mod trace;
mod wire;

use crate::report::Report;
use crate::trace::TRACE;

/// How many rounds to run, when not one for a first look.
const ROUNDS_VARIABLE: &str = "SYNCLINE_BENCH_ROUNDS";

fn main() {
    if std::env::args().any(|argument| argument == "--count") {
        hot::count();
        return;
    }
    let rounds: u32 = std::env::var_os(ROUNDS_VARIABLE).map_or(1, |rounds| {
        let rounds = rounds.to_str().and_then(|rounds| rounds.parse().ok());
        rounds.expect("a number of rounds")
    });
    let mut report = Report::new();
    for _ in 0..rounds {
        report.round();
        document::all(&mut report);
        wire::all(&mut report);
        storage::all(&mut report);
        report.end_round();
    }
    report.print(&TRACE.name);
}
