//! Machine files: what extends what, and what is refused with which words.
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

use sim::Cycles;
use x86::{Machine, MachineError, PageSize};

/// A folder of its own for each test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// The error of loading a file, its path cut down to the name.
    fn refused(&self, name: &str) -> String {
        let error = Machine::load(&self.0.join(name)).unwrap_err().to_string();
        error.replace(&format!("{}/", self.0.display()), "")
    }
}

#[test]
fn a_file_says_only_what_differs() {
    let base = Machine::preset("skylake-sp-2017").unwrap();
    let mine = Machine::from_json(
        r#"{
            // Comments, a trailing comma and hexadecimal numbers are fine.
            "extends": "skylake-sp-2017", "name": "mine", "memory_pages": 0x10000,
            "costs": { "invlpg": { "value": 150, "note": "a guess" } },
            "tlb": { "l2": [ { "bank": {
                "shape": { "entries": 64, "ways": 4 }, "holds": ["4k"], "source": "no row" } } ] },
        }"#,
    )
    .unwrap();
    assert_eq!((mine.name.as_str(), mine.memory_pages), ("mine", 0x1_0000));
    // Objects merge: the unit, the range and the source of INVLPG are those of the preset.
    assert_eq!(mine.costs.invlpg, Cycles::new(150));
    let row = |machine: &Machine| {
        machine
            .cost_table()
            .into_iter()
            .find(|row| row.name == "invlpg")
            .unwrap()
    };
    assert_eq!(row(&mine).source, row(&base).source);
    assert_eq!(
        (row(&mine).high, row(&mine).note.as_str()),
        (row(&base).high, "a guess")
    );
    // Arrays replace: one bank is left of the second level, the first is untouched.
    assert_eq!(mine.tlb.l2.len(), 1);
    assert_eq!(mine.tlb.load, base.tlb.load);
    assert_eq!(mine.costs.cr3_reload, base.costs.cr3_reload);
    assert_eq!(mine.targets(), base.targets());
}

#[test]
fn the_example_of_the_guide_loads() {
    let guide = include_str!("../../../docs/how-to/add-a-machine.md");
    let example = guide
        .split("```jsonc\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let mine = Machine::from_json(example).unwrap();
    assert_eq!((mine.cpus(), mine.costs.invlpg), (24, Cycles::new(400)));
}

#[test]
fn null_takes_away() {
    let mine = Machine::from_json(
        r#"{"extends": "zen4-2022", "name": "mine",
            "features": {"invlpgb_pages": {"value": null, "source": "no row"}},
            "costs": {"invlpgb": null, "tlbsync": null}}"#,
    )
    .unwrap();
    assert_eq!(mine.features.invlpgb_pages, None);
    assert_eq!((mine.costs.invlpgb, mine.costs.tlbsync), (None, None));
    assert!(mine.cost_table().iter().all(|row| row.name != "tlbsync"));
}

#[test]
fn modern_2s_is_sapphire_rapids_with_fewer_cores() {
    let modern = Machine::preset("modern-2s").unwrap();
    let rapids = Machine::preset("sapphire-rapids-2023").unwrap();
    assert_eq!((modern.cores_per_socket, rapids.cores_per_socket), (16, 56));
    assert_eq!(modern.costs, rapids.costs);
    assert_eq!(modern.tlb, rapids.tlb);
    assert_eq!(modern.features, rapids.features);
}

#[test]
fn files_extend_files_relative_to_themselves() {
    let folder = Folder::new("relative");
    folder.put(
        "base/rack.jsonc",
        r#"{"extends": "zen3-2021", "name": "rack", "sockets": 1, "cores_per_socket": 16}"#,
    );
    let mine = folder.put(
        "mine/small.json",
        r#"{"extends": "../base/rack.jsonc", "name": "small", "cores_per_socket": 8,
            "costs": {"line_transfer_complex": null}}"#,
    );
    let machine = Machine::load(&mine).unwrap();
    assert_eq!((machine.cpus(), machine.sockets, machine.nodes), (8, 1, 1));
    assert!(!machine.has_complexes());
    let found = Machine::find("mine/small.json", &folder.0).unwrap();
    assert_eq!(found.name, "small");
    assert_eq!(Machine::find("modern-2s", &folder.0).unwrap().name, "modern-2s");
}

#[test]
fn rounds_are_refused() {
    let folder = Folder::new("rounds");
    folder.put("a.json", r#"{"extends": "./b.json", "name": "a"}"#);
    folder.put("b.json", r#"{"extends": "x/../a.json", "name": "b"}"#);
    folder.put("x/self.json", r#"{"extends": "self.json", "name": "self"}"#);
    let said = folder.refused("a.json");
    assert!(
        said.starts_with("./b.json:1:13: extends: comes back to itself: a.json -> "),
        "{said}"
    );
    assert!(folder.refused("x/self.json").contains("comes back to itself"));
}

#[test]
fn errors_name_the_place_and_a_way_out() {
    let folder = Folder::new("errors");
    let bad = [
        ("{\n  \"name\": }", "bad.json:2:11: "),
        (
            "{ \"extends\": \"modern-2s\" }",
            "bad.json:1:1: key `name` is missing",
        ),
        (
            "{ \"extends\": 3, \"name\": \"m\" }",
            "bad.json:1:14: extends: give the name",
        ),
        (
            "{ \"extends\": \"modern\", \"name\": \"m\" }",
            "bad.json:1:14: extends: unknown machine `modern` (did you mean `modern-2s`?)",
        ),
        (
            "{ \"extends\": \"modern-2s\", \"name\": \"modern-2s\" }",
            "bad.json:1:35: name: `modern-2s` is the name of a preset",
        ),
        ("{ \"name\": \"m\" }", "bad.json:1:1: key `title` is missing"),
        ("[]", "bad.json:1:1: "),
        ("", "bad.json:1:1: the file holds no value"),
    ];
    for (text, said) in bad {
        folder.put("bad.json", text);
        let error = folder.refused("bad.json");
        assert!(error.starts_with(said), "{text}\n{error}");
    }
    assert_eq!(
        folder.refused("nowhere.json"),
        "machine file nowhere.json cannot be read: there is no such file"
    );
    assert!(folder.refused("").contains("it is a directory"));
    fs::write(folder.0.join("bytes.json"), [0xff, 0xfe]).unwrap();
    assert!(folder.refused("bytes.json").contains("it is not text in UTF-8"));
}

#[test]
fn errors_inside_name_keys_and_indices() {
    let bank = r#"{ "shape": { "entries": 64, "ways": 4 }, "holds": ["4k"], "source": "no row" }"#;
    let bad: [(&str, &str); 17] = [
        (
            "\"sokets\": 2",
            "sokets: unknown key `sokets` (did you mean `sockets`?)",
        ),
        (
            "\"costs\": { \"invlgp\": 1 }",
            "costs.invlgp: unknown key `invlgp` (did you mean `invlpg`?)",
        ),
        (
            "\"costs\": { \"invlpg\": { \"value\": 9999 } }",
            "costs.invlpg: value 9999 lies outside its range, 100 to 260",
        ),
        (
            "\"costs\": { \"invlpg\": { \"unit\": \"us\" } }",
            "costs.invlpg.unit: unknown word `us`; known are cy, ns",
        ),
        (
            "\"costs\": { \"invlpg\": { \"source\": \" \" } }",
            "costs.invlpg: source is empty",
        ),
        (
            "\"costs\": { \"invlpg\": { \"range\": [1, 300, 2] } }",
            "costs.invlpg.range: 3 elements: at most 2 are possible",
        ),
        (
            "\"costs\": { \"invlpg\": null }",
            "costs: key `invlpg` is missing",
        ),
        (
            "\"costs\": { \"invpcid\": null }",
            "costs.invpcid: cost `invpcid` is missing: the machine has features.invpcid",
        ),
        (
            "\"costs\": { \"tlbsync\": { \"value\": 1, \"unit\": \"ns\", \"range\": [1, 2], \"source\": \"x\" } }",
            "costs.tlbsync: the machine has no features.invlpgb_pages; remove this cost",
        ),
        (
            "\"features\": { \"levels\": { \"value\": 6 } }",
            "features.levels: 6 levels: page tables have 4 or 5",
        ),
        (
            "\"tlb\": { \"load\": [{ \"shape\": { \"entries\": 96, \"ways\": 7 }, \"holds\": [\"4k\"], \"source\": \"x\" }] }",
            "tlb.load[0].shape: 96 entries and 7 ways",
        ),
        (
            "\"tlb\": { \"load\": [{ \"shape\": { \"entries\": 96, \"ways\": 6 }, \"holds\": [\"8k\"], \"source\": \"x\" }] }",
            "tlb.load[0].holds[0]: unknown word `8k`",
        ),
        (
            "\"tlb\": { \"load\": [{ \"shape\": { \"entries\": 96, \"ways\": 6 }, \"holds\": [\"2m\"], \"source\": \"x\" }] }",
            "tlb: tlb.load: no bank holds 4k pages",
        ),
        (
            "\"caches\": { \"llc\": { \"cache\": { \"cores\": 5 } } }",
            "caches.llc.cache: 5 cores share it",
        ),
        (
            "\"nodes\": 3",
            "nodes: 3 nodes: 32 cores must divide into them evenly",
        ),
        (
            "\"threads_per_core\": 0",
            "threads_per_core: threads_per_core is zero",
        ),
        (
            "\"walk_charged_percent\": { \"value\": 101 }",
            "walk_charged_percent.value: 101 percent: a share has 0 to 100",
        ),
    ];
    for (member, said) in bad {
        let text = format!("{{\"extends\": \"modern-2s\", \"name\": \"m\",\n{member}}}");
        let error = Machine::from_json(&text).unwrap_err();
        let MachineError::Content(content) = &error else {
            panic!("{error:?}");
        };
        let found = format!("{}: {}", content.path, content.what);
        assert!(found.starts_with(said), "{member}\n{found}");
        // The second line is where the fault was written, unless something is missing altogether.
        let line = content.line_column.map(|(line, _)| line);
        let missing = member.contains("null");
        assert!(missing || line == Some(2), "{error}");
    }
    let twice = format!(
        "{{\"extends\": \"modern-2s\", \"name\": \"m\", \"tlb\": {{\"load\": [{bank}], \"load\": []}}}}"
    );
    let error = Machine::from_json(&twice).unwrap_err().to_string();
    assert!(
        error.contains("tlb.load: this key stands here for the second time"),
        "{error}"
    );
}

#[test]
fn a_fault_is_told_in_the_file_that_has_it() {
    let folder = Folder::new("blame");
    let base = |member: &str| {
        let text = format!("{{\n  \"extends\": \"modern-2s\", \"name\": \"base\",\n  {member}\n}}");
        folder.put("base.json", &text);
    };
    let top = "{\n  \"extends\": \"base.json\", \"name\": \"top\", \"costs\": {\n\n\"wakeup\": { \"value\": 1500 } } }";
    folder.put("top.json", top);
    base("\"costs\": { \"invlgp\": 1 }");
    assert!(
        folder
            .refused("top.json")
            .starts_with("base.json:3:14: costs.invlgp")
    );
    base("\"costs\": { \"wakeup\": { \"range\": [1, 2] } }");
    assert!(
        folder
            .refused("top.json")
            .starts_with("top.json:4:11: costs.wakeup: value 1500 lies outside")
    );
}

#[test]
fn what_a_machine_lacks_has_no_price_to_change() {
    let mut machine = Machine::preset("harpertown-2008").unwrap();
    let error = machine.set_cost("invpcid", Cycles::new(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "machine `harpertown-2008` has no `invpcid`, so it has no price to change"
    );
    assert!(!machine.features.page_sizes.contains(PageSize::Size1G));
}

#[test]
fn only_names_with_an_ending_are_paths() {
    assert!(Machine::is_path("a.json") && Machine::is_path("../a/b.jsonc"));
    assert!(!Machine::is_path("modern-2s") && !Machine::is_path("a/b"));
    let error = Machine::find("a/b", Path::new("")).unwrap_err().to_string();
    assert!(error.contains("a path that ends in .json or .jsonc"), "{error}");
}
