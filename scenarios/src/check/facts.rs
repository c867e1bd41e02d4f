//! What a scenario names and where, gathered in one walk before the checks.

use std::collections::{BTreeMap, BTreeSet};

use crate::ast::{MapDef, Op, ProcessDef, Scenario};

/// Pages of a mapping, when they can be told from the file alone.
pub(super) type Extent = Option<u64>;

/// Names that several checks look up.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    /// Largest size each file ever has.
    pub(super) files: BTreeMap<&'a str, u64>,
    /// Mappings that each process may name.
    pub(super) maps: BTreeMap<&'a str, BTreeMap<&'a str, Extent>>,
    /// Process that forks a child.
    pub(super) parents: BTreeMap<&'a str, &'a str>,
    /// Threads that take part in each barrier.
    pub(super) barriers: BTreeMap<&'a str, BTreeSet<(&'a str, &'a str)>>,
    /// Secondary MMUs that an operation registers.
    pub(super) registered: BTreeSet<(&'a str, &'a str)>,
    /// Mappings that an operation resizes, by process.
    resized: BTreeSet<(&'a str, &'a str)>,
}

impl<'a> Facts<'a> {
    /// Walks the scenario.
    pub(super) fn gather(scenario: &'a Scenario) -> Self {
        let mut facts = Facts::default();
        for (name, file) in &scenario.files {
            facts.files.insert(name, file.pages);
        }
        for (name, process) in &scenario.processes {
            facts.declared(name, process, scenario);
            for (thread, def) in &process.threads {
                each_op(&def.script, &mut |op| facts.op(name, thread, op));
            }
        }
        // Before a child inherits what its parent resized, and after, for what it resizes itself.
        facts.forget_resized();
        facts.inherit(scenario);
        facts.forget_resized();
        facts
    }

    fn forget_resized(&mut self) {
        for (process, map) in &self.resized {
            if let Some(extent) = self.maps.get_mut(process).and_then(|maps| maps.get_mut(map)) {
                *extent = None;
            }
        }
    }

    fn declared(&mut self, name: &'a str, process: &'a ProcessDef, scenario: &'a Scenario) {
        let maps = self.maps.entry(name).or_default();
        for (map, def) in &process.maps {
            maps.insert(map, map_pages(def, scenario));
        }
    }

    fn op(&mut self, process: &'a str, thread: &'a str, op: &'a Op) {
        match op {
            Op::Mmap(op) => {
                if let Some(name) = &op.name {
                    let maps = self.maps.entry(process).or_default();
                    let known = maps.entry(name).or_insert(Some(op.pages));
                    if *known != Some(op.pages) {
                        *known = None;
                    }
                }
            }
            Op::Mremap(op) => {
                if let Some(name) = &op.region.map {
                    self.resized.insert((process, name));
                }
            }
            Op::Truncate(op) => {
                self.files
                    .entry(&op.file)
                    .and_modify(|pages| *pages = op.pages.max(*pages));
            }
            Op::Fork(op) => {
                self.parents.entry(&op.child).or_insert(process);
            }
            Op::Barrier(op) => {
                self.barriers
                    .entry(&op.name)
                    .or_default()
                    .insert((process, thread));
            }
            Op::Register(op) => {
                self.registered.insert((process, &op.mmu));
            }
            _ => {}
        }
    }

    /// A forked process may name what its ancestors mapped. Sizes may differ by the time it forks.
    fn inherit(&mut self, scenario: &'a Scenario) {
        for name in scenario.processes.keys() {
            let mut seen = BTreeSet::from([name.as_str()]);
            let mut here = name.as_str();
            while let Some(&parent) = self.parents.get(here) {
                if !seen.insert(parent) {
                    break;
                }
                let inherited = self.maps.get(parent).cloned().unwrap_or_default();
                let own = self.maps.entry(name).or_default();
                for (map, extent) in inherited {
                    own.entry(map).or_insert(extent);
                }
                here = parent;
            }
        }
    }
}

/// Calls `visit` with each operation of a script, those inside `repeat` included.
pub(super) fn each_op<'a>(script: &'a [Op], visit: &mut dyn FnMut(&'a Op)) {
    for op in script {
        visit(op);
        if let Op::Repeat(repeat) = op {
            each_op(&repeat.script, visit);
        }
    }
}

/// Pages of a declared mapping.
pub(super) fn map_pages(map: &MapDef, scenario: &Scenario) -> Extent {
    map.pages.or_else(|| {
        let file = scenario.files.get(map.file.as_ref()?)?;
        file.pages.checked_sub(map.offset)
    })
}
