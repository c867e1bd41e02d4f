//! How the program ends: 0, 1, 3 and 4 are verdicts on what was simulated, 2 and 101 are not.

use std::process::ExitCode;

use reports::schema::translate::TranslateResult;
use reports::schema::{EndKind, RunResult};

/// Usage, scenario or file error.
pub(crate) const USAGE: u8 = 2;
/// A bug of this program.
pub(crate) const BUG: u8 = 101;

/// What `--help` says about exit codes.
pub(crate) const HELP: &str = "\
Exit codes:
  0    completed, every check held
  1    a violation, a regression or a failed expectation was found
  2    usage, scenario or file error; nothing was written
  3    deadlock or livelock in the model
  4    a budget ran out before a verdict
  101  bug of this program
With several runs the code is that of the worst: 3, then 1, then 4, then 0.";

/// Verdict on one or several runs, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// Every check held.
    Fine,
    /// No verdict within the budget.
    Undecided,
    /// A violation, a regression or a failed expectation.
    Found,
    /// Deadlock or livelock.
    Stuck,
}

impl Verdict {
    /// On one run.
    pub(crate) fn of(run: &RunResult) -> Verdict {
        let found = !run.violations.is_empty() || run.expectations.iter().any(|e| !e.ok);
        match run.end.kind {
            EndKind::Deadlock | EndKind::Livelock => Verdict::Stuck,
            EndKind::Violation | EndKind::ExpectationFailed => Verdict::Found,
            EndKind::Completed | EndKind::BudgetExhausted if found => Verdict::Found,
            EndKind::BudgetExhausted => Verdict::Undecided,
            EndKind::Completed => Verdict::Fine,
        }
    }

    /// On a translation.
    pub(crate) fn of_translation(result: &TranslateResult) -> Verdict {
        if result.violations.is_empty() {
            Verdict::Fine
        } else {
            Verdict::Found
        }
    }

    /// On several runs.
    pub(crate) fn worst<'a>(runs: impl IntoIterator<Item = &'a RunResult>) -> Verdict {
        runs.into_iter().map(Verdict::of).max().unwrap_or(Verdict::Fine)
    }
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> ExitCode {
        ExitCode::from(match verdict {
            Verdict::Fine => 0,
            Verdict::Found => 1,
            Verdict::Stuck => 3,
            Verdict::Undecided => 4,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadlock_outranks_a_violation_outranks_a_budget() {
        use Verdict::{Fine, Found, Stuck, Undecided};
        assert_eq!([Fine, Undecided, Found].into_iter().max(), Some(Found));
        assert_eq!([Stuck, Found].into_iter().max(), Some(Stuck));
        assert_eq!(Verdict::worst([]), Fine);
    }

    #[test]
    fn a_stale_translation_is_found() {
        let setup = translate::engine::Setup {
            machine: x86::Machine::preset("zen4-2022").expect("a preset"),
            mode: x86::PagingMode::FourLevel,
            pages: translate::mapping::PagePolicy::Fixed(x86::PageSize::Size4K),
            data: translate::engine::DataCaching::Bypass,
        };
        let spec = "uniform:1m".parse().expect("a stream");
        let about = translate::result::About {
            tool: reports::schema::Tool {
                name: String::new(),
                version: String::new(),
            },
            seed: 1,
            source: translate::describe::stream(&spec),
            oracle: reports::schema::translate::Oracle::On,
            top: 0,
        };
        let task = translate::Task::new(setup);
        let translator = translate::Translator::<translate::frames::Unwatched>::new(task);
        let mut result = translator.expect("the machine can").result(about);
        assert_eq!(Verdict::of_translation(&result), Verdict::Fine);
        result.violations.push("a frame that was freed".to_owned());
        assert_eq!(Verdict::of_translation(&result), Verdict::Found);
    }
}
