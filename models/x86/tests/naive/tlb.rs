//! A TLB that keeps every slot in a list.
//!
//! The model follows the documents of the geometry: which bank keeps which size, turns by the low bits
//! of the page number where banks share one, fragments where a first level lacks a size, fills on walk
//! or on eviction, own translations before global ones and small pages before large ones (where two
//! translations for an address coexist a processor may use either; here it is always the same).

use x86::tlb::{SecondLevelBank, SecondLevelFill, Serves};
use x86::{Access, ByAccess, Context, PageSize, PageSizes, Rights, TlbBank, TlbEntry, TlbGeometry, TlbStats};

use super::{Array, Gone};

/// Pages a 57-bit address can name; of the bits above only copies remain.
pub(crate) const PAGES: u64 = 1 << 45;

/// What a slot translates, in plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Held {
    pub(crate) frame: u32,
    pub(crate) generation: u32,
    pub(crate) rights: Rights,
    pub(crate) dirty: bool,
    pub(crate) global: bool,
    pub(crate) size: PageSize,
    pub(crate) leaf: PageSize,
}

/// Tag, size, page in units of that size, and for whom the slot is if data and fetches do not use the
/// same banks.
pub(crate) type Key = (u16, PageSize, u64, Option<Client>);

impl Held {
    pub(crate) fn of(entry: &TlbEntry) -> Held {
        Held {
            frame: entry.pfn.get(),
            generation: entry.generation.get(),
            rights: entry.rights(),
            dirty: entry.dirty(),
            global: entry.is_global(),
            size: entry.size(),
            leaf: entry.leaf_size(),
        }
    }

    pub(crate) fn cut(self, vpn: u64, size: PageSize) -> Held {
        let start = vpn - vpn % size.base_pages();
        let skipped = start % self.size.base_pages();
        Held {
            frame: self.frame + skipped as u32,
            size,
            ..self
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Data,
    Fetch,
}

pub(crate) struct Bank {
    pub(crate) holds: PageSizes,
    pub(crate) serves: Serves,
    pub(crate) array: Array<Key, Held>,
}

impl Bank {
    pub(crate) fn new(bank: &TlbBank, serves: Serves) -> Bank {
        Bank {
            holds: bank.holds,
            serves,
            array: Array::new(bank.shape),
        }
    }

    pub(crate) fn keeps(&self, client: Client, size: PageSize) -> bool {
        let serves = match client {
            Client::Data => self.serves != Serves::Fetch,
            Client::Fetch => self.serves != Serves::Data,
        };
        serves && self.holds.contains(size)
    }
}

/// A list of banks that are asked together.
pub(crate) struct Banks(pub(crate) Vec<Bank>);

impl Banks {
    pub(crate) fn place(
        &mut self,
        client: Client,
        size: PageSize,
        vpn: u64,
    ) -> Option<(&mut Array<Key, Held>, u64)> {
        let mut homes: Vec<&mut Bank> = self.0.iter_mut().filter(|b| b.keeps(client, size)).collect();
        let turns = homes.len() as u64;
        if turns == 0 {
            return None;
        }
        let page = vpn / size.base_pages();
        let home = homes.swap_remove((page % turns) as usize);
        Some((&mut home.array, page / turns))
    }

    pub(crate) fn key(&self, client: Client, tag: u16, size: PageSize, vpn: u64) -> Key {
        let differs = |bank: &Bank| bank.keeps(Client::Data, size) != bank.keeps(Client::Fetch, size);
        let owner = self.0.iter().any(differs).then_some(client);
        (tag, size, vpn / size.base_pages(), owner)
    }

    pub(crate) fn find(&mut self, client: Client, context: Context, vpn: u64) -> Option<(Key, Held)> {
        for tag in [context.own.get(), context.global.get()] {
            for size in PageSize::ALL {
                let key = self.key(client, tag, size, vpn);
                if let Some((array, number)) = self.place(client, size, vpn)
                    && let Some(held) = array.get(number, key)
                {
                    return Some((key, held));
                }
            }
        }
        None
    }

    pub(crate) fn touch(&mut self, client: Client, context: Context, vpn: u64) -> Option<Held> {
        let (key, held) = self.find(client, context, vpn)?;
        let (array, number) = self.place(client, key.1, vpn)?;
        array.touch(number, key);
        Some(held)
    }

    pub(crate) fn fill(&mut self, client: Client, tag: u16, vpn: u64, held: Held) -> Option<Gone<Key, Held>> {
        let key = self.key(client, tag, held.size, vpn);
        let (array, number) = self.place(client, held.size, vpn)?;
        Some(array.fill(number, key, held))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (Key, Held)> {
        self.0.iter().flat_map(|bank| bank.array.all())
    }
}

#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) first: [u64; 3],
    pub(crate) second: [u64; 3],
    pub(crate) misses: [u64; 3],
    pub(crate) fills: u64,
    pub(crate) evictions: u64,
    pub(crate) flushed: u64,
}

impl Counts {
    pub(crate) fn of(stats: &TlbStats) -> Counts {
        let by = |counts: &ByAccess| Access::ALL.map(|access| counts.of(access));
        Counts {
            first: by(&stats.l1_hits),
            second: by(&stats.l2_hits),
            misses: by(&stats.misses),
            fills: stats.fills,
            evictions: stats.evictions,
            flushed: stats.flushed_entries,
        }
    }
}

pub(crate) struct Naive {
    pub(crate) load: Banks,
    pub(crate) store: Option<Banks>,
    pub(crate) fetch: Banks,
    pub(crate) second: Banks,
    pub(crate) l2_fill: SecondLevelFill,
    pub(crate) counts: Counts,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    First(Held),
    Second(Held),
    Nowhere,
}

pub(crate) fn client(access: Access) -> Client {
    match access {
        Access::Read | Access::Write => Client::Data,
        Access::Fetch => Client::Fetch,
    }
}

impl Naive {
    pub(crate) fn new(geometry: &TlbGeometry) -> Naive {
        let first = |banks: &[TlbBank]| Banks(banks.iter().map(|b| Bank::new(b, Serves::Both)).collect());
        let second = |bank: &SecondLevelBank| Bank::new(&bank.bank, bank.serves);
        Naive {
            load: first(&geometry.load),
            store: (!geometry.store.is_empty()).then(|| first(&geometry.store)),
            fetch: first(&geometry.fetch),
            second: Banks(geometry.l2.iter().map(second).collect()),
            l2_fill: geometry.l2_fill,
            counts: Counts::default(),
        }
    }

    pub(crate) fn first(&mut self, access: Access) -> &mut Banks {
        match (access, &mut self.store) {
            (Access::Fetch, _) => &mut self.fetch,
            (Access::Write, Some(store)) => store,
            _ => &mut self.load,
        }
    }

    pub(crate) fn lookup(&mut self, access: Access, context: Context, vpn: u64) -> Found {
        if let Some(held) = self.first(access).touch(client(access), context, vpn) {
            self.counts.first[access as usize] += 1;
            return Found::First(held);
        }
        if let Some(held) = self.second.touch(client(access), context, vpn) {
            self.counts.second[access as usize] += 1;
            return Found::Second(held);
        }
        self.counts.misses[access as usize] += 1;
        Found::Nowhere
    }

    pub(crate) fn probe(&mut self, access: Access, context: Context, vpn: u64) -> Option<Held> {
        let first = self.first(access).find(client(access), context, vpn);
        let found = first.or_else(|| self.second.find(client(access), context, vpn));
        found.map(|(_, held)| held)
    }

    pub(crate) fn tag(context: Context, held: Held) -> u16 {
        if held.global {
            context.global.get()
        } else {
            context.own.get()
        }
    }

    pub(crate) fn account<K, V>(&mut self, gone: &Gone<K, V>) {
        if let Gone::Other(..) = gone {
            self.counts.evictions += 1;
        }
    }

    pub(crate) fn fill_first(&mut self, access: Access, context: Context, vpn: u64, held: Held) {
        let client = client(access);
        let banks = self.first(access);
        let kept = PageSize::ALL
            .into_iter()
            .rfind(|&size| size <= held.size && banks.0.iter().any(|bank| bank.keeps(client, size)));
        let kept = held.cut(vpn, kept.expect("a first level keeps small pages"));
        let gone = banks
            .fill(client, Naive::tag(context, held), vpn, kept)
            .expect("it keeps that size");
        self.account(&gone);
        if let Gone::Other((tag, size, page, _), old) = gone
            && self.l2_fill == SecondLevelFill::OnEviction
        {
            self.fill_second(client, tag, page * size.base_pages(), old);
        }
    }

    pub(crate) fn fill_second(&mut self, client: Client, tag: u16, vpn: u64, held: Held) {
        if let Some(gone) = self.second.fill(client, tag, vpn, held) {
            self.account(&gone);
        }
    }

    // Takes the translation that a look-up in the second level finds out of it.
    pub(crate) fn leave_second(&mut self, access: Access, context: Context, vpn: u64) -> Option<Held> {
        let (key, _) = self.second.find(client(access), context, vpn)?;
        let (array, number) = self.second.place(client(access), key.1, vpn)?;
        array.remove(number, key)
    }

    pub(crate) fn fill(&mut self, access: Access, context: Context, vpn: u64, held: Held) {
        self.counts.fills += 1;
        self.fill_first(access, context, vpn, held);
        if self.l2_fill == SecondLevelFill::OnWalk {
            self.fill_second(client(access), Naive::tag(context, held), vpn, held);
        }
    }

    pub(crate) fn promote(&mut self, access: Access, context: Context, vpn: u64, held: Held) {
        if self.l2_fill == SecondLevelFill::OnEviction {
            self.leave_second(access, context, vpn);
        }
        self.fill_first(access, context, vpn, held);
    }

    /// Empties the slots of a page under a tag, of every size and fragments included.
    pub(crate) fn remove_page(&mut self, tag: u16, vpn: u64) -> u64 {
        self.remove_where(|&(owner, size, page, _), held| {
            let leaf = held.leaf.base_pages();
            owner == tag && page * size.base_pages() / leaf == vpn / leaf
        })
    }

    fn levels(&mut self) -> impl Iterator<Item = &mut Bank> {
        let firsts = std::iter::once(&mut self.load)
            .chain(&mut self.store)
            .chain([&mut self.fetch, &mut self.second]);
        firsts.flat_map(|banks| &mut banks.0)
    }

    pub(crate) fn remove_where(&mut self, doomed: impl Fn(&Key, &Held) -> bool) -> u64 {
        let gone: Vec<_> = self
            .levels()
            .flat_map(|bank| bank.array.remove_where(&doomed))
            .collect();
        self.counts.flushed += gone.len() as u64;
        gone.len() as u64
    }

    pub(crate) fn all(&self) -> Vec<(u16, u64, Held)> {
        let levels = [&self.load, &self.fetch, &self.second]
            .into_iter()
            .chain(&self.store);
        let slots = levels.flat_map(Banks::all);
        let mut all: Vec<_> = slots
            .map(|((tag, size, page, _), held)| (tag, page * size.base_pages(), held))
            .collect();
        all.sort_unstable();
        all
    }
}
