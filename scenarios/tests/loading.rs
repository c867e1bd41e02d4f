//! Reading files: what loads, what does not, and `extends`.

mod common;

use std::collections::BTreeMap;

use common::{GOOD, KNOWN, findings, load};
use proptest::prelude::*;
use scenarios::ast::{Op, Scenario};
use scenarios::check::check;
use scenarios::diagnostic::{Code, Diagnostics};
use scenarios::load::{Loaded, MemoryFiles, load_file, load_str};

fn files(list: &[(&str, &str)]) -> MemoryFiles {
    let map: BTreeMap<String, Vec<u8>> = list
        .iter()
        .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
        .collect();
    MemoryFiles(map)
}

fn load_first(list: &[(&str, &str)]) -> Result<Loaded, Diagnostics> {
    load_str(list[0].0, list[0].1, &files(list))
}

fn codes(found: &Diagnostics) -> Vec<Code> {
    found.items.iter().map(|item| item.code).collect()
}

#[test]
fn the_example_loads_and_is_clean() {
    let loaded = load(GOOD);
    assert_eq!(loaded.scenario.files["heap"].pages, 65536);
    let script = &loaded.scenario.processes["job"].threads["main"].script;
    assert!(matches!(script[0], Op::Touch(_)));
    let found = check(&loaded, &KNOWN);
    assert!(found.is_empty(), "{found}");
}

#[test]
fn resolved_form_loads_to_the_same_scenario() {
    let loaded = load(GOOD);
    let again = load(&loaded.resolved.to_string());
    assert_eq!(loaded.scenario, again.scenario);
    let written = serde_json::to_string(&loaded.scenario).expect("serialises");
    let back: Scenario = load(&written).scenario;
    assert_eq!(loaded.scenario, back);
}

#[test]
fn a_byte_order_mark_is_ignored() {
    let loaded = load(&format!("\u{feff}{GOOD}"));
    assert_eq!(loaded.scenario, load(GOOD).scenario);
}

#[test]
fn empty_binary_and_deep_files() {
    for text in ["", "  \n", "// only a comment", "/* a */"] {
        assert_eq!(codes(&findings(text.as_bytes())), [Code::Empty], "{text:?}");
    }
    let found = findings(b"{ \"title\": \"\xff\xfe\" }");
    assert_eq!(codes(&found), [Code::NotUtf8]);
    assert_eq!(
        found.items[0].span.map(|span| (span.line, span.column)),
        Some((1, 13))
    );
    assert!(found.items[0].message.contains("0xff"), "{found}");
    assert_eq!(codes(&findings(b"\x1f\x8b\x08\x00\x00")), [Code::NotUtf8]);
    assert_eq!(codes(&findings(b"\x00\x01\x02")), [Code::Syntax]);
    for depth in [65, 100, 600, 100_000] {
        let text = "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(codes(&findings(text.as_bytes())), [Code::TooDeep], "{depth}");
        let text = "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
        assert_eq!(codes(&findings(text.as_bytes())), [Code::TooDeep], "{depth}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let end = GOOD.trim_end().len();
    for length in 0..end {
        let found = findings(&GOOD.as_bytes()[..length]);
        assert!(found.has_errors(), "the first {length} bytes load");
    }
}

#[test]
fn missing_files_and_directories() {
    let found = load_file("no/such/file.jsonc".as_ref()).expect_err("missing");
    assert_eq!(codes(&found), [Code::Unreadable]);
    assert!(
        found.items[0]
            .message
            .contains("`no/such/file.jsonc` cannot be read: there is no")
    );
    let found = load_file(env!("CARGO_MANIFEST_DIR").as_ref()).expect_err("directory");
    assert_eq!(codes(&found), [Code::Directory]);
}

#[test]
fn too_large() {
    let text = " ".repeat(scenarios::load::MAX_BYTES + 1);
    assert_eq!(codes(&findings(text.as_bytes())), [Code::TooLarge]);
}

const BASE: &str = r#"{ "title": "base", "cpus": 4, "seed": 7, "notes": ["a", "b"],
  "processes": { "p": { "maps": { "m": { "pages": 16, "prot": "read" } },
    "attach": { "x": { "gru": {} } },
    "threads": { "t": { "script": [ { "touch": { "map": "m" } } ] } } } } }"#;

#[test]
fn extends_merges_objects_and_replaces_the_rest() {
    let child = r#"{ "extends": "../base.jsonc", "title": "child", "seed": null, "notes": ["c"],
      "processes": { "p": { "maps": { "m": { "pages": 32 } },
        "attach": { "x": { "gru": null, "kvm": {} } } } } }"#;
    let loaded = load_first(&[("dir/child.jsonc", child), ("base.jsonc", BASE)])
        .unwrap_or_else(|found| panic!("{found}"));
    let scenario = &loaded.scenario;
    assert_eq!(
        (scenario.title.as_str(), scenario.cpus, scenario.seed),
        ("child", Some(4), 1)
    );
    assert_eq!(scenario.notes, ["c"]);
    assert_eq!(scenario.extends, None);
    assert!(loaded.resolved.get("extends").is_none());
    let map = &scenario.processes["p"].maps["m"];
    assert_eq!((map.pages, map.prot), (Some(32), scenarios::ast::Prot::Read));
    assert!(check(&loaded, &KNOWN).is_empty());
}

#[test]
fn places_name_the_file_a_value_came_from() {
    let child = r#"{ "extends": "base.jsonc", "title": "", "processes": { "p": {
      "maps": { "m": { "pages": 0 } } } } }"#;
    let base = BASE.replace("\"cpus\": 4", "\"cpus\": 400");
    let loaded = load_first(&[("child.jsonc", child), ("base.jsonc", &base)])
        .unwrap_or_else(|found| panic!("{found}"));
    let found = check(&loaded, &KNOWN);
    let places: Vec<(Code, &str, usize)> = found
        .items
        .iter()
        .map(|item| {
            (
                item.code,
                item.file.as_str(),
                item.span.map_or(0, |span| span.line),
            )
        })
        .collect();
    assert_eq!(
        places,
        [
            (Code::EmptyTitle, "child.jsonc", 1),
            (Code::CpuCount, "base.jsonc", 1),
            (Code::Zero, "child.jsonc", 2),
            (Code::BeyondMap, "base.jsonc", 4),
        ]
    );
}

#[test]
fn cycles_are_told_with_their_chain() {
    let list = [
        ("a.jsonc", r#"{ "extends": "b.jsonc" }"#),
        ("b.jsonc", r#"{ "extends": "./c.jsonc" }"#),
        ("c.jsonc", r#"{ "extends": "b.jsonc" }"#),
    ];
    let found = load_first(&list).expect_err("a cycle");
    assert_eq!(codes(&found), [Code::ExtendsCycle]);
    assert!(
        found.items[0].message.contains("b.jsonc -> c.jsonc -> b.jsonc"),
        "{found}"
    );
    assert_eq!(found.items[0].file, "c.jsonc");
    let own = load_first(&[("./a.jsonc", r#"{ "extends": "a.jsonc" }"#)]).expect_err("a cycle");
    assert_eq!(codes(&own), [Code::ExtendsCycle]);
}

#[test]
fn long_chains_end() {
    let list: Vec<(String, String)> = (0..20)
        .map(|n| {
            (
                format!("{n}.jsonc"),
                format!("{{ \"extends\": \"{}.jsonc\" }}", n + 1),
            )
        })
        .collect();
    let list: Vec<(&str, &str)> = list
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let found = load_first(&list).expect_err("too long");
    assert_eq!(codes(&found), [Code::ExtendsDepth]);
    assert!(found.items[0].message.contains("16"), "{found}");
}

#[test]
fn bad_targets() {
    for (text, code, column) in [
        (r#"{ "extends": "gone.jsonc" }"#, Code::ExtendsTarget, 14),
        (r#"{ "extends": "/etc/passwd" }"#, Code::ExtendsTarget, 14),
        (r#"{ "extends": "" }"#, Code::ExtendsTarget, 14),
        (r#"{ "extends": 3 }"#, Code::WrongType, 14),
    ] {
        let found = load_first(&[("a.jsonc", text)]).expect_err("bad target");
        assert_eq!(codes(&found), [code], "{text}");
        assert_eq!(
            found.items[0].span.map(|span| span.column),
            Some(column),
            "{text}"
        );
    }
    let found = load_first(&[("a.jsonc", r#"{ "extends": "b.jsonc" }"#), ("b.jsonc", "{ ]")])
        .expect_err("syntax error in the extended file");
    assert_eq!(
        (found.items[0].code, found.items[0].file.as_str()),
        (Code::Syntax, "b.jsonc")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn mutations_never_panic(
        edits in proptest::collection::vec((0..GOOD.len(), any::<u8>(), 0..3_u8), 1..8)
    ) {
        let mut bytes = GOOD.as_bytes().to_vec();
        for (at, byte, kind) in edits {
            let at = at.min(bytes.len().saturating_sub(1));
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        let found = findings(&bytes);
        for item in &found.items {
            prop_assert!(!item.render(scenarios::diagnostic::Color::Always).is_empty());
        }
    }

    #[test]
    fn numbers_in_any_place_never_panic(value in any::<u64>(), which in 0..12_usize) {
        let digits: Vec<&str> = ["2000", "100000", "1024", "16", "8", "3", "100", "10", "0x10000",
            "0x7f0000000000", "0.99", "1"].to_vec();
        let text = GOOD.replace(&format!(" {}", digits[which]), &format!(" {value}"));
        let _ = findings(text.as_bytes());
    }
}
