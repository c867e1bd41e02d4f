//! Conversion into the compact form.

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
