//! From a finished world to a [`RunResult`].

use std::collections::BTreeMap;
use std::rc::Rc;

use mm::notifier::{Knob, Registration, Traversal};
use mm::profile::PteLocks;
use reports::schema::{
    BreakdownRow, CallbackRow, Carried, DesignInfo, End as EndRow, EndKind, ExpectationRow,
    Histogram as HistogramData, HistogramRow, LockRow, LockSite, Metric, MetricKind, RUN_SCHEMA, RunResult,
    ScenarioId, SecondaryRow, Tool, ViolationRow,
};
use reports::trace::{TraceEvent, TraceKind};
use sim::{ClassStats, ENGINE_ACCOUNTS, End, Histogram, MetricDef, RecordKind, Violation, ViolationKind};

use super::attach;
use super::world::{Run, machine};
use super::{Outcome, Request};
use crate::ast::Expect;

/// Collects everything; the run is over.
pub(super) fn collect(run: &Run, request: &Request<'_>, end: End) -> Outcome {
    let audit = if end == End::Completed {
        run.world.audit()
    } else {
        Vec::new()
    };
    let mut violations: Vec<ViolationRow> = run.engine.violations().iter().map(violation_row).collect();
    violations.extend(audit.into_iter().map(|line| audit_row(run, line)));
    let mut result = RunResult {
        schema: RUN_SCHEMA.to_owned(),
        tool: Tool {
            name: "mmusim".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        scenario: scenario_id(request),
        seed: run.resolved.seed,
        label: run.resolved.design.short.to_owned(),
        design: design_info(run),
        kernel: kernel_name(run),
        machine: machine(run).name.clone(),
        cycle_ps: machine(run).cycle_ps,
        config: config(request, run),
        end: end_row(&end, &violations),
        virtual_cycles: run.engine.measured_time().get(),
        metrics: metrics(run),
        histograms: histograms(run),
        locks: locks(run),
        breakdown: breakdown(run),
        task_cycles: run.engine.task_time().get(),
        secondaries: secondaries(run),
        ipi_matrix: run.engine.ipi_matrix(),
        violations,
        expectations: Vec::new(),
        notes: notes(request, run),
    };
    judge(&mut result, request, run);
    let events = events(run);
    Outcome { result, events }
}

fn kernel_name(run: &Run) -> String {
    let preempt = match run.resolved.profile.preemption {
        sim::KernelPreemption::Full => "+preempt",
        sim::KernelPreemption::Voluntary => "",
    };
    let pte_locks = match run.resolved.profile.pte_locks {
        PteLocks::PerTable => "",
        PteLocks::PerMm => "+one-ptl",
    };
    format!("{}{preempt}{pte_locks}", run.resolved.profile.name)
}

/// FNV-1a, 64 bits: identifies a configuration, guards nothing.
fn digest(text: &str) -> String {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = text
        .bytes()
        .fold(OFFSET, |h, b| (h ^ u64::from(b)).wrapping_mul(PRIME));
    format!("{hash:016x}")
}

/// The scenario with the choices in force written into it.
fn config(request: &Request<'_>, run: &Run) -> serde_json::Value {
    let mut value = serde_json::to_value(request.scenario).expect("a scenario is plain data");
    let resolved = &run.resolved;
    value["machine"] = resolved.machine.name.clone().into();
    value["cpus"] = resolved.cpus.into();
    value["seed"] = resolved.seed.into();
    if request.overrides.design.is_some() {
        value["notifier"] = resolved.design.id.into();
    }
    let preempt = match resolved.profile.preemption {
        sim::KernelPreemption::Full => "on",
        sim::KernelPreemption::Voluntary => "off",
    };
    let split_ptlocks = match resolved.profile.pte_locks {
        PteLocks::PerTable => "on",
        PteLocks::PerMm => "off",
    };
    value["kernel"] = serde_json::json!({
        "base": resolved.profile.name,
        "preempt": preempt,
        "split_ptlocks": split_ptlocks,
    });
    value["unsupported"] = serde_json::to_value(resolved.unsupported).expect("an enum is plain data");
    value
}

fn scenario_id(request: &Request<'_>) -> ScenarioId {
    let text = serde_json::to_string(request.scenario).expect("a scenario is plain data");
    ScenarioId {
        title: request.scenario.title.clone(),
        file: request.file.to_owned(),
        digest: digest(&text),
    }
}

fn design_info(run: &Run) -> DesignInfo {
    let design = &run.resolved.design;
    let knob = |k: &Knob| match k {
        Knob::Registration(Registration::ListLock) => "registration = list-lock".to_owned(),
        Knob::Registration(Registration::TakeAllLocks) => "registration = take-all-locks".to_owned(),
        Knob::Registration(Registration::TakeAllInterleaved) => {
            "registration = take-all-interleaved".to_owned()
        }
        Knob::Registration(Registration::MmLock) => "registration = mm-lock".to_owned(),
        Knob::Registration(Registration::MmLockSearch) => "registration = mm-lock-search".to_owned(),
        Knob::Registration(Registration::MmLockAnonFirst) => "registration = mm-lock-anon-first".to_owned(),
        Knob::Traversal(Traversal::Bare) => "traversal = bare".to_owned(),
        Knob::Traversal(Traversal::Rcu) => "traversal = rcu".to_owned(),
        Knob::Traversal(Traversal::Srcu) => "traversal = srcu".to_owned(),
    };
    DesignInfo {
        id: design.id.to_owned(),
        title: design.title.to_owned(),
        summary: design.summary.to_owned(),
        overrides: design.overrides.iter().map(knob).collect(),
    }
}

fn violation_row(v: &Violation) -> ViolationRow {
    ViolationRow {
        kind: v.kind.id().to_owned(),
        summary: v.summary.clone(),
        time_cycles: v.time.get(),
        cpu: v.cpu.index() as u32,
        task: v.task.clone(),
        stack: v.stack.iter().map(ToString::to_string).collect(),
        held: v.held.clone(),
        history: v.history.clone(),
    }
}

fn audit_row(run: &Run, line: String) -> ViolationRow {
    ViolationRow {
        kind: ViolationKind::Model(mm::CONSERVATION).id().to_owned(),
        summary: line,
        time_cycles: run.engine.now().get(),
        cpu: 0,
        task: "audit".to_owned(),
        stack: Vec::new(),
        held: Vec::new(),
        history: Vec::new(),
    }
}

fn end_row(end: &End, violations: &[ViolationRow]) -> EndRow {
    let blocked = |list: &[sim::Blocked]| list.iter().map(ToString::to_string).collect();
    match end {
        End::Completed => match violations.first() {
            None => EndRow {
                kind: EndKind::Completed,
                summary: "every thread finished and every check held".to_owned(),
                evidence: Vec::new(),
            },
            Some(v) => EndRow {
                kind: EndKind::Violation,
                summary: v.summary.clone(),
                evidence: Vec::new(),
            },
        },
        End::Violation(v) => EndRow {
            kind: EndKind::Violation,
            summary: v.summary.clone(),
            evidence: v.held.clone(),
        },
        End::Deadlock(b) => EndRow {
            kind: EndKind::Deadlock,
            summary: format!("{} tasks wait for each other for ever", b.len()),
            evidence: blocked(b),
        },
        End::Livelock { events, unfinished } => EndRow {
            kind: EndKind::Livelock,
            summary: format!("{events} events without progress of time"),
            evidence: blocked(unfinished),
        },
        End::Budget { events, unfinished } => EndRow {
            kind: EndKind::BudgetExhausted,
            summary: format!("given up after {events} events"),
            evidence: blocked(unfinished),
        },
    }
}

fn metric(def: &MetricDef, value: u64) -> Metric {
    Metric {
        name: def.name.to_owned(),
        unit: def.unit.to_owned(),
        kind: match def.kind {
            sim::MetricKind::Counter => MetricKind::Counter,
            sim::MetricKind::Gauge => MetricKind::Gauge,
        },
        description: def.description.to_owned(),
        value,
    }
}

/// Metrics of all kernels and devices together; devices of one kind add up.
fn metrics(run: &Run) -> Vec<Metric> {
    let mut sum = mm::MmMetrics::default();
    for kernel in run.world.kernels() {
        sum.merge(&kernel.metrics());
    }
    let mut devices: BTreeMap<&'static str, (&'static MetricDef, u64)> =
        attach::metric_defs().map(|d| (d.name, (d, 0))).collect();
    let baseline = run.baseline.borrow();
    for mmu in run.processes().flat_map(|p| p.mmus.values()) {
        let Some(device) = mmu.device.get() else { continue };
        let before = baseline
            .iter()
            .find(|(name, _)| Rc::ptr_eq(name, &mmu.name))
            .map(|(_, m)| m);
        for (i, (def, value)) in attach::metrics(device).into_iter().enumerate() {
            let slot = &mut devices.get_mut(def.name).expect("declared").1;
            match def.kind {
                sim::MetricKind::Counter => *slot += value - before.map_or(0, |b| b[i].1),
                sim::MetricKind::Gauge => *slot = (*slot).max(value),
            }
        }
    }
    let mut all: Vec<Metric> = sum.values().map(|(d, v)| metric(d, v)).collect();
    all.extend(devices.into_values().map(|(d, v)| metric(d, v)));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn data(h: &Histogram) -> HistogramData {
    HistogramData {
        count: h.count(),
        total: h.total(),
        min: h.min(),
        max: h.max(),
        bins: h.bins(),
    }
}

fn histograms(run: &Run) -> Vec<HistogramRow> {
    let row = |(op, h): (&'static str, Histogram)| HistogramRow {
        name: format!("op.{op}.latency_cycles"),
        unit: "cycles".to_owned(),
        description: format!("duration of a script's `{op}` operations, from call to return"),
        data: data(&h),
    };
    run.latencies().into_iter().map(row).collect()
}

fn locks(run: &Run) -> Vec<LockRow> {
    let row = |class: String, s: &ClassStats| LockRow {
        class,
        acquisitions: s.acquisitions,
        contentions: s.contentions,
        wait: data(&s.wait),
        hold: data(&s.hold),
        sites: s.sites.iter().map(site).collect(),
    };
    fn site(s: &(&'static str, &'static str, u64)) -> LockSite {
        LockSite {
            waiter: s.0.to_owned(),
            holder: s.1.to_owned(),
            contentions: s.2,
        }
    }
    let mut rows = Vec::new();
    for class in run.engine.lock_stat() {
        let name = class.def.name;
        if class.def.kind.is_shared() {
            rows.push(row(format!("{name}-W"), &class.exclusive));
            rows.push(row(format!("{name}-R"), &class.shared));
        } else {
            rows.push(row(name.to_owned(), &class.exclusive));
        }
    }
    rows.retain(|r| r.acquisitions > 0);
    rows.sort_by(|a, b| a.class.cmp(&b.class));
    rows
}

fn breakdown(run: &Run) -> Vec<BreakdownRow> {
    let defs = ENGINE_ACCOUNTS.iter().chain(mm::account::ACCOUNTS.iter());
    defs.zip(run.engine.accounts())
        .map(|(def, cycles)| BreakdownRow {
            account: def.name.to_owned(),
            description: def.description.to_owned(),
            cycles: cycles.get(),
        })
        .collect()
}

fn secondaries(run: &Run) -> Vec<SecondaryRow> {
    let mut rows = Vec::new();
    for process in run.processes() {
        for mmu in process.mmus.values() {
            let kernel = process.kernel.st();
            let subscription = kernel
                .subscriptions
                .iter()
                .find(|s| Rc::ptr_eq(&s.handler.name(), &mmu.name));
            let callbacks = subscription.map_or_else(Vec::new, |s| {
                let row = |(c, n): (mm::notifier::Callback, mm::notifier::CallCount)| CallbackRow {
                    callback: c.name().to_owned(),
                    calls: n.calls,
                    cycles: n.cycles,
                };
                s.counts().map(row).collect()
            });
            rows.push(SecondaryRow {
                name: mmu.name.to_string(),
                kind: attach::kind(&mmu.def).name().to_owned(),
                process: process.name.to_string(),
                carried: mmu.carried,
                reason: mmu.reason.to_owned(),
                callbacks,
            });
        }
    }
    rows
}

fn notes(request: &Request<'_>, run: &Run) -> Vec<String> {
    let mut notes = request.scenario.notes.clone();
    for mmu in run.processes().flat_map(|p| p.mmus.values()) {
        let what = match mmu.carried {
            Carried::Full => continue,
            Carried::Pinned => "holds page references instead of being notified",
            Carried::Omitted => "is left out of this run",
            Carried::Broken => "is attached although the design cannot carry it",
        };
        notes.push(format!(
            "{} ({}): {what}, because {}",
            mmu.name,
            attach::kind(&mmu.def).name(),
            mmu.reason
        ));
    }
    notes
}

/// Checks the `expect` clauses that concern this run.
fn judge(result: &mut RunResult, request: &Request<'_>, run: &Run) {
    let design = &run.resolved.design;
    let concerns = |e: &&Expect| {
        e.under
            .as_ref()
            .is_none_or(|u| u == design.id || u == design.short)
    };
    let rows: Vec<ExpectationRow> = request
        .scenario
        .expect
        .iter()
        .filter(concerns)
        .map(|e| expectation(e, result))
        .collect();
    let failed = rows.iter().filter(|r| !r.ok).count();
    result.expectations = rows;
    // A run that did not complete has a worse end than a failed expectation.
    if failed > 0 && result.end.kind == EndKind::Completed {
        result.end = EndRow {
            kind: EndKind::ExpectationFailed,
            summary: format!("{failed} of {} expectations failed", result.expectations.len()),
            evidence: Vec::new(),
        };
    }
}

fn expectation(e: &Expect, result: &RunResult) -> ExpectationRow {
    if let Some(text) = &e.is {
        let actual = match e.subject.as_str() {
            "end" => end_name(result.end.kind).to_owned(),
            "violation" => result
                .violations
                .first()
                .map_or_else(|| "none".to_owned(), |v| v.kind.clone()),
            other => {
                reports::figure(result, other).map_or_else(|| "no such metric".to_owned(), |v| v.to_string())
            }
        };
        let ok = actual == *text;
        return ExpectationRow {
            subject: e.subject.clone(),
            expected: text.clone(),
            actual,
            ok,
        };
    }
    let mut wanted = Vec::new();
    let value = reports::figure(result, &e.subject);
    let mut ok = value.is_some();
    let mut check = |bound: Option<u64>, sign: &str, holds: fn(u64, u64) -> bool| {
        if let Some(bound) = bound {
            wanted.push(format!("{sign} {bound}"));
            ok &= value.is_some_and(|v| holds(v, bound));
        }
    };
    check(e.equals, "=", |v, b| v == b);
    check(e.at_least, ">=", |v, b| v >= b);
    check(e.at_most, "<=", |v, b| v <= b);
    ExpectationRow {
        subject: e.subject.clone(),
        expected: wanted.join(" and "),
        actual: value.map_or_else(|| "no such metric".to_owned(), |v| v.to_string()),
        ok,
    }
}

/// Name of an end as `expect` writes it.
pub(super) const fn end_name(kind: EndKind) -> &'static str {
    match kind {
        EndKind::Completed => "completed",
        EndKind::Violation => "violation",
        EndKind::ExpectationFailed => "expectation-failed",
        EndKind::Deadlock => "deadlock",
        EndKind::Livelock => "livelock",
        EndKind::BudgetExhausted => "budget-exhausted",
    }
}

fn events(run: &Run) -> Vec<TraceEvent> {
    let names = run.engine.task_names();
    let machine: Rc<str> = "machine".into();
    let mut interned: BTreeMap<&'static str, Rc<str>> = BTreeMap::new();
    let mut intern = |name: &'static str| Rc::clone(interned.entry(name).or_insert_with(|| name.into()));
    let records = run.engine.take_log();
    records
        .iter()
        .map(|r| TraceEvent {
            time_cycles: r.time.get(),
            cpu: r.cpu.index() as u32,
            task: r.task.index() as u32,
            task_name: Rc::clone(names.get(r.task.index()).unwrap_or(&machine)),
            kind: match r.kind {
                RecordKind::Begin(name) => TraceKind::Begin(intern(name)),
                RecordKind::End(name) => TraceKind::End(intern(name)),
                RecordKind::Mark(mark, _) => TraceKind::Instant {
                    name: intern(mark.name),
                    args: r.text().1,
                },
            },
        })
        .collect()
}
