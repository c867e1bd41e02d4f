//! The sentences at the head of a report.

use crate::compare::VIRTUAL_TIME;
use crate::figures;
use crate::schema::{Carried, CompareResult, CompareRow, EndKind, RunResult};
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
        "{} after {} of virtual time: {}",
        capitalised(end_words(result.end.kind)),
        figures::duration(result.virtual_cycles as f64, result.cycle_ps),
        result.end.summary.trim_end_matches('.')
    );
    if failed > 0 {
        out += &format!("; {failed} of {} expectations failed", result.expectations.len());
    }
    out + "."
}

/// Sentences on a comparison: who was fastest among those that carry everything and by how much,
/// what those took that carry less, who could not carry what, and who did not end well.
pub(crate) fn compare(result: &CompareResult) -> Vec<String> {
    let mut out = times(result);
    out.extend(coverage(result));
    for run in &result.runs {
        if !ran_to_its_end(run.end.kind) {
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

/// Evidence of an end that no violation repeats.
pub(crate) fn evidence(run: &RunResult) -> Vec<&str> {
    let told = |line: &String| run.violations.iter().any(|v| v.held.contains(line));
    run.end
        .evidence
        .iter()
        .filter(|l| !told(l))
        .map(String::as_str)
        .collect()
}

/// Whether a run has done all its work, so that its time means something.
fn ran_to_its_end(kind: EndKind) -> bool {
    matches!(kind, EndKind::Completed | EndKind::ExpectationFailed)
}

/// Whether a run carries every secondary MMU in full.
pub(crate) fn carries_all(run: &RunResult) -> bool {
    run.secondaries.iter().all(|s| s.carried == Carried::Full)
}

/// The columns that ran to their end, by what may be said of their times.
struct Field<'a> {
    result: &'a CompareResult,
    row: &'a CompareRow,
}

impl Field<'_> {
    fn time(&self, i: usize) -> f64 {
        self.row.cells[i].mean * self.result.runs[i].cycle_ps as f64
    }

    fn took(&self, i: usize) -> String {
        figures::duration(self.row.cells[i].mean, self.result.runs[i].cycle_ps)
    }

    fn name(&self, i: usize) -> String {
        let run = &self.result.runs[i];
        let star = if carries_all(run) { "" } else { "*" };
        let base = if run.label == self.result.baseline {
            " (baseline)"
        } else {
            ""
        };
        format!("{}{star}{base}", run.label)
    }

    fn fastest(&self, among: &[usize]) -> Option<usize> {
        among
            .iter()
            .copied()
            .reduce(|best, i| if self.time(i) < self.time(best) { i } else { best })
    }

    /// Time of column `i` over that of `best`.
    fn ratio(&self, i: usize, best: usize) -> Ratio {
        let ratio = stats::paired_ratio(&self.row.cells[best].values, &self.row.cells[i].values);
        scaled(ratio, i, best, self.result)
    }

    /// A column that carries less than `best`.
    fn lesser(&self, i: usize, best: usize) -> String {
        let ratio = self.ratio(i, best);
        let change = match ratio.ratio {
            Some(mid) if ratio.distinguishable && figures::change(mid) != "0.0%" => {
                format!("{}{}", figures::change(mid), interval(&ratio))
            }
            _ => "the same".to_owned(),
        };
        let lacks = lacks(&self.result.runs[i]);
        format!("{} took {} ({change}) with {lacks}", self.name(i), self.took(i))
    }

    /// `best` against each of the others.
    fn against(&self, best: usize, others: &[usize]) -> String {
        let others = others.iter().copied().filter(|&i| i != best);
        let parts: Vec<String> = others
            .map(|i| faster_than(&self.ratio(i, best), &self.name(i)))
            .collect();
        parts.join(", ")
    }
}

/// Who was fastest. Designs that carry every secondary MMU are only held against each other; what
/// the others took is said after.
fn times(result: &CompareResult) -> Vec<String> {
    let Some(row) = result.rows.iter().find(|r| r.metric == VIRTUAL_TIME) else {
        return vec!["Nothing was compared.".to_owned()];
    };
    let field = Field { result, row };
    let fit: Vec<usize> = (0..result.runs.len().min(row.cells.len()))
        .filter(|&i| ran_to_its_end(result.runs[i].end.kind) && !row.cells[i].values.is_empty())
        .collect();
    let (full, less): (Vec<usize>, Vec<usize>) =
        fit.iter().copied().partition(|&i| carries_all(&result.runs[i]));
    let ranked = if full.is_empty() { &less } else { &full };
    let Some(best) = field.fastest(ranked) else {
        return vec!["No column ran to its end, so none can be called faster.".to_owned()];
    };
    let (name, took) = (field.name(best), field.took(best));
    let head = match (ranked.len(), full.is_empty(), less.is_empty()) {
        (1, true, _) | (1, _, true) => {
            format!("{name} took {took} of virtual time; no other column ran to its end.")
        }
        (1, ..) => format!(
            "{name} took {took} of virtual time, the only design here that carries every secondary MMU in full."
        ),
        (_, _, true) => format!(
            "{name} took {took} of virtual time: {}.",
            field.against(best, ranked)
        ),
        (_, true, _) => format!(
            "No design here carries every secondary MMU in full; {name} took {took} of virtual time: {}.",
            field.against(best, ranked)
        ),
        _ => format!(
            "Of the designs that carry every secondary MMU in full, {name} took {took} of virtual time: {}.",
            field.against(best, ranked)
        ),
    };
    let mut out = vec![head];
    if !full.is_empty() && !less.is_empty() {
        let parts: Vec<String> = less.iter().map(|&i| field.lesser(i, best)).collect();
        out.push(format!(
            "Not comparable, since they carry less: {}.",
            parts.join("; ")
        ));
    }
    out
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

/// Less than this factor is nothing to speak of.
const AS_FAST: f64 = 1.005;
/// Up to this factor percents say it better.
const SLIGHT: f64 = 1.1;

fn faster_than(ratio: &Ratio, name: &str) -> String {
    match ratio.ratio {
        Some(mid) if ratio.distinguishable && mid >= SLIGHT => {
            let half = (ratio.high - ratio.low) / 2.0;
            // The interval is that of logarithms; where it is too lopsided for a single half
            // width, its ends are given.
            let spread = if half == 0.0 {
                String::new()
            } else if mid - half > 1.0 {
                format!(" \u{b1} {half:.2}")
            } else {
                format!(" ({:.2} to {:.2})", ratio.low, ratio.high)
            };
            format!("{mid:.2}{spread} times faster than {name}")
        }
        Some(mid) if ratio.distinguishable && mid >= AS_FAST => {
            let percent = (mid - 1.0) * 100.0;
            format!("{percent:.1}% faster than {name}{}", interval(ratio))
        }
        _ => format!("as fast as {name}"),
    }
}

/// The interval of a ratio in signed percent, if it has a width.
fn interval(ratio: &Ratio) -> String {
    let (low, high) = (figures::change_end(ratio.low), figures::change_end(ratio.high));
    if low == high {
        String::new()
    } else {
        format!(" [{low}, {high}]")
    }
}

/// What a run does not carry in full.
fn lacks(run: &RunResult) -> String {
    let lacking = run.secondaries.iter().filter(|s| s.carried != Carried::Full);
    let words: Vec<String> = lacking
        .map(|s| format!("{} {}", s.name, carried_word(s.carried)))
        .collect();
    words.join(", ")
}

/// What the starred columns lack, where the sentences on times have not said it.
fn coverage(result: &CompareResult) -> Option<String> {
    let full = result.runs.iter().filter(|r| carries_all(r)).count();
    let said = |r: &RunResult| full > 0 && ran_to_its_end(r.end.kind);
    let lacking: Vec<String> = result
        .runs
        .iter()
        .filter(|r| !carries_all(r) && !said(r))
        .map(|r| format!("{}* has {}", r.label, lacks(r)))
        .collect();
    (!lacking.is_empty()).then(|| format!("{}.", lacking.join("; ")))
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
    fn those_that_carry_everything_come_first() {
        let sentences = compare(&sample::comparison());
        assert!(
            sentences[0].starts_with("v9 took") && sentences[0].contains("the only design"),
            "{sentences:?}"
        );
        assert!(
            sentences[1].contains("carry less: v0* (baseline) took") && sentences[1].contains("pinned"),
            "{sentences:?}"
        );
        let of_times = sentences[..2].concat();
        assert!(
            !of_times.contains("v8"),
            "v8 broke: its time means nothing: {sentences:?}"
        );
        assert!(
            sentences[2].starts_with("v8* has") && sentences[2].contains("broken"),
            "{sentences:?}"
        );
        assert!(
            sentences[3].contains("v8 ended with a violation"),
            "{sentences:?}"
        );
    }

    #[test]
    fn equal_columns_are_as_fast() {
        let run = sample::run(3, 1);
        let mut other = run.clone();
        other.virtual_cycles += other.virtual_cycles / 1000;
        let result = crate::compare::compare(vec![vec![run.clone()], vec![run], vec![other]], String::new());
        let first = compare(&result).swap_remove(0);
        assert_eq!(first.matches("as fast as").count(), 2, "{first}");
        assert!(!first.contains("1.00"), "{first}");
    }

    #[test]
    fn small_differences_are_percents() {
        let ratio = |low, mid, high| Ratio {
            low,
            ratio: Some(mid),
            high,
            distinguishable: true,
        };
        assert_eq!(
            faster_than(&ratio(1.02, 1.03, 1.04), "x"),
            "3.0% faster than x [+2.0, +4.0]"
        );
        assert_eq!(
            faster_than(&ratio(1.5, 1.5, 1.5), "x"),
            "1.50 times faster than x"
        );
        assert_eq!(
            faster_than(&ratio(1.45, 1.5, 1.55), "x"),
            "1.50 \u{b1} 0.05 times faster than x"
        );
    }

    #[test]
    fn a_run_says_how_it_ended() {
        let said = run(&sample::run(3, 1));
        assert!(said.starts_with("Completed after") && said.contains(": all 4 tasks finished"));
        assert!(run(&sample::run(2, 1)).contains("1 of 2 expectations failed"));
    }
}
