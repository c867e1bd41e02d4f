//! ChampSim's instructions.

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
