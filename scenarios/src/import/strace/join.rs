//! Reads the lines and joins calls that other tasks interrupted.

use std::collections::BTreeMap;
use std::io::{BufRead, ErrorKind};

use super::error::{ImportError, RECORD_WITH, clip};
use super::line::{self, Body, Call};
use super::summary::Summary;

/// Something that happened to a task.
#[derive(Debug)]
pub(super) struct Event {
    /// Line of the log, from 1.
    pub(super) line: u64,
    /// Text of that line.
    pub(super) text: String,
    /// Task, 0 when the log names none.
    pub(super) tid: u32,
    /// What.
    pub(super) what: What,
}

/// Kinds of events.
#[derive(Debug)]
pub(super) enum What {
    /// A call.
    Call(Call),
    /// The task is gone.
    Ended,
    /// The task's number now belongs to the task that executed execve.
    Superseded(u32),
}

/// A call whose result is still to come.
struct Pending {
    slot: usize,
    name: String,
    args: String,
}

/// Calls that take effect no later than their first line: what they release can be reused by
/// others before their last line is printed, and tasks they create run before it.
const EARLY: [&str; 12] = [
    "munmap",
    "close",
    "close_range",
    "execve",
    "execveat",
    "clone",
    "clone2",
    "clone3",
    "fork",
    "vfork",
    "exit",
    "exit_group",
];

struct Joiner<'a> {
    file: &'a str,
    slots: Vec<Option<Event>>,
    pending: BTreeMap<u32, Pending>,
    understood: u64,
    bad: u64,
    first_bad: Option<(u64, String)>,
}

/// Reads the whole log into events in the order in which they took effect.
pub(super) fn read(
    reader: impl BufRead,
    file: &str,
    summary: &mut Summary,
) -> Result<Vec<Event>, ImportError> {
    let mut joiner = Joiner {
        file,
        slots: Vec::new(),
        pending: BTreeMap::new(),
        understood: 0,
        bad: 0,
        first_bad: None,
    };
    let (mut reader, mut bytes) = (reader, Vec::new());
    loop {
        bytes.clear();
        let line = joiner.slots.len() as u64 + 1;
        let got = reader
            .read_until(b'\n', &mut bytes)
            .map_err(|source| match source.kind() {
                ErrorKind::UnexpectedEof => ImportError::Truncated {
                    file: file.to_owned(),
                    line,
                },
                _ => ImportError::Read {
                    file: file.to_owned(),
                    line,
                    source,
                },
            })?;
        if got == 0 {
            break;
        }
        joiner.slots.push(None);
        joiner.line(line, String::from_utf8_lossy(&bytes).trim_end(), summary);
    }
    joiner.finish(summary)
}

impl Joiner<'_> {
    fn line(&mut self, line: u64, text: &str, summary: &mut Summary) {
        summary.log_lines = line;
        let Some((tid, body)) = line::parse(text) else {
            return self.bad(line, text, "not a line of strace output", RECORD_WITH, summary);
        };
        let slot = self.slots.len() - 1;
        match body {
            Body::Remark => return,
            Body::Signal => summary.signals += 1,
            Body::Ended => self.put(slot, line, text, tid, What::Ended),
            Body::Superseded(by) => {
                if let Some(open) = self.pending.remove(&by) {
                    self.pending.insert(tid, open);
                }
                self.put(slot, line, text, tid, What::Superseded(by));
            }
            Body::Call(name, rest) => match line::call(name, rest) {
                Some(call) => self.put(slot, line, text, tid, What::Call(call)),
                None => {
                    let right = "name(arguments) = result";
                    return self.bad(
                        line,
                        text,
                        "the call has no result that can be read",
                        right,
                        summary,
                    );
                }
            },
            Body::Unfinished(name, rest) if name == "exit" || name == "exit_group" => {
                let call = Call {
                    name: name.to_owned(),
                    args: vec![rest.trim().to_owned()],
                    ret: line::Ret::Never,
                };
                self.put(slot, line, text, tid, What::Call(call));
            }
            Body::Unfinished(name, rest) => {
                let open = Pending {
                    slot,
                    name: name.to_owned(),
                    args: rest.to_owned(),
                };
                if let Some(lost) = self.pending.insert(tid, open) {
                    summary.skip(&lost.name, "never returned in the log");
                }
            }
            Body::Resumed(name, rest) => {
                return self.resumed(line, text, tid, (name, rest), summary);
            }
        }
        self.understood += 1;
    }

    fn resumed(
        &mut self,
        line: u64,
        text: &str,
        tid: u32,
        (name, rest): (&str, &str),
        summary: &mut Summary,
    ) {
        if name == "exit" || name == "exit_group" {
            self.understood += 1;
            return;
        }
        let right = "an earlier line of the same task that ends in <unfinished ...>";
        let open = match self.pending.remove(&tid) {
            Some(open) if open.name == name => open,
            Some(other) => {
                summary.skip(&other.name, "never returned in the log");
                return self.bad(
                    line,
                    text,
                    "resumes another call than the task began",
                    right,
                    summary,
                );
            }
            None => {
                return self.bad(
                    line,
                    text,
                    "resumes a call whose beginning is not in the log",
                    right,
                    summary,
                );
            }
        };
        let Some(call) = line::call(name, &format!("{}{rest}", open.args)) else {
            return self.bad(
                line,
                text,
                "the resumed call has no result that can be read",
                right,
                summary,
            );
        };
        let slot = if EARLY.contains(&name) {
            open.slot
        } else {
            self.slots.len() - 1
        };
        self.understood += 1;
        self.put(slot, line, text, tid, What::Call(call));
    }

    fn put(&mut self, slot: usize, line: u64, text: &str, tid: u32, what: What) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(Event {
                line,
                text: clip(text),
                tid,
                what,
            });
        }
    }

    fn bad(&mut self, line: u64, text: &str, wrong: &str, right: &str, summary: &mut Summary) {
        self.bad += 1;
        self.first_bad.get_or_insert_with(|| (line, clip(text)));
        summary.warn(self.file, line, text, wrong, right);
    }

    fn finish(self, summary: &mut Summary) -> Result<Vec<Event>, ImportError> {
        for open in self.pending.values() {
            summary.skip(&open.name, "never returned in the log");
        }
        if self.understood == 0 || self.bad > self.understood {
            let (line, text) = self.first_bad.unwrap_or((1, String::new()));
            return Err(ImportError::NotStrace {
                file: self.file.to_owned(),
                line,
                text,
            });
        }
        Ok(self.slots.into_iter().flatten().collect())
    }
}
