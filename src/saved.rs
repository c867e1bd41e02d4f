//! Saved results, read back for `report` and `compare`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use reports::compare::VIRTUAL_TIME;
use reports::load::{LoadError, Loaded, load};
use reports::schema::{CompareResult, Metric, MetricKind, RunResult};

use crate::failure::{Failure, reason};

/// Largest saved result, in bytes.
const MAX_BYTES: u64 = 512 << 20;

/// Reads a result.
pub(crate) fn read(path: &Path) -> Result<Loaded, Failure> {
    let cannot = |error: std::io::Error| Failure::file(path, format!("cannot be read: {}", reason(&error)));
    if path.is_dir() {
        return Err(Failure::file(path, "is a directory, not a saved result"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::file(
            path,
            format!("is larger than {} MiB", MAX_BYTES >> 20),
        ));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Failure::file(
            path,
            format!("is not UTF-8 text from byte {at} on: a saved result is JSON"),
        )
    })?;
    load(&text).map_err(|error| placed(path, error))
}

/// An error with its place in front, as compilers write it.
fn placed(path: &Path, error: LoadError) -> Failure {
    let file = path.display();
    Failure::new(match error {
        LoadError::Syntax {
            line,
            column,
            message,
        } => format!("{file}:{line}:{column}: not JSON: {message}"),
        LoadError::Shape {
            schema,
            line,
            column,
            message,
        } => {
            format!("{file}:{line}:{column}: does not follow schema `{schema}`: {message}")
        }
        other => format!("{file}: {other}"),
    })
}

/// Columns of a saved result: for each its runs, one a seed.
pub(crate) fn columns(path: &Path) -> Result<Vec<Vec<RunResult>>, Failure> {
    match read(path)? {
        Loaded::Run(run) => Ok(vec![vec![*run]]),
        Loaded::Compare(compared) => Ok((0..compared.runs.len()).map(|i| column(&compared, i)).collect()),
        Loaded::Translate(_) => Err(Failure::file(
            path,
            "is a translation, which has no columns: for other pages beside, use `mmusim translate --what-if`",
        )),
    }
}

/// The first run of a column is kept in full; of the others a comparison keeps the numbers, which
/// are all that a new comparison needs.
fn column(compared: &CompareResult, index: usize) -> Vec<RunResult> {
    let full = &compared.runs[index];
    let run = |(n, seed): (usize, &u64)| {
        if *seed == full.seed {
            return full.clone();
        }
        let value = |row: &reports::schema::CompareRow| row.cells.get(index)?.values.get(n).copied();
        let mut run = RunResult {
            seed: *seed,
            metrics: Vec::with_capacity(compared.rows.len()),
            histograms: Vec::new(),
            locks: Vec::new(),
            ..full.clone()
        };
        for row in &compared.rows {
            let Some(value) = value(row) else { continue };
            if row.metric == VIRTUAL_TIME {
                run.virtual_cycles = value;
                continue;
            }
            run.metrics.push(Metric {
                name: row.metric.clone(),
                unit: row.unit.clone(),
                kind: MetricKind::Gauge,
                description: String::new(),
                value,
            });
        }
        run
    };
    if compared.seeds.is_empty() {
        return vec![full.clone()];
    }
    compared.seeds.iter().enumerate().map(run).collect()
}
