//! What a machine consists of, one line a part.

use serde_json::{Value, json};
use translate::describe::shape;
use x86::cache::CacheArray;
use x86::tlb::{SecondLevelFill, Serves};
use x86::{Machine, TlbBank};

/// Part, value, source and note of each feature, TLB bank and cache.
pub(super) fn rows(machine: &Machine) -> Vec<Vec<Value>> {
    let mut rows = Rows(Vec::new());
    for feature in machine.feature_table() {
        rows.push(feature.name, &feature.value, &feature.source, &feature.note);
    }
    let tlb = &machine.tlb;
    for (part, banks) in [
        ("tlb load", &tlb.load),
        ("tlb store", &tlb.store),
        ("tlb fetch", &tlb.fetch),
    ] {
        banks.iter().for_each(|bank| rows.tlb(part, bank));
    }
    for second in &tlb.l2 {
        let part = match second.serves {
            Serves::Both => "tlb second level",
            Serves::Data => "tlb second level, data",
            Serves::Fetch => "tlb second level, fetch",
        };
        let part = match tlb.l2_fill {
            SecondLevelFill::OnWalk => part.to_owned(),
            SecondLevelFill::OnEviction => format!("{part}, takes victims"),
        };
        rows.tlb(&part, &second.bank);
    }
    for bank in &machine.psc {
        let levels: Vec<String> = bank
            .holds
            .iter()
            .map(|level| format!("{level:?}").to_lowercase())
            .collect();
        let value = format!("{}, {}", levels.join(" "), shape(bank.shape));
        rows.push("paging-structure cache", &value, &bank.source, &bank.note);
    }
    let caches = &machine.caches;
    rows.cache("cache l1", &caches.l1);
    rows.cache("cache l2", &caches.l2);
    if let Some(llc) = &caches.llc {
        rows.cache(
            &format!("cache llc, {:?}", llc.inclusion).to_lowercase(),
            &llc.cache,
        );
    }
    let charged = &machine.walk_charged;
    let value = format!("{} ({} to {})", charged.value, charged.low, charged.high);
    rows.push("walk charged", &value, &charged.source, &charged.note);
    rows.0
}

struct Rows(Vec<Vec<Value>>);

impl Rows {
    fn push(&mut self, part: &str, value: &str, source: &str, note: &str) {
        self.0
            .push(vec![json!(part), json!(value), json!(source), json!(note)]);
    }

    fn tlb(&mut self, part: &str, bank: &TlbBank) {
        let sizes: Vec<String> = bank.holds.iter().map(|size| size.to_string()).collect();
        let value = format!("{}, {}", sizes.join(" "), shape(bank.shape));
        self.push(part, &value, &bank.source, &bank.note);
    }

    fn cache(&mut self, part: &str, cache: &CacheArray) {
        let shared = match cache.cores {
            1 => String::new(),
            cores => format!(", shared by {cores} cores"),
        };
        let value = format!("{} KiB, {}-way{shared}", cache.kib, cache.ways);
        self.push(part, &value, &cache.source, &cache.note);
    }
}
