//! The sentences at the head of a report.

use crate::compare::VIRTUAL_TIME;
use crate::figures;
use crate::schema::{Carried, CompareResult, EndKind, RunResult};
use crate::stats::{self, Ratio};

/// Mood of a verdict, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Everything held.
    Good,
    /// Something a reader must look at.
    Bad,
    /// The run stopped without an answer.
    Open,
}

impl Tone {
    /// Of an end.
    pub(crate) fn of(kind: EndKind) -> Self {
        match kind {
            EndKind::Completed => Self::Good,
            EndKind::BudgetExhausted => Self::Open,
            EndKind::Violation | EndKind::ExpectationFailed | EndKind::Deadlock | EndKind::Livelock => {
                Self::Bad
            }
        }
    }

    /// As a CSS class.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Open => "open",
        }
    }
}

/// The words for an end.
pub(crate) fn end_words(kind: EndKind) -> &'static str {
    match kind {
        EndKind::Completed => "completed",
        EndKind::Violation => "violation",
        EndKind::ExpectationFailed => "expectation failed",
        EndKind::Deadlock => "deadlock",
        EndKind::Livelock => "livelock",
        EndKind::BudgetExhausted => "budget exhausted",
    }
}

/// The word for how a secondary MMU is carried.
pub(crate) fn carried_word(carried: Carried) -> &'static str {
    match carried {
        Carried::Full => "full",
        Carried::Pinned => "pinned",
        Carried::Omitted => "omitted",
        Carried::Broken => "broken",
    }
}

/// One sentence on a run.
pub(crate) fn run(result: &RunResult) -> String {
    let failed = result.expectations.iter().filter(|e| !e.ok).count();
    let mut out = format!(
        "{}: {} after {} of virtual time",
        capitalised(end_words(result.end.kind)),
        result.end.summary.trim_end_matches('.'),
        figures::duration(result.virtual_cycles as f64, result.cycle_ps)
    );
    if failed > 0 {
        out += &format!("; {failed} of {} expectations failed", result.expectations.len());
    }
    out + "."
}

/// Sentences on a comparison: who was fastest and by how much, who could not carry what, and who
/// did not end well.
pub(crate) fn compare(result: &CompareResult) -> Vec<String> {
    let mut out = vec![fastest(result)];
    out.extend(coverage(result));
    for run in &result.runs {
        if !ran_to_its_end(run.end.kind) || run.end.kind == EndKind::Violation {
            let summary = run.end.summary.trim_end_matches('.');
            out.push(format!(
                "{} ended with a {}: {summary}.",
                run.label,
                end_words(run.end.kind)
            ));
        }
    }
    out
}

/// Whether a run has done all its work, so that its time means something.
fn ran_to_its_end(kind: EndKind) -> bool {
    matches!(kind, EndKind::Completed | EndKind::ExpectationFailed)
}

/// Whether a run carries every secondary MMU in full.
pub(crate) fn carries_all(run: &RunResult) -> bool {
    run.secondaries.iter().all(|s| s.carried == Carried::Full)
}

fn fastest(result: &CompareResult) -> String {
    let Some(row) = result.rows.iter().find(|r| r.metric == VIRTUAL_TIME) else {
        return "Nothing was compared.".to_owned();
    };
    let time = |i: usize| row.cells[i].mean * result.runs[i].cycle_ps as f64;
    let fit: Vec<usize> = (0..result.runs.len().min(row.cells.len()))
        .filter(|&i| ran_to_its_end(result.runs[i].end.kind) && !row.cells[i].values.is_empty())
        .collect();
    let Some(&first) = fit.first() else {
        return "No column ran to its end, so none can be called faster.".to_owned();
    };
    let best = fit
        .iter()
        .copied()
        .fold(first, |b, i| if time(i) < time(b) { i } else { b });
    let run = &result.runs[best];
    let name = |i: usize| {
        let run = &result.runs[i];
        let star = if carries_all(run) { "" } else { "*" };
        let base = if run.label == result.baseline {
            " (baseline)"
        } else {
            ""
        };
        format!("{}{star}{base}", run.label)
    };
    let took = figures::duration(row.cells[best].mean, run.cycle_ps);
    let others: Vec<String> = fit
        .iter()
        .copied()
        .filter(|&i| i != best)
        .map(|i| {
            let ratio = scaled(
                stats::paired_ratio(&row.cells[best].values, &row.cells[i].values),
                i,
                best,
                result,
            );
            faster_than(&ratio, &name(i))
        })
        .collect();
    if others.is_empty() {
        return format!(
            "{} took {took} of virtual time; no other column ran to its end.",
            name(best)
        );
    }
    format!(
        "{} was fastest with {took} of virtual time: {}.",
        name(best),
        others.join(", ")
    )
}

/// A ratio of cycles as a ratio of times, should two columns run on different machines.
fn scaled(ratio: Ratio, i: usize, best: usize, result: &CompareResult) -> Ratio {
    let factor = result.runs[i].cycle_ps as f64 / (result.runs[best].cycle_ps as f64).max(1.0);
    if factor == 1.0 {
        return ratio;
    }
    let (low, high) = (ratio.low * factor, ratio.high * factor);
    let distinguishable = low > 1.0 || high < 1.0;
    Ratio {
        low,
        ratio: ratio.ratio.map(|r| r * factor),
        high,
        distinguishable,
    }
}

fn faster_than(ratio: &Ratio, name: &str) -> String {
    match ratio.ratio {
        Some(mid) if ratio.distinguishable => {
            let half = (ratio.high - ratio.low) / 2.0;
            // The interval is that of logarithms; where it is too lopsided for a single half
            // width, its ends are given.
            let spread = if half == 0.0 {
                String::new()
            } else if mid - half > 1.0 || mid + half < 1.0 {
                format!(" \u{b1} {half:.2}")
            } else {
                format!(" ({:.2} to {:.2})", ratio.low, ratio.high)
            };
            format!("{mid:.2}{spread} times faster than {name}")
        }
        _ => format!("no difference from {name}"),
    }
}

/// Which columns carry everything, and what the starred ones lack.
fn coverage(result: &CompareResult) -> Vec<String> {
    if result.runs.iter().all(|r| r.secondaries.is_empty()) {
        return Vec::new();
    }
    let full: Vec<&str> = result
        .runs
        .iter()
        .filter(|r| carries_all(r))
        .map(|r| r.label.as_str())
        .collect();
    let lacking: Vec<String> = result
        .runs
        .iter()
        .filter(|r| !carries_all(r))
        .map(|r| {
            let what: Vec<String> = r
                .secondaries
                .iter()
                .filter(|s| s.carried != Carried::Full)
                .map(|s| format!("{} {}", s.name, carried_word(s.carried)))
                .collect();
            format!("{}* ({})", r.label, what.join(", "))
        })
        .collect();
    let all = match full.len() {
        0 => "No column carries every secondary MMU in full".to_owned(),
        1 => format!("Only {} carries every secondary MMU in full", full[0]),
        n if n == result.runs.len() => "Every column carries every secondary MMU in full".to_owned(),
        _ => format!("{} carry every secondary MMU in full", full.join(", ")),
    };
    if lacking.is_empty() {
        return vec![format!("{all}.")];
    }
    vec![format!(
        "{all}; not comparable in that respect: {}.",
        lacking.join(", ")
    )]
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn a_comparison_names_the_fastest_that_ran_to_its_end() {
        let sentences = compare(&sample::comparison());
        assert!(sentences[0].starts_with("v9 was fastest"), "{sentences:?}");
        assert!(
            sentences[0].contains("times faster than v0* (baseline)"),
            "{sentences:?}"
        );
        assert!(
            !sentences[0].contains("v8"),
            "v8 broke: its time means nothing: {sentences:?}"
        );
        assert!(
            sentences[1].contains("Only v9 carries every secondary MMU"),
            "{sentences:?}"
        );
        assert!(
            sentences[2].contains("v8 ended with a violation"),
            "{sentences:?}"
        );
    }

    #[test]
    fn equal_columns_are_no_difference() {
        let run = sample::run(3, 1);
        let result = crate::compare::compare(vec![vec![run.clone()], vec![run]], String::new());
        assert!(
            compare(&result)[0].contains("no difference from"),
            "{:?}",
            compare(&result)
        );
    }

    #[test]
    fn a_run_says_how_it_ended() {
        assert!(run(&sample::run(3, 1)).starts_with("Completed: all 4 tasks finished"));
        assert!(run(&sample::run(2, 1)).contains("1 of 2 expectations failed"));
    }
}
