//! What a machine file says, and what it must not.

use serde::Deserialize;

use super::costs::CostSheet;
use super::decode::decode;
use super::document::{Fault, Node};
use super::features::FeatureSheet;
use super::spec::{CostUnit, WalkCharged, check, sourced};
use super::{Machine, NestedPaging, Target};
use crate::cache::{CacheArray, CacheGeometry};
use crate::psc::PscBank;
use crate::tlb::{TlbBank, TlbGeometry};

/// Most logical CPUs of a machine; CPU numbers have 16 bits elsewhere.
const MOST_CPUS: u64 = 1 << 12;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MachineFile {
    name: String,
    title: String,
    description: String,
    cycle_ps: u64,
    sockets: u32,
    cores_per_socket: u32,
    threads_per_core: u32,
    nodes: Option<u32>,
    memory_pages: u64,
    nested_paging: NestedPaging,
    features: FeatureSheet,
    tlb: TlbGeometry,
    #[serde(default)]
    paging_structure_caches: Vec<PscBank>,
    caches: CacheGeometry,
    walk_charged_percent: WalkCharged,
    costs: CostSheet,
    #[serde(default)]
    targets: Vec<NamedSpec>,
}

/// A target as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedSpec {
    name: String,
    value: u64,
    unit: CostUnit,
    range: (u64, u64),
    source: String,
    #[serde(default)]
    note: String,
}

/// The machine that a file, with what it extends, describes.
pub(super) fn machine(tree: &Node) -> Result<Machine, Fault> {
    let file: MachineFile = decode(tree)?;
    file.check().map_err(|(path, what)| Fault {
        what,
        place: Some(tree.locate(&path)),
        path,
    })?;
    let machine = Machine {
        costs: file.costs.in_cycles(file.cycle_ps),
        name: file.name,
        title: file.title,
        description: file.description,
        cycle_ps: file.cycle_ps,
        sockets: file.sockets,
        cores_per_socket: file.cores_per_socket,
        threads_per_core: file.threads_per_core,
        nodes: file.nodes.unwrap_or(file.sockets),
        memory_pages: file.memory_pages,
        nested_paging: file.nested_paging,
        features: file.features.values(),
        tlb: file.tlb,
        psc: file.paging_structure_caches,
        caches: file.caches,
        walk_charged: file.walk_charged_percent,
        sheet: file.costs,
        feature_sheet: file.features,
        targets: file.targets.into_iter().map(Target::from).collect(),
    };
    has_what_it_prices(&machine).map_err(|(path, what)| Fault {
        what,
        place: Some(tree.locate(&path)),
        path,
    })?;
    Ok(machine)
}

/// A path in the file, and what is wrong there.
type Complaint = (String, String);

impl MachineFile {
    fn check(&self) -> Result<(), Complaint> {
        self.check_shape()?;
        self.features
            .check()
            .map_err(|(key, why)| (format!("features.{key}"), why))?;
        self.check_tlb()?;
        crate::Shape::check_together(self.paging_structure_caches.iter().map(|bank| bank.shape))
            .map_err(|why| ("paging_structure_caches".to_owned(), why))?;
        for (index, bank) in self.paging_structure_caches.iter().enumerate() {
            let path = format!("paging_structure_caches[{index}]");
            if bank.holds.is_empty() {
                return Err((path, "holds no level; leave the bank out instead".to_owned()));
            }
            sourced(&bank.source).map_err(|why| (path, why))?;
        }
        self.check_caches()?;
        for (index, target) in self.targets.iter().enumerate() {
            let path = format!("targets[{index}]");
            check(target.value, target.range, &target.source).map_err(|why| (path.clone(), why))?;
            if self.targets[..index]
                .iter()
                .any(|known| known.name == target.name)
            {
                return Err((path, format!("target `{}` is given twice", target.name)));
            }
        }
        Ok(())
    }

    fn check_shape(&self) -> Result<(), Complaint> {
        if self.name.trim().is_empty() {
            return Err(("name".to_owned(), "is empty".to_owned()));
        }
        for (what, value) in [
            ("cycle_ps", self.cycle_ps),
            ("sockets", u64::from(self.sockets)),
            ("cores_per_socket", u64::from(self.cores_per_socket)),
            ("threads_per_core", u64::from(self.threads_per_core)),
            ("memory_pages", self.memory_pages),
        ] {
            if value == 0 {
                return Err((what.to_owned(), format!("{what} is zero: give at least 1")));
            }
        }
        let most = u64::from(u32::MAX);
        if self.memory_pages > most {
            let what = format!("frame numbers have 32 bits: at most {most} pages");
            return Err(("memory_pages".to_owned(), what));
        }
        let cores = u64::from(self.sockets).saturating_mul(u64::from(self.cores_per_socket));
        if cores.saturating_mul(u64::from(self.threads_per_core)) > MOST_CPUS {
            let what =
                format!("more than {MOST_CPUS} CPUs: lower sockets, cores_per_socket or threads_per_core");
            return Err(("sockets".to_owned(), what));
        }
        if let Some(nodes) = self.nodes
            && (nodes == 0 || cores % u64::from(nodes) != 0)
        {
            let what = format!("{nodes} nodes: {cores} cores must divide into them evenly");
            return Err(("nodes".to_owned(), what));
        }
        Ok(())
    }

    fn check_tlb(&self) -> Result<(), Complaint> {
        let tlb = &self.tlb;
        let second: Vec<TlbBank> = tlb.l2.iter().map(|second| second.bank.clone()).collect();
        for (name, banks) in [
            ("load", &tlb.load),
            ("store", &tlb.store),
            ("fetch", &tlb.fetch),
            ("l2", &second),
        ] {
            for (index, bank) in banks.iter().enumerate() {
                let path = format!("tlb.{name}[{index}]");
                if bank.holds.iter().next().is_none() {
                    return Err((path, "holds no page size; leave the bank out instead".to_owned()));
                }
                sourced(&bank.source).map_err(|why| (path, why))?;
            }
        }
        tlb.check().map_err(|why| ("tlb".to_owned(), why))
    }

    fn check_caches(&self) -> Result<(), Complaint> {
        let outer = self.caches.llc.as_ref().map(|llc| ("llc.cache", &llc.cache));
        let levels = [("l1", &self.caches.l1), ("l2", &self.caches.l2)];
        let mut inner: Option<&CacheArray> = None;
        for (name, cache) in levels.into_iter().chain(outer) {
            let path = format!("caches.{name}");
            cache.check().map_err(|why| (path.clone(), why))?;
            sourced(&cache.source).map_err(|why| (path.clone(), why))?;
            let cores = cache.cores;
            if cores < self.cores_per_socket && !self.cores_per_socket.is_multiple_of(cores) {
                let what = format!(
                    "{cores} cores share it: the {} of a socket must divide into groups of as many",
                    self.cores_per_socket
                );
                return Err((path, what));
            }
            if inner.is_some_and(|inner| cores < inner.cores) {
                return Err((path, "fewer cores share it than the cache before it".to_owned()));
            }
            inner = Some(cache);
        }
        Ok(())
    }
}

/// Whether exactly that is priced which the machine has.
fn has_what_it_prices(machine: &Machine) -> Result<(), Complaint> {
    let (features, costs) = (&machine.features, &machine.costs);
    let broadcast = features.invlpgb_pages.is_some();
    for (cost, priced, wanted, by) in [
        (
            "cache_llc",
            costs.cache_llc,
            machine.caches.llc.is_some(),
            "caches.llc",
        ),
        (
            "line_transfer_complex",
            costs.line_transfer_complex,
            machine.has_complexes(),
            "an outermost cache that some cores of a socket share",
        ),
        ("invpcid", costs.invpcid, features.invpcid, "features.invpcid"),
        ("cr3_noflush", costs.cr3_noflush, features.pcid, "features.pcid"),
        ("invlpgb", costs.invlpgb, broadcast, "features.invlpgb_pages"),
        ("tlbsync", costs.tlbsync, broadcast, "features.invlpgb_pages"),
    ] {
        let path = format!("costs.{cost}");
        match (priced, wanted) {
            (None, true) => return Err((path, format!("cost `{cost}` is missing: the machine has {by}"))),
            (Some(_), false) => {
                let what = format!(
                    "the machine has no {by}; remove this cost (null in a file that extends another)"
                );
                return Err((path, what));
            }
            _ => {}
        }
    }
    if machine.threads_per_core > 1 && costs.line_transfer_sibling.is_none() {
        let what = "cost `line_transfer_sibling` is missing: cores have several threads".to_owned();
        return Err(("costs".to_owned(), what));
    }
    Ok(())
}

impl From<NamedSpec> for Target {
    fn from(spec: NamedSpec) -> Target {
        Target {
            name: spec.name,
            value: spec.value,
            unit: spec.unit,
            low: spec.range.0,
            high: spec.range.1,
            source: spec.source,
            note: spec.note,
        }
    }
}
