//! `translate`, and `import` of recordings of references.

use serde_json::Value;

use super::{Place, json, repository};

fn sqlite() -> String {
    repository("translate/recordings/sqlite-groupby.lackey.gz")
}

/// The result of a translation that must end well.
fn result(place: &Place, args: &[&str]) -> Value {
    json(&place.good(&[&["translate"], args, &["--format", "json"]].concat()))
}

#[test]
fn the_same_recording_gives_the_same_bytes() {
    let (place, sqlite) = (Place::new(), sqlite());
    let run = |name: &str| {
        let args = [
            "translate",
            &sqlite,
            "--machine",
            "zen4-2022",
            "--reuse",
            "--html",
            "r.html",
            "--json",
            name,
        ];
        (place.good(&args), place.text(name), place.text("r.html"))
    };
    let (first, second) = (run("a.json"), run("b.json"));
    assert_eq!(first, second);
    let result = json(&first.1);
    assert_eq!(result["schema"], "mmusim.translate/1");
    assert_eq!(result["source"]["name"], "sqlite-groupby.lackey.gz");
    assert_eq!(result["source"]["records"], 2_500_000);
    assert!(first.0.starts_with("Translation takes "), "{}", first.0);
    assert!(first.2.starts_with("<!doctype html>"));
}

#[test]
fn a_seed_gives_a_stream_and_another_seed_another() {
    let place = Place::new();
    let run = |seed: &str| {
        let args = [
            "uniform:64m",
            "--count",
            "20k",
            "--writes",
            "0.25",
            "--threads",
            "2",
            "--seed",
            seed,
        ];
        result(&place, &args)
    };
    let (one, again, other) = (run("1"), run("1"), run("2"));
    assert_eq!(one, again);
    assert_ne!(one["tlb"], other["tlb"]);
    assert_eq!(one["source"]["name"], "uniform:64m,writes=0.25,threads=2");
    assert_eq!(one["cpus"].as_array().map(Vec::len), Some(2));
    let references = &one["references"];
    let total = ["loads", "stores", "fetches"].map(|kind| references[kind].as_u64().expect("a count"));
    assert_eq!(total.iter().sum::<u64>(), 20_000);
    assert!(
        (4_500..5_500).contains(&total[1]),
        "a quarter are stores: {total:?}"
    );
}

#[test]
fn json_follows_the_schema_that_the_program_prints() {
    let place = Place::new();
    let schema = json(&place.good(&["schema", "translate"]));
    let result = result(
        &place,
        &["uniform:1m", "--count", "1k", "--what-if", "2m,thp", "--reuse"],
    );
    let properties = schema["properties"].as_object().expect("properties");
    let fields = result.as_object().expect("an object");
    assert!(fields.keys().eq(properties.keys()), "{:?}", fields.keys());
}

#[test]
fn an_imported_recording_costs_the_same() {
    let (place, sqlite) = (Place::new(), sqlite());
    let said = place
        .run(&["import", "lackey", &sqlite, "-o", "sqlite.mmt"])
        .exits(0);
    assert!(
        said.stderr.contains("records 2500000, threads 1"),
        "{}",
        said.stderr
    );
    place
        .run(&["import", "auto", &sqlite, "-o", "again.mmt", "--quiet"])
        .exits(0);
    let bytes = |name: &str| std::fs::read(place.path(name)).expect("it was written");
    assert_eq!(bytes("sqlite.mmt"), bytes("again.mmt"));
    let run = |source: &str| {
        let mut result = result(&place, &[source, "--limit", "300k", "--pages", "thp"]);
        result["source"].take();
        result
    };
    assert_eq!(run(&sqlite), run("sqlite.mmt"));
}

#[test]
fn a_recording_is_read_from_stdin() {
    let place = Place::new();
    let text = "I  1000,4\n L 20000,8\n M 30000,4\n";
    place.put("a.lackey", text);
    let piped = |args: &[&str]| {
        let mut command = place.command(&[&["translate", "-", "--format", "json"], args].concat());
        let out = command.write_stdin(text).output().expect("the program starts");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        json(&String::from_utf8(out.stdout).expect("UTF-8"))
    };
    let (once, file) = (piped(&[]), result(&place, &["a.lackey"]));
    assert_eq!(once["source"]["name"], "stdin");
    assert_eq!((&once["tlb"], &once["cycles"]), (&file["tlb"], &file["cycles"]));
    let thrice = piped(&["--repeat", "3"]);
    assert_eq!(
        thrice["references"],
        json(r#"{"loads": 6, "stores": 3, "fetches": 3}"#)
    );
}

#[test]
fn options_change_what_they_say() {
    let place = Place::new();
    let plain = result(&place, &["zipf=0.8:64m", "--count", "50k"]);
    let run = |args: &[&str]| result(&place, &[&["zipf=0.8:64m", "--count", "50k"], args].concat());
    assert_eq!(plain["setup"]["levels"], 4);
    assert_eq!(run(&["--levels", "5"])["setup"]["levels"], 5);
    let large = run(&["--pages", "2m", "--what-if", "4k,2m"]);
    assert_eq!(large["setup"]["pages"], "2m");
    assert_eq!(
        large["what_if"].as_array().map(Vec::len),
        Some(2),
        "what is run is not run twice"
    );
    assert_eq!(large["what_if"][1]["total_cycles"], plain["total_cycles"]);
    assert_eq!(run(&["--cache-data"])["setup"]["data_caching"], "through");
    let blind = run(&["--no-oracle"]);
    assert_eq!(
        (&blind["setup"]["oracle"], &blind["tlb"]),
        (&json("\"off\""), &plain["tlb"])
    );
    assert_eq!(
        run(&["--top", "3"])["hot_pages"].as_array().map(Vec::len),
        Some(3)
    );
    let warm = run(&["--warmup", "10k"]);
    assert_eq!(warm["references"]["loads"], 50_000);
    assert!(warm["first_touches"]["pages"].as_u64() < plain["first_touches"]["pages"].as_u64());
    let private = run(&["--threads", "2", "--private"]);
    assert_eq!(
        private["source"]["name"],
        "zipf=0.8:64m,threads=2,regions=private"
    );
}

#[test]
fn a_machine_may_be_a_file() {
    let place = Place::new();
    let small = r#"{ "name": "tiny", "extends": "zen4-2022", "psc": [] }"#;
    place.put("tiny.json", small.replace("psc", "paging_structure_caches"));
    let result = result(
        &place,
        &["uniform:64m", "--count", "1k", "--machine", "tiny.json"],
    );
    assert_eq!(result["machine"]["name"], "tiny");
    assert_eq!(result["machine"]["paging_structure_caches"], "none");
    assert!(
        result["walks"][0]["references_per_walk"].as_f64() > Some(3.0),
        "every walk is whole"
    );
}

#[test]
fn a_file_comes_before_a_stream_of_its_name() {
    let place = Place::new();
    place.put("uniform:1m", "I  1000,4\n");
    let kind = |source: &str, more: &[&str]| {
        let result = result(&place, &[&[source], more].concat());
        result["source"]["kind"].as_str().map(str::to_owned)
    };
    assert_eq!(kind("uniform:1m", &[]).as_deref(), Some("recording"));
    assert_eq!(
        kind("stream:uniform:1m", &["--count", "1k"]).as_deref(),
        Some("stream")
    );
}

#[test]
fn a_saved_translation_is_rendered_as_it_was() {
    let place = Place::new();
    let args = [
        "zipf=0.9:16m",
        "--count",
        "20k",
        "--reuse",
        "--what-if",
        "thp",
        "--threads",
        "3",
    ];
    let text = place.good(
        &[
            &["translate"],
            &args[..],
            &["--json", "r.json", "--html", "r.html"],
        ]
        .concat(),
    );
    assert_eq!(text, place.good(&["report", "r.json"]));
    assert_eq!(
        place.text("r.json"),
        place.good(&["report", "r.json", "--format", "json"])
    );
    assert_eq!(
        place.text("r.html"),
        place.good(&["report", "r.json", "--html", "-"])
    );
    for line in place.good(&["report", "r.json", "--format", "ndjson"]).lines() {
        assert_eq!(json(line)["machine"], "modern-2s");
    }
    assert!(
        place
            .good(&["report", "r.json", "--format", "csv"])
            .starts_with("source,machine,")
    );
    place
        .run(&["compare", "r.json", "r.json"])
        .exits(2)
        .says("--what-if");
    place.run(&["run", "r.json"]).exits(2).says("mmusim report");
}

#[test]
fn lines_keep_the_width() {
    let place = Place::new();
    for width in ["60", "80", "160"] {
        let args = [
            "translate",
            "zipf=0.9:16m",
            "--count",
            "5k",
            "--reuse",
            "--what-if",
            "2m",
            "--all",
        ];
        let text = place.good(&[&args[..], &["--width", width]].concat());
        let longest = text.lines().map(|line| line.chars().count()).max();
        assert!(longest <= width.parse().ok(), "{longest:?} > {width}");
    }
}

/// What is said of a command that must be refused, and nothing is written.
#[track_caller]
fn refused(args: &[&str], message: &str) {
    let place = Place::new();
    place.put("bad.lackey", "I  1000,4\nhello\n");
    place.put("cut.gz", [0x1f, 0x8b, 8, 0]);
    place.put("README", "nothing of the kind");
    let before = place.names();
    let done = place
        .run(&[&["translate"], args, &["--json", "out.json"]].concat())
        .exits(2)
        .says(message);
    assert!(done.stdout.is_empty(), "{}", done.stdout);
    assert_eq!(place.names(), before);
}

#[test]
fn bad_sources_are_refused_with_a_way_out() {
    refused(&["unifrom:4g"], "did you mean `uniform`?");
    refused(&["uniform"], "there is no size");
    refused(&["uniform:5000"], "a footprint is whole pages");
    refused(
        &["missing.gz"],
        "missing.gz: there is no such file; a stream is written like uniform:4g",
    );
    refused(&["."], "is a directory, not a recording");
    refused(
        &["bad.lackey"],
        "bad.lackey: line 2: `hello` is no record of lackey",
    );
    refused(&["cut.gz"], "cut.gz: byte");
    refused(&["README"], "known are lackey");
    refused(&["README", "--trace-format", "compact"], "README: ");
    refused(
        &["uniform:1m", "--count", "0", "--warmup", "0", "--writes", "2"],
        "no share of writes",
    );
    refused(
        &["bad.lackey", "--limit", "1", "--warmup", "5k"],
        "bad.lackey: line 2",
    );
}

#[test]
fn what_the_machine_cannot_do_is_refused() {
    refused(&["uniform:1m", "--machine", "zen-4"], "unknown machine `zen-4`");
    refused(
        &["uniform:1m", "--machine", "zen4-2023"],
        "did you mean `zen4-2022`?",
    );
    refused(&["uniform:1m", "--machine", "mine.json"], "mine.json");
    refused(
        &["uniform:1m", "--levels", "5", "--machine", "nehalem-2009"],
        "no page tables of 5 levels: use 4",
    );
    refused(
        &["uniform:1m", "--pages", "1g", "--machine", "harpertown-2008"],
        "it has 4k, 2m",
    );
    refused(
        &["uniform:1m", "--what-if", "1g", "--machine", "harpertown-2008"],
        "it has 4k, 2m",
    );
}

#[test]
fn wrong_usage_is_refused() {
    refused(&["uniform:1m", "--levels", "6"], "4..=5");
    refused(
        &["uniform:1m", "--pages", "3m"],
        "pages are 4k, 2m, 1g, thp, or thp=N",
    );
    refused(&["uniform:1m", "--what-if", "2m,x"], "pages are 4k");
    refused(&["uniform:1m", "--count", "1x"], "not a count such as 500k");
    refused(
        &["uniform:1m", "--limit", "5"],
        "is a stream, and --limit is for recordings",
    );
    refused(&["uniform:1m", "--repeat", "2"], "--repeat is for recordings");
    refused(
        &["bad.lackey", "--count", "5"],
        "is a recording, and --count is for streams",
    );
    refused(&["bad.lackey", "--private"], "--private is for streams");
    refused(
        &["bad.lackey", "--trace-format", "pcap"],
        "formats are lackey, memtrace, champsim, compact",
    );
    refused(&["bad.lackey", "--repeat", "0"], "--repeat");
    refused(&["uniform:1m", "--threads", "0"], "1 to 65536 threads");
    refused(&[], "<SOURCE>");
}

#[test]
fn a_bad_recording_is_not_imported() {
    let place = Place::new();
    place.put("bad.lackey", "I  1000,4\nhello\n");
    for kind in ["lackey", "auto"] {
        place
            .run(&["import", kind, "bad.lackey", "-o", "x.mmt"])
            .exits(2)
            .says("line 2");
    }
    place
        .run(&["import", "champsim", "bad.lackey", "-o", "x.mmt"])
        .exits(2)
        .says("bad.lackey: ");
    place
        .run(&["import", "auto", "missing", "-o", "x.mmt"])
        .exits(2)
        .says("missing: cannot open it: there is no such file");
    place
        .run(&["import", "auto", ".", "-o", "x.mmt"])
        .exits(2)
        .says("directory");
    place
        .run(&["import", "lackey", "bad.lackey"])
        .exits(2)
        .says("--output");
    place
        .run(&["import", "lackey", "bad.lackey", "-o", "nowhere/x.mmt"])
        .exits(2)
        .says("nowhere");
    assert_eq!(place.names(), ["bad.lackey", "small.jsonc"]);
}

#[test]
fn completions_know_translate() {
    let place = Place::new();
    for shell in ["bash", "fish", "zsh"] {
        let script = place.good(&["completions", shell]);
        assert!(
            script.contains("translate") && script.contains("what-if"),
            "{shell}"
        );
    }
}
