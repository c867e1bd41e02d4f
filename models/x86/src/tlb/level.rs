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

/// The one size present, neither global nor in fragments, and the one bank that keeps it for a client:
/// all that most look-ups need.
#[derive(Clone, Copy)]
struct Quick {
    size: PageSize,
    shift: u8,
    bank: u8,
    // The part of a tag that is the same for all pages of the size.
    marks: u64,
}

impl Quick {
    #[inline(always)]
    fn number_and_tag(&self, asid: Asid, vpn: Vpn) -> (u64, u64) {
        let number = significant(vpn).get() >> self.shift;
        let page = number << self.shift;
        (number, self.marks | Tag::asid_bits(asid) | page)
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
pub(crate) enum Presence {
    Unknown,
    Absent,
}

/// Most banks of a level that keep pages of the same size for the same client.
pub(super) const MOST_SHARING: usize = 8;

/// The banks that keep pages of one size. Pages take turns by their number.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Route {
    banks: [u8; MOST_SHARING],
    count: u8,
}

impl Route {
    fn new(banks: impl Iterator<Item = usize>) -> Self {
        let mut route = Route::default();
        for (at, bank) in banks.enumerate() {
            route.banks[at] = bank as u8;
            route.count += 1;
        }
        route
    }
}

/// Where a page was found last: a place to look first. Nothing depends on it being right, since the
/// slot's tag is compared.
#[derive(Clone, Copy)]
struct Memo {
    // Address space and page.
    key: u64,
    tag: u64,
    slot: Slot,
}

// A power of two, several times the slots of a first level.
const MEMOS: usize = 256;
const NO_MEMO: Memo = Memo {
    key: u64::MAX,
    tag: u64::MAX,
    slot: 0,
};

#[derive(Clone)]
pub(super) struct Level {
    slots: SetArray<TlbEntry>,
    // Slots in use by size translated: sizes that are nowhere are not looked for.
    present: [u32; SIZES],
    // By client; `None` if there is more to a look-up.
    quick: [Option<Quick>; 2],
    globals: u32,
    fragments: u32,
    memos: Box<[Memo; MEMOS]>,
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
        let route = |client: usize, size: usize| {
            let here = |at: &usize| serves[*at][client] && banks[*at].holds.contains(PageSize::ALL[size]);
            Route::new((0..banks.len()).filter(here))
        };
        let routes = [0, 1].map(|client| std::array::from_fn(|size| route(client, size)));
        let [data, fetch]: [[Route; SIZES]; 2] = routes;
        let marks = std::array::from_fn(|size| if data[size] == fetch[size] { 0 } else { FETCH_MARK });
        Level {
            slots: SetArray::new(banks.iter().map(|bank| bank.shape)),
            present: [0; SIZES],
            quick: [None; 2],
            globals: 0,
            fragments: 0,
            memos: Box::new([NO_MEMO; MEMOS]),
            routes,
            marks: [[0; SIZES], marks],
        }
    }

    #[inline(always)]
    fn tag(&self, client: Client, asid: Asid, size: PageSize, vpn: Vpn) -> u64 {
        Tag::new(asid, size, vpn).bits() | self.marks[client as usize][size as usize]
    }

    // The bank of a page, and the number that chooses its set there.
    #[inline(always)]
    fn bank_of(&self, client: Client, size: PageSize, vpn: Vpn) -> Option<(usize, u64)> {
        let route = self.routes[client as usize][size as usize];
        let number = significant(vpn).get() >> size.vpn_shift();
        match route.count {
            0 => None,
            1 => Some((route.banks[0] as usize, number)),
            count => {
                let bank = route.banks[(number % u64::from(count)) as usize];
                Some((bank as usize, number / u64::from(count)))
            }
        }
    }

    #[inline(always)]
    fn find_sized(&self, client: Client, asid: Asid, size: PageSize, vpn: Vpn) -> Option<Slot> {
        let (bank, number) = self.bank_of(client, size, vpn)?;
        self.slots.find(bank, number, self.tag(client, asid, size, vpn))
    }

    // A page may be here in several sizes, if software changed its size without a flush: the smallest
    // is used (reference row R18 allows any).
    fn find_tagged(&self, client: Client, asid: Asid, vpn: Vpn) -> Option<Slot> {
        PageSize::ALL
            .into_iter()
            .filter(|&size| self.present[size as usize] > 0)
            .find_map(|size| self.find_sized(client, asid, size, vpn))
    }

    #[inline(always)]
    pub(super) fn find(&self, client: Client, context: Context, vpn: Vpn) -> Option<Slot> {
        if let Some(quick) = &self.quick[client as usize] {
            let (number, tag) = quick.number_and_tag(context.own, vpn);
            return self.slots.find(quick.bank as usize, number, tag);
        }
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
    #[inline(always)]
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

    /// [`Level::hit_if`] where the same page is asked for again and again.
    #[inline(always)]
    pub(super) fn hit_again(
        &mut self,
        client: Client,
        context: Context,
        vpn: Vpn,
        passes: impl FnOnce(&TlbEntry) -> bool + Copy,
    ) -> Tried {
        let page = significant(vpn).get();
        let key = Tag::new(context.own, PageSize::Size4K, vpn).bits();
        let memo = self.memos[page as usize % MEMOS];
        if memo.key == key
            && let Some(entry) = self.slots.holding(memo.slot, memo.tag)
            && passes(entry)
        {
            self.slots.touch(memo.slot);
            return Tried::Hit(memo.slot);
        }
        let tried = self.hit_if(client, context, vpn, passes);
        if let Tried::Hit(slot) = tried
            && self.quick[client as usize].is_some()
        {
            self.memos[page as usize % MEMOS] = Memo {
                key,
                tag: self.slots.tag(slot),
                slot,
            };
        }
        tried
    }

    /// The largest size kept here that is no larger than `size`.
    #[inline]
    fn kept_size(&self, client: Client, size: PageSize) -> Option<PageSize> {
        PageSize::ALL[..=size as usize]
            .iter()
            .rev()
            .copied()
            .find(|&kept| self.routes[client as usize][kept as usize].count > 0)
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

    /// Brings in a page that is known to be absent, if the level is full of others of its kind and
    /// nothing need be counted. Returns the entry that gave way.
    #[inline(always)]
    pub(super) fn swap_in(
        &mut self,
        client: Client,
        asid: Asid,
        vpn: Vpn,
        entry: TlbEntry,
    ) -> Option<TlbEntry> {
        let quick = &self.quick[client as usize].as_ref()?;
        if !entry.is_plain(quick.size) {
            return None;
        }
        let (number, tag) = quick.number_and_tag(asid, vpn);
        self.slots.swap_in(quick.bank as usize, number, tag, entry)
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

    fn enters(&mut self, entry: &TlbEntry) {
        self.present[entry.size() as usize] += 1;
        self.globals += u32::from(entry.is_global());
        self.fragments += u32::from(entry.is_fragment());
        self.note_sizes();
    }

    fn leaves(&mut self, entry: &TlbEntry) {
        self.present[entry.size() as usize] -= 1;
        self.globals -= u32::from(entry.is_global());
        self.fragments -= u32::from(entry.is_fragment());
        self.note_sizes();
    }

    fn note_sizes(&mut self) {
        let mut present = PageSize::ALL
            .into_iter()
            .filter(|&size| self.present[size as usize] > 0);
        let only = match (present.next(), present.next()) {
            (Some(size), None) if self.globals == 0 && self.fragments == 0 => Some(size),
            _ => None,
        };
        let was_quick = self.quick.iter().any(Option::is_some);
        self.quick = [Client::Data, Client::Fetch].map(|client| {
            let size = only?;
            let route = self.routes[client as usize][size as usize];
            (route.count == 1).then(|| Quick {
                size,
                shift: size.vpn_shift() as u8,
                bank: route.banks[0],
                marks: self.tag(client, Asid::UNTAGGED, size, Vpn::new(0)),
            })
        });
        // With several sizes or global pages about, a page may be here twice: then only `find` knows.
        if was_quick && self.quick.iter().all(Option::is_none) {
            self.memos.fill(NO_MEMO);
        }
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
        let emptied = self.slots.clear_where(
            |bits, entry| doomed(Tag::from_bits(bits), entry),
            |_, entry| {
                present[entry.size() as usize] -= 1;
                *globals -= u32::from(entry.is_global());
                *fragments -= u32::from(entry.is_fragment());
                gone(&entry);
            },
        );
        self.note_sizes();
        emptied
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
