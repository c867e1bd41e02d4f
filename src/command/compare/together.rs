//! Saved results side by side.

use std::path::{Path, PathBuf};

use reports::compare::{Regression, compare as side_by_side, gate};
use reports::schema::RunResult;

use super::{Compared, labelled, no_column};
use crate::cli::CompareArgs;
use crate::exit::Verdict;
use crate::failure::Failure;
use crate::input::{base_name, is_recording};
use crate::saved;

/// A column of a saved result.
struct Saved {
    /// Which of the files it is from.
    file: usize,
    /// Label in that file.
    label: String,
    runs: Vec<RunResult>,
}

/// Puts all columns of the files side by side. With `--fail-above` each column is held against the
/// column of the same label in the first file; a file with a single column, against the single
/// column of the first.
pub(super) fn compare(args: &CompareArgs, files: &[PathBuf]) -> Result<Compared, Failure> {
    refuse_run_flags(args)?;
    let mut columns = Vec::new();
    for (file, path) in files.iter().enumerate() {
        if is_recording(path) || path.extension().is_some_and(|e| e == "jsonc") {
            let why = "is not a saved result: scenarios are compared one at a time, results two and more";
            return Err(Failure::file(path, why));
        }
        for runs in saved::columns(path)? {
            let label = runs.first().map(|r| r.label.clone()).unwrap_or_default();
            columns.push(Saved { file, label, runs });
        }
    }
    let regressions = args
        .fail_above
        .map_or_else(Vec::new, |bound| regressions(&columns, bound));
    let labels = labels(&columns, files);
    let mut runs: Vec<Vec<RunResult>> = columns
        .into_iter()
        .zip(&labels)
        .map(|(c, label)| labelled(c.runs, label))
        .collect();
    if let Some(name) = &args.baseline {
        let index = labels.iter().position(|label| label == name);
        let index = index.ok_or_else(|| no_column(name, labels.iter().map(String::as_str)))?;
        runs[..=index].rotate_right(1);
    }
    let names: Vec<String> = files.iter().map(|f| base_name(f)).collect();
    let result = side_by_side(runs, names.join(" and "));
    if result.seeds.is_empty() {
        return Err(Failure::new(format!(
            "{} have no seed in common, so that nothing can be paired: run them with the same --seed",
            names.join(" and ")
        )));
    }
    let verdict = Verdict::worst(&result.runs);
    Ok(Compared::new(result, regressions, verdict))
}

/// Costs that grew from the first file to another.
fn regressions(columns: &[Saved], bound: f64) -> Vec<Regression> {
    let of_file = |file| columns.iter().filter(move |c| c.file == file).count();
    let base = |column: &Saved| {
        let single = of_file(0) == 1 && of_file(column.file) == 1;
        columns
            .iter()
            .find(|c| c.file == 0 && (single || c.label == column.label))
    };
    let pairs = columns
        .iter()
        .filter(|c| c.file > 0)
        .filter_map(|c| Some((base(c)?, c)));
    pairs
        .flat_map(|(old, new)| {
            gate(
                &side_by_side(vec![old.runs.clone(), new.runs.clone()], String::new()),
                bound,
            )
        })
        .collect()
}

/// The labels as saved where no two are the same, else with the name or number of the file before.
fn labels(columns: &[Saved], files: &[PathBuf]) -> Vec<String> {
    let plain: Vec<String> = columns.iter().map(|c| c.label.clone()).collect();
    let stem = |path: &Path| {
        path.file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let named = |c: &Saved| format!("{}:{}", stem(&files[c.file]), c.label);
    let numbered = |c: &Saved| format!("{}:{}", c.file + 1, c.label);
    [plain, columns.iter().map(named).collect()]
        .into_iter()
        .find(|labels| distinct(labels))
        .unwrap_or_else(|| columns.iter().map(numbered).collect())
}

fn distinct(labels: &[String]) -> bool {
    labels
        .iter()
        .enumerate()
        .all(|(i, label)| !labels[..i].contains(label))
}

/// Nothing is run, so that nothing can be changed.
fn refuse_run_flags(args: &CompareArgs) -> Result<(), Failure> {
    let o = &args.overrides;
    let given = [
        ("--designs", !args.designs.is_empty()),
        ("--kernels", !args.kernels.is_empty()),
        ("--seeds", args.seeds.is_some()),
        ("--jobs", args.jobs.is_some()),
        ("--preempt", o.preempt.is_some()),
        ("--seed", o.seed.is_some()),
        ("--unsupported", o.unsupported.is_some()),
        ("--cpus", o.cpus.is_some()),
        ("--max-events", o.max_events.is_some()),
        ("--touch", args.import.touch.is_some()),
        ("--attach", !args.import.attach.is_empty()),
        ("--accesses", args.import.accesses.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Failure::new(format!(
            "{flag} has no meaning for saved results: name one scenario to run it"
        ))),
        None => Ok(()),
    }
}
