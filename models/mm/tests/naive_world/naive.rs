//! A dictionary: what each page of each process, and each page of each file, should hold.
//!
//! Which pages reclaim takes it does not know, only what may become of them: anonymous memory is in a frame or
//! in a slot, the same one for all who hold it; a page of a file loses its entries, and may leave the cache
//! once it has none.

use std::collections::{BTreeMap, BTreeSet};

use mm::frame::Owner;
use mm::{FileId, Kernel, MmId, NonPresent, Prot, Refused, Sharing, SwapSlot};
use x86::{Access, Pfn};

use super::Part;
use super::common::BASE;

/// What a page comes from: fresh zeroes, or a page of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Anonymous,
    File(usize, u64),
}

impl Source {
    /// What lies so many pages behind it.
    fn further(self, pages: u64) -> Source {
        match self {
            Source::Anonymous => Source::Anonymous,
            Source::File(file, index) => Source::File(file, index + pages),
        }
    }
}

/// A call of mremap: to where, or in place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mremap {
    pub(super) old: Part,
    pub(super) new: u64,
    pub(super) to: Option<u64>,
}

/// What stands for a frame. Numbers are never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Held {
    Anonymous(u32),
    /// Of a file: its number there, and which incarnation of that page.
    Cached(usize, u64, u32),
}

/// Where what is held is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Place {
    Frame(Pfn),
    /// In a slot, and not in the swap cache.
    Slot(SwapSlot),
}

/// A page as the kernel has it: its place, and how many entries map it or name its slot.
#[derive(Clone, Copy, Debug)]
struct Found {
    place: Place,
    maps: u32,
    names: u32,
}

type World = BTreeMap<Held, Found>;

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
            let slot = Slot {
                source: source.further(n as u64),
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

    /// Looks at which pages of files reclaim took. Anonymous memory stays where it can be found.
    pub(super) fn reclaimed(&mut self, k: &Kernel) -> Result<(), String> {
        for process in &mut self.processes {
            for (page, slot) in &mut process.slots {
                let entry = k.peek_pte(process.mm, BASE.add_pages(*page));
                if matches!(slot.held, Some(Held::Cached(..))) && entry.is_none() {
                    slot.held = None;
                }
            }
        }
        for f in 0..self.files.len() {
            let known: Vec<(u64, Held)> = self.files[f].cache.iter().map(|(i, h)| (*i, *h)).collect();
            for (index, held) in known {
                if k.st().file(self.files[f].id).pages.get(index).is_some() {
                    continue;
                }
                if self.mappers(held) > 0 {
                    return Err(format!("{held:?} left the cache while it was mapped (F14)"));
                }
                self.files[f].cache.remove(&index);
            }
        }
        Ok(())
    }

    /// Whether pages could be one mapping: all there, alike, and of one stretch of their source.
    fn could_be_one(&self, p: usize, first: u64, pages: u64) -> bool {
        let slots = &self.processes[p].slots;
        let Some(start) = slots.get(&first) else {
            return false;
        };
        (0..pages).all(|n| {
            slots.get(&(first + n)).is_some_and(|slot| {
                (slot.sharing, slot.prot, slot.source) == (start.sharing, start.prot, start.source.further(n))
            })
        })
    }

    /// mremap. The kernel's word is taken for whether it succeeded, which depends on how VMAs were split and
    /// merged; not for what that may change, nor for success where there cannot be any.
    pub(super) fn mremap(&mut self, p: usize, call: Mremap, moved: bool) -> Result<(), String> {
        let Mremap { old, new, to } = call;
        let kept = old.pages.min(new);
        if let Some(to) = to {
            // A target that overlaps changes nothing at all; any other is unmapped first.
            if to < old.first + old.pages && old.first < to + new {
                return if moved {
                    Err("moved onto itself".to_owned())
                } else {
                    Ok(())
                };
            }
            self.munmap(p, to..to + new);
        }
        self.munmap(p, old.first + kept..old.first + old.pages);
        if to.is_none() && new <= old.pages {
            // Shrinking where it is succeeds even if nothing was there.
            return if moved {
                Ok(())
            } else {
                Err("did not shrink".to_owned())
            };
        }
        if !moved {
            return Ok(());
        }
        if !self.could_be_one(p, old.first, kept) {
            return Err("mremap of what is not one mapping".to_owned());
        }
        let slots = &mut self.processes[p].slots;
        let last = slots[&(old.first + kept - 1)].clone();
        let target = to.unwrap_or(old.first);
        for n in 0..kept {
            let slot = slots.remove(&(old.first + n)).expect("part of one mapping");
            slots.insert(target + n, slot);
        }
        for n in kept..new {
            let grown = Slot {
                source: last.source.further(n + 1 - kept),
                held: None,
                ..last.clone()
            };
            if slots.insert(target + n, grown).is_some() {
                return Err("grew over something".to_owned());
            }
        }
        Ok(())
    }

    /// Everything the kernel knows that the dictionary knows, too.
    pub(super) fn check(&self, k: &Kernel) -> Result<(), String> {
        let mut world = World::new();
        for (p, process) in self.processes.iter().enumerate() {
            self.check_process(k, process, &mut world)
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
                found(&mut world, file.cache[&index], Place::Frame(page.pfn))?;
            }
        }
        self.check_counts(k, &world)
    }

    fn check_process(&self, k: &Kernel, process: &Process, world: &mut World) -> Result<(), String> {
        let (mut anon, mut file) = (0, 0);
        for page in super::FIRST - 1..=super::FIRST + super::PAGES {
            let entry = k.peek_pte(process.mm, BASE.add_pages(page));
            let slot = process.slots.get(&page);
            let held = slot.and_then(|slot| slot.held);
            let private = slot.is_some_and(|slot| slot.sharing == Sharing::Private);
            match (held, NonPresent::of(entry)) {
                (Some(held), None) if entry.maps_page() => {
                    found(world, held, Place::Frame(entry.pfn()))?.maps += 1;
                    match held {
                        Held::Anonymous(_) => anon += 1,
                        Held::Cached(..) => file += 1,
                    }
                }
                (Some(held @ Held::Anonymous(_)), Some(NonPresent::Swap(slot))) => {
                    let cached = k.st().swap.lookup(slot);
                    let place = cached.map_or(Place::Slot(slot), Place::Frame);
                    found(world, held, place)?.names += 1;
                }
                (None, None) if entry.is_none() => continue,
                (_, other) => return Err(format!("page {page} is {entry:?}, {other:?}, not {held:?}")),
            }
            let lone = held.is_some_and(|h| matches!(h, Held::Anonymous(_)) && self.mappers(h) == 1);
            if entry.maps_page() && entry.writable() && private && !lone {
                return Err(format!("page {page} can be written without a copy"));
            }
        }
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

    fn check_counts(&self, k: &Kernel, world: &World) -> Result<(), String> {
        let distinct: BTreeSet<Place> = world.values().map(|found| found.place).collect();
        if distinct.len() != world.len() {
            return Err("a frame or a slot stands for two pages".to_owned());
        }
        for (held, found) in world {
            let in_cache = match held {
                Held::Anonymous(_) => 0,
                Held::Cached(file, index, _) => u32::from(self.files[*file].cache.get(index) == Some(held)),
            };
            match found.place {
                Place::Frame(pfn) => self.check_frame(k, held, found, pfn, in_cache)?,
                Place::Slot(slot) => check_slot(k, slot, found.names)?,
            }
        }
        let (frames, slots) = cached_for_nobody(k, &distinct)?;
        let of = |kind: fn(&&Place) -> bool| distinct.iter().filter(kind).count() as u64;
        let in_use = k.frames().in_use(k.zone()).0;
        let due = of(|place| matches!(place, Place::Frame(_))) + frames;
        if in_use != due {
            return Err(format!("{in_use} frames in use, not {due}"));
        }
        let in_use = k.st().swap.in_use();
        let due = of(|place| matches!(place, Place::Slot(_))) + slots;
        if in_use != due {
            return Err(format!("{in_use} slots in use, not {due}"));
        }
        Ok(())
    }

    fn check_frame(
        &self,
        k: &Kernel,
        held: &Held,
        found: &Found,
        pfn: Pfn,
        in_cache: u32,
    ) -> Result<(), String> {
        let slot = k.st().swap.slot_of(pfn);
        if let Some(slot) = slot {
            check_slot(k, slot, found.names + 1)?;
        }
        let all = k.frames();
        let frame = all.get(pfn);
        let count = found.maps + in_cache + u32::from(slot.is_some());
        if (frame.mapcount, frame.count) != (found.maps, count) {
            return Err(format!(
                "{held:?}: map count {} and count {}, not {} and {count}",
                frame.mapcount, frame.count, found.maps
            ));
        }
        let owned = match (held, frame.owner()) {
            (Held::Anonymous(_), Owner::Anon(_)) => true,
            // Read from the device, and not mapped since.
            (Held::Anonymous(_), Owner::None) => found.maps == 0 && slot.is_some(),
            (Held::Cached(file, index, _), Owner::File(id)) => {
                id == self.files[*file].id && frame.index().get() == *index
            }
            _ => false,
        };
        if owned {
            Ok(())
        } else {
            Err(format!("{held:?} belongs to {:?}", frame.owner()))
        }
    }
}

fn check_slot(k: &Kernel, slot: SwapSlot, users: u32) -> Result<(), String> {
    let count = k.st().swap.count(slot);
    if count == users {
        Ok(())
    } else {
        Err(format!("slot {}: count {count}, not {users}", slot.get()))
    }
}

/// Pages of the swap cache whose last entry went while they were on their way: the cache alone has them, until
/// reclaim comes. Returns how many frames and slots they use, and slots used by pages that are held.
fn cached_for_nobody(k: &Kernel, held: &BTreeSet<Place>) -> Result<(u64, u64), String> {
    let cached: Vec<(Pfn, SwapSlot)> = k.st().swap.cached_pages().collect();
    let (mut frames, mut slots) = (0, 0);
    for (pfn, slot) in cached {
        slots += 1;
        if held.contains(&Place::Frame(pfn)) {
            continue;
        }
        frames += 1;
        check_slot(k, slot, 1)?;
        let all = k.frames();
        if (all.get(pfn).mapcount, all.get(pfn).count) != (0, 1) {
            return Err(format!("{pfn} in the swap cache alone: {:?}", all.get(pfn)));
        }
    }
    Ok((frames, slots))
}

/// A page is in one place, wherever it is met.
fn found(world: &mut World, held: Held, place: Place) -> Result<&mut Found, String> {
    let known = world.entry(held).or_insert(Found {
        place,
        maps: 0,
        names: 0,
    });
    if known.place == place {
        Ok(known)
    } else {
        Err(format!("{held:?} is in {:?} and in {place:?}", known.place))
    }
}
