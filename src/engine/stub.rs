//! Stand-in for `scenarios::run`.

use mm::KernelProfile;
use mm::notifier::Design;
use reports::schema::*;
use reports::trace::{TraceEvent, TraceKind};
use scenarios::ast::{self, NotifierChoice, Scenario};
use scenarios::check::{Known, MachineFacts};

#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    pub(crate) design: Option<String>,
    pub(crate) kernel: Option<String>,
    pub(crate) preempt: Option<ast::Switch>,
    pub(crate) seed: Option<u64>,
    pub(crate) unsupported: Option<ast::Unsupported>,
    pub(crate) cpus: Option<u32>,
}
pub(crate) struct Request<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) file: &'a str,
    pub(crate) overrides: Overrides,
    pub(crate) logging: sim::Logging,
    pub(crate) max_events: Option<u64>,
}
pub(crate) struct Outcome {
    pub(crate) result: RunResult,
    pub(crate) events: Vec<TraceEvent>,
}
#[derive(Debug)]
pub(crate) struct RunError(String);
impl std::fmt::Display for RunError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for RunError {}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Randomness {
    None,
    Draws,
}
pub(crate) fn randomness(s: &Scenario) -> Randomness {
    if s.seed == 7 { Randomness::Draws } else { Randomness::None }
}
pub(crate) struct KnownLists {
    machines: Vec<(&'static str, MachineFacts)>,
    kernels: Vec<&'static str>,
    designs: Vec<&'static str>,
}
pub(crate) fn known() -> KnownLists {
    let machine = |name: &&'static str| {
        let m = x86::Machine::preset(name).unwrap();
        let facts = MachineFacts {
            cpus: m.cpus(),
            memory_pages: m.memory_pages,
            nested_paging: m.nested_paging.is_available(),
        };
        (*name, facts)
    };
    KnownLists {
        machines: x86::Machine::presets().iter().map(machine).collect(),
        kernels: KernelProfile::ALL.iter().map(|k| k.name).collect(),
        designs: Design::ALL.iter().flat_map(|d| [d.id, d.short]).collect(),
    }
}
impl KnownLists {
    pub(crate) fn as_known(&self) -> Known<'_> {
        Known {
            machines: &self.machines,
            kernels: &self.kernels,
            designs: &self.designs,
        }
    }
}
pub(crate) fn run(r: &Request<'_>) -> Result<Outcome, RunError> {
    let o = &r.overrides;
    let own = match &r.scenario.notifier {
        NotifierChoice::Name(n) => n.clone(),
        NotifierChoice::Custom(c) => c.base.clone(),
    };
    let d = Design::by_name(o.design.as_deref().unwrap_or(&own)).unwrap();
    let kernel = o.kernel.clone().unwrap_or(d.profile.to_owned());
    if d.short == "v9" && kernel == "linux-2.6.27" {
        return Err(RunError("design `v9-sleepable` cannot run on `linux-2.6.27`".into()));
    }
    let seed = o.seed.unwrap_or(r.scenario.seed);
    let n = u64::from(d.short.as_bytes()[1]) + seed;
    let result = RunResult {
        schema: RUN_SCHEMA.into(),
        tool: Tool { name: "mmusim".into(), version: "0.1.0".into() },
        scenario: ScenarioId { title: r.scenario.title.clone(), file: r.file.into(), digest: "0".repeat(16) },
        seed,
        label: d.short.into(),
        design: DesignInfo { id: d.id.into(), title: d.title.into(), summary: d.summary.into(), overrides: vec![] },
        kernel,
        machine: r.scenario.machine.clone(),
        cycle_ps: 333,
        config: serde_json::to_value(r.scenario).unwrap(),
        end: if r.max_events == Some(1) {
            End { kind: EndKind::BudgetExhausted, summary: "1 event".into(), evidence: vec![] }
        } else {
            End { kind: EndKind::Completed, summary: "done".into(), evidence: vec![] }
        },
        virtual_cycles: 100 * n,
        metrics: vec![Metric { name: "tlb.shootdown.ipis".into(), unit: "count".into(), kind: MetricKind::Counter, description: "x".into(), value: n }],
        histograms: vec![],
        locks: vec![],
        breakdown: vec![],
        task_cycles: 0,
        secondaries: vec![],
        ipi_matrix: vec![],
        violations: vec![],
        expectations: vec![],
        notes: vec![],
    };
    let _ = (o.preempt, o.unsupported, o.cpus);
    let events = if r.logging == sim::Logging::Full {
        vec![TraceEvent { time_cycles: 1, cpu: 0, task: 1, task_name: "main".into(), kind: TraceKind::Begin("zap".into()) }]
    } else {
        vec![]
    };
    Ok(Outcome { result, events })
}
