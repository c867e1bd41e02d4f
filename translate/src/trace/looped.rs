//! References kept in memory and replayed.

use x86::Reference;

use crate::source::{BATCH, Batch, Source, SourceError, ThreadId};

/// References of one thread without another's between them.
#[derive(Clone, Copy, Debug)]
struct Run {
    thread: ThreadId,
    /// Where they end among all references; they begin where those before end.
    end: usize,
}

/// A recording that is read once and replayed several times.
#[derive(Clone, Debug)]
pub struct Looped {
    references: Vec<Reference>,
    runs: Vec<Run>,
    /// The next reference, and its run.
    at: usize,
    run: usize,
    /// Rounds to come, this one included.
    rounds: u64,
}

impl Looped {
    /// `rounds` rounds of these references of one thread.
    #[must_use]
    pub fn new(references: Vec<Reference>, rounds: u64) -> Self {
        let end = references.len();
        let thread = ThreadId(0);
        Looped {
            references,
            runs: vec![Run { thread, end }],
            at: 0,
            run: 0,
            rounds,
        }
    }

    /// Reads a source to its end, to be replayed for `rounds` rounds. Each reference takes 8 bytes.
    ///
    /// # Errors
    /// Those of the source.
    pub fn read(mut source: impl Source, rounds: u64) -> Result<Self, SourceError> {
        let mut looped = Looped::new(Vec::new(), rounds);
        let mut batch = Batch::default();
        loop {
            source.next_batch(&mut batch)?;
            if batch.references.is_empty() {
                return Ok(looped);
            }
            looped.push(&batch);
        }
    }

    /// Adds references after those there are.
    pub fn push(&mut self, batch: &Batch) {
        if self.references.is_empty() {
            self.runs.clear();
        }
        self.references.extend_from_slice(&batch.references);
        let (thread, end) = (batch.thread, self.references.len());
        match self.runs.last_mut() {
            Some(run) if run.thread == thread => run.end = end,
            _ => self.runs.push(Run { thread, end }),
        }
    }

    /// References of one round.
    #[must_use]
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Begins again, for `rounds` rounds.
    pub fn rewind(&mut self, rounds: u64) {
        (self.at, self.run, self.rounds) = (0, 0, rounds);
    }
}

impl Source for Looped {
    fn next_batch(&mut self, batch: &mut Batch) -> Result<(), SourceError> {
        batch.references.clear();
        if self.at == self.references.len() {
            (self.at, self.run) = (0, 0);
            self.rounds = self.rounds.saturating_sub(1);
        }
        if self.rounds == 0 || self.references.is_empty() {
            return Ok(());
        }
        let run = self.runs[self.run];
        let end = run.end.min(self.at + BATCH);
        batch.thread = run.thread;
        batch.references.extend_from_slice(&self.references[self.at..end]);
        self.at = end;
        if end == run.end {
            self.run += 1;
        }
        Ok(())
    }
}
