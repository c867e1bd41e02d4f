//! `compare`: one scenario under several designs, or saved results side by side.

mod pool;
mod together;

use std::path::Path;

use mm::notifier::Design;
use reports::compare::{Regression, compare as side_by_side, gate};
use reports::schema::{CompareResult, RunResult};
use reports::text::TextOptions;
use scenarios::ast::Scenario;

use super::{overrides, render_compare, tell_kernel};
use crate::cli::CompareArgs;
use crate::console::Console;
use crate::engine::{self, Overrides, Randomness};
use crate::exit::Verdict;
use crate::failure::Failure;
use crate::input::{self, Wishes};
use crate::output::{self, Plan};

/// Seeds for a scenario that draws random numbers: enough for an interval.
const RANDOM_SEEDS: u32 = 5;

/// Designs that are compared when none are named.
const DESIGNS: [&str; 4] = ["v0", "v1", "v8", "v9"];

/// Regressions that are printed; the rest is counted.
const SHOWN_REGRESSIONS: usize = 20;

/// A column before it has run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    /// Name at the head of the column.
    label: String,
    /// Design; none means the scenario's own.
    design: Option<&'static str>,
    /// Kernel; none means the scenario's own.
    kernel: Option<String>,
}

impl Column {
    /// Whether the user may mean this column by a name.
    fn answers_to(&self, name: &str) -> bool {
        self.label == name
            || self
                .design
                .is_some_and(|id| Design::by_name(name).is_some_and(|d| d.id == id))
    }
}

/// Runs a scenario under several designs, or puts saved results side by side.
pub(crate) fn compare(args: &CompareArgs, console: &Console) -> Result<Verdict, Failure> {
    let plan = Plan::new(&args.output, None)?;
    let Compared {
        result,
        regressions,
        verdict,
    } = match args.files.as_slice() {
        [scenario] => run(args, scenario, console)?,
        files => together::compare(args, files)?,
    };
    let text = TextOptions {
        width: output::width(args.output.width),
        color: console.stdout_color(),
        detail: args.output.detail(),
    };
    plan.write(console, &|what, out| render_compare(&result, what, &text, out))?;
    report_regressions(&regressions, args.fail_above, console);
    Ok(verdict)
}

/// What came out.
struct Compared {
    result: CompareResult,
    regressions: Vec<Regression>,
    /// On all runs, also those that the result holds only the numbers of.
    verdict: Verdict,
}

impl Compared {
    fn new(result: CompareResult, regressions: Vec<Regression>, runs: Verdict) -> Compared {
        let grown = if regressions.is_empty() {
            Verdict::Fine
        } else {
            Verdict::Found
        };
        Compared {
            result,
            regressions,
            verdict: runs.max(grown),
        }
    }
}

fn run(args: &CompareArgs, path: &Path, console: &Console) -> Result<Compared, Failure> {
    let wishes = Wishes {
        import: Some(&args.import),
        cpus: args.overrides.cpus,
    };
    let input = input::scenario(path, wishes, console)?;
    let mut columns = columns(args)?;
    if let Some(name) = &args.baseline {
        let index = find(&columns, name)?;
        columns[..=index].rotate_right(1);
    }
    tell_kernels(&columns, &input.scenario, console);
    let seeds = seeds(args, &input.scenario);
    let runs = pool::run(&pool::Work {
        scenario: &input.scenario,
        file: &input.file,
        columns: &columns,
        seeds: &seeds,
        overrides: overrides(&args.overrides),
        max_events: args.overrides.max_events,
        jobs: args.jobs,
        talk: console.talk,
    })
    .map_err(|(label, error)| Failure::file(path, format!("column `{label}`: {error}")))?;
    warn_unseen(&runs, console);
    let verdict = Verdict::worst(runs.iter().flatten());
    let result = side_by_side(runs, input.scenario.title.clone());
    let regressions = args
        .fail_above
        .map_or_else(Vec::new, |bound| gate(&result, bound));
    Ok(Compared::new(result, regressions, verdict))
}

/// A comparison shows the end of each column's first run: worse ends of the others are said here.
fn warn_unseen(runs: &[Vec<RunResult>], console: &Console) {
    for column in runs {
        let Some((first, others)) = column.split_first() else {
            continue;
        };
        let worse = others.iter().filter(|run| Verdict::of(run) > Verdict::of(first));
        for run in worse {
            console.warn(&format!(
                "{} with seed {}: {}; to see it: mmusim run --design {} --kernel {} --seed {}",
                run.label,
                run.seed,
                run.end.summary,
                run.design.id,
                run.kernel.replace("+preempt", " --preempt on"),
                run.seed
            ));
        }
    }
}

/// Designs by kernels, in the order given.
fn columns(args: &CompareArgs) -> Result<Vec<Column>, Failure> {
    let mut designs: Vec<Option<Design>> = Vec::new();
    let asked = args.designs.iter().map(String::as_str);
    let usual = DESIGNS.into_iter().filter(|_| args.designs.is_empty());
    for name in asked.chain(usual) {
        match name {
            "all" => designs.extend(Design::ALL.map(Some)),
            "scenario" => designs.push(None),
            name => designs.push(Some(Design::by_name(name).ok_or_else(|| unknown_design(name))?)),
        }
    }
    let mut columns: Vec<Column> = Vec::new();
    for design in &designs {
        let short = design.as_ref().map_or("scenario", |d| d.short);
        let id = design.as_ref().map(|d| d.id);
        let own = [design.as_ref().map(|d| d.profile.to_owned())];
        let asked: Vec<Option<String>> = args.kernels.iter().cloned().map(Some).collect();
        let kernels = if asked.is_empty() { &own[..] } else { &asked[..] };
        for kernel in kernels {
            let label = match kernel {
                Some(kernel) if args.kernels.len() > 1 => {
                    format!("{short}/{}", kernel.strip_prefix("linux-").unwrap_or(kernel))
                }
                _ => short.to_owned(),
            };
            if columns.iter().any(|c| c.label == label) {
                return Err(Failure::new(format!(
                    "column `{label}` is asked for twice: name it once"
                )));
            }
            columns.push(Column {
                label,
                design: id,
                kernel: kernel.clone(),
            });
        }
    }
    Ok(columns)
}

fn unknown_design(name: &str) -> Failure {
    Failure::new(format!(
        "no notifier design is called `{name}`: see `mmusim list designs`"
    ))
}

fn find(columns: &[Column], name: &str) -> Result<usize, Failure> {
    let exact = columns.iter().position(|c| c.label == name);
    exact
        .or_else(|| columns.iter().position(|c| c.answers_to(name)))
        .ok_or_else(|| no_column(name, columns.iter().map(|c| c.label.as_str())))
}

/// No column has the name that was asked for.
fn no_column<'a>(name: &str, labels: impl Iterator<Item = &'a str>) -> Failure {
    let labels: Vec<&str> = labels.collect();
    Failure::new(format!(
        "--baseline: no column is called `{name}`: the columns are {}",
        labels.join(", ")
    ))
}

/// Each design runs on the kernel it was made for: said where the scenario names another.
fn tell_kernels(columns: &[Column], scenario: &Scenario, console: &Console) {
    for column in columns {
        if let (Some(design), Some(kernel)) = (column.design, &column.kernel) {
            tell_kernel(design, kernel, scenario, console);
        }
    }
}

fn seeds(args: &CompareArgs, scenario: &Scenario) -> Vec<u64> {
    let default = match engine::randomness(scenario) {
        Randomness::Draws => RANDOM_SEEDS,
        Randomness::None => 1,
    };
    let first = args.overrides.seed.unwrap_or(scenario.seed);
    let count = u64::from(args.seeds.unwrap_or(default));
    (0..count).map(|n| first.wrapping_add(n)).collect()
}

fn report_regressions(regressions: &[Regression], bound: Option<f64>, console: &Console) {
    for r in regressions.iter().take(SHOWN_REGRESSIONS) {
        let change = match r.ratio {
            Some(ratio) => format!("{:+.1} %", (ratio - 1.0) * 100.0),
            None => "from nothing".to_owned(),
        };
        console.warn(&format!(
            "{} of {} grew: {} -> {} {} ({change})",
            r.metric, r.label, r.before, r.after, r.unit
        ));
    }
    if let (Some(bound), false) = (bound, regressions.is_empty()) {
        console.warn(&format!(
            "{} costs grew by more than {bound} %",
            regressions.len()
        ));
    }
}

impl pool::Work<'_> {
    /// What one run changes in the scenario.
    fn overrides(&self, column: &Column, seed: u64) -> Overrides {
        Overrides {
            design: column.design.map(str::to_owned),
            kernel: column.kernel.clone(),
            seed: Some(seed),
            ..self.overrides.clone()
        }
    }
}

/// The runs of a column under its own name.
fn labelled(mut runs: Vec<RunResult>, label: &str) -> Vec<RunResult> {
    for run in &mut runs {
        label.clone_into(&mut run.label);
    }
    runs
}
