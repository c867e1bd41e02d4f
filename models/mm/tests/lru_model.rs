//! The LRU lists against plain vectors: adding, taking off, isolating, rotating and activating in any order.

use mm::Watermark;
use mm::frame::{Frames, LastReference, LruList, PageFlags};
use proptest::prelude::*;
use x86::Pfn;

const PAGES: usize = 12;

#[derive(Clone, Copy, Debug)]
enum Op {
    /// To the head of a list.
    Add(usize, LruList),
    /// Off its list, for good.
    Del(usize),
    /// To the end that reclaim takes from.
    Rotate(usize),
    /// To the head of the active list.
    Activate(usize),
    /// From the end of a list, with a reference.
    Isolate(LruList),
    /// The last reference goes while the page is listed: who isolates must not take it.
    LoseReferences(usize),
}

fn lists() -> impl Strategy<Value = LruList> {
    prop_oneof![Just(LruList::Active), Just(LruList::Inactive)]
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..PAGES, lists()).prop_map(|(p, l)| Op::Add(p, l)),
        1 => (0..PAGES).prop_map(Op::Del),
        1 => (0..PAGES).prop_map(Op::Rotate),
        1 => (0..PAGES).prop_map(Op::Activate),
        2 => lists().prop_map(Op::Isolate),
        1 => (0..PAGES).prop_map(Op::LoseReferences),
    ]
}

/// Two vectors, heads first.
#[derive(Default)]
struct Model {
    lists: [Vec<Pfn>; 2],
}

impl Model {
    fn list_of(&self, pfn: Pfn) -> Option<usize> {
        self.lists.iter().position(|list| list.contains(&pfn))
    }

    fn take(&mut self, pfn: Pfn) -> Option<usize> {
        let at = self.list_of(pfn)?;
        self.lists[at].retain(|p| *p != pfn);
        Some(at)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_lists_hold_what_vectors_hold(script in prop::collection::vec(ops(), 0..200)) {
        let mut frames = Frames::default();
        let zone = frames.add_zone(PAGES as u64);
        let pages: Vec<Pfn> = (0..PAGES)
            .map(|_| frames.alloc(zone, Watermark::Nothing).expect("free"))
            .collect();
        let mut model = Model::default();
        for op in script {
            match op {
                Op::Add(page, list) => {
                    if model.list_of(pages[page]).is_none() {
                        frames.lru_add(pages[page], list);
                        model.lists[list as usize].insert(0, pages[page]);
                    }
                }
                Op::Del(page) => {
                    if let Some(list) = model.take(pages[page]) {
                        prop_assert_eq!(frames.lru_del(pages[page]) as usize, list);
                    }
                }
                Op::Rotate(page) => {
                    if let Some(list) = model.take(pages[page]) {
                        frames.lru_move_to_tail(pages[page]);
                        model.lists[list].push(pages[page]);
                    }
                }
                Op::Activate(page) => {
                    if model.take(pages[page]).is_some() {
                        let _ = frames.lru_del(pages[page]);
                        frames.lru_add(pages[page], LruList::Active);
                        model.lists[LruList::Active as usize].insert(0, pages[page]);
                    }
                }
                Op::Isolate(list) => {
                    let last = model.lists[list as usize].pop();
                    let dying = last.is_some_and(|pfn| frames.get(pfn).count == 0);
                    let isolated = frames.lru_isolate(zone, list);
                    if dying {
                        model.lists[list as usize].insert(0, last.expect("it is dying"));
                        prop_assert_eq!(isolated, None);
                    } else {
                        prop_assert_eq!(isolated, last);
                    }
                }
                Op::LoseReferences(page) => {
                    while frames.get(pages[page]).count > 0 {
                        if frames.put_testzero(pages[page]) == LastReference::Yes {
                            break;
                        }
                    }
                }
            }
            for list in [LruList::Inactive, LruList::Active] {
                let expected = &model.lists[list as usize];
                prop_assert_eq!(&frames.lru_pages(zone, list).collect::<Vec<_>>(), expected);
                prop_assert_eq!(frames.lru_len(zone, list), expected.len() as u64);
                prop_assert_eq!(frames.lru_tail(zone, list), expected.last().copied());
            }
            for pfn in &pages {
                let flags = frames.get(*pfn).flags;
                let listed = model.list_of(*pfn);
                prop_assert_eq!(flags.has(PageFlags::LRU), listed.is_some());
                if let Some(list) = listed {
                    prop_assert_eq!(flags.has(PageFlags::ACTIVE), list == LruList::Active as usize);
                }
            }
        }
    }
}
