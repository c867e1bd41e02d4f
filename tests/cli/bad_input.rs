//! Bad, broken and hostile input: exit code 2, a message with a place, and nothing written.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Place, SMALL, json, repository};

/// Runs a file that must be refused under each command; `place` is what the message must hold.
#[track_caller]
fn refused(name: &str, content: &[u8], message: &str) {
    let place = Place::new();
    place.put(name, content);
    let before = place.names();
    for command in ["run", "compare"] {
        let done = place
            .run(&[command, name, "--json", "out.json", "--html", "out.html"])
            .exits(2)
            .says(message);
        assert!(done.stdout.is_empty(), "{}", done.stdout);
        assert_eq!(place.names(), before, "nothing is written");
    }
    place.run(&["check", name]).exits(2).says(message);
}

#[test]
fn a_scenario_with_a_mistake_is_refused_at_its_place() {
    refused(
        "a.jsonc",
        b"{\n  \"title\": \"x\",\n  \"procesess\": {}\n}",
        "a.jsonc:3:3",
    );
    refused("a.jsonc", b"{ \"title\": 3, \"processes\": {} }", "a.jsonc:1:12");
    refused("a.json", b"{ \"title\": \"x\",\n oops }", "a.json:2:2");
    refused("a.json", &SMALL.as_bytes()[..SMALL.len() / 2], "a.json:");
    refused("a.json", b"", "a.json");
    refused("a.json", b"[]", "a.json:1:1");
    refused("a.json", &[0xff, 0xfe, 0, 1, 2], "a.json:1:1");
    let unknown = SMALL.replace("\"title\"", "\"machine\": \"pdp-11\", \"title\"");
    refused("a.json", unknown.as_bytes(), "a.json:2:14");
}

#[test]
fn a_hostile_scenario_is_refused() {
    let with = |text: &str| {
        SMALL
            .replace("\"title\"", &format!("{text}, \"title\""))
            .into_bytes()
    };
    refused("a.json", &with("\"cpus\": 1000000"), "a.json:2:11");
    refused("a.json", &with("\"cpus\": 0"), "a.json:2:11");
    refused(
        "a.json",
        &with("\"cpus\": 99999999999999999999999"),
        "a.json:2:11",
    );
    refused("a.json", "[".repeat(100_000).as_bytes(), "a.json:1:");
    refused("a.json", &with("\"extends\": \"a.json\""), "a.json:2:14");
    refused("a.json", &with("\"extends\": \"/etc/passwd\""), "a.json:2:14");
    let huge = SMALL.replace("\"pages\": 64", "\"pages\": 18446744073709551615");
    refused("a.json", huge.as_bytes(), "a.json:4:");
    let busy = SMALL.replace("\"count\": 500", "\"count\": 18446744073709551615");
    refused("a.json", busy.as_bytes(), "a.json:");
}

#[test]
fn what_is_not_a_file_is_refused() {
    let place = Place::new();
    for command in ["run", "compare", "check", "report"] {
        place
            .run(&[command, "missing.json"])
            .exits(2)
            .says("missing.json");
        place.run(&[command, "."]).exits(2).says("directory");
    }
    place
        .run(&["run", "missing.strace.gz"])
        .exits(2)
        .says("missing.strace.gz");
    place.run(&["import", "strace", "."]).exits(2).says("directory");
}

#[test]
fn a_broken_recording_is_refused() {
    refused("a.strace", b"hello\nworld\n", "a.strace:1");
    refused("a.strace", b"", "a.strace");
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    let log =
        std::fs::read(repository("scenarios/recordings/gcc.strace.gz")).expect("the recording is there");
    packed
        .write_all(b"1 1.0 brk(NULL) = 0x1000 <0.1>\n")
        .expect("packed");
    drop(packed);
    refused("a.strace.gz", &log[..log.len() / 2], "a.strace.gz:");
}

#[test]
fn import_flags_are_for_recordings() {
    let place = Place::new();
    place
        .run(&["run", "small.jsonc", "--attach", "kvm:largest"])
        .exits(2)
        .says("--attach");
    place
        .run(&["compare", "small.jsonc", "--touch", "none"])
        .exits(2)
        .says("--touch");
    place
        .run(&["import", "strace", "x", "--attach", "tpu:largest"])
        .exits(2)
        .says("tpu");
    place
        .run(&["import", "strace", "x", "--touch", "fraction=2"])
        .exits(2)
        .says("fraction");
}

#[test]
fn a_saved_result_is_not_a_scenario_nor_the_other_way_round() {
    let place = Place::new();
    place.good(&["run", "small.jsonc", "--json", "r.json"]);
    place.run(&["run", "r.json"]).exits(2).says("mmusim report");
    place.run(&["report", "small.jsonc"]).exits(2).says("schema");
    place
        .run(&["compare", "r.json", "small.jsonc"])
        .exits(2)
        .says("small.jsonc");
    let text = place.text("r.json");
    place.put("cut.json", &text[..text.len() / 2]);
    place.run(&["report", "cut.json"]).exits(2).says("cut.json:");
    place.put("future.json", text.replace("mmusim.run/1", "mmusim.run/9"));
    place
        .run(&["report", "future.json"])
        .exits(2)
        .says("mmusim.run/9");
    place.put("binary.json", [0xff, 0]);
    place.run(&["report", "binary.json"]).exits(2).says("UTF-8");
}

#[test]
fn check_reports_all_files_and_speaks_json() {
    let place = Place::new();
    place.put("bad.json", "{ \"title\": \"x\", \"procesess\": {} }");
    let done = place
        .run(&["check", "small.jsonc", "bad.json", "missing.json"])
        .exits(2)
        .says("did you mean");
    assert_eq!(
        done.stdout,
        "small.jsonc: ok\nbad.json: 2 errors\nmissing.json: 1 error\n"
    );
    let done = place
        .run(&["check", "--format", "json", "small.jsonc", "bad.json"])
        .exits(2);
    let found = json(&done.stdout);
    assert_eq!((&found[0]["ok"], &found[1]["ok"]), (&true.into(), &false.into()));
    assert_eq!(found[1]["items"][0]["code"], "E0101");
    assert_eq!(found[1]["items"][0]["span"]["column"], 17);
}

#[test]
fn check_prints_what_extends_comes_to() {
    let place = Place::new();
    place.put(
        "child.jsonc",
        r#"{ "extends": "small.jsonc", "title": "child", }"#,
    );
    let resolved = json(&place.good(&["check", "--print-resolved", "child.jsonc"]));
    assert_eq!(resolved["title"], "child");
    assert!(resolved["processes"]["p"].is_object() && resolved.get("extends").is_none());
}
