//! A recording replayed several times: from memory if it fits, else by opening it again.

use super::{Looped, Recording, Summary};
use crate::source::{Batch, Source, SourceError};

/// Most references kept in memory, 8 bytes each: 1 GiB.
pub const MOST_KEPT: usize = 1 << 27;

/// What is known of the references of the first round.
enum Memory {
    /// All so far.
    Growing(Looped),
    /// All of them, being replayed.
    Complete(Looped),
    /// They are too many.
    Given,
}

/// A recording replayed several times.
pub struct Repeated<F> {
    open: F,
    recording: Box<dyn Recording>,
    rounds: u64,
    most_kept: usize,
    memory: Memory,
    // Of the first round.
    summary: Option<Summary>,
}

impl<F: FnMut() -> Result<Box<dyn Recording>, SourceError>> Repeated<F> {
    /// `rounds` rounds of the recording that `open` opens, keeping up to [`MOST_KEPT`] references.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn new(open: F, rounds: u64) -> Result<Self, SourceError> {
        Repeated::keeping(MOST_KEPT, open, rounds)
    }

    /// The same, keeping up to `most_kept` references.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn keeping(most_kept: usize, mut open: F, rounds: u64) -> Result<Self, SourceError> {
        let memory = match rounds {
            0 | 1 => Memory::Given,
            _ => Memory::Growing(Looped::new(Vec::new(), 0)),
        };
        Ok(Repeated {
            recording: open()?,
            open,
            rounds,
            most_kept,
            memory,
            summary: None,
        })
    }

    /// The recording being read.
    #[must_use]
    pub fn recording(&self) -> &dyn Recording {
        &*self.recording
    }

    /// What was met in one round, or so far.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        self.summary.as_ref().unwrap_or_else(|| self.recording.summary())
    }

    // A round is over.
    fn turn(&mut self, batch: &mut Batch) -> Result<(), SourceError> {
        self.rounds = self.rounds.saturating_sub(1);
        self.summary
            .get_or_insert_with(|| self.recording.summary().clone());
        if self.rounds == 0 {
            return Ok(());
        }
        match std::mem::replace(&mut self.memory, Memory::Given) {
            Memory::Growing(mut kept) | Memory::Complete(mut kept) => {
                kept.rewind(self.rounds);
                // The rounds are counted there from now on.
                self.rounds = 1;
                let first = kept.next_batch(batch);
                self.memory = Memory::Complete(kept);
                first
            }
            Memory::Given => {
                self.recording = (self.open)()?;
                self.recording.next_batch(batch)
            }
        }
    }
}

impl<F: FnMut() -> Result<Box<dyn Recording>, SourceError>> Source for Repeated<F> {
    fn next_batch(&mut self, batch: &mut Batch) -> Result<(), SourceError> {
        if self.rounds == 0 {
            batch.references.clear();
            return Ok(());
        }
        if let Memory::Complete(kept) = &mut self.memory {
            return kept.next_batch(batch);
        }
        self.recording.next_batch(batch)?;
        if batch.references.is_empty() {
            return self.turn(batch);
        }
        if let Memory::Growing(kept) = &mut self.memory {
            if kept.references().len() + batch.references.len() > self.most_kept {
                self.memory = Memory::Given;
            } else {
                kept.push(batch);
            }
        }
        Ok(())
    }
}
