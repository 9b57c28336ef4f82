//! Runs everything several times over and reports the best median of each, per unit of work.
//!
//! The machines that this runs on are shared: one slow minute must not become a figure. So every benchmark has its turn
//! in every round (A B C, A B C, ...), and what counts is its best median.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use criterion::Criterion;

/// How long each benchmark runs in a round.
const WARM_UP: Duration = Duration::from_millis(200);
const MEASURE: Duration = Duration::from_millis(800);

/// What one benchmark stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// Its name, also the name of its directory: letters, digits, dashes.
    pub(crate) name: &'static str,
    /// How many units one call does.
    pub(crate) n: usize,
    /// What a unit is.
    pub(crate) unit: &'static str,
    /// What a unit may take, in nanoseconds, when something was promised.
    pub(crate) goal_ns: Option<f64>,
    /// The case that does the same work in another way.
    pub(crate) against: Option<&'static str>,
}

impl Case {
    /// A case of `n` units a call, without promise or rival.
    pub(crate) fn new(name: &'static str, n: usize, unit: &'static str) -> Self {
        Self {
            name,
            n,
            unit,
            goal_ns: None,
            against: None,
        }
    }

    /// With a promise, in nanoseconds a unit.
    pub(crate) fn goal(self, ns: f64) -> Self {
        Self {
            goal_ns: Some(ns),
            ..self
        }
    }

    /// With a rival, to be measured in the same rounds.
    pub(crate) fn against(self, rival: &'static str) -> Self {
        Self {
            against: Some(rival),
            ..self
        }
    }
}

/// The rounds of one run.
pub(crate) struct Report {
    criterion: Criterion,
    directory: PathBuf,
    cases: Vec<Case>,
    /// Medians in nanoseconds a call, one a round.
    medians: BTreeMap<&'static str, Vec<f64>>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self {
            criterion: Criterion::default(),
            directory: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("criterion"),
            cases: Vec::new(),
            medians: BTreeMap::new(),
        }
    }

    /// Begins a round.
    pub(crate) fn round(&mut self) {
        // A new one, since it would give a second benchmark of one name another name.
        self.criterion = Criterion::default()
            .output_directory(&self.directory)
            .warm_up_time(WARM_UP)
            .measurement_time(MEASURE)
            .sample_size(20)
            .without_plots()
            .configure_from_args();
        self.cases.clear();
    }

    /// Measures a case in this round. `run` does so many calls and says how long they took.
    pub(crate) fn time(&mut self, case: Case, mut run: impl FnMut(u64) -> Duration) {
        self.begin(case);
        self.criterion
            .bench_function(case.name, |bencher| bencher.iter_custom(&mut run));
    }

    /// Measures a case whose call needs no preparation.
    pub(crate) fn each<T>(&mut self, case: Case, mut run: impl FnMut() -> T) {
        self.begin(case);
        self.criterion
            .bench_function(case.name, |bencher| bencher.iter(&mut run));
    }

    /// What an earlier round found must not be taken for this one's when the command line leaves the case out.
    fn begin(&mut self, case: Case) {
        let _ = fs::remove_file(self.estimates(case));
        self.cases.push(case);
    }

    /// The file in which criterion puts what it found.
    fn estimates(&self, case: Case) -> PathBuf {
        self.directory.join(case.name).join("new/estimates.json")
    }

    /// Ends a round: reads what it found.
    pub(crate) fn end_round(&mut self) {
        for case in &self.cases {
            let Ok(text) = fs::read(self.estimates(*case)) else {
                // Left out on the command line.
                continue;
            };
            let estimates: serde_json::Value =
                serde_json::from_slice(&text).expect("read what criterion wrote");
            let median = estimates["median"]["point_estimate"]
                .as_f64()
                .expect("criterion writes a median");
            self.medians.entry(case.name).or_default().push(median);
        }
    }

    /// Prints the table of the best medians, in the form of `benches/README.md`.
    pub(crate) fn print(&self, trace: &str) {
        let best = |name: &str| {
            let rounds = self.medians.get(name)?;
            rounds.iter().copied().reduce(f64::min)
        };
        if self.medians.is_empty() {
            return;
        }
        println!("\nTrace: {trace}. Best median of the rounds (and the worst).\n");
        println!("| case | a unit is | best | worst | reach | against |");
        println!("| --- | --- | ---: | ---: | --- | --- |");
        for case in &self.cases {
            let Some(call) = best(case.name) else {
                continue;
            };
            let unit = call / case.n as f64;
            let worst = self.medians[case.name]
                .iter()
                .fold(0.0, |worst: f64, ns| worst.max(*ns));
            let reach = case.goal_ns.map_or_else(String::new, |goal| {
                let verdict = if unit <= goal { "yes" } else { "NO" };
                format!("{verdict} ({})", time(goal))
            });
            let against = case
                .against
                .and_then(|rival| {
                    let rival_case = self.cases.iter().find(|case| case.name == rival)?;
                    let rival_unit = best(rival)? / rival_case.n as f64;
                    Some(format!("{:.1} x {rival}", rival_unit / unit))
                })
                .unwrap_or_default();
            println!(
                "| {} | {} | {} | {} | {reach} | {against} |",
                case.name,
                case.unit,
                time(unit),
                time(worst / case.n as f64)
            );
        }
    }
}

fn time(ns: f64) -> String {
    match ns {
        _ if ns < 1e3 => format!("{ns:.1} ns"),
        _ if ns < 1e6 => format!("{:.2} µs", ns / 1e3),
        _ => format!("{:.2} ms", ns / 1e6),
    }
}
