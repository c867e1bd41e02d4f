//! Random changes of an address space against a model that knows pages only: what each page is, and
//! that neighbours which are alike are one mapping.
//!
//! The model has no VMAs. After every call each VMA must be a run of pages that are alike and follow
//! each other, all pages must be in one, and where two VMAs touch there must be a reason: their pages
//! differ, or they have two anon_vmas, or a mapping grew in place until it met the other (`vma_adjust`
//! does not merge). map_count, i_mmap, the anon_vma lists and the reverse map of every page are
//! checked by the audit.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use common::{BASE, Setup, anonymous, range};
use mm::{
    Backing, Destination, FileId, Kernel, Locked, MapError, MapFlags, MapRequest, MmId, Prot, Sharing, VmaId,
    World,
};
use proptest::prelude::*;
use sim::{Cx, End};
use x86::{Access, Pgoff, Va, VaRange, Vpn};

/// Small, so that mappings meet.
const WINDOW: u64 = 10;
const FILE_PAGES: u64 = 256;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Anonymous,
    PrivateFile,
    SharedFile,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Map(u64, u64, Source, Prot, bool),
    Unmap(u64, u64),
    Protect(u64, u64, Prot),
    Lock(u64, u64),
    Unlock(u64, u64),
    Touch(u64, Access),
    Remap(u64, u64, u64, To),
}

#[derive(Clone, Copy, Debug)]
enum To {
    InPlace,
    Anywhere,
    Page(u64),
}

/// What a page is to the program.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Page {
    prot: Prot,
    sharing: Sharing,
    backing: Backing,
    pgoff: u64,
    locked: bool,
    /// Private, and writable at some time.
    accounted: bool,
}

impl Page {
    fn continued_by(&self, next: &Page) -> bool {
        let here = Page {
            pgoff: self.pgoff + 1,
            ..*self
        };
        here == *next
    }

    fn continuation(&self, by: u64) -> Page {
        Page {
            pgoff: self.pgoff + by,
            ..*self
        }
    }
}

#[derive(Default)]
struct Model {
    pages: BTreeMap<Vpn, Page>,
    /// Where a mapping grew in place until it touched another.
    touching: BTreeSet<Vpn>,
}

impl Model {
    fn set(&mut self, at: Vpn, page: Option<Page>) {
        self.touching.remove(&at);
        self.touching.remove(&at.add(1));
        match page {
            Some(page) => self.pages.insert(at, page),
            None => self.pages.remove(&at),
        };
    }

    fn unmap(&mut self, r: VaRange) {
        for vpn in r.vpns() {
            self.set(vpn, None);
        }
    }

    /// Pages up to the first hole, changed; whether there was none.
    fn change(&mut self, r: VaRange, change: impl Fn(&mut Page)) -> Result<(), MapError> {
        for vpn in r.vpns() {
            change(self.pages.get_mut(&vpn).ok_or(MapError::Hole)?);
        }
        Ok(())
    }
}

struct Run {
    cx: Cx,
    k: Rc<Kernel>,
    world: Rc<World>,
    mm: MmId,
    file: FileId,
    model: Model,
}

fn part(first: u64, pages: u64) -> VaRange {
    range(BASE.add_pages(first), pages)
}

impl Run {
    async fn op(&mut self, op: Op) {
        let (cx, k, mm) = (self.cx.clone(), Rc::clone(&self.k), self.mm);
        match op {
            Op::Map(first, pages, source, prot, locked) => {
                self.map(part(first, pages), source, prot, locked).await;
            }
            Op::Unmap(first, pages) => {
                let r = part(first, pages);
                k.sys_munmap(&cx, mm, r).await.expect("few mappings");
                self.model.unmap(r);
            }
            Op::Protect(first, pages, prot) => {
                let r = part(first, pages);
                let expected = self.model.change(r, |page| {
                    page.prot = prot;
                    page.accounted |= prot.can_write() && page.sharing == Sharing::Private;
                });
                assert_eq!(k.sys_mprotect(&cx, mm, r, prot).await, expected);
            }
            Op::Lock(first, pages) => {
                let r = part(first, pages);
                let expected = self.model.change(r, |page| page.locked = true);
                assert_eq!(k.sys_mlock(&cx, mm, r).await, expected);
            }
            Op::Unlock(first, pages) => {
                let r = part(first, pages);
                let expected = self.model.change(r, |page| page.locked = false);
                assert_eq!(k.sys_munlock(&cx, mm, r).await, expected);
            }
            Op::Touch(page, access) => {
                let known = self.model.pages.get(&BASE.add_pages(page).vpn());
                let allowed = known.is_some_and(|p| !access.is_write() || p.prot.can_write());
                let touched = k.access(&cx, mm, BASE.add_pages(page), access).await;
                assert_eq!(touched.is_ok(), allowed);
            }
            Op::Remap(first, old, new, to) => self.remap(part(first, old), new, to).await,
        }
    }

    async fn map(&mut self, r: VaRange, source: Source, prot: Prot, locked: bool) {
        let (backing, sharing) = match source {
            Source::Anonymous => (Backing::Anonymous, Sharing::Private),
            Source::PrivateFile => (Backing::File(self.file), Sharing::Private),
            Source::SharedFile => (Backing::File(self.file), Sharing::Shared),
        };
        // So that file mappings continue each other wherever they lie.
        let pgoff = (r.start().get() - BASE.get()) / x86::PAGE_SIZE;
        let request = MapRequest {
            backing,
            sharing,
            prot,
            pgoff: Pgoff::new(pgoff),
            flags: MapFlags {
                locked: if locked { Locked::Yes } else { Locked::No },
                ..MapFlags::NONE
            },
            ..anonymous(r.start(), r.pages())
        };
        self.k
            .sys_mmap(&self.cx, self.mm, request)
            .await
            .expect("few mappings");
        for (vpn, n) in r.vpns().zip(0..) {
            let pgoff = match source {
                Source::Anonymous => vpn.get(),
                Source::PrivateFile | Source::SharedFile => pgoff + n,
            };
            let page = Page {
                prot,
                sharing,
                backing,
                pgoff,
                locked,
                accounted: sharing == Sharing::Private && prot.can_write(),
            };
            self.model.set(vpn, Some(page));
        }
    }

    async fn remap(&mut self, old: VaRange, new: u64, to: To) {
        let destination = match to {
            To::InPlace => Destination::InPlace,
            To::Anywhere => Destination::Anywhere,
            To::Page(page) => Destination::Fixed(BASE.add_pages(page)),
        };
        let keeps_index = self.has_anon_vma(old.start());
        let result = self.k.sys_mremap(&self.cx, self.mm, old, new, destination).await;
        if let Destination::Fixed(at) = destination {
            let target = range(at, new);
            if target.overlaps(&old) {
                assert_eq!(result, Err(MapError::BadRange));
                return;
            }
            self.model.unmap(target);
        }
        if let Some(tail) = VaRange::new(old.start().add_pages(new), old.end()) {
            self.model.unmap(tail);
        }
        let kept = range(old.start(), new.min(old.pages()));
        if new <= old.pages() && !matches!(destination, Destination::Fixed(_)) {
            assert_eq!(result, Ok(kept));
            return;
        }
        let Ok(moved) = result else {
            self.may_fail(kept, result);
            return;
        };
        assert_eq!(moved.pages(), new);
        let first = self.model.pages[&kept.start().vpn()];
        if moved.start() == old.start() {
            for (vpn, n) in moved.vpns().zip(0..new).skip(old.pages() as usize) {
                assert!(!self.model.pages.contains_key(&vpn), "it grows into a gap");
                self.model.set(vpn, Some(first.continuation(n)));
            }
            self.model.touching.insert(moved.end().vpn());
            return;
        }
        self.model.unmap(old);
        let index = match first.backing {
            Backing::Anonymous if !keeps_index => moved.start().vpn().get(),
            _ => first.pgoff,
        };
        for (vpn, n) in moved.vpns().zip(0..) {
            let page = Page {
                pgoff: index + n,
                ..first
            };
            self.model.set(vpn, Some(page));
        }
    }

    /// A range that is alike throughout is one mapping and moves or grows; any other fails, and so does
    /// one that has no room.
    fn may_fail(&self, kept: VaRange, result: Result<VaRange, MapError>) {
        match result {
            Err(MapError::NoSpace) => {}
            Err(MapError::NotOneMapping) => {
                let mut st = self.k.st();
                let at = |va: Va| st.mm_mut(self.mm).vmas.find(va);
                let last = Va::new(kept.end().get() - x86::PAGE_SIZE);
                let (first, last) = {
                    let mut at = at;
                    (at(kept.start()), at(last))
                };
                assert!(first.is_none() || first != last);
            }
            other => panic!("{other:?}"),
        }
    }

    fn has_anon_vma(&self, va: Va) -> bool {
        let mut st = self.k.st();
        let vma = st.mm_mut(self.mm).vmas.find(va);
        vma.is_some_and(|v| st.vma(v).anon_vma.is_some())
    }

    fn check(&self, after: &str) {
        {
            let st = self.k.st();
            let ids: Vec<VmaId> = st.mm(self.mm).vmas.iter().collect();
            let mut pages = 0;
            for id in &ids {
                let v = st.vma(*id);
                pages += v.range.pages();
                for vpn in v.range.vpns() {
                    let seen = Page {
                        prot: v.prot,
                        sharing: v.sharing,
                        backing: v.backing,
                        pgoff: v.pgoff_of(vpn.va()).get(),
                        locked: v.flags.is_locked(),
                        accounted: v.flags.accounted == mm::vma::Accounted::Yes,
                    };
                    assert_eq!(self.model.pages.get(&vpn), Some(&seen), "{vpn:?} after {after}");
                }
            }
            assert_eq!(pages, self.model.pages.len() as u64, "after {after}");
            for pair in ids.windows(2) {
                let (a, b) = (st.vma(pair[0]), st.vma(pair[1]));
                let border = b.range.start().vpn();
                if a.range.end() != b.range.start() || self.model.touching.contains(&border) {
                    continue;
                }
                let before = Vpn::new(border.get() - 1);
                let alike = self.model.pages[&before].continued_by(&self.model.pages[&border]);
                let families = a.anon_vma.is_some() && b.anon_vma.is_some() && a.anon_vma != b.anon_vma;
                assert!(
                    !alike || families,
                    "two mappings meet at {border:?} after {after}"
                );
            }
        }
        assert_eq!(self.world.audit(), Vec::<String>::new(), "after {after}");
    }
}

fn span() -> impl Strategy<Value = (u64, u64)> {
    (0..WINDOW, 1..5_u64)
}

fn prot() -> impl Strategy<Value = Prot> {
    prop_oneof![5 => Just(Prot::READ_WRITE), 2 => Just(Prot::READ), 1 => Just(Prot::READ_EXEC)]
}

fn operation() -> impl Strategy<Value = Op> {
    let source = prop_oneof![
        5 => Just(Source::Anonymous),
        1 => Just(Source::PrivateFile),
        1 => Just(Source::SharedFile)
    ];
    let to = prop_oneof![
        Just(To::InPlace),
        Just(To::Anywhere),
        (0..WINDOW).prop_map(To::Page),
    ];
    let access = prop_oneof![Just(Access::Read), Just(Access::Write)];
    prop_oneof![
        4 => (span(), source, prot(), prop::bool::weighted(0.1))
            .prop_map(|((f, n), s, p, l)| Op::Map(f, n, s, p, l)),
        1 => span().prop_map(|(f, n)| Op::Unmap(f, n)),
        3 => (span(), prot()).prop_map(|((f, n), p)| Op::Protect(f, n, p)),
        1 => span().prop_map(|(f, n)| Op::Lock(f, n)),
        2 => span().prop_map(|(f, n)| Op::Unlock(f, n)),
        6 => (0..WINDOW, access).prop_map(|(p, a)| Op::Touch(p, a)),
        2 => (span(), 1..6_u64, to).prop_map(|((f, n), new, to)| Op::Remap(f, n, new, to)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn neighbours_that_are_alike_are_one_mapping_whatever_happened(ops in prop::collection::vec(operation(), 1..120)) {
        let b = Setup::linux_2_6_27().build();
        let (world, mm) = (Rc::clone(&b.world), b.mm);
        let file = b.kernel.new_file("f", FILE_PAGES);
        let end = b.work(move |cx, k| async move {
            let mut run = Run { cx, k, world, mm, file, model: Model::default() };
            for op in ops {
                run.op(op).await;
                run.check(&format!("{op:?}"));
            }
        });
        prop_assert_eq!(end, End::Completed);
        prop_assert_eq!(b.world.audit(), Vec::<String>::new());
    }
}
