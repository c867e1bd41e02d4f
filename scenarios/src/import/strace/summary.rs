//! The account of an import.

use std::collections::BTreeMap;
use std::fmt;

use super::error::clip;

/// Most warnings that are kept word for word.
const KEPT_WARNINGS: usize = 50;

/// A line that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Name of the log.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Its text, shortened.
    pub text: String,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub right: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: `{}`; expected: {}",
            self.file, self.line, self.wrong, self.text, self.right
        )
    }
}

/// What was imported, ignored and assumed. Every call of the log is counted exactly once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines of the log.
    pub log_lines: u64,
    /// Calls taken over, by name (including those that only move file descriptors).
    pub imported: BTreeMap<String, u64>,
    /// Calls that failed when recorded, by name.
    pub failed: BTreeMap<String, u64>,
    /// Calls left out, by name and reason.
    pub skipped: BTreeMap<String, BTreeMap<String, u64>>,
    /// Signals, all ignored.
    pub signals: u64,
    /// Processes of the scenario.
    pub processes: u64,
    /// Threads of the recorded program (threads that drive secondary MMUs not included).
    pub threads: u64,
    /// Files of the scenario.
    pub files: u64,
    /// Pages written or read by synthesised touches.
    pub touched_pages: u64,
    /// What the log does not say and the importer assumed.
    pub assumptions: Vec<String>,
    /// Lines that could not be used, the first of them.
    pub warnings: Vec<Warning>,
    /// Further lines that could not be used.
    pub more_warnings: u64,
}

impl Summary {
    /// The summary as lines of text.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut out = vec![format!(
            "{} lines: {} processes, {} threads, {} files; {} pages touched; {} signals ignored",
            self.log_lines, self.processes, self.threads, self.files, self.touched_pages, self.signals
        )];
        out.extend(counts("imported", &self.imported));
        out.extend(counts("ignored because they failed when recorded", &self.failed));
        out.extend(self.skip_lines());
        out.extend(self.assumptions.iter().map(|text| format!("assumed: {text}")));
        out.extend(self.warnings.iter().map(|warning| format!("warning: {warning}")));
        if self.more_warnings > 0 {
            out.push(format!(
                "warning: {} more lines that could not be used",
                self.more_warnings
            ));
        }
        out
    }

    /// What was left out, one line for a call and a reason.
    pub(super) fn skip_lines(&self) -> Vec<String> {
        let each = self
            .skipped
            .iter()
            .flat_map(|(name, reasons)| reasons.iter().map(move |r| (name, r)));
        each.map(|(name, (reason, n))| format!("skipped {n} {name}: {reason}"))
            .collect()
    }

    pub(super) fn took(&mut self, name: &str) {
        *self.imported.entry(name.to_owned()).or_default() += 1;
    }

    pub(super) fn fail(&mut self, name: &str) {
        *self.failed.entry(name.to_owned()).or_default() += 1;
    }

    pub(super) fn skip(&mut self, name: &str, reason: &str) {
        *self
            .skipped
            .entry(name.to_owned())
            .or_default()
            .entry(reason.to_owned())
            .or_default() += 1;
    }

    pub(super) fn assume(&mut self, text: String) {
        if !self.assumptions.contains(&text) {
            self.assumptions.push(text);
        }
    }

    pub(super) fn warn(&mut self, file: &str, line: u64, text: &str, wrong: &str, right: &str) {
        if self.warnings.len() == KEPT_WARNINGS {
            self.more_warnings += 1;
            return;
        }
        let (file, wrong, right) = (file.to_owned(), wrong.to_owned(), right.to_owned());
        self.warnings.push(Warning {
            file,
            line,
            text: clip(text),
            wrong,
            right,
        });
    }
}

fn counts(what: &str, counts: &BTreeMap<String, u64>) -> Option<String> {
    let each: Vec<String> = counts.iter().map(|(name, n)| format!("{n} {name}")).collect();
    (!each.is_empty()).then(|| format!("{what}: {}", each.join(", ")))
}
