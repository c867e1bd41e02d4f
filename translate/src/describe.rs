//! Machines, streams and recordings in a few words.

use std::path::Path;

use reports::schema::translate::{MachineInfo, SkippedRow, Slots, SourceInfo, SourceKind};
use x86::cache::CacheArray;
use x86::tlb::{IndexFunction, Replacement, SecondLevelFill, Serves};
use x86::{Machine, PageSize, Shape, TlbBank};

use crate::stream::StreamSpec;
use crate::trace::{Format, Skipped, Summary};

/// As in `1536 x 12-way, folded`; true LRU and modulo indexing go without saying.
#[must_use]
pub fn shape(shape: Shape) -> String {
    let ways = if shape.sets() == 1 {
        ", full".to_owned()
    } else {
        format!(" x {}-way", shape.ways())
    };
    let index = match shape.index() {
        IndexFunction::Modulo => "",
        IndexFunction::XorFold => ", folded",
    };
    let replacement = match shape.replacement() {
        Replacement::Lru => "",
        Replacement::TreePlru => ", tree PLRU",
        Replacement::Random => ", random",
    };
    format!("{}{ways}{index}{replacement}", shape.entries())
}

/// As in `4k 2m: 64 x 4-way`.
fn bank(bank: &TlbBank) -> String {
    let sizes: Vec<String> = bank.holds.iter().map(|size| size.to_string()).collect();
    format!("{}: {}", sizes.join(" "), shape(bank.shape))
}

fn banks(banks: &[TlbBank]) -> String {
    banks.iter().map(bank).collect::<Vec<_>>().join("; ")
}

fn tlb(machine: &Machine) -> String {
    let tlb = &machine.tlb;
    let mut parts = vec![format!("loads {}", banks(&tlb.load))];
    if !tlb.store.is_empty() {
        parts.push(format!("stores {}", banks(&tlb.store)));
    }
    parts.push(format!("fetches {}", banks(&tlb.fetch)));
    let victims = match tlb.l2_fill {
        SecondLevelFill::OnWalk => "",
        SecondLevelFill::OnEviction => " of victims",
    };
    let second = |serves: Serves| {
        let banks = tlb.l2.iter().filter(move |second| second.serves == serves);
        banks.map(|second| bank(&second.bank)).collect::<Vec<_>>()
    };
    for (name, serves) in [
        ("second level", Serves::Both),
        ("second level for data", Serves::Data),
        ("second level for fetches", Serves::Fetch),
    ] {
        let banks = second(serves);
        if !banks.is_empty() {
            parts.push(format!("{name}{victims} {}", banks.join("; ")));
        }
    }
    parts.join(" | ")
}

fn paging_structure_caches(machine: &Machine) -> String {
    let bank = |bank: &x86::psc::PscBank| {
        let levels: Vec<String> = bank
            .holds
            .iter()
            .map(|level| format!("{level:?}").to_lowercase())
            .collect();
        format!("{}: {}", levels.join(" "), shape(bank.shape))
    };
    if machine.psc.is_empty() {
        return "none".to_owned();
    }
    machine.psc.iter().map(bank).collect::<Vec<_>>().join("; ")
}

fn caches(machine: &Machine) -> String {
    let cache = |name: &str, cache: &CacheArray| {
        let shared = match cache.cores {
            1 => String::new(),
            cores => format!(" for {cores} cores"),
        };
        format!("{name} {} KiB {}-way{shared}", cache.kib, cache.ways)
    };
    let caches = &machine.caches;
    let mut parts = vec![cache("L1d", &caches.l1), cache("L2", &caches.l2)];
    if let Some(llc) = &caches.llc {
        parts.push(cache("LLC", &llc.cache));
    }
    parts.join("; ")
}

fn small_page_slots(machine: &Machine) -> Slots {
    let slots = |banks: &mut dyn Iterator<Item = &TlbBank>| -> u32 {
        let small = banks.filter(|bank| bank.holds.contains(PageSize::Size4K));
        small.map(|bank| bank.shape.entries()).sum()
    };
    let second = |serves: fn(Serves) -> bool| {
        let banks = machine.tlb.l2.iter().filter(|second| serves(second.serves));
        slots(&mut banks.map(|second| &second.bank))
    };
    Slots {
        loads: slots(&mut machine.tlb.load.iter()),
        fetches: slots(&mut machine.tlb.fetch.iter()),
        second_level_data: second(Serves::data),
        second_level_fetches: second(Serves::fetch),
    }
}

/// A machine.
#[must_use]
pub fn machine(machine: &Machine) -> MachineInfo {
    MachineInfo {
        name: machine.name.clone(),
        title: machine.title.clone(),
        cycle_ps: machine.cycle_ps,
        small_page_slots: small_page_slots(machine),
        tlb: tlb(machine),
        paging_structure_caches: paging_structure_caches(machine),
        caches: caches(machine),
    }
}

/// A stream.
#[must_use]
pub fn stream(spec: &StreamSpec) -> SourceInfo {
    SourceInfo {
        kind: SourceKind::Stream,
        name: spec.to_string(),
        format: String::new(),
        records: 0,
        split: 0,
        threads: spec.threads,
        rounds: 1,
        skipped: Vec::new(),
        remarks: Vec::new(),
    }
}

/// A recording that was read.
#[must_use]
pub fn recording(path: &Path, format: Format, summary: &Summary, rounds: u64) -> SourceInfo {
    let name = path.file_name().unwrap_or(path.as_os_str());
    let skipped = |(reason, Skipped { count, first }): (&crate::trace::Reason, &Skipped)| SkippedRow {
        reason: reason.to_string(),
        count: *count,
        first: first.to_string(),
    };
    SourceInfo {
        kind: SourceKind::Recording,
        name: name.to_string_lossy().into_owned(),
        format: format.name().to_owned(),
        records: summary.records,
        split: summary.split,
        threads: summary.threads,
        rounds,
        skipped: summary.skipped.iter().map(skipped).collect(),
        remarks: summary.remarks.iter().map(ToString::to_string).collect(),
    }
}
