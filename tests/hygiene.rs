//! Nothing in the repository knows the machine it was written on.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

/// Folders made by tools, not part of the repository.
const SKIPPED: [&str; 3] = [".git", "node_modules", "target"];

/// Written in two parts, or this file would contain them.
fn needles() -> Vec<String> {
    [("/wo", "rk/"), ("/ro", "ot/"), ("/tmp/bu", "ild")]
        .map(|(a, b)| format!("{a}{b}"))
        .to_vec()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the repository can be read") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a kind");
        let name = entry.file_name();
        if kind.is_file() {
            found.push(entry.path());
        } else if kind.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) {
            files(&entry.path(), found);
        }
    }
}

fn content(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).expect("a file of the repository can be read");
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return bytes;
    }
    let mut plain = Vec::new();
    MultiGzDecoder::new(bytes.as_slice())
        .read_to_end(&mut plain)
        .expect("a whole gzip file");
    plain
}

/// Only there may entries of the host's page tables be stored: the first asks who holds which lock, the
/// others store entries of huge pages, whose lock is page_table_lock.
const STORES: [&str; 3] = ["watch.rs", "hugetlb.rs", "hugetlb_fault.rs"];

#[test]
fn the_host_stores_entries_where_the_lock_is_asked_for() {
    let mut all = Vec::new();
    files(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mm/src"),
        &mut all,
    );
    let stores = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains("tables.set("));
    let known = |path: &&PathBuf| STORES.iter().any(|name| path.ends_with(name));
    let found: Vec<_> = all.iter().filter(|path| stores(path)).collect();
    assert!(
        found.len() == STORES.len() && found.iter().all(known),
        "through `Kernel::set_pte` or `LockedPtes::set`: {found:?}"
    );
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let mut all = Vec::new();
    files(Path::new(env!("CARGO_MANIFEST_DIR")), &mut all);
    assert!(all.len() > 50, "the walk found only {} files", all.len());
    let needles = needles();
    let mut bad = Vec::new();
    for path in all {
        let bytes = content(&path);
        for (number, line) in bytes.split(|b| *b == b'\n').enumerate() {
            let holds = |needle: &String| line.windows(needle.len()).any(|w| w == needle.as_bytes());
            if let Some(needle) = needles.iter().find(|needle| holds(needle)) {
                bad.push(format!("{}:{}: {needle}", path.display(), number + 1));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
