//! Writing the compact form.

use std::io::{self, Write};

use super::coding::Encoder;
use super::{HEADER, Head, MAGIC, VERSION, VERSION_AT};
use crate::source::{Batch, ThreadId};

/// References in a block: its bytes, some 32 KiB, stay in a host's first or second-level cache, and its
/// head and first full addresses weigh nothing.
const BLOCK: usize = 16 << 10;

/// Writes a recording in the compact form, block by block.
///
/// What is written is a recording only after [`CompactWriter::finish`].
#[must_use = "without `finish` the recording has no end, and is refused"]
#[derive(Debug)]
pub struct CompactWriter<W: Write> {
    out: W,
    thread: ThreadId,
    /// Threads met.
    threads: u32,
    encoder: Encoder,
    tags: Vec<u8>,
    extras: Vec<u8>,
    references: u64,
    blocks: u64,
}

impl<W: Write> CompactWriter<W> {
    /// Begins a recording.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(mut out: W) -> io::Result<Self> {
        let mut header = [0; HEADER];
        header[..MAGIC.len()].copy_from_slice(&MAGIC);
        header[VERSION_AT].copy_from_slice(&VERSION.to_le_bytes());
        out.write_all(&header)?;
        Ok(CompactWriter {
            out,
            thread: ThreadId(0),
            threads: 0,
            encoder: Encoder::default(),
            tags: Vec::with_capacity(BLOCK),
            extras: Vec::new(),
            references: 0,
            blocks: 0,
        })
    }

    /// Adds references of one thread.
    ///
    /// # Errors
    /// Those of `out`, and `InvalidInput` if threads are not numbered in the order of appearance.
    pub fn write(&mut self, batch: &Batch) -> io::Result<()> {
        if batch.thread.0 > self.threads {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "threads are numbered from 0 in the order of appearance",
            ));
        }
        self.threads = self.threads.max(batch.thread.0 + 1);
        if batch.thread != self.thread {
            self.end_block()?;
            self.thread = batch.thread;
        }
        for reference in &batch.references {
            self.encoder.encode(*reference, &mut self.tags, &mut self.extras);
            if self.tags.len() == BLOCK {
                self.end_block()?;
            }
        }
        Ok(())
    }

    /// Writes what is still missing and gives back where it went.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_block()?;
        let mut counts = [0; Head::END_EXTRA as usize];
        let (references, blocks) = counts.split_at_mut(size_of::<u64>());
        references.copy_from_slice(&self.references.to_le_bytes());
        blocks.copy_from_slice(&self.blocks.to_le_bytes());
        let head = Head {
            thread: 0,
            count: 0,
            extra: Head::END_EXTRA,
            crc: 0,
        };
        self.out.write_all(&head.checked(&[&counts]).to_bytes())?;
        self.out.write_all(&counts)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.tags.is_empty() {
            return Ok(());
        }
        let head = Head {
            thread: self.thread.0,
            count: self.tags.len() as u32,
            extra: self.extras.len() as u32,
            crc: 0,
        };
        let head = head.checked(&[&self.tags, &self.extras]);
        self.out.write_all(&head.to_bytes())?;
        self.out.write_all(&self.tags)?;
        self.out.write_all(&self.extras)?;
        self.references += self.tags.len() as u64;
        self.blocks += 1;
        self.encoder = Encoder::default();
        self.tags.clear();
        self.extras.clear();
        Ok(())
    }
}
