//! The compact form.

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
    // Thread, count and extra bytes, the checksum, the tag.
    assert_eq!(bytes[16..28], [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[32], 0xf2);
    assert_eq!(bytes, with_checksum(bytes.clone()));
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
