//! ftrace's text form, as `trace-cmd report` and `/sys/kernel/tracing/trace` print it, with
//! nanoseconds, since a microsecond holds thousands of cycles.

use std::io::{self, Write};

use super::{TraceEvent, TraceKind, ordered};

/// What to keep of a trace. An empty list keeps everything; the lists must all agree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Task names.
    pub tasks: Vec<String>,
    /// CPU numbers.
    pub cpus: Vec<u32>,
    /// Event names, or one of `begin`, `end`, `instant`, `counter` for a whole kind.
    pub kinds: Vec<String>,
}

impl EventFilter {
    /// Whether an event is kept.
    #[must_use]
    pub fn keeps(&self, event: &TraceEvent) -> bool {
        let kind = match event.kind {
            TraceKind::Begin(_) => "begin",
            TraceKind::End(_) => "end",
            TraceKind::Instant { .. } => "instant",
            TraceKind::Counter { .. } => "counter",
        };
        let name = event.kind.name();
        (self.tasks.is_empty() || self.tasks.iter().any(|t| **t == *event.task_name))
            && (self.cpus.is_empty() || self.cpus.contains(&event.cpu))
            && (self.kinds.is_empty() || self.kinds.iter().any(|k| k == name || k == kind))
    }
}

/// Writes events as text, in the column order of ftrace. Entering and leaving a function are lines
/// `name: enter` and `name: exit`.
///
/// # Errors
/// When `out` cannot be written.
pub fn ftrace(
    events: &[TraceEvent],
    cycle_ps: u64,
    filter: &EventFilter,
    out: &mut dyn Write,
) -> io::Result<()> {
    let kept: Vec<&TraceEvent> = ordered(events).into_iter().filter(|e| filter.keeps(e)).collect();
    let cpus = events.iter().map(|e| e.cpu + 1).max().unwrap_or(0);
    head(kept.len(), events.len(), cpus, out)?;
    for e in kept {
        let ns = u128::from(e.time_cycles) * u128::from(cycle_ps) / 1000;
        write!(
            out,
            "{:>16}-{:<7} [{:03}] ..... {:>5}.{:09}: {}: ",
            one_line(&e.task_name),
            pid(e.task),
            e.cpu,
            ns / 1_000_000_000,
            ns % 1_000_000_000,
            one_line(e.kind.name())
        )?;
        match &e.kind {
            TraceKind::Begin(_) => writeln!(out, "enter")?,
            TraceKind::End(_) => writeln!(out, "exit")?,
            TraceKind::Instant { args, .. } => writeln!(out, "{}", one_line(args))?,
            TraceKind::Counter { value, .. } => writeln!(out, "value:{value}")?,
        }
    }
    Ok(())
}

/// What the machine does outside all tasks has the largest number as its task; ftrace has 0 there.
fn pid(task: u32) -> u32 {
    if task == u32::MAX { 0 } else { task }
}

fn head(kept: usize, all: usize, cpus: u32, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "# tracer: nop")?;
    writeln!(out, "#")?;
    writeln!(
        out,
        "# entries-in-buffer/entries-written: {kept}/{all}   #P:{cpus}"
    )?;
    writeln!(out, "#")?;
    for line in [
        "#                                _-----=> irqs-off/BH-disabled",
        "#                               / _----=> need-resched",
        "#                              | / _---=> hardirq/softirq",
        "#                              || / _--=> preempt-depth",
        "#                              ||| / _-=> migrate-disable",
        "#                              |||| /     delay",
        "#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION",
        "#              | |         |   |||||     |         |",
    ] {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::story;
    use super::*;

    fn written(filter: &EventFilter) -> Vec<String> {
        let mut out = Vec::new();
        ftrace(&story(), 1000, filter, &mut out).unwrap();
        String::from_utf8(out)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn columns_are_those_of_ftrace() {
        let lines = written(&EventFilter::default());
        assert_eq!(lines[0], "# tracer: nop");
        assert_eq!(
            lines[2],
            format!(
                "# entries-in-buffer/entries-written: {0}/{0}   #P:2",
                story().len()
            )
        );
        let first = lines.iter().find(|l| !l.starts_with('#')).unwrap();
        assert_eq!(
            first,
            "            main-3       [000] .....     0.000000100: zap_pte_range: enter"
        );
        assert!(lines.iter().any(|l| l.ends_with("tlb_flush: pages:8 reason:zap")));
        assert!(lines.iter().any(|l| l.ends_with("pages.pinned: value:-4")));
    }

    #[test]
    fn filters_combine() {
        let body = |f: &EventFilter| written(f).iter().filter(|l| !l.starts_with('#')).count();
        let all = story().len();
        assert_eq!(body(&EventFilter::default()), all);
        let tasks = vec!["vcpu0".to_owned()];
        let by_task = body(&EventFilter {
            tasks: tasks.clone(),
            ..Default::default()
        });
        assert_eq!(
            by_task,
            story().iter().filter(|e| &*e.task_name == "vcpu0").count()
        );
        assert_eq!(
            body(&EventFilter {
                cpus: vec![7],
                ..Default::default()
            }),
            0
        );
        assert_eq!(
            body(&EventFilter {
                kinds: vec!["instant".into()],
                ..Default::default()
            }),
            1
        );
        assert_eq!(
            body(&EventFilter {
                kinds: vec!["tlb_flush".into()],
                tasks,
                ..Default::default()
            }),
            0
        );
    }
}
