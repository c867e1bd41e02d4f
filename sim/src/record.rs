//! What happened: marks, spans, the history ring and the optional full event log.
//!
//! A [`Mark`] is declared once, with the names of its arguments; recording one stores numbers
//! only. The last few hundred records are always kept, so that a violation comes with its history
//! at no cost worth mentioning; the full log is kept when asked for.

use std::fmt::Write as _;

use crate::{CpuId, Cycles, TaskId};

/// Arguments a mark can carry.
pub const MARK_ARGS: usize = 3;

/// Records kept for the history of a violation.
const RING: usize = 512;

/// Lines of history shown with a violation.
const HISTORY_LINES: usize = 24;

/// Declaration of an event that can be recorded.
#[derive(Debug, PartialEq, Eq)]
pub struct Mark {
    /// Name, as shown in logs.
    pub name: &'static str,
    /// Names of the arguments; an empty name is not shown.
    pub args: [&'static str; MARK_ARGS],
    /// Whether the mark belongs to the history of every object (a bracket, a flush) or only to
    /// that of the objects it names.
    pub scope: Scope,
}

/// Which histories a mark belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's.
    Global,
    /// Only those that query one of its argument values.
    Object,
}

/// Kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A span opens.
    Begin(&'static str),
    /// A span closes.
    End(&'static str),
    /// A mark with its arguments.
    Mark(&'static Mark, [u64; MARK_ARGS]),
}

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// When.
    pub time: Cycles,
    /// Where.
    pub cpu: CpuId,
    /// Who.
    pub task: TaskId,
    /// What.
    pub kind: RecordKind,
}

impl Record {
    /// Name of the event and its arguments, as text.
    #[must_use]
    pub fn text(&self) -> (String, String) {
        match self.kind {
            RecordKind::Begin(name) | RecordKind::End(name) => (name.to_owned(), String::new()),
            RecordKind::Mark(mark, values) => {
                let mut out = String::new();
                for (name, value) in mark.args.iter().zip(values).filter(|(n, _)| !n.is_empty()) {
                    let gap = if out.is_empty() { "" } else { " " };
                    let hex = matches!(*name, "va" | "start" | "end" | "address");
                    let _ = if hex {
                        write!(out, "{gap}{name}={value:#x}")
                    } else {
                        write!(out, "{gap}{name}={value}")
                    };
                }
                (mark.name.to_owned(), out)
            }
        }
    }
}

/// Whether the full log is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Logging {
    /// Only the history ring of marks.
    #[default]
    Ring,
    /// Everything, spans included.
    Full,
}

#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// The last records; once full, `next` is the oldest.
    ring: Vec<Record>,
    next: usize,
    pub(crate) log: Vec<Record>,
    pub(crate) logging: Logging,
}

impl Recorder {
    #[inline]
    pub(crate) fn mark(&mut self, record: Record) {
        match self.ring.get_mut(self.next) {
            Some(oldest) => *oldest = record,
            None => self.ring.push(record),
        }
        self.next = (self.next + 1) % RING;
        if self.logging == Logging::Full {
            self.log.push(record);
        }
    }

    /// The last records that concern `object`, oldest first.
    pub(crate) fn history(&self, object: Option<(&str, u64)>) -> Vec<Record> {
        let concerns = |r: &&Record| match (r.kind, object) {
            (RecordKind::Mark(mark, values), Some((name, value))) => {
                mark.scope == Scope::Global
                    || mark
                        .args
                        .iter()
                        .zip(values)
                        .any(|(n, v)| *n == name && v == value)
            }
            _ => true,
        };
        let (newer, older) = self.ring.split_at(self.next.min(self.ring.len()));
        let newest_first = newer.iter().rev().chain(older.iter().rev());
        let mut lines: Vec<Record> = newest_first
            .filter(concerns)
            .take(HISTORY_LINES)
            .copied()
            .collect();
        lines.reverse();
        lines
    }
}
