//! Batches: up to so many items of a radix tree from an index on, all or those with a tag.
//!
//! Follows `radix_tree_gang_lookup`, `radix_tree_gang_lookup_tag` and `__lookup` of lib/radix-tree.c, 2.6.27;
//! what they cost and under which lock they are called: [`super`].

use std::iter;

use super::{Marks, RadixTree, Root, Tag, Walked, max_index, slot};

/// The slots a batch is interested in.
#[derive(Clone, Copy)]
enum Wanted {
    Used,
    Tagged(Tag),
}

impl Wanted {
    const fn of(self, marks: &Marks) -> u64 {
        match self {
            Wanted::Used => marks.used,
            Wanted::Tagged(tag) => marks.tags[tag as usize],
        }
    }
}

impl<V: Copy> RadixTree<V> {
    /// `radix_tree_gang_lookup`: up to `max` items from an index on, ascending.
    pub fn gang_lookup(&self, from: u64, max: usize) -> Walked<Vec<(u64, V)>> {
        self.gang(Wanted::Used, from, max)
    }

    /// `radix_tree_gang_lookup_tag`: the same among the items that have a tag.
    pub fn gang_lookup_tag(&self, from: u64, max: usize, tag: Tag) -> Walked<Vec<(u64, V)>> {
        if self.any_tagged(tag) {
            self.gang(Wanted::Tagged(tag), from, max)
        } else {
            Walked {
                found: Vec::new(),
                nodes: 0,
            }
        }
    }

    /// All items, ascending, for checks.
    pub fn iter(&self) -> impl Iterator<Item = (u64, V)> + '_ {
        let from = |index| self.gang_lookup(index, 1).found.pop();
        iter::successors(from(0), move |(index, _)| from(index.checked_add(1)?))
    }

    fn gang(&self, wanted: Wanted, from: u64, max: usize) -> Walked<Vec<(u64, V)>> {
        let mut batch = Walked {
            found: Vec::new(),
            nodes: 0,
        };
        match self.root {
            Root::Item(item) if from == 0 && max > 0 => batch.found.push((0, item)),
            Root::Node { height, at } => {
                let mut next = Some(from);
                while let Some(from) = next.filter(|from| *from <= max_index(height))
                    && batch.found.len() < max
                {
                    next = self.collect(wanted, (height, at), from, max, &mut batch);
                }
            }
            Root::Empty | Root::Item(_) => {}
        }
        batch
    }

    /// `__lookup`: down to the first leaf from an index on that has something wanted, and what it has. If a node on
    /// the way has nothing further, that is all. Gives where to go on; nothing at the end of all indices.
    fn collect(
        &self,
        wanted: Wanted,
        (height, mut at): (u32, u32),
        from: u64,
        max: usize,
        batch: &mut Walked<Vec<(u64, V)>>,
    ) -> Option<u64> {
        let mut index = from;
        for level in (2..=height).rev() {
            batch.nodes += 1;
            let node = self.inner.get(at);
            let first = slot(index, level);
            let ahead = wanted.of(&node.marks) >> first;
            if ahead == 0 {
                return (index | max_index(level)).checked_add(1);
            }
            let skip = ahead.trailing_zeros();
            if skip > 0 {
                let below = max_index(level - 1);
                index = (index & !below) + u64::from(skip) * (below + 1);
            }
            at = node.slots[(first + skip) as usize];
        }
        batch.nodes += 1;
        let leaf = self.leaves.get(at);
        let mut ahead = wanted.of(&leaf.marks) & u64::MAX << slot(index, 1);
        while ahead != 0 {
            let slot = ahead.trailing_zeros();
            ahead &= ahead - 1;
            let found = index & !max_index(1) | u64::from(slot);
            batch.found.push((found, leaf.slots[slot as usize]));
            if batch.found.len() == max {
                return found.checked_add(1);
            }
        }
        (index | max_index(1)).checked_add(1)
    }
}
