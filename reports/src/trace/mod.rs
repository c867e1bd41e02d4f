//! Timelines: a stream of events, written for Perfetto or in ftrace's text form.
//!
//! The two writers share one input, [`TraceEvent`], in order of time. Slices (`Begin`/`End`) nest
//! strictly on each task: whatever the input does, what is written opens and closes properly.

mod ftrace;
mod perfetto;

pub use ftrace::{EventFilter, ftrace};
pub use perfetto::perfetto;

use std::collections::BTreeMap;
use std::rc::Rc;

/// One event of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEvent {
    /// Virtual time, in cycles.
    pub time_cycles: u64,
    /// CPU number.
    pub cpu: u32,
    /// Task number; stands where ftrace prints the pid.
    pub task: u32,
    /// Task name.
    pub task_name: Rc<str>,
    /// What happened.
    pub kind: TraceKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceKind {
    /// A model function was entered, or another slice of time began.
    Begin(Rc<str>),
    /// The slice of that name ended.
    End(Rc<str>),
    /// Something without duration.
    Instant {
        /// Event name, for example `tlb_flush`.
        name: Rc<str>,
        /// `key:value` pairs, blank-separated; may be empty.
        args: String,
    },
    /// A level changed.
    Counter {
        /// Counter name, for example `pages.pinned`.
        name: Rc<str>,
        /// The new level.
        value: i64,
    },
}

impl TraceKind {
    /// Name of the event.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Begin(name) | Self::End(name) => name,
            Self::Instant { name, .. } | Self::Counter { name, .. } => name,
        }
    }
}

/// Events in order of time; those of one time keep their order.
fn ordered(events: &[TraceEvent]) -> Vec<&TraceEvent> {
    let mut sorted: Vec<&TraceEvent> = events.iter().collect();
    sorted.sort_by_key(|e| e.time_cycles);
    sorted
}

/// Events in order of time whose slices nest on each task: an `End` first closes what was opened
/// inside its slice, an `End` of nothing is dropped, and the end of the trace closes the rest.
fn balanced(events: &[TraceEvent]) -> Vec<TraceEvent> {
    let mut open: BTreeMap<u32, Vec<&TraceEvent>> = BTreeMap::new();
    let mut out = Vec::with_capacity(events.len());
    let mut last = 0;
    for event in ordered(events) {
        last = event.time_cycles;
        let stack = open.entry(event.task).or_default();
        match &event.kind {
            TraceKind::Begin(_) => stack.push(event),
            TraceKind::End(name) => {
                if let Some(at) = stack.iter().rposition(|b| b.kind.name() == &**name) {
                    out.extend(stack.drain(at..).rev().map(|b| end_of(b, last)));
                }
                continue;
            }
            TraceKind::Instant { .. } | TraceKind::Counter { .. } => {}
        }
        out.push(event.clone());
    }
    for stack in open.into_values() {
        out.extend(stack.into_iter().rev().map(|b| end_of(b, last)));
    }
    out
}

fn end_of(begin: &TraceEvent, time_cycles: u64) -> TraceEvent {
    TraceEvent {
        time_cycles,
        kind: TraceKind::End(begin.kind.name().into()),
        ..begin.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(time_cycles: u64, task: u32, kind: TraceKind) -> TraceEvent {
        let (task_name, cpu) = if task == 3 { ("main", 0) } else { ("vcpu0", 1) };
        TraceEvent {
            time_cycles,
            cpu,
            task,
            task_name: task_name.into(),
            kind,
        }
    }

    /// Two tasks, with a slice left open, one closed out of order, and an end of nothing.
    pub(super) fn story() -> Vec<TraceEvent> {
        let begin = |t, task, n: &str| event(t, task, TraceKind::Begin(n.into()));
        let end = |t, task, n: &str| event(t, task, TraceKind::End(n.into()));
        vec![
            begin(100, 3, "zap_pte_range"),
            begin(110, 4, "guest"),
            begin(120, 3, "invalidate_page"),
            event(
                130,
                3,
                TraceKind::Instant {
                    name: "tlb_flush".into(),
                    args: "pages:8 reason:zap".into(),
                },
            ),
            end(140, 4, "never begun"),
            event(
                150,
                4,
                TraceKind::Counter {
                    name: "pages.pinned".into(),
                    value: -4,
                },
            ),
            end(160, 3, "zap_pte_range"),
            begin(170, 3, "never ended"),
            end(180, 3, "invalidate_page"),
            end(190, 4, "guest"),
        ]
    }

    #[test]
    fn slices_are_made_to_nest() {
        let kinds: Vec<(u64, TraceKind)> = balanced(&story())
            .into_iter()
            .filter(|e| e.task == 3)
            .map(|e| (e.time_cycles, e.kind))
            .collect();
        let end = |t, n: &str| (t, TraceKind::End(n.into()));
        assert!(
            kinds.contains(&end(160, "invalidate_page")),
            "closed with its parent"
        );
        assert!(
            kinds.contains(&end(190, "never ended")),
            "closed at the end of the trace"
        );
        let begins = kinds
            .iter()
            .filter(|(_, k)| matches!(k, TraceKind::Begin(_)))
            .count();
        let ends = kinds
            .iter()
            .filter(|(_, k)| matches!(k, TraceKind::End(_)))
            .count();
        assert_eq!((begins, ends), (3, 3));
    }

    #[test]
    fn events_out_of_order_are_sorted() {
        let mut shuffled = story();
        shuffled.reverse();
        let times: Vec<u64> = balanced(&shuffled).iter().map(|e| e.time_cycles).collect();
        assert!(times.is_sorted());
    }
}
