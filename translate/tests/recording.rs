//! Hits and misses against a model written from the documentation of the TLBs alone: lists that are
//! searched, one a set, the most recently used first.

use std::collections::BTreeSet;
use std::path::Path;

use translate::engine::{DataCaching, Setup};
use translate::frames::Watched;
use translate::mapping::PagePolicy;
use translate::tally::Tally;
use translate::trace::{self, Looped};
use translate::{Task, Translator};
use x86::{Access, Machine, PageSize, PagingMode, Reference, Va};

use Access::{Fetch, Read, Write};

/// A slot: a page, and whether it was dirty when the slot was filled.
type Slot = (u64, bool);

/// How a bank finds the set of a page.
type Index = fn(page: u64, sets: u64) -> u64;

fn modulo(page: u64, sets: u64) -> u64 {
    page % sets
}

/// The low bits xor as many above them.
fn folded(page: u64, sets: u64) -> u64 {
    (page % sets) ^ (page / sets % sets)
}

struct Bank {
    sets: Vec<Vec<Slot>>,
    ways: usize,
    index: Index,
}

impl Bank {
    fn new(entries: usize, ways: usize, index: Index) -> Self {
        Bank {
            sets: vec![Vec::new(); entries / ways],
            ways,
            index,
        }
    }

    fn set(&mut self, page: u64) -> &mut Vec<Slot> {
        let sets = self.sets.len() as u64;
        &mut self.sets[(self.index)(page, sets) as usize]
    }

    /// Takes the slot of a page out.
    fn take(&mut self, page: u64) -> Option<Slot> {
        let set = self.set(page);
        let at = set.iter().position(|slot| slot.0 == page)?;
        Some(set.remove(at))
    }

    /// Finds a page and makes it the most recently used.
    fn find(&mut self, page: u64) -> Option<Slot> {
        let slot = self.take(page)?;
        self.set(page).insert(0, slot);
        Some(slot)
    }

    /// Brings a slot in; returns the one that gave way.
    fn put(&mut self, slot: Slot) -> Option<Slot> {
        self.take(slot.0);
        let ways = self.ways;
        let set = self.set(slot.0);
        set.insert(0, slot);
        if set.len() > ways { set.pop() } else { None }
    }
}

/// What the second level is filled with.
#[derive(PartialEq)]
enum Fill {
    Walks,
    Victims,
}

/// Banks for data and for fetches; a shared one is the first of them only.
struct Model {
    first: [Bank; 2],
    second: Vec<Bank>,
    fill: Fill,
    mapped: BTreeSet<u64>,
    dirty: BTreeSet<u64>,
    counts: Counted,
}

/// By access: loads, stores, fetches.
#[derive(Debug, Default, PartialEq)]
struct Counted {
    first_hits: [u64; 3],
    second_hits: [u64; 3],
    misses: [u64; 3],
    walks: [u64; 3],
    dirty_assists: u64,
}

impl Model {
    fn new(first: [Bank; 2], second: Vec<Bank>, fill: Fill) -> Self {
        Model {
            first,
            second,
            fill,
            mapped: BTreeSet::new(),
            dirty: BTreeSet::new(),
            counts: Counted::default(),
        }
    }

    fn second(&mut self, client: usize) -> &mut Bank {
        let at = client.min(self.second.len() - 1);
        &mut self.second[at]
    }

    fn access(&mut self, access: Access, page: u64) {
        let (client, kind) = (usize::from(access == Fetch), access as usize);
        if let Some(slot) = self.first[client].find(page) {
            self.counts.first_hits[kind] += 1;
            if access == Write && !slot.1 {
                self.walk(access, client, page);
            }
        } else if let Some(slot) = self.second(client).find(page) {
            self.counts.second_hits[kind] += 1;
            if access == Write && !slot.1 {
                self.walk(access, client, page);
            } else {
                self.raise(client, slot);
            }
        } else {
            self.counts.misses[kind] += 1;
            self.walk(access, client, page);
        }
    }

    fn walk(&mut self, access: Access, client: usize, page: u64) {
        self.counts.walks[access as usize] += 1;
        // The store that touches a page first finds it mapped dirty.
        let assisted = !self.mapped.insert(page);
        if access == Write && self.dirty.insert(page) && assisted {
            self.counts.dirty_assists += 1;
        }
        let slot = (page, self.dirty.contains(&page));
        if self.fill == Fill::Walks {
            self.second(client).put(slot);
        }
        self.raise(client, slot);
    }

    /// Into the first level. With victims no translation is in both.
    fn raise(&mut self, client: usize, slot: Slot) {
        if self.fill == Fill::Victims {
            self.second(client).take(slot.0);
        }
        let victim = self.first[client].put(slot);
        if let (Fill::Victims, Some(victim)) = (&self.fill, victim) {
            self.second(client).put(victim);
        }
    }
}

/// The machines, as the hardware reference has them (rows G2, G5, G8, G11, G13, G15, M11), 4 KiB pages only.
fn models() -> [(&'static str, Model); 3] {
    let full = |entries| Bank::new(entries, entries, modulo);
    [
        (
            "skylake-sp-2017",
            Model::new(
                [Bank::new(64, 4, modulo), Bank::new(64, 8, modulo)],
                vec![Bank::new(1536, 12, folded)],
                Fill::Walks,
            ),
        ),
        (
            "zen4-2022",
            Model::new(
                [full(72), full(64)],
                vec![Bank::new(3072, 8, modulo), Bank::new(512, 4, modulo)],
                Fill::Walks,
            ),
        ),
        (
            "barcelona-2008",
            Model::new(
                [full(48), full(32)],
                vec![Bank::new(512, 4, modulo), Bank::new(512, 4, modulo)],
                Fill::Victims,
            ),
        ),
    ]
}

fn engine(machine: &str, references: &[Reference]) -> Counted {
    let setup = Setup {
        machine: Machine::preset(machine).expect("a preset"),
        mode: PagingMode::FourLevel,
        pages: PagePolicy::Fixed(PageSize::Size4K),
        data: DataCaching::Bypass,
    };
    let mut translator = Translator::<Watched>::new(Task::new(setup)).expect("it can");
    let source = Looped::new(references.to_vec(), 1);
    translator.run(source, |_| {}).expect("a good source");
    let Tally {
        first_hits,
        second_hits,
        misses,
        walks,
        dirty_assists,
        ..
    } = translator.counts().total();
    let by = |counts: translate::tally::PerAccess| [Read, Write, Fetch].map(|access| counts.of(access));
    Counted {
        first_hits: by(first_hits),
        second_hits: by(second_hits),
        misses: by(misses),
        walks: by(walks),
        dirty_assists,
    }
}

fn agree(references: &[Reference]) {
    for (machine, mut model) in models() {
        for reference in references {
            model.access(reference.access(), reference.va().vpn().get());
        }
        assert_eq!(engine(machine, references), model.counts, "{machine}");
    }
}

#[test]
fn hits_and_misses_of_the_recording_of_sqlite_are_those_of_a_naive_model() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/recordings/sqlite-groupby.lackey.gz");
    let recording = trace::open(Path::new(path)).expect("the recording is there");
    let all = Looped::read(recording, 1).expect("a good recording");
    agree(all.references());
}

#[test]
fn hits_and_misses_of_more_pages_than_the_tlbs_hold_are_those_of_a_naive_model() {
    let mut state = 1_u64;
    let mut draw = |below: u64| {
        // The constants of MMIX (D. Knuth, TAOCP vol. 2, 3.3.4).
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let references: Vec<Reference> = (0..150_000)
        .map(|_| {
            let access = [Read, Read, Write, Fetch][draw(4) as usize];
            // Half of the accesses go to few pages, a quarter to many, a quarter to pages of one set.
            let page = match draw(4) {
                0 => 0x10_0000 + draw(6000),
                1 => 0x20_0000 + draw(40) * 4096,
                _ => 0x30_0000 + draw(100),
            };
            Reference::truncating(access, Va::new(page << x86::PAGE_SHIFT))
        })
        .collect();
    agree(&references);
}
