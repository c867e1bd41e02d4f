//! The bytes of a recording: unpacked on the fly, in one buffer of constant size, each with its place.

use std::fs::File;
use std::io::{BufReader, Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use crate::source::{Defect, Place, SourceError};

/// Bytes asked of the system at a time: a quarter of a second-level cache of 1 MiB.
const CHUNK: usize = 256 << 10;

/// Bytes that tell a packing.
const MAGIC: usize = 16;

/// Bytes after the last one of a recording that may be read, with any contents.
pub(super) const SLACK: usize = size_of::<u64>();

/// Memory that unpacking xz may take, in KiB: `xz -9` needs a quarter of it (xz(1)).
const XZ_MEMORY_KIB: u32 = 256 << 10;

const GZIP: &[u8] = b"\x1f\x8b";
const XZ: &[u8] = b"\xfd7zXZ\0";

/// Packings that are not unpacked here: how they begin, their names, and a way out.
const FOREIGN: [(&[u8], &str, &str); 5] = [
    (
        b"PK\x03\x04",
        "zip",
        "unpack it with `unzip -p FILE > trace`; drraw2trace writes readable files with `-compress gzip`",
    ),
    (
        b"\x04\x22\x4d\x18",
        "lz4",
        "unpack it with `lz4 -d FILE trace`; drraw2trace writes readable files with `-compress gzip`",
    ),
    (
        b"\xff\x06\0\0sNaPpY",
        "snappy",
        "DynamoRIO packs raw files so: convert them with `drraw2trace -compress gzip -indir DIR`",
    ),
    (
        b"\x28\xb5\x2f\xfd",
        "zstd",
        "unpack it with `zstd -d FILE -o trace`",
    ),
    (b"BZh", "bzip2", "unpack it with `bunzip2 -k FILE`"),
];

/// How the bytes lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    None,
    Packed,
}

/// A recording as a row of bytes.
pub(super) struct Input {
    path: PathBuf,
    reader: Box<dyn Read + Send>,
    packing: Packing,
    /// Always [`SLACK`] longer than what it holds at most.
    buffer: Vec<u8>,
    /// The bytes not yet consumed are those from `start` to `end`.
    start: usize,
    end: usize,
    /// Place of `start`.
    offset: u64,
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self, SourceError> {
        let file = File::open(path).map_err(|error| SourceError::file("open", path, error))?;
        Input::new(path, file)
    }

    pub(super) fn new(path: &Path, from: impl Read + Send + 'static) -> Result<Self, SourceError> {
        let mut plain = Input::with(path, Box::new(from), Packing::None);
        plain.fill(MAGIC)?;
        let head = plain.bytes().to_vec();
        if let Some((_, name, remedy)) = FOREIGN.iter().find(|(magic, ..)| head.starts_with(magic)) {
            return Err(plain.defect(
                None,
                format!("this is packed as {name}, which is not read"),
                *remedy,
            ));
        }
        let (gzip, xz) = (head.starts_with(GZIP), head.starts_with(XZ));
        let rest = BufReader::with_capacity(CHUNK, Cursor::new(head).chain(plain.reader));
        let reader: Box<dyn Read + Send> = if gzip {
            Box::new(MultiGzDecoder::new(rest))
        } else if xz {
            Box::new(XzReader::new_mem_limit(rest, true, XZ_MEMORY_KIB))
        } else {
            return Ok(Input::with(path, Box::new(rest), Packing::None));
        };
        Ok(Input::with(path, reader, Packing::Packed))
    }

    fn with(path: &Path, reader: Box<dyn Read + Send>, packing: Packing) -> Self {
        Input {
            path: path.to_owned(),
            reader,
            packing,
            buffer: vec![0; CHUNK + SLACK],
            start: 0,
            end: 0,
            offset: 0,
        }
    }

    /// Provides at least `wanted` bytes, unless the recording ends before, and says how many.
    pub(super) fn fill(&mut self, wanted: usize) -> Result<usize, SourceError> {
        if self.end - self.start < wanted {
            self.read(wanted)?;
        }
        Ok(self.end - self.start)
    }

    /// The bytes at hand.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn read(&mut self, wanted: usize) -> Result<(), SourceError> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.buffer.len() < wanted + SLACK {
            self.buffer.resize(wanted + SLACK, 0);
        }
        let room = self.buffer.len() - SLACK;
        while self.end < wanted {
            match self.reader.read(&mut self.buffer[self.end..room]) {
                Ok(0) => return Ok(()),
                Ok(count) => self.end += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(error)),
            }
        }
        Ok(())
    }

    /// The next `count` bytes, which [`Input::fill`] has provided, and [`SLACK`] more.
    pub(super) fn with_slack(&self, count: usize) -> &[u8] {
        &self.buffer[self.start..self.start + count + SLACK]
    }

    /// Moves on.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        self.offset += count as u64;
    }

    /// The place so many bytes further on.
    pub(super) fn place(&self, ahead: usize) -> Place {
        let byte = self.offset + ahead as u64;
        match self.packing {
            Packing::None => Place::Byte(byte),
            Packing::Packed => Place::Unpacked(byte),
        }
    }

    pub(super) fn defect(
        &self,
        place: Option<Place>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> SourceError {
        let (problem, remedy) = (problem.into(), remedy.into());
        let path = self.path.clone();
        Defect {
            path,
            place,
            problem,
            remedy,
        }
        .into()
    }

    fn unreadable(&self, error: std::io::Error) -> SourceError {
        match self.packing {
            Packing::None => SourceError::file("read", &self.path, error),
            Packing::Packed => self.defect(
                Some(Place::Unpacked(self.offset + (self.end - self.start) as u64)),
                format!("cannot be unpacked from here on: {error}"),
                "the file is damaged or cut short, fetch or record it again",
            ),
        }
    }
}
