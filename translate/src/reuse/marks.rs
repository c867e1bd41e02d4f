//! A row of marks that is appended to, erased from, and asked how many marks come after a place: a
//! bitmap, and a Fenwick tree over its words (P. Fenwick, "A new data structure for cumulative
//! frequency tables", 1994).

/// Marks in a word.
const WORD: usize = u64::BITS as usize;

#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    words: Vec<u64>,
    // Node n, from 1, counts the marks of the words from n - (n & -n) to n - 1.
    nodes: Vec<u32>,
    marked: u32,
    next: usize,
}

impl Marks {
    /// The first `marked` places marked, and room for as many as `places`.
    pub(super) fn dense(marked: usize, places: usize) -> Self {
        let words = places.div_ceil(WORD);
        let mut marks = Marks {
            words: vec![0; words],
            nodes: vec![0; words + 1],
            marked: marked as u32,
            next: marked,
        };
        for place in 0..marked {
            marks.words[place / WORD] |= 1 << (place % WORD);
        }
        for node in 1..=words {
            marks.nodes[node] += marks.words[node - 1].count_ones();
            let parent = node + (node & node.wrapping_neg());
            if parent <= words {
                marks.nodes[parent] += marks.nodes[node];
            }
        }
        marks
    }

    /// Whether nothing can be appended.
    pub(super) fn is_full(&self) -> bool {
        self.next == self.words.len() * WORD
    }

    /// Marks the place after the last one, and says which.
    #[inline]
    pub(super) fn append(&mut self) -> u32 {
        let place = self.next;
        self.words[place / WORD] |= 1 << (place % WORD);
        self.marked += 1;
        self.next += 1;
        let mut node = place / WORD + 1;
        while node < self.nodes.len() {
            self.nodes[node] += 1;
            node += node & node.wrapping_neg();
        }
        place as u32
    }

    /// Erases a mark, and says how many come after it.
    #[inline]
    pub(super) fn erase(&mut self, place: u32) -> u32 {
        let (word, bit) = (place as usize / WORD, place as usize % WORD);
        let mut before = (self.words[word] & ((1 << bit) - 1)).count_ones();
        let mut node = word;
        while node > 0 {
            before += self.nodes[node];
            node &= node - 1;
        }
        self.words[word] &= !(1 << bit);
        self.marked -= 1;
        let mut node = word + 1;
        while node < self.nodes.len() {
            self.nodes[node] -= 1;
            node += node & node.wrapping_neg();
        }
        self.marked - before
    }

    /// Marks there are.
    pub(super) fn len(&self) -> usize {
        self.marked as usize
    }

    /// Marked places, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            std::iter::successors((word != 0).then_some(word), |word| {
                let rest = word & (word - 1);
                (rest != 0).then_some(rest)
            })
            .map(move |word| at * WORD + word.trailing_zeros() as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_after_a_place_are_counted() {
        let mut marks = Marks::dense(130, 200);
        assert_eq!(marks.append(), 130);
        assert_eq!(marks.erase(129), 1);
        assert_eq!(marks.erase(0), 129);
        assert_eq!(marks.erase(64), 65);
        assert!(
            marks
                .iter()
                .eq((1..131).filter(|place| ![64, 129].contains(place)))
        );
        assert_eq!(marks.len(), 128);
    }
}
