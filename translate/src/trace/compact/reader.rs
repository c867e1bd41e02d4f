//! Reading the compact form.

use super::coding::{Bases, MOST_EXTRA, TagCounts, decode};
use super::{HEADER, Head, MAGIC, MOST_REFERENCES, VERSION, VERSION_AT};
use crate::source::{BATCH, Batch, Source, SourceError, ThreadId};
use crate::trace::input::Input;
use crate::trace::summary::Summary;
use crate::trace::{Format, Recording};

/// What to do about most of what can be wrong.
const DAMAGED: &str = "the file is damaged or cut short, convert the original recording again";

/// Whether a recording begins like this format.
pub(in crate::trace) fn begins(head: &[u8]) -> bool {
    head.starts_with(&MAGIC)
}

/// The block being decoded. Its bytes stay in the input, from the first tag on, until it is done.
#[derive(Debug)]
struct Block {
    thread: ThreadId,
    count: usize,
    extra: usize,
    /// References decoded, and extra bytes taken.
    done: usize,
    taken: usize,
    bases: Bases,
}

/// A recording in the compact form.
pub(in crate::trace) struct Compact {
    input: Input,
    block: Option<Block>,
    blocks: u64,
    ended: Option<()>,
    summary: Summary,
}

impl Compact {
    pub(in crate::trace) fn new(mut input: Input) -> Result<Self, SourceError> {
        let length = input.fill(HEADER)?;
        let head = input.bytes();
        if !begins(head) {
            return Err(input.defect(
                Some(input.place(0)),
                "a compact recording does not begin like this",
                "it may be of another format, or was changed when it was copied as text",
            ));
        }
        if length < HEADER {
            return Err(input.defect(
                Some(input.place(length)),
                "the recording ends in its header",
                DAMAGED,
            ));
        }
        let version = u16::from_le_bytes([head[VERSION_AT.start], head[VERSION_AT.start + 1]]);
        if version != VERSION {
            return Err(input.defect(
                Some(input.place(VERSION_AT.start)),
                format!("this is version {version} of the compact form, and known is version {VERSION}"),
                "use a newer mmusim, or convert the original recording again",
            ));
        }
        input.consume(HEADER);
        Ok(Compact {
            input,
            block: None,
            blocks: 0,
            ended: None,
            summary: Summary::default(),
        })
    }

    /// Reads and checks the next block. There is none after the end.
    fn next_block(&mut self) -> Result<Option<Block>, SourceError> {
        if self.ended.is_some() {
            return Ok(None);
        }
        let head = self.head()?;
        let size = Head::SIZE + head.count as usize + head.extra as usize;
        if self.input.fill(size)? < size {
            return Err(self.damaged("the recording ends inside the block that begins here"));
        }
        let bytes = &self.input.bytes()[Head::SIZE..size];
        if head.checked(&[bytes]).crc != head.crc {
            return Err(self.damaged("the checksum of the block that begins here is wrong"));
        }
        if head.count == 0 {
            return self.end(size).map(|()| None);
        }
        if head.thread > self.summary.threads {
            return Err(self.damaged(format!(
                "thread {} appears in the block that begins here, and those before it never did",
                head.thread
            )));
        }
        self.input.consume(Head::SIZE);
        self.blocks += 1;
        self.summary.threads = self.summary.threads.max(head.thread + 1);
        Ok(Some(Block {
            thread: ThreadId(head.thread),
            count: head.count as usize,
            extra: head.extra as usize,
            done: 0,
            taken: 0,
            bases: Bases::default(),
        }))
    }

    fn head(&mut self) -> Result<Head, SourceError> {
        self.input.fill(Head::SIZE)?;
        let Some(bytes) = self.input.bytes().first_chunk() else {
            return Err(self.damaged("the recording ends before its end mark"));
        };
        let head = Head::from_bytes(*bytes);
        let sound = match head.count as usize {
            0 => head.extra == Head::END_EXTRA,
            count => count <= MOST_REFERENCES && head.extra as usize <= count * usize::from(MOST_EXTRA),
        };
        if sound {
            Ok(head)
        } else {
            Err(self.damaged("no block can begin like this"))
        }
    }

    /// Checks the end, whose head and counts lie ahead.
    fn end(&mut self, size: usize) -> Result<(), SourceError> {
        let counts = self.input.bytes()[Head::SIZE..size].as_chunks().0;
        let found = [self.summary.records, self.blocks];
        if !counts.iter().map(|count| u64::from_le_bytes(*count)).eq(found) {
            return Err(self.damaged(format!(
                "the end mark counts other than the {} references in {} blocks before it",
                found[0], found[1]
            )));
        }
        self.input.consume(size);
        if self.input.fill(1)? > 0 {
            return Err(self.damaged("something follows the end of the recording"));
        }
        self.ended = Some(());
        Ok(())
    }

    fn damaged(&self, problem: impl Into<String>) -> SourceError {
        self.input.defect(Some(self.input.place(0)), problem, DAMAGED)
    }
}

impl Source for Compact {
    fn next_batch(&mut self, batch: &mut Batch) -> Result<(), SourceError> {
        batch.references.clear();
        if self.block.is_none() {
            self.block = self.next_block()?;
        }
        let Some(block) = &mut self.block else {
            return Ok(());
        };
        let (tags, extras) = self
            .input
            .with_slack(block.count + block.extra)
            .split_at(block.count);
        let end = block.count.min(block.done + BATCH);
        let tags = &tags[block.done..end];
        batch.thread = block.thread;
        // Whether the tags take what there is shows at the end of the block.
        let extras = extras.get(block.taken..).unwrap_or_default();
        block.taken += decode(tags, extras, &mut block.bases, &mut batch.references);
        block.done = end;

        let TagCounts { writes, fetches } = TagCounts::of(tags);
        let count = tags.len() as u64;
        self.summary.records += count;
        self.summary.references.writes += writes;
        self.summary.references.fetches += fetches;
        self.summary.references.reads += count - writes - fetches;
        if block.done == block.count {
            if block.taken != block.extra {
                return Err(self.damaged("the tags that begin here do not take the bytes that follow them"));
            }
            self.input.consume(block.count + block.extra);
            self.block = None;
        }
        Ok(())
    }
}

impl Recording for Compact {
    fn format(&self) -> Format {
        Format::Compact
    }

    fn summary(&self) -> &Summary {
        &self.summary
    }
}
