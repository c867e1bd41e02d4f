//! The index as a plain list, and the shape of the tree as a definition. Nothing of the tree's own is used:
//! heap order and branch bits are written down once more, from host-mm-paths D.1.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::super::*;

/// What stands at the top of a sub-tree: the largest `last`; of those, the smallest `first`.
fn top_of(spans: &[Span]) -> Option<Span> {
    spans.iter().copied().min_by_key(|s| (Reverse(s.last), s.first))
}

/// Where an interval goes at a level: the digits of `first`, as many as the tree has bits, then all 64 of the
/// length; a one is a right turn.
pub(super) fn turn(span: Span, level: u32, index_bits: u32) -> Side {
    let unused = u64::BITS - index_bits;
    let digits = (u128::from(span.first) << u64::BITS | u128::from(span.last - span.first)) << unused;
    match digits << level >> (u128::BITS - 1) {
        0 => Side::Left,
        _ => Side::Right,
    }
}

/// What the rules of the tree say its shape must be, written down without any insertion or removal: the top of a
/// sub-tree is its highest interval in heap order, and the rest is divided by the branch bit of that depth. Preorder;
/// `None` marks an empty place.
fn canonical(spans: &[Span], depth: u32, index_bits: u32, out: &mut Vec<Option<Span>>) {
    let Some(top) = top_of(spans) else {
        out.push(None);
        return;
    };
    out.push(Some(top));
    for side in [Side::Left, Side::Right] {
        let part: Vec<Span> = spans
            .iter()
            .copied()
            .filter(|s| *s != top && turn(*s, depth, index_bits) == side)
            .collect();
        canonical(&part, depth + 1, index_bits, out);
    }
}

/// The naive index: a list of VMAs for each interval, and the bits needed since it was last empty.
#[derive(Default)]
pub(super) struct Naive {
    sets: BTreeMap<(u64, u64), Vec<u32>>,
    pub(super) bits: u32,
}

impl Naive {
    pub(super) fn insert(&mut self, first: u64, last: u64, id: u32) -> Placed {
        self.bits = self.bits.max(u64::BITS - last.leading_zeros()).max(1);
        let set = self.sets.entry((first, last)).or_default();
        set.push(id);
        if set.len() == 1 {
            Placed::TreeNode
        } else {
            Placed::FoundList
        }
    }

    pub(super) fn beside(&mut self, sibling: u32, first: u64, last: u64, id: u32) {
        let set = self.sets.entry((first, last)).or_default();
        match set.iter().position(|&s| s == sibling) {
            Some(0) | None => set.push(id),
            Some(at) => set.insert(at + 1, id),
        }
    }

    pub(super) fn remove(&mut self, first: u64, last: u64, id: u32) -> Removed<u32> {
        let set = self.sets.get_mut(&(first, last)).unwrap();
        let at = set.iter().position(|&s| s == id).unwrap();
        set.remove(at);
        match (at, set.first()) {
            (0, Some(&head)) => Removed::Promoted(head),
            (0, None) => {
                self.sets.remove(&(first, last));
                if self.sets.is_empty() {
                    self.bits = 1;
                }
                Removed::TreeNode
            }
            _ => Removed::ListMember,
        }
    }

    pub(super) fn shape(&self) -> Vec<Option<Span>> {
        let spans: Vec<Span> = self
            .sets
            .keys()
            .map(|&(first, last)| Span { first, last })
            .collect();
        let mut out = Vec::new();
        canonical(&spans, 0, self.bits.max(1), &mut out);
        out
    }

    pub(super) fn visit(&self, first: u64, last: u64) -> Visit<u32> {
        let intersects = |span: &Span| span.first <= last && span.last >= first;
        // The way to each tree node begins behind the one before it, whose list is no part of it.
        let (mut met, mut heads, mut way) = (Vec::new(), Vec::new(), 0);
        for span in self.stepped_on(first, last) {
            way += 1;
            if intersects(&span) {
                let set = &self.sets[&(span.first, span.last)];
                met.push(Met::node(set[0], std::mem::take(&mut way)));
                met.extend(set[1..].iter().copied().map(Met::member));
                heads.push(span);
            }
        }
        let preorder: Vec<_> = self.shape().into_iter().flatten().filter(intersects).collect();
        assert_eq!(heads, preorder, "what intersects is stepped on, in this order");
        Visit { met, tail: way }
    }

    /// A node is stepped on iff every node on its path reaches the query, itself included, and every right turn in
    /// the radix levels is towards a position whose smallest `first` is not beyond the query.
    fn stepped_on(&self, first: u64, last: u64) -> Vec<Span> {
        let bits = self.bits.max(1);
        let mut open = vec![(
            self.sets
                .keys()
                .map(|&(first, last)| Span { first, last })
                .collect::<Vec<_>>(),
            0,
            0_u64,
        )];
        let mut stepped = Vec::new();
        while let Some((spans, depth, smallest)) = open.pop() {
            let Some(top) = top_of(&spans) else {
                continue;
            };
            if top.last < first || smallest > last {
                continue;
            }
            stepped.push(top);
            // What is pushed last is stepped on first.
            for side in [Side::Right, Side::Left] {
                let part = spans
                    .iter()
                    .copied()
                    .filter(|s| *s != top && turn(*s, depth, bits) == side)
                    .collect();
                let bit = if depth < bits && side == Side::Right {
                    1 << (bits - 1 - depth)
                } else {
                    0
                };
                open.push((part, depth + 1, smallest + bit));
            }
        }
        stepped
    }
}
