//! One level of a TLB: its banks, and which of them keeps a page of which size.

use super::entry::{Asid, Context, FETCH_MARK, Tag, TlbEntry, significant};
use super::geometry::{SecondLevelBank, TlbBank};
use crate::addr::Vpn;
use crate::page_size::PageSize;
use crate::set_array::{Displaced, SetArray, Slot};
use crate::walker::Access;

const SIZES: usize = PageSize::ALL.len();

/// For whom a level is asked; banks of a second level may serve only one of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    Data,
    Fetch,
}

impl Client {
    #[inline]
    pub(super) const fn of(access: Access) -> Self {
        match access {
            Access::Read | Access::Write => Client::Data,
            Access::Fetch => Client::Fetch,
        }
    }
}

/// What came of asking for an entry that passes.
#[derive(Clone, Copy)]
pub(super) enum Tried {
    Hit(Slot),
    Refused,
    Absent,
}

/// What the caller knows of a page it brings in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Unknown,
    Absent,
}

/// The banks that keep pages of one size: consecutive members of `Level::order`. Pages take turns
/// by their number.
#[derive(Clone, Copy, Default)]
struct Route {
    first: u8,
    banks: u8,
}

fn order_of(order: &[u8], route: Route) -> &[u8] {
    &order[route.first as usize..][..route.banks as usize]
}

#[derive(Clone)]
pub(super) struct Level {
    slots: SetArray<TlbEntry>,
    // Slots in use by size translated: sizes that are nowhere are not looked for.
    present: [u32; SIZES],
    globals: u32,
    fragments: u32,
    // Bank numbers, grouped for the routes.
    order: Vec<u8>,
    routes: [[Route; SIZES]; 2],
    // What tells a fetch's tag from a data access's where they have banks of their own.
    marks: [[u64; SIZES]; 2],
}

impl Level {
    pub(super) fn first(banks: &[TlbBank]) -> Self {
        Level::new(banks.iter().map(|bank| (bank, [true, true])))
    }

    pub(super) fn second(banks: &[SecondLevelBank]) -> Self {
        let serves = |b: &SecondLevelBank| [b.serves.data(), b.serves.fetch()];
        Level::new(banks.iter().map(|b| (&b.bank, serves(b))))
    }

    fn new<'a>(banks: impl Iterator<Item = (&'a TlbBank, [bool; 2])>) -> Self {
        let (banks, serves): (Vec<&TlbBank>, Vec<[bool; 2]>) = banks.unzip();
        let mut order = Vec::new();
        let mut routes = [[Route::default(); SIZES]; 2];
        for (client, routes) in routes.iter_mut().enumerate() {
            for size in PageSize::ALL {
                let first = order.len() as u8;
                let here = |at: &usize| serves[*at][client] && banks[*at].holds.contains(size);
                order.extend((0..banks.len()).filter(here).map(|at| at as u8));
                routes[size as usize] = Route {
                    first,
                    banks: order.len() as u8 - first,
                };
            }
        }
        let [data, fetch] = routes;
        let shared = |size: usize| order_of(&order, data[size]) == order_of(&order, fetch[size]);
        let marks = std::array::from_fn(|size| if shared(size) { 0 } else { FETCH_MARK });
        Level {
            slots: SetArray::new(banks.iter().map(|bank| bank.shape)),
            present: [0; SIZES],
            globals: 0,
            fragments: 0,
            order,
            routes,
            marks: [[0; SIZES], marks],
        }
    }

    #[inline]
    fn tag(&self, client: Client, asid: Asid, size: PageSize, vpn: Vpn) -> u64 {
        Tag::new(asid, size, vpn).bits() | self.marks[client as usize][size as usize]
    }

    // The bank of a page, and the number that chooses its set there.
    #[inline]
    fn bank_of(&self, client: Client, size: PageSize, vpn: Vpn) -> Option<(usize, u64)> {
        let route = self.routes[client as usize][size as usize];
        let number = significant(vpn).get() >> size.vpn_shift();
        match route.banks {
            0 => None,
            1 => Some((usize::from(self.order[route.first as usize]), number)),
            banks => {
                let turn = (number % u64::from(banks)) as u8;
                let bank = self.order[(route.first + turn) as usize];
                Some((usize::from(bank), number / u64::from(banks)))
            }
        }
    }

    // A page may be here in several sizes, if software changed its size without a flush: the smallest
    // is used (reference row R18 allows any).
    #[inline]
    fn find_tagged(&self, client: Client, asid: Asid, vpn: Vpn) -> Option<Slot> {
        for size in PageSize::ALL {
            if self.present[size as usize] > 0
                && self.routes[client as usize][size as usize].banks > 0
                && let Some(slot) = self.slots.find(self.tag(client, asid, size, vpn))
            {
                return Some(slot);
            }
        }
        None
    }

    #[inline]
    pub(super) fn find(&self, client: Client, context: Context, vpn: Vpn) -> Option<Slot> {
        let own = self.find_tagged(client, context.own, vpn);
        if own.is_none() && self.globals > 0 {
            return self.find_tagged(client, context.global, vpn);
        }
        own
    }

    #[inline]
    pub(super) fn entry(&self, slot: Slot) -> &TlbEntry {
        self.slots.get(slot)
    }

    /// Finds a page and makes its slot the most recently used of its set.
    #[inline]
    pub(super) fn hit(&mut self, client: Client, context: Context, vpn: Vpn) -> Option<TlbEntry> {
        let slot = self.find(client, context, vpn)?;
        self.slots.touch(slot);
        Some(*self.slots.get(slot))
    }

    /// [`Level::hit`] if the entry passes; otherwise nothing changes.
    #[inline]
    pub(super) fn hit_if(
        &mut self,
        client: Client,
        context: Context,
        vpn: Vpn,
        passes: impl FnOnce(&TlbEntry) -> bool,
    ) -> Tried {
        match self.find(client, context, vpn) {
            Some(slot) if passes(self.slots.get(slot)) => {
                self.slots.touch(slot);
                Tried::Hit(slot)
            }
            Some(_) => Tried::Refused,
            None => Tried::Absent,
        }
    }

    /// The largest size kept here that is no larger than `size`.
    #[inline]
    fn kept_size(&self, client: Client, size: PageSize) -> Option<PageSize> {
        PageSize::ALL[..=size as usize]
            .iter()
            .rev()
            .copied()
            .find(|&kept| self.routes[client as usize][kept as usize].banks > 0)
    }

    /// Keeps the translation of the page at `vpn`, or the fragment of it that a slot can keep; says
    /// which.
    #[inline]
    pub(super) fn fill_fragment(
        &mut self,
        client: Client,
        context: Context,
        vpn: Vpn,
        entry: TlbEntry,
        presence: Presence,
    ) -> Option<(TlbEntry, Displaced<TlbEntry>)> {
        let size = self.kept_size(client, entry.size())?;
        let entry = if size == entry.size() {
            entry
        } else {
            entry.fragment(vpn, size)
        };
        let displaced = self.fill(client, context.tag_of(&entry), vpn, entry, presence)?;
        Some((entry, displaced))
    }

    /// Keeps a translation if there is a bank for its size.
    #[inline]
    pub(super) fn fill(
        &mut self,
        client: Client,
        asid: Asid,
        vpn: Vpn,
        entry: TlbEntry,
        presence: Presence,
    ) -> Option<Displaced<TlbEntry>> {
        let (bank, number) = self.bank_of(client, entry.size(), vpn)?;
        let tag = self.tag(client, asid, entry.size(), vpn);
        let displaced = match presence {
            Presence::Unknown => self.slots.fill(bank, number, tag, entry),
            Presence::Absent => self.slots.fill_absent(bank, number, tag, entry),
        };
        match &displaced {
            Displaced::Nothing => self.enters(&entry),
            Displaced::SameTag(old) | Displaced::Other(_, old) => {
                if !old.is_counted_like(&entry) {
                    self.leaves(old);
                    self.enters(&entry);
                }
            }
        }
        Some(displaced)
    }

    #[inline]
    fn enters(&mut self, entry: &TlbEntry) {
        self.present[entry.size() as usize] += 1;
        self.globals += u32::from(entry.is_global());
        self.fragments += u32::from(entry.is_fragment());
    }

    #[inline]
    fn leaves(&mut self, entry: &TlbEntry) {
        self.present[entry.size() as usize] -= 1;
        self.globals -= u32::from(entry.is_global());
        self.fragments -= u32::from(entry.is_fragment());
    }

    pub(super) fn clear(&mut self, slot: Slot) -> TlbEntry {
        let entry = self.slots.clear(slot);
        self.leaves(&entry);
        entry
    }

    /// Empties the slots of one page under one tag: of every size, of every bank, fragments of its
    /// page included. Returns how many there were.
    pub(super) fn clear_page(&mut self, asid: Asid, vpn: Vpn, gone: &mut impl FnMut(&TlbEntry)) -> u64 {
        let page = significant(vpn);
        if self.fragments > 0 {
            return self.clear_where(
                |tag, entry| {
                    tag.asid() == asid && entry.leaf_size().floor(tag.vpn()) == entry.leaf_size().floor(page)
                },
                gone,
            );
        }
        let mut emptied = 0;
        for client in [Client::Data, Client::Fetch] {
            while let Some(slot) = self.find_tagged(client, asid, vpn) {
                gone(&self.clear(slot));
                emptied += 1;
            }
        }
        emptied
    }

    pub(super) fn clear_where(
        &mut self,
        doomed: impl Fn(Tag, &TlbEntry) -> bool,
        gone: &mut impl FnMut(&TlbEntry),
    ) -> u64 {
        let (present, globals, fragments) = (&mut self.present, &mut self.globals, &mut self.fragments);
        self.slots.clear_where(
            |bits, entry| doomed(Tag::from_bits(bits), entry),
            |_, entry| {
                present[entry.size() as usize] -= 1;
                *globals -= u32::from(entry.is_global());
                *fragments -= u32::from(entry.is_fragment());
                gone(&entry);
            },
        )
    }

    pub(super) fn filled(&self) -> impl Iterator<Item = (Tag, &TlbEntry)> {
        self.slots
            .filled()
            .map(|(bits, entry)| (Tag::from_bits(bits), entry))
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}
