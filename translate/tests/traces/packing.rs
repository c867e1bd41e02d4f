//! Packed files, and what is no recording.

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
