//! A dictionary: what each page of each process, and each page of each file, should hold.

use std::collections::{BTreeMap, BTreeSet};

use mm::frame::Owner;
use mm::{FileId, Kernel, MmId, Prot, Refused, Sharing};
use x86::{Access, Pfn};

use super::common::BASE;

/// What a page comes from: fresh zeroes, or a page of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Anonymous,
    File(usize, u64),
}

/// What stands for a frame. Numbers are never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Held {
    Anonymous(u32),
    /// Of a file: its number there, and which incarnation of that page.
    Cached(usize, u64, u32),
}

/// A mapped address.
#[derive(Clone, Debug)]
struct Slot {
    source: Source,
    sharing: Sharing,
    prot: Prot,
    held: Option<Held>,
}

/// A process.
pub(super) struct Process {
    pub(super) mm: MmId,
    slots: BTreeMap<u64, Slot>,
}

/// A file.
pub(super) struct File {
    pub(super) id: FileId,
    size: u64,
    cache: BTreeMap<u64, Held>,
}

pub(super) struct Naive {
    pub(super) processes: Vec<Process>,
    pub(super) files: Vec<File>,
    serial: u32,
}

impl Naive {
    pub(super) fn new(mm: MmId) -> Naive {
        let slots = BTreeMap::new();
        Naive {
            processes: vec![Process { mm, slots }],
            files: Vec::new(),
            serial: 0,
        }
    }

    pub(super) fn add_file(&mut self, id: FileId, size: u64) -> usize {
        let cache = BTreeMap::new();
        self.files.push(File { id, size, cache });
        self.files.len() - 1
    }

    pub(super) fn mmap(
        &mut self,
        p: usize,
        pages: impl Iterator<Item = u64>,
        source: Source,
        sharing: Sharing,
        prot: Prot,
    ) {
        for (n, page) in pages.enumerate() {
            let source = match source {
                Source::Anonymous => Source::Anonymous,
                Source::File(file, from) => Source::File(file, from + n as u64),
            };
            let slot = Slot {
                source,
                sharing,
                prot,
                held: None,
            };
            self.processes[p].slots.insert(page, slot);
        }
    }

    pub(super) fn munmap(&mut self, p: usize, pages: impl Iterator<Item = u64>) {
        for page in pages {
            self.processes[p].slots.remove(&page);
        }
    }

    /// madvise: the addresses stay, what they held goes.
    pub(super) fn forget(&mut self, p: usize, pages: impl Iterator<Item = u64>) {
        for page in pages {
            if let Some(slot) = self.processes[p].slots.get_mut(&page) {
                slot.held = None;
            }
        }
    }

    pub(super) fn mprotect(&mut self, p: usize, pages: impl Iterator<Item = u64>, prot: Prot) {
        for page in pages {
            let Some(slot) = self.processes[p].slots.get_mut(&page) else {
                return;
            };
            slot.prot = prot;
        }
    }

    fn next_serial(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }

    fn mappers(&self, held: Held) -> usize {
        let slots = self.processes.iter().flat_map(|process| process.slots.values());
        slots.filter(|slot| slot.held == Some(held)).count()
    }

    pub(super) fn touch(&mut self, p: usize, page: u64, access: Access) -> Result<(), Refused> {
        let slot = self.processes[p].slots.get(&page).ok_or(Refused::NoMapping)?;
        let Slot {
            source,
            sharing,
            prot,
            held,
        } = slot.clone();
        let allowed = if access.is_write() {
            prot.can_write()
        } else {
            prot.can_read()
        };
        if !allowed {
            return Err(Refused::NoMapping);
        }
        let own_copy = access.is_write() && sharing == Sharing::Private;
        let holds = match held {
            // A private page is written in place only by its last mapper.
            Some(held @ Held::Anonymous(_)) if !own_copy || self.mappers(held) == 1 => held,
            Some(held @ Held::Cached(..)) if !own_copy => held,
            Some(_) => Held::Anonymous(self.next_serial()),
            None => match source {
                Source::Anonymous => Held::Anonymous(self.next_serial()),
                Source::File(file, index) => {
                    if index >= self.files[file].size {
                        return Err(Refused::BeyondEof);
                    }
                    let fresh = Held::Cached(file, index, self.next_serial());
                    // Read from the file even if only to be copied.
                    let cached = *self.files[file].cache.entry(index).or_insert(fresh);
                    if own_copy {
                        Held::Anonymous(self.next_serial())
                    } else {
                        cached
                    }
                }
            },
        };
        let slot = self.processes[p].slots.get_mut(&page).expect("it was there");
        slot.held = Some(holds);
        Ok(())
    }

    /// `eager` says whether what comes from a file is inherited, too.
    pub(super) fn fork(&mut self, p: usize, child: MmId, eager: impl Fn(u64) -> bool) {
        let mut slots = self.processes[p].slots.clone();
        for (page, slot) in &mut slots {
            if matches!(slot.held, Some(Held::Cached(..))) && !eager(*page) {
                slot.held = None;
            }
        }
        self.processes.push(Process { mm: child, slots });
    }

    pub(super) fn truncate(&mut self, file: usize, size: u64) {
        self.files[file].size = size;
        self.files[file].cache.split_off(&size);
        for slot in self.processes.iter_mut().flat_map(|p| p.slots.values_mut()) {
            // Private copies go as well.
            if matches!(slot.source, Source::File(of, index) if of == file && index >= size) {
                slot.held = None;
            }
        }
    }

    /// Everything the kernel knows that the dictionary knows, too.
    pub(super) fn check(&self, k: &Kernel) -> Result<(), String> {
        let mut frames = BTreeMap::new();
        for (p, process) in self.processes.iter().enumerate() {
            self.check_process(k, process, &mut frames)
                .map_err(|wrong| format!("process {p}: {wrong}"))?;
        }
        for (f, file) in self.files.iter().enumerate() {
            let st = k.st();
            let cached: Vec<u64> = st.file(file.id).pages.iter().map(|(index, _)| index).collect();
            if !cached.iter().eq(file.cache.keys()) || st.file(file.id).pages.len() != cached.len() as u64 {
                return Err(format!(
                    "file {f}: {cached:?} are cached, not {:?}",
                    file.cache.keys()
                ));
            }
            for (index, page) in st.file(file.id).pages.iter() {
                same(&mut frames, file.cache[&index], page.pfn)?;
            }
        }
        self.check_counts(k, &frames)
    }

    fn check_process(
        &self,
        k: &Kernel,
        process: &Process,
        frames: &mut BTreeMap<Held, Pfn>,
    ) -> Result<(), String> {
        for page in super::FIRST - 1..=super::FIRST + super::PAGES {
            let entry = k.peek_pte(process.mm, BASE.add_pages(page));
            let slot = process.slots.get(&page);
            let held = slot.and_then(|slot| slot.held);
            let pfn = entry.maps_page().then(|| entry.pfn());
            match (held, pfn) {
                (Some(held), Some(pfn)) => same(frames, held, pfn)?,
                (None, None) => continue,
                _ => return Err(format!("page {page} is {pfn:?}, not {held:?}")),
            }
            let private = slot.is_some_and(|slot| slot.sharing == Sharing::Private);
            let lone = held.is_some_and(|h| matches!(h, Held::Anonymous(_)) && self.mappers(h) == 1);
            if entry.writable() && private && !lone {
                return Err(format!("page {page} can be written without a copy"));
            }
        }
        let held = |kind: fn(&Held) -> bool| {
            let held = process.slots.values().filter_map(|slot| slot.held);
            held.filter(kind).count() as u64
        };
        let anon = held(|held| matches!(held, Held::Anonymous(_)));
        let file = held(|held| matches!(held, Held::Cached(..)));
        let st = k.st();
        let mm = st.mm(process.mm);
        if (mm.anon_rss, mm.file_rss) != (anon, file) {
            return Err(format!(
                "rss {} and {}, not {anon} and {file}",
                mm.anon_rss, mm.file_rss
            ));
        }
        Ok(())
    }

    fn check_counts(&self, k: &Kernel, frames: &BTreeMap<Held, Pfn>) -> Result<(), String> {
        let distinct: BTreeSet<Pfn> = frames.values().copied().collect();
        if distinct.len() != frames.len() {
            return Err("a frame stands for two pages".to_owned());
        }
        let all = k.frames();
        for (held, pfn) in frames {
            let frame = all.get(*pfn);
            let maps = self.mappers(*held) as u32;
            let cached = match held {
                Held::Anonymous(_) => 0,
                Held::Cached(file, index, _) => u32::from(self.files[*file].cache.get(index) == Some(held)),
            };
            if (frame.mapcount, frame.count) != (maps, maps + cached) {
                return Err(format!(
                    "{held:?}: map count {} and count {}, not {maps} and {}",
                    frame.mapcount,
                    frame.count,
                    maps + cached
                ));
            }
            let owned = match (held, frame.owner()) {
                (Held::Anonymous(_), Owner::Anon(_)) => true,
                (Held::Cached(file, index, _), Owner::File(id)) => {
                    id == self.files[*file].id && frame.index().get() == *index
                }
                _ => false,
            };
            if !owned {
                return Err(format!("{held:?} belongs to {:?}", frame.owner()));
            }
        }
        let in_use = all.in_use(k.zone()).0;
        if in_use != frames.len() as u64 {
            return Err(format!("{in_use} frames in use, not {}", frames.len()));
        }
        Ok(())
    }
}

/// A page is in one frame, wherever it is met.
fn same(frames: &mut BTreeMap<Held, Pfn>, held: Held, pfn: Pfn) -> Result<(), String> {
    let known = *frames.entry(held).or_insert(pfn);
    if known == pfn {
        Ok(())
    } else {
        Err(format!("{held:?} is in {known} and in {pfn}"))
    }
}
