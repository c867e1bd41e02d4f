//! Batches cut where counting begins and ends.

use crate::source::{Batch, Source, SourceError};

/// A source, and what is left of its last batch.
pub(crate) struct Portions<S> {
    source: S,
    whole: Batch,
    // What was handed out of `whole`.
    used: usize,
    part: Batch,
}

impl<S: Source> Portions<S> {
    pub(crate) fn new(source: S) -> Self {
        Portions {
            source,
            whole: Batch::default(),
            used: 0,
            part: Batch::default(),
        }
    }

    /// The next references, at most `most`. An empty batch is the end.
    pub(crate) fn next(&mut self, most: u64) -> Result<&Batch, SourceError> {
        if self.used == self.whole.references.len() {
            self.source.next_batch(&mut self.whole)?;
            self.used = 0;
        }
        let rest = &self.whole.references[self.used..];
        let count = usize::try_from(most).map_or(rest.len(), |most| rest.len().min(most));
        if count == self.whole.references.len() {
            self.used = count;
            return Ok(&self.whole);
        }
        self.part.thread = self.whole.thread;
        self.part.references.clear();
        self.part.references.extend_from_slice(&rest[..count]);
        self.used += count;
        Ok(&self.part)
    }
}

#[cfg(test)]
mod tests {
    use x86::{Access, Reference, Va};

    use super::*;
    use crate::trace::Looped;

    #[test]
    fn portions_are_as_long_as_asked_and_lose_nothing() {
        let references: Vec<Reference> = (0..3000)
            .map(|n| Reference::truncating(Access::Read, Va::new(n)))
            .collect();
        let mut portions = Portions::new(Looped::new(references.clone(), 1));
        let mut seen = Vec::new();
        for most in [1, 5, u64::MAX, 3, 1024, u64::MAX, u64::MAX] {
            let part = portions.next(most).unwrap();
            assert!(part.references.len() as u64 <= most);
            seen.extend_from_slice(&part.references);
        }
        assert_eq!(seen, references);
        assert!(portions.next(u64::MAX).unwrap().references.is_empty());
    }
}
