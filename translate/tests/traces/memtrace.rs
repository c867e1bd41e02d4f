//! DynamoRIO's final traces.

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
    assert!(complaint(gzip(&short)).starts_with("rec: byte 60 of the unpacked contents: the recording ends"));
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
