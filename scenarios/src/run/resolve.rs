//! Resolving names and knobs into values.

use std::path::Path;

use mm::notifier::{Design, Knob, Registration, Sleepable, Traversal};
use mm::profile::{PteLocks, RmapLocks};
use mm::{KernelPreemption, KernelProfile};
use x86::{Machine, MachineError};

use super::{Request, RunError};
use crate::ast::{
    KernelChoice, KernelDef, NotifierChoice, RegistrationKnob, Switch, TraversalKnob, Unsupported,
};

/// Everything a run is determined by, besides the scenario's processes.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Machine.
    pub machine: Machine,
    /// Kernel profile.
    pub profile: KernelProfile,
    /// Notifier design.
    pub design: Design,
    /// Rule for MMUs the design cannot carry.
    pub unsupported: Unsupported,
    /// Seed.
    pub seed: u64,
    /// CPUs of each kernel.
    pub cpus: u32,
    /// Huge pages of each kernel.
    pub hugepages: u64,
}

fn unknown(what: &str, name: &str, known: &[&str]) -> RunError {
    RunError {
        message: format!("unknown {what} `{name}`"),
        help: format!("known are {}", known.join(", ")),
    }
}

pub(super) fn resolve(request: &Request<'_>) -> Result<Resolved, RunError> {
    let scenario = request.scenario;
    let mut machine = Machine::find(&scenario.machine, Path::new("")).map_err(|error| match error {
        MachineError::Unknown(_) => unknown("machine", &scenario.machine, Machine::presets()),
        other => RunError {
            message: other.to_string(),
            help: "paths in a scenario are relative to its file".to_owned(),
        },
    })?;
    if let Some(memory) = scenario.memory {
        machine.memory_pages = memory.pages;
    }
    let design = resolve_design(request)?;
    let profile = resolve_profile(request, &design)?;
    refuse_senseless_pair(&design, &profile)?;
    let cpus = request.overrides.cpus.or(scenario.cpus).unwrap_or(machine.cpus());
    if cpus == 0 || cpus > machine.cpus() {
        return Err(RunError {
            message: format!("{cpus} CPUs on {}", machine.name),
            help: format!("it has 1 to {}", machine.cpus()),
        });
    }
    Ok(Resolved {
        profile,
        design,
        cpus,
        unsupported: request.overrides.unsupported.unwrap_or(scenario.unsupported),
        seed: request.overrides.seed.unwrap_or(scenario.seed),
        hugepages: match &scenario.kernel {
            KernelChoice::Name(_) => 0,
            KernelChoice::Custom(def) => def.hugepages,
        },
        machine,
    })
}

fn resolve_design(request: &Request<'_>) -> Result<Design, RunError> {
    let names: Vec<&str> = Design::ALL.iter().map(|d| d.id).collect();
    let by_name = |name: &str| Design::by_name(name).ok_or_else(|| unknown("notifier design", name, &names));
    if let Some(name) = &request.overrides.design {
        return by_name(name);
    }
    let def = match &request.scenario.notifier {
        NotifierChoice::Name(name) => return by_name(name),
        NotifierChoice::Custom(def) => def,
    };
    let mut design = by_name(&def.base)?;
    if let Some(knob) = def.registration {
        design = design.with(Knob::Registration(match knob {
            RegistrationKnob::ListLock => Registration::ListLock,
            RegistrationKnob::TakeAllLocks => Registration::TakeAllLocks,
            RegistrationKnob::TakeAllInterleaved => Registration::TakeAllInterleaved,
            RegistrationKnob::MmLock => Registration::MmLock,
            RegistrationKnob::MmLockSearch => Registration::MmLockSearch,
            RegistrationKnob::MmLockAnonFirst => Registration::MmLockAnonFirst,
        }));
    }
    if let Some(knob) = def.traversal {
        design = design.with(Knob::Traversal(match knob {
            TraversalKnob::Bare => Traversal::Bare,
            TraversalKnob::Rcu => Traversal::Rcu,
            TraversalKnob::Srcu => Traversal::Srcu,
        }));
    }
    Ok(design)
}

fn resolve_profile(request: &Request<'_>, design: &Design) -> Result<KernelProfile, RunError> {
    let names: Vec<&str> = KernelProfile::ALL.iter().map(|p| p.name).collect();
    let named;
    let def = match &request.scenario.kernel {
        KernelChoice::Name(name) => {
            named = KernelDef {
                base: Some(name.clone()),
                ..KernelDef::default()
            };
            &named
        }
        KernelChoice::Custom(def) => def,
    };
    // A design brings the profile it was made for, unless somebody insists on another one.
    let overridden = request.overrides.kernel.as_deref();
    let compared = request.overrides.design.is_some();
    let name = overridden
        .or(if compared { None } else { def.base.as_deref() })
        .unwrap_or(design.profile);
    let mut profile = KernelProfile::by_name(name)
        .cloned()
        .ok_or_else(|| unknown("kernel", name, &names))?;
    match request.overrides.preempt.or(def.preempt) {
        Some(Switch::On) => profile.preemption = KernelPreemption::Full,
        Some(Switch::Off) => profile.preemption = KernelPreemption::Voluntary,
        None => {}
    }
    match def.split_ptlocks {
        Some(Switch::On) => profile.pte_locks = PteLocks::PerTable,
        Some(Switch::Off) => profile.pte_locks = PteLocks::PerMm,
        None => {}
    }
    Ok(profile)
}

/// A design whose callbacks sleep needs a kernel whose rmap locks may be slept with.
fn refuse_senseless_pair(design: &Design, profile: &KernelProfile) -> Result<(), RunError> {
    if design.sleepable == Sleepable::Yes && profile.rmap_locks == RmapLocks::Spin {
        return Err(RunError {
            message: format!(
                "{} on {}: its callbacks sleep under i_mmap_lock, a spinlock there",
                design.id, profile.name
            ),
            help: format!("use {}, which it was made for", design.profile),
        });
    }
    Ok(())
}
