//! Recordings of every format: what they become, and what is said of bad ones.

mod champsim;
mod compact;
mod import;
mod lackey;
mod looped;
mod memtrace;
mod packing;

use std::io::{Cursor, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use lzma_rust2::{XzOptions, XzWriter};
use proptest::prelude::*;
use translate::trace::{self, CompactWriter, Format, Looped, Reason, Recording, Remark, Summary};
use translate::{Batch, Source, SourceError, ThreadId};
use x86::{Access, Reference, Va};

use Access::{Fetch, Read, Write as Store};

/// What a reference is in these tests: thread, access, address.
type Seen = (u32, Access, u64);

fn open(bytes: Vec<u8>) -> Result<Box<dyn Recording>, SourceError> {
    trace::read(Path::new("rec"), Cursor::new(bytes), None)
}

/// All that a source delivers, or its error.
fn drain(source: &mut (impl Source + ?Sized)) -> Result<Vec<Seen>, SourceError> {
    let mut batch = Batch::default();
    let mut all = Vec::new();
    loop {
        source.next_batch(&mut batch)?;
        assert!(batch.references.len() <= translate::source::BATCH);
        if batch.references.is_empty() {
            return Ok(all);
        }
        let seen = |r: &Reference| (batch.thread.0, r.access(), r.va().get());
        all.extend(batch.references.iter().map(seen));
    }
}

/// What a recording holds.
fn read(bytes: Vec<u8>) -> (Vec<Seen>, Summary) {
    let mut recording = open(bytes).expect("a recording");
    let all = drain(&mut *recording).expect("a good one");
    (all, recording.summary().clone())
}

/// What is said of a bad one, when it is opened or when it is read.
fn complaint(bytes: Vec<u8>) -> String {
    match open(bytes) {
        Ok(mut recording) => drain(&mut *recording).expect_err("a bad recording").to_string(),
        Err(error) => error.to_string(),
    }
}

/// Of one thread.
fn seen(references: &[(Access, u64)]) -> Vec<Seen> {
    references.iter().map(|(access, va)| (0, *access, *va)).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut packed = XzWriter::new(Vec::new(), XzOptions::with_preset(1)).unwrap();
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

#[test]
fn every_format_has_a_name_of_its_own() {
    for format in Format::ALL {
        assert_eq!(Format::named(format.name()), Some(format));
    }
    assert_eq!(Format::named("pcap"), None);
}
