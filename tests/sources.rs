//! Every key that code or a machine file cites is a row of `docs/sources.md` or a page below it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A list of keys, and the page that holds its rows.
const LISTS: [(&str, &str); 4] = [
    ("host-mm-paths", "docs/sources/kernel.md"),
    ("notifier-variants", "docs/sources/notifiers.md"),
    ("secondary-mmus", "docs/sources/devices.md"),
    ("hardware-costs", "docs/sources/hardware.md"),
];

/// Folders made by tools.
const SKIPPED: [&str; 3] = [".git", "node_modules", "target"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the repository can be read") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a kind");
        let path = entry.path();
        if kind.is_dir() && !SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
            rust_files(&path, found);
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// First cells of a page's tables.
fn rows(page: &str) -> BTreeSet<String> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|line| line.split(" | ").next())
        .map(|cell| cell.trim().to_owned())
        .collect()
}

/// The text of a file with its line breaks and comment marks made spaces, so that a citation may wrap.
fn flat(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.trim();
        let comment = ["//!", "///", "//"]
            .iter()
            .find_map(|mark| line.strip_prefix(mark));
        comment.unwrap_or(line).trim().to_owned()
    });
    lines.collect::<Vec<_>>().join(" ")
}

/// Whether a word has the form of a key: `E`, `B.16`, `V6.4`, `R17`, `R-K3`, `10.26b`, `3`.
fn is_key(word: &str) -> bool {
    let Some(rest) = word.strip_prefix("R-") else {
        let digits = word.trim_start_matches(|c: char| c.is_ascii_uppercase());
        let letters = word.len() - digits.len();
        let numbers = digits
            .strip_suffix(|c: char| c.is_ascii_lowercase())
            .unwrap_or(digits);
        let well_formed = numbers
            .trim_start_matches('.')
            .split('.')
            .all(|part| part.chars().all(|c| c.is_ascii_digit()) && !part.is_empty());
        return letters <= 1 && (well_formed || (letters == 1 && digits.is_empty()));
    };
    let number = rest.trim_start_matches(['K', 'G', 'X', 'C']);
    rest.len() == number.len() + 1 && number.parse::<u32>().is_ok()
}

/// The part of a key before its last number, and that number.
fn split_number(key: &str) -> Option<(&str, u32)> {
    let prefix = key.trim_end_matches(|c: char| c.is_ascii_digit());
    Some((prefix, key[prefix.len()..].parse().ok()?))
}

/// All keys from `first` to `last`.
fn between(first: &str, last: &str) -> Vec<String> {
    match (split_number(first), split_number(last)) {
        (Some((prefix, from)), Some((same, to))) if prefix == same => {
            (from..=to).map(|number| format!("{prefix}{number}")).collect()
        }
        _ => vec![first.to_owned(), last.to_owned()],
    }
}

/// The keys at the beginning of a text, as in `A.1, A.4 (2.6.27`, `R-K1 to R-K5,` or `G.1-G.4).`
fn leading_keys(text: &str) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    let mut range = false;
    for raw in text.split_whitespace() {
        let word = raw.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        match word {
            "section" | "sections" | "and" | "or" => continue,
            "to" => {
                range = true;
                continue;
            }
            _ => {}
        }
        let (first, last) = match word.split_once('-') {
            Some((first, last)) if first != "R" && is_key(first) && is_key(last) => (first, last),
            _ => (word, word),
        };
        // `R. Holt` is a name.
        if !is_key(first) || (raw.ends_with('.') && first == "R") {
            break;
        }
        match keys.last().cloned().filter(|_| range) {
            Some(before) => keys.extend(between(&before, last)),
            None => keys.extend(between(first, last)),
        }
        range = false;
        if !raw.ends_with(',') && raw.len() > word.len() {
            break;
        }
    }
    keys
}

/// What one file cites: pairs of list and key.
fn citations(text: &str) -> Vec<(&'static str, String)> {
    let text = flat(text);
    let mut found = Vec::new();
    let names = LISTS.iter().map(|(list, _)| (*list, *list));
    for (list, name) in names.chain([
        ("hardware-costs", "reference row"),
        ("hardware-costs", "reference rows"),
    ]) {
        for (at, _) in text.match_indices(name) {
            let Some(rest) = text[at + name.len()..].strip_prefix(' ') else {
                continue;
            };
            found.extend(leading_keys(rest).into_iter().map(|key| (list, key)));
        }
    }
    // Races are cited without the list's name, too.
    for (at, _) in text.match_indices("R-") {
        let end = text[at + 2..].find(|c: char| !c.is_ascii_alphanumeric());
        let word = end.map_or(&text[at..], |end| &text[at..at + 2 + end]);
        let inside = text[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
        if is_key(word) && !inside {
            found.push(("secondary-mmus", word.to_owned()));
        }
    }
    found
}

/// The `source` fields of a machine file.
fn sources(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(source)) = fields.get("source") {
                found.push(source.clone());
            }
            fields.values().for_each(|field| sources(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| sources(item, found)),
        _ => {}
    }
}

#[test]
fn every_key_cited_in_code_has_a_row() {
    let pages: BTreeMap<&str, BTreeSet<String>> = LISTS
        .iter()
        .map(|(list, page)| (*list, rows(&read(&root().join(page)))))
        .collect();
    let mut files = Vec::new();
    rust_files(root(), &mut files);
    let (mut cited, mut missing) = (0, Vec::new());
    // The examples of this file are not citations.
    for path in files.iter().filter(|path| !path.ends_with("tests/sources.rs")) {
        for (list, key) in citations(&read(path)) {
            cited += 1;
            if !pages[list].contains(&key) {
                missing.push(format!("{}: {list} {key}", path.display()));
            }
        }
    }
    assert!(cited > 80, "only {cited} citations were found");
    assert!(missing.is_empty(), "no row for\n{}", missing.join("\n"));
}

#[test]
fn every_source_of_a_machine_file_has_a_row() {
    let page = rows(&read(&root().join("docs/sources/hardware.md")));
    let (mut cited, mut missing) = (0, Vec::new());
    for entry in fs::read_dir(root().join("models/x86/machines")).expect("machines") {
        let path = entry.expect("an entry").path();
        let machine: Value = serde_json::from_str(&read(&path)).expect("a machine file is JSON");
        let mut found = Vec::new();
        sources(&machine, &mut found);
        for source in found {
            cited += 1;
            // Either the whole text is a row, or it is a list of ids.
            let known = page.contains(&source) || source.split(", ").all(|id| page.contains(id));
            if !known {
                missing.push(format!("{}: {source}", path.display()));
            }
        }
    }
    assert!(cited > 60, "only {cited} sources were found");
    assert!(missing.is_empty(), "no row for\n{}", missing.join("\n"));
}

#[test]
fn citations_are_recognised() {
    let text = "//! a (secondary-mmus R-K1 to\n//! R-K3, notifier-variants 10.26b); host-mm-paths B.10, G.1-G.3, E.\n\
                // (secondary-mmus 3.5, R. Holt, 2008), reference rows R4, R5 and R8; FOUR-K1";
    let mut found: Vec<String> = citations(text)
        .into_iter()
        .map(|(list, key)| format!("{} {key}", &list[..4]))
        .collect();
    found.sort();
    found.dedup();
    assert_eq!(
        found,
        [
            "hard R4",
            "hard R5",
            "hard R8",
            "host B.10",
            "host E",
            "host G.1",
            "host G.2",
            "host G.3",
            "noti 10.26b",
            "seco 3.5",
            "seco R-K1",
            "seco R-K2",
            "seco R-K3",
        ]
    );
}
