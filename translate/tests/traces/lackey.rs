//! The text of valgrind's lackey.

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
