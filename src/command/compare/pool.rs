//! Many runs at a time. Each run is single-threaded and knows nothing of the others; results are
//! put where they belong, so that their order does not depend on who was first.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use crossbeam::queue::SegQueue;
use parking_lot::Mutex;
use reports::schema::RunResult;
use scenarios::ast::Scenario;

use super::{Column, labelled};
use crate::console::Talk;
use crate::engine::{self, Overrides, Request, RunError};
use crate::progress::Bar;

/// What a bar of runs shows.
const RUNS: &str = "{bar:30} {pos}/{len} runs, {per_sec}, {eta} left";

/// What to run.
pub(super) struct Work<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) file: &'a str,
    pub(super) columns: &'a [Column],
    pub(super) seeds: &'a [u64],
    /// Changes common to all columns.
    pub(super) overrides: Overrides,
    pub(super) max_events: Option<u64>,
    /// Runs at a time; none means as many as there are CPUs.
    pub(super) jobs: Option<NonZeroUsize>,
    pub(super) talk: Talk,
}

/// One run: indices of its column and of its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Task {
    column: usize,
    seed: usize,
}

/// What has come out so far.
struct Progress {
    results: Vec<Vec<Option<RunResult>>>,
    /// The failure of the earliest task that failed. Tasks are begun in order, so that it is the
    /// same whatever the number of jobs.
    failure: Option<(Task, RunError)>,
}

/// Runs every column with every seed: for each column its results in the order of the seeds, or
/// the label of the first column that cannot be run and why.
pub(super) fn run(work: &Work<'_>) -> Result<Vec<Vec<RunResult>>, (String, RunError)> {
    let queue = SegQueue::new();
    for column in 0..work.columns.len() {
        for seed in 0..work.seeds.len() {
            queue.push(Task { column, seed });
        }
    }
    let bar = Bar::new(Some(queue.len() as u64), RUNS, work.talk);
    let progress = Mutex::new(Progress {
        results: vec![vec![None; work.seeds.len()]; work.columns.len()],
        failure: None,
    });
    let jobs = work.jobs.or_else(|| available_parallelism().ok());
    let jobs = jobs.map_or(1, NonZeroUsize::get).min(queue.len().max(1));
    let finished = crossbeam::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|_| drain(work, &queue, &progress, &bar));
        }
    });
    finished.expect("a panic ends the process before it can be joined");
    bar.clear();
    let progress = progress.into_inner();
    if let Some((task, error)) = progress.failure {
        return Err((work.columns[task.column].label.clone(), error));
    }
    let columns = work.columns.iter().zip(progress.results);
    Ok(columns
        .map(|(c, runs)| labelled(runs.into_iter().flatten().collect(), &c.label))
        .collect())
}

/// Takes tasks until there are none left or one has failed.
fn drain(work: &Work<'_>, queue: &SegQueue<Task>, progress: &Mutex<Progress>, bar: &Bar) {
    while progress.lock().failure.is_none()
        && let Some(task) = queue.pop()
    {
        let outcome = engine::run(&Request {
            scenario: work.scenario,
            file: work.file,
            overrides: work.overrides(&work.columns[task.column], work.seeds[task.seed]),
            logging: sim::Logging::Ring,
            max_events: work.max_events,
        });
        bar.advance();
        let mut progress = progress.lock();
        match outcome {
            Ok(outcome) => progress.results[task.column][task.seed] = Some(outcome.result),
            Err(error) => {
                if progress.failure.as_ref().is_none_or(|(first, _)| task < *first) {
                    progress.failure = Some((task, error));
                }
            }
        }
    }
}
