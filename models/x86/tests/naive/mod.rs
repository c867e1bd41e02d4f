//! Models for comparison, as plain as the rules they follow: slots in lists, searched one by one.
#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod geometry;
pub(crate) mod tlb;

use x86::Shape;
use x86::tlb::{IndexFunction, Replacement};

/// What a fill took away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gone<K, V> {
    Nothing,
    Same(V),
    Other(K, V),
}

/// A tree of "the other side is next" bits over the ways of a set.
#[derive(Clone)]
enum Tree {
    Way(usize),
    Fork { next: Side, sides: Box<[Tree; 2]> },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Tree {
    fn over(first: usize, ways: usize) -> Tree {
        if ways == 1 {
            return Tree::Way(first);
        }
        let half = ways / 2;
        Tree::Fork {
            next: Side::Left,
            sides: Box::new([Tree::over(first, half), Tree::over(first + half, half)]),
        }
    }

    fn contains(&self, way: usize) -> bool {
        match self {
            Tree::Way(mine) => *mine == way,
            Tree::Fork { sides, .. } => sides.iter().any(|side| side.contains(way)),
        }
    }

    fn used(&mut self, way: usize) {
        if let Tree::Fork { next, sides } = self {
            let used = usize::from(sides[1].contains(way));
            *next = if used == 0 { Side::Right } else { Side::Left };
            sides[used].used(way);
        }
    }

    fn victim(&self) -> usize {
        match self {
            Tree::Way(way) => *way,
            Tree::Fork {
                next: Side::Left,
                sides,
            } => sides[0].victim(),
            Tree::Fork {
                next: Side::Right,
                sides,
            } => sides[1].victim(),
        }
    }
}

#[derive(Clone)]
struct Set<K, V> {
    slots: Vec<Option<(K, V)>>,
    /// Ways, the one used longest ago first.
    by_use: Vec<usize>,
    tree: Option<Tree>,
}

/// A set-associative array.
#[derive(Clone)]
pub(crate) struct Array<K, V> {
    sets: Vec<Set<K, V>>,
    replacement: Replacement,
    index: IndexFunction,
    register: u16,
}

impl<K: Copy + PartialEq, V: Copy> Array<K, V> {
    pub(crate) fn new(shape: Shape) -> Self {
        let mut array = Array::lru(u64::from(shape.sets()), shape.ways() as usize);
        array.replacement = shape.replacement();
        array.index = shape.index();
        if array.replacement == Replacement::TreePlru {
            for set in &mut array.sets {
                set.tree = Some(Tree::over(0, shape.ways() as usize));
            }
        }
        array
    }

    pub(crate) fn lru(sets: u64, ways: usize) -> Self {
        let set = Set {
            slots: vec![None; ways],
            by_use: (0..ways).collect(),
            tree: None,
        };
        Array {
            sets: vec![set; sets as usize],
            replacement: Replacement::Lru,
            index: IndexFunction::Modulo,
            register: 0xace1,
        }
    }

    fn set(&mut self, number: u64) -> &mut Set<K, V> {
        let sets = self.sets.len() as u64;
        let set = match self.index {
            IndexFunction::Modulo => number % sets,
            IndexFunction::XorFold => (number % sets) ^ (number / sets % sets),
        };
        &mut self.sets[set as usize]
    }

    fn way(&mut self, number: u64, key: K) -> Option<usize> {
        let holds = |slot: &Option<(K, V)>| slot.is_some_and(|(k, _)| k == key);
        self.set(number).slots.iter().position(holds)
    }

    fn used(&mut self, number: u64, way: usize) {
        let set = self.set(number);
        set.by_use.retain(|&other| other != way);
        set.by_use.push(way);
        if let Some(tree) = &mut set.tree {
            tree.used(way);
        }
    }

    pub(crate) fn get(&mut self, number: u64, key: K) -> Option<V> {
        let way = self.way(number, key)?;
        self.set(number).slots[way].map(|(_, value)| value)
    }

    pub(crate) fn touch(&mut self, number: u64, key: K) -> Option<V> {
        let way = self.way(number, key)?;
        self.used(number, way);
        self.set(number).slots[way].map(|(_, value)| value)
    }

    pub(crate) fn fill(&mut self, number: u64, key: K, value: V) -> Gone<K, V> {
        let (way, same) = match self.way(number, key) {
            Some(way) => (way, true),
            None => (self.victim(number), false),
        };
        let old = self.set(number).slots[way].replace((key, value));
        self.used(number, way);
        match old {
            None => Gone::Nothing,
            Some((_, value)) if same => Gone::Same(value),
            Some((key, value)) => Gone::Other(key, value),
        }
    }

    fn victim(&mut self, number: u64) -> usize {
        let set = self.set(number);
        if let Some(empty) = set.slots.iter().position(Option::is_none) {
            return empty;
        }
        let ways = set.slots.len();
        let (oldest, pointed) = (set.by_use[0], set.tree.as_ref().map(Tree::victim));
        match self.replacement {
            Replacement::Lru => oldest,
            Replacement::TreePlru => pointed.expect("every set of such an array has a tree"),
            Replacement::Random => {
                let feedback = self.register % 2 == 1;
                self.register /= 2;
                if feedback {
                    self.register ^= 0xb400;
                }
                usize::from(self.register) % ways
            }
        }
    }

    pub(crate) fn remove(&mut self, number: u64, key: K) -> Option<V> {
        let way = self.way(number, key)?;
        self.set(number).slots[way].take().map(|(_, value)| value)
    }

    pub(crate) fn remove_where(&mut self, doomed: impl Fn(&K, &V) -> bool) -> Vec<(K, V)> {
        let mut gone = Vec::new();
        for slot in self.sets.iter_mut().flat_map(|set| &mut set.slots) {
            if slot.as_ref().is_some_and(|(key, value)| doomed(key, value)) {
                gone.extend(slot.take());
            }
        }
        gone
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (K, V)> {
        self.sets.iter().flat_map(|set| &set.slots).copied().flatten()
    }
}

/// Reproducible numbers for long streams (the SplitMix64 generator).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % end
    }
}
