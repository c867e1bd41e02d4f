//! Recordings of every format: what they become, and what is said of bad ones.

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

mod lackey {
    use super::*;

    #[test]
    fn lines_become_references_and_a_modify_becomes_two() {
        let text = "==12== Lackey\nI  0401ab70,3\n S 1fff0006c8,8\n L 10,4\r\n M 04033e06,1\n==12== \n";
        let (references, summary) = read(text.into());
        let expected = [
            (Fetch, 0x0401_ab70),
            (Store, 0x1f_ff00_06c8),
            (Read, 0x10),
            (Read, 0x0403_3e06),
            (Store, 0x0403_3e06),
        ];
        assert_eq!(references, seen(&expected));
        assert_eq!((summary.records, summary.references.total()), (6, 5));
        assert_eq!(
            summary.to_string(),
            "records 6, threads 1, fetches 1, loads 2, stores 2, accesses across pages 0\n\
             skipped 2: valgrind's own messages (first at line 1)"
        );
    }

    #[test]
    fn an_access_across_pages_becomes_two_references() {
        let (references, summary) = read("I  1ffe,4\n M 2fff,2\n".into());
        let expected = [
            (Fetch, 0x1ffe),
            (Fetch, 0x2000),
            (Read, 0x2fff),
            (Read, 0x3000),
            (Store, 0x2fff),
            (Store, 0x3000),
        ];
        assert_eq!(references, seen(&expected));
        assert_eq!(summary.split, 3);
    }

    #[test]
    fn an_address_that_is_not_canonical_is_skipped_and_counted() {
        let (references, summary) = read("I  10,1\n L 0200000000000000,8\n L ffff800000000000,8\n".into());
        assert_eq!(references, seen(&[(Fetch, 0x10), (Read, 0xffff_8000_0000_0000)]));
        let skipped = summary.skipped[&Reason::NotCanonical];
        assert_eq!((skipped.count, skipped.first.to_string()), (1, "line 2".into()));
    }

    #[test]
    fn a_line_that_is_no_record_is_named_with_a_way_out() {
        assert_eq!(
            complaint("I  10,1\nhello\tworld\n L 20,8\n".into()),
            "rec: line 2: `hello\\tworld` is no record of lackey, such as ` L 1ffeffe7e8,8`; keep the program's \
             own output apart with `--log-file=FILE`; a last line cut short can be deleted"
        );
    }

    #[test]
    fn a_last_line_cut_short_is_named() {
        for text in ["I  10,1\n L 20", "I  10,1\n L 20,8"] {
            let complaint = complaint(text.into());
            assert!(complaint.starts_with("rec: line 2: ` L 20"), "{complaint}");
        }
    }

    #[test]
    fn many_lines_are_read_in_batches() {
        let text: String = (0..100_000).map(|n| format!("I  {:x},4\n", n * 4)).collect();
        let (references, summary) = read(text.into());
        assert_eq!(summary.records, 100_000);
        assert!(
            references
                .iter()
                .zip(0..)
                .all(|(seen, n)| *seen == (0, Fetch, n * 4))
        );
    }

    #[test]
    fn a_line_number_counts_all_lines_before() {
        let mut text: String = (0..50_000).map(|_| "==1== x\nI  10,1\n").collect();
        text.push_str("oops\n");
        assert!(complaint(text.into()).starts_with("rec: line 100001: `oops`"));
    }

    #[test]
    fn the_recording_of_sqlite_is_read_to_its_end() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/recordings/sqlite-groupby.lackey.gz");
        let mut recording = trace::open(Path::new(path)).unwrap();
        drain(&mut *recording).unwrap();
        let summary = recording.summary();
        // Lines by kind, counted with `zcat FILE | cut -c1-3 | sort | uniq -c`: 1829924 I, 483407 L,
        // 181587 S, 5082 M. Split accesses come on top.
        let counts = summary.references;
        assert_eq!(summary.records, 2_500_000);
        assert_eq!(counts.total() - summary.split, 2_500_000 + 5082);
        assert!(counts.fetches >= 1_829_924 && counts.reads >= 483_407 + 5082);
        assert!(summary.skipped.is_empty());
    }
}

mod memtrace {
    use super::*;

    const HEADER: (u16, u16, u64) = (25, 0, 5);
    const FOOTER: (u16, u16, u64) = (26, 0, 0);

    fn bytes(entries: &[(u16, u16, u64)]) -> Vec<u8> {
        let entry = |(kind, size, address): &(u16, u16, u64)| {
            [
                &kind.to_le_bytes()[..],
                &size.to_le_bytes(),
                &address.to_le_bytes(),
            ]
            .concat()
        };
        entries.iter().flat_map(entry).collect()
    }

    /// A good recording around these entries.
    fn recording(entries: &[(u16, u16, u64)]) -> Vec<u8> {
        bytes(
            &[
                &[HEADER, (28, 12, 5), (22, 0, 700), (24, 0, 700)],
                entries,
                &[FOOTER],
            ]
            .concat(),
        )
    }

    #[test]
    fn instructions_loads_and_stores_become_references() {
        let (references, summary) = read(recording(&[
            (47, 4, 0x90),
            (10, 4, 0x1000),
            (0, 8, 0x7000),
            (16, 1, 0x1004),
            (1, 8, 0x7008),
            (48, 2, 0x1005),
            (31, 2, 0x1007),
        ]));
        let expected = [
            (Fetch, 0x1000),
            (Read, 0x7000),
            (Fetch, 0x1004),
            (Store, 0x7008),
            (Fetch, 0x1005),
            (Fetch, 0x1007),
        ];
        assert_eq!(references, seen(&expected));
        assert!(summary.skipped.is_empty() && summary.remarks.is_empty());
    }

    #[test]
    fn a_bundle_follows_the_instruction_before_it() {
        let lengths = u64::from_le_bytes([2, 5, 1, 0, 0, 0, 0, 0]);
        let (references, _) = read(recording(&[(10, 3, 0x1000), (17, 3, lengths), (17, 1, 4)]));
        let addresses = [0x1000, 0x1003, 0x1005, 0x100a, 0x100b];
        assert_eq!(references, seen(&addresses.map(|address| (Fetch, address))));
    }

    #[test]
    fn prefetches_of_data_are_loads_and_others_are_skipped() {
        let (references, summary) = read(recording(&[
            (3, 1, 0x10),
            (6, 1, 0x20),
            (41, 1, 0x30),
            (9, 1, 0x40),
            (27, 64, 0x50),
            (36, 1, 0x60),
        ]));
        assert_eq!(references, seen(&[(Read, 0x10), (Read, 0x20), (Read, 0x30)]));
        assert_eq!(summary.skipped[&Reason::Prefetch].count, 3);
    }

    #[test]
    fn what_is_executed_again_is_not_fetched_again() {
        let (references, summary) = read(recording(&[
            (10, 2, 0x1000),
            (0, 1, 0x10),
            (29, 2, 0x1000),
            (30, 2, 0x1000),
            (30, 2, 0x2000),
            (10, 0, 0x3000),
        ]));
        assert_eq!(
            references,
            seen(&[(Fetch, 0x1000), (Read, 0x10), (Fetch, 0x2000)])
        );
        assert_eq!(summary.skipped[&Reason::NotFetched].count, 2);
    }

    #[test]
    fn threads_are_numbered_in_the_order_of_appearance() {
        let (references, summary) = read(recording(&[
            (10, 1, 0x10),
            (22, 0, 900),
            (10, 1, 0x20),
            (22, 0, 700),
            (10, 1, 0x30),
            (22, 0, 5),
            (22, 0, 900),
            (10, 1, 0x40),
            (22, 0, 5),
            (10, 1, 0x50),
        ]));
        let expected = [
            (0, Fetch, 0x10),
            (1, Fetch, 0x20),
            (0, Fetch, 0x30),
            (1, Fetch, 0x40),
            (2, Fetch, 0x50),
        ];
        assert_eq!(references, expected);
        assert_eq!(summary.threads, 3);
    }

    #[test]
    fn what_the_file_says_of_itself_is_passed_on() {
        let (_, summary) = read(recording(&[(28, 9, 0x40 | 0x80 | 0x100), (10, 1, 0x10)]));
        assert_eq!(
            summary.remarks.into_iter().collect::<Vec<_>>(),
            [Remark::Filtered]
        );
        let (_, summary) = read(bytes(&[HEADER, (28, 9, 0x08 | 0x04), (10, 1, 0x10)]));
        let remarks: Vec<_> = summary.remarks.into_iter().collect();
        assert_eq!(remarks, [Remark::InstructionsOnly, Remark::NotX86, Remark::NoEnd]);
    }

    #[test]
    fn types_of_later_versions_are_skipped_and_counted() {
        let (references, summary) = read(recording(&[(60, 8, 0x10), (18, 64, 0x10), (0, 8, 0x20)]));
        assert_eq!(references, seen(&[(Read, 0x20)]));
        let skipped = summary.skipped[&Reason::UnknownType];
        assert_eq!((skipped.count, skipped.first.to_string()), (1, "byte 48".into()));
        assert_eq!(summary.skipped[&Reason::CacheFlush].count, 1);
    }

    #[test]
    fn damage_is_named_with_its_place() {
        assert_eq!(
            complaint(recording(&[(10, 1, 0x10), (0x4141, 0, 0)])),
            "rec: byte 60: there is no entry type 16705; the file is damaged from here on, fetch or record it \
             again"
        );
        let mut short = recording(&[(10, 1, 0x10)]);
        short.truncate(short.len() - 5);
        assert_eq!(
            complaint(short.clone()),
            "rec: byte 60: the recording ends inside an entry; entries have 12 bytes: the file was cut short, \
             fetch or record it again"
        );
        assert!(
            complaint(gzip(&short)).starts_with("rec: byte 60 of the unpacked contents: the recording ends")
        );
        let first = complaint(recording(&[(17, 2, 0x0101)]));
        assert!(
            first.starts_with("rec: byte 48: a bundle of 2 instructions that follows no"),
            "{first}"
        );
        let many = complaint(recording(&[(10, 1, 0x10), (17, 9, 0x0101)]));
        assert!(
            many.starts_with("rec: byte 60: a bundle of 9 instructions"),
            "{many}"
        );
    }

    #[test]
    fn raw_files_and_those_of_32_bit_programs_are_refused_with_what_to_do() {
        let raw = (6u64 << 61 | 4 << 56 | 7 << 48 | 0x40).to_le_bytes();
        assert_eq!(
            complaint([raw, [0; 8]].concat()),
            "rec: this is a raw file that DynamoRIO's tracer leaves behind, which is not read; convert it with \
             `drraw2trace -indir DIR -compress gzip`, and read what that writes"
        );
        let old = (6u64 << 61 | 0x40 << 48 | 3).to_le_bytes();
        assert!(complaint([old, [0; 8]].concat()).contains("raw file"));
        let short = [25u16, 0, 5, 0, 28, 12, 5, 0].map(u16::to_le_bytes).concat();
        assert!(complaint(short).contains("a 32-bit program, which is not read; record a 64-bit program"));
    }
}

mod champsim {
    use super::*;

    fn record(pointer: u64, stores: [u64; 2], loads: [u64; 4]) -> Vec<u8> {
        let mut bytes = pointer.to_le_bytes().to_vec();
        bytes.extend([1, 1, 6, 0, 6, 25, 26, 0]);
        bytes.extend(stores.into_iter().chain(loads).flat_map(u64::to_le_bytes));
        bytes
    }

    #[test]
    fn an_instruction_is_fetched_then_loads_then_stores() {
        let bytes = [
            record(0x40_0000, [0x7000, 0], [0, 0x5000, 0, 0x6000]),
            record(0x40_0004, [0; 2], [0; 4]),
        ]
        .concat();
        let expected = seen(&[
            (Fetch, 0x40_0000),
            (Read, 0x5000),
            (Read, 0x6000),
            (Store, 0x7000),
            (Fetch, 0x40_0004),
        ]);
        for packed in [bytes.clone(), gzip(&bytes), xz(&bytes)] {
            let (references, summary) = read(packed);
            assert_eq!(references, expected);
            assert_eq!(summary.records, 2);
        }
    }

    #[test]
    fn many_instructions_are_read_in_batches() {
        let bytes: Vec<u8> = (1..=10_000).flat_map(|n| record(n, [n, n], [n; 4])).collect();
        let (references, summary) = read(bytes);
        assert_eq!((references.len(), summary.references.fetches), (70_000, 10_000));
    }

    #[test]
    fn a_record_cut_short_is_named_with_its_place() {
        let mut bytes = [
            record(0x40_0000, [0; 2], [0; 4]),
            record(0x40_0004, [0; 2], [0; 4]),
        ]
        .concat();
        bytes.truncate(100);
        assert_eq!(
            complaint(bytes),
            "rec: byte 64: the recording ends 28 bytes before its last record does; a ChampSim trace is a \
             multiple of 64 bytes: it was cut short, or is of another format"
        );
    }

    #[test]
    fn an_address_that_is_not_canonical_is_skipped_where_it_is() {
        let mut bytes: Vec<u8> = (1..=64).flat_map(|n| record(n, [0; 2], [0; 4])).collect();
        bytes.extend(record(65, [1 << 60, 0], [0; 4]));
        let (references, summary) = read(bytes);
        assert_eq!(references.len(), 65);
        assert_eq!(
            summary.skipped[&Reason::NotCanonical].first.to_string(),
            "byte 4096"
        );
    }

    #[test]
    fn a_cloudsuite_trace_is_refused() {
        let mut record = [0; 96];
        record[0..8].copy_from_slice(&0x40_0000u64.to_le_bytes());
        record[24..32].copy_from_slice(&0x7fff_0000u64.to_le_bytes());
        assert_eq!(
            complaint(record.repeat(3)),
            "rec: this looks like a CloudSuite trace, 96 bytes an instruction, which is not read; record with \
             ChampSim's own tracer, 64 bytes an instruction"
        );
    }
}

mod compact {
    use super::*;

    fn batch(thread: u32, references: &[(Access, u64)]) -> Batch {
        let reference = |(access, va): &(Access, u64)| Reference::truncating(*access, Va::new(*va));
        Batch {
            thread: ThreadId(thread),
            references: references.iter().map(reference).collect(),
        }
    }

    fn written(batches: &[Batch]) -> Vec<u8> {
        let mut writer = CompactWriter::new(Vec::new()).unwrap();
        for batch in batches {
            writer.write(batch).unwrap();
        }
        writer.finish().unwrap()
    }

    /// A recording of two blocks.
    fn small() -> Vec<u8> {
        written(&[
            batch(0, &[(Fetch, 0x40_0000), (Read, 0x7000), (Fetch, 0x40_0003)]),
            batch(1, &[(Store, 0x7fff_0000_0000)]),
        ])
    }

    #[test]
    fn what_was_written_is_read() {
        let (references, summary) = read(small());
        let expected = [
            (0, Fetch, 0x40_0000),
            (0, Read, 0x7000),
            (0, Fetch, 0x40_0003),
            (1, Store, 0x7fff_0000_0000),
        ];
        assert_eq!(references, expected);
        assert_eq!((summary.records, summary.threads), (4, 2));
        assert_eq!(summary.references.fetches, 2);
    }

    #[test]
    fn a_recording_of_nothing_is_one() {
        assert_eq!(read(written(&[])).0, []);
    }

    #[test]
    fn the_bytes_are_those_of_the_description() {
        let bytes = written(&[batch(0, &[(Fetch, 15)])]);
        assert_eq!(&bytes[..16], b"\x89MMT\r\n\x1a\n\x01\0\0\0\0\0\0\0");
        // Thread, count and extra bytes; CRC-32 by `printf ... | gzip -c | tail -c8`; the tag.
        assert_eq!(bytes[16..28], [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[32], 0xf2);
        assert_eq!(bytes[33..45], [0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0]);
        assert_eq!(bytes[49..], [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_wrong_beginning_is_named_when_the_format_is_given() {
        let input = Cursor::new(b"something else".to_vec());
        let error = trace::read(Path::new("rec"), input, Some(Format::Compact))
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "rec: byte 0: a compact recording does not begin like this; it may be of another format, or was \
             changed when it was copied as text"
        );
    }

    #[test]
    fn a_later_version_is_refused() {
        let mut bytes = small();
        bytes[8] = 9;
        assert_eq!(
            complaint(bytes),
            "rec: byte 8: this is version 9 of the compact form, and known is version 1; use a newer mmusim, or \
             convert the original recording again"
        );
    }

    #[test]
    fn each_kind_of_damage_is_named_with_its_place() {
        let damaged = "; the file is damaged or cut short, convert the original recording again";
        let good = small();
        // Header 16, first block 16 + 3 + 6, second 16 + 1 + 7, end 16 + 16.
        let (second, end) = (41, 65);
        assert_eq!(good.len(), end + 32);
        let flipped = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        };
        let without_second = [&good[..second], &good[end..]].concat();
        let followed = [&good[..], b"x"].concat();
        for (bytes, message) in [
            (good[..10].to_vec(), "byte 10: the recording ends in its header"),
            (
                flipped(36),
                "byte 16: the checksum of the block that begins here is wrong",
            ),
            (
                flipped(second),
                "byte 41: the checksum of the block that begins here is wrong",
            ),
            (flipped(second + 6), "byte 41: no block can begin like this"),
            (
                good[..60].to_vec(),
                "byte 41: the recording ends inside the block that begins here",
            ),
            (
                good[..end].to_vec(),
                "byte 65: the recording ends before its end mark",
            ),
            (
                good[..end + 20].to_vec(),
                "byte 65: the recording ends inside the block that begins here",
            ),
            (
                without_second,
                "byte 41: the end mark counts other than the 3 references in 1 blocks before it",
            ),
            (followed, "byte 97: something follows the end of the recording"),
        ] {
            assert_eq!(complaint(bytes), format!("rec: {message}{damaged}"));
        }
    }

    #[test]
    fn threads_out_of_order_are_refused_by_writer_and_reader() {
        let mut writer = CompactWriter::new(Vec::new()).unwrap();
        let error = writer.write(&batch(1, &[(Read, 0)])).unwrap_err();
        assert!(error.to_string().contains("in the order of appearance"));
        let mut bytes = written(&[batch(0, &[(Read, 0)])]);
        bytes[16] = 7;
        let bytes = with_checksum(bytes);
        assert!(complaint(bytes).starts_with("rec: byte 16: thread 7 appears in the block that begins here"));
    }

    /// The recording of one block of one tag, with the right checksum again.
    fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[16..28]);
        crc.update(&bytes[32..33]);
        bytes[28..32].copy_from_slice(&crc.sum().to_le_bytes());
        bytes
    }

    #[test]
    fn a_block_whose_tags_take_other_bytes_than_there_are_is_refused() {
        let mut bytes = written(&[batch(0, &[(Read, 0)])]);
        // One extra byte, which is not there; then seven.
        for code in [1, 3] {
            bytes[32] = code << 2;
            assert_eq!(
                complaint(with_checksum(bytes.clone())),
                "rec: byte 32: the tags that begin here do not take the bytes that follow them; the file is \
                 damaged or cut short, convert the original recording again"
            );
        }
    }

    #[test]
    fn many_blocks_of_several_threads_come_back() {
        for text in [
            "zipf=0.99:1g,writes=0.3",
            "uniform:64g,threads=3",
            "sequential:1m",
        ] {
            let spec: translate::stream::StreamSpec = text.parse().unwrap();
            let expected = drain(&mut spec.open(1, 100_000).unwrap()).unwrap();
            let (mut stream, mut batch) = (spec.open(1, 100_000).unwrap(), Batch::default());
            let mut writer = CompactWriter::new(Vec::new()).unwrap();
            while stream.next_batch(&mut batch).is_ok() && !batch.references.is_empty() {
                writer.write(&batch).unwrap();
            }
            assert_eq!(read(writer.finish().unwrap()).0, expected);
        }
    }

    fn references() -> impl Strategy<Value = Vec<(Access, u64)>> {
        let access = prop_oneof![Just(Read), Just(Store), Just(Fetch)];
        let address = prop_oneof![
            any::<u64>(),
            0x7fff_ffff_0000u64..0x7fff_ffff_ffff,
            0x40_0000u64..0x40_0100
        ];
        prop::collection::vec((access, address), 1..200)
    }

    proptest! {
        #[test]
        fn any_references_come_back(threads in prop::collection::vec(references(), 0..4)) {
            let batches: Vec<Batch> = (0..).zip(&threads).map(|(thread, all)| batch(thread, all)).collect();
            let expected: Vec<Seen> = batches
                .iter()
                .flat_map(|batch| batch.references.iter().map(|r| (batch.thread.0, r.access(), r.va().get())))
                .collect();
            prop_assert_eq!(read(written(&batches)).0, expected);
        }

        #[test]
        fn a_damaged_recording_is_an_error_and_never_a_panic(
            all in references(),
            cut in any::<prop::sample::Index>(),
            flip in any::<prop::sample::Index>(),
            bit in 0..u8::BITS,
        ) {
            let good = written(&[batch(0, &all)]);
            let short = good[..cut.index(good.len())].to_vec();
            prop_assert!(open(short).and_then(|mut recording| drain(&mut *recording)).is_err());
            let mut flipped = good;
            let at = flip.index(flipped.len());
            flipped[at] ^= 1u8 << bit;
            // The six reserved bytes of the header mean nothing yet.
            let result = open(flipped).and_then(|mut recording| drain(&mut *recording));
            prop_assert!((10..16).contains(&at) || result.is_err());
        }
    }
}

mod packing {
    use super::*;

    #[test]
    fn a_file_that_is_packed_otherwise_is_refused_with_what_to_do() {
        for (head, problem, remedy) in [
            (
                &b"PK\x03\x04...................."[..],
                "packed as zip",
                "unzip -p",
            ),
            (b"\x28\xb5\x2f\xfd................", "packed as zstd", "zstd -d"),
            (
                b"\x04\x22\x4d\x18................",
                "packed as lz4",
                "-compress gzip",
            ),
            (
                b"\xff\x06\0\0sNaPpY..............",
                "packed as snappy",
                "drraw2trace",
            ),
            (b"BZh91AY.................", "packed as bzip2", "bunzip2"),
        ] {
            let complaint = complaint(head.to_vec());
            assert!(complaint.starts_with("rec: this is "), "{complaint}");
            assert!(
                complaint.contains(problem) && complaint.contains(remedy),
                "{complaint}"
            );
        }
    }

    #[test]
    fn a_packed_file_that_is_damaged_says_where() {
        let text: String = (0..100_000).map(|n| format!("I  {:x},4\n", n * 4)).collect();
        for mut packed in [gzip(text.as_bytes()), xz(text.as_bytes())] {
            packed.truncate(packed.len() / 2);
            let complaint = complaint(packed);
            assert!(
                complaint.contains("of the unpacked contents: cannot be unpacked from here on"),
                "{complaint}"
            );
            assert!(complaint.ends_with("the file is damaged or cut short, fetch or record it again"));
        }
    }

    #[test]
    fn joined_gzip_files_are_read_as_one() {
        let joined = [gzip(b"I  10,1\n"), gzip(b"I  20,1\n")].concat();
        assert_eq!(read(joined).0, seen(&[(Fetch, 0x10), (Fetch, 0x20)]));
    }

    #[test]
    fn what_is_no_recording_is_refused_with_what_is_known() {
        assert_eq!(complaint(Vec::new()), "rec: the file is empty; record it again");
        for bytes in [
            b"hello".to_vec(),
            vec![0; 500],
            vec![0xff; 500],
            gzip(b"#!/bin/sh\n"),
        ] {
            let complaint = complaint(bytes);
            assert!(
                complaint.starts_with("rec: this is no recording of a known format; known are lackey"),
                "{complaint}"
            );
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = trace::open(Path::new("no/such/file")).err().unwrap().to_string();
        assert!(error.starts_with("cannot open no/such/file: "), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            for format in Format::ALL {
                let input = Cursor::new(bytes.clone());
                let _ = trace::read(Path::new("rec"), input, Some(format))
                    .and_then(|mut recording| drain(&mut *recording));
            }
            let _ = open(bytes).and_then(|mut recording| drain(&mut *recording));
        }
    }
}

mod import {
    use super::*;

    #[test]
    fn any_format_becomes_compact_and_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a.lackey.gz"), folder.path().join("a.mmt"));
        let text: String = (0..50_000u64)
            .map(|n| format!("I  {:x},4\n M {:x},8\n", n * 4, n * n * 64))
            .collect();
        std::fs::write(&from, gzip(text.as_bytes())).unwrap();
        let imported = trace::import(&from, None, &to).unwrap();
        assert_eq!(imported.records, 100_000);
        let (mut lackey, mut compact) = (trace::open(&from).unwrap(), trace::open(&to).unwrap());
        assert_eq!(compact.format(), Format::Compact);
        assert_eq!(drain(&mut *lackey).unwrap(), drain(&mut *compact).unwrap());
        assert_eq!(compact.summary().references, imported.references);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_bad_recording_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b.mmt"));
        std::fs::write(&from, "I  10,4\nbroken\n").unwrap();
        std::fs::write(&to, "before").unwrap();
        assert!(trace::import(&from, None, &to).is_err());
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "before");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_recording_is_not_written_over_itself() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        std::fs::write(&file, "I  10,4\n").unwrap();
        let error = trace::import(&file, None, &file).unwrap_err().to_string();
        assert!(
            error.ends_with("this is the recording that is being converted; write to another file"),
            "{error}"
        );
    }
}

mod looped {
    use super::*;

    #[test]
    fn rounds_repeat_with_their_threads() {
        let lines: String = (0..3000).map(|n| format!("I  {n:x},1\n")).collect();
        let mut looped = Looped::read(open(lines.into()).unwrap(), 3).unwrap();
        let round = looped.references().to_vec();
        let all = drain(&mut looped).unwrap();
        assert_eq!(all.len(), 9000);
        let addresses = all.iter().map(|seen| seen.2);
        assert!(addresses.eq(round.iter().cycle().take(9000).map(|r| r.va().get())));
        looped.rewind(1);
        assert_eq!(drain(&mut looped).unwrap().len(), 3000);
    }

    #[test]
    fn nothing_repeated_is_nothing() {
        assert_eq!(drain(&mut Looped::new(Vec::new(), 5)).unwrap(), []);
        let one = Reference::truncating(Read, Va::new(8));
        assert_eq!(drain(&mut Looped::new(vec![one], 0)).unwrap(), []);
    }

    #[test]
    fn threads_keep_their_runs() {
        let stream: translate::stream::StreamSpec = "uniform:1m,threads=3".parse().unwrap();
        let expected = drain(&mut stream.open(1, 10_000).unwrap()).unwrap();
        let mut looped = Looped::read(stream.open(1, 10_000).unwrap(), 2).unwrap();
        assert_eq!(drain(&mut looped).unwrap(), [&expected[..], &expected].concat());
    }
}

#[test]
fn every_format_has_a_name_of_its_own() {
    for format in Format::ALL {
        assert_eq!(Format::named(format.name()), Some(format));
    }
    assert_eq!(Format::named("pcap"), None);
}
