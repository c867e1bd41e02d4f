//! Where results go and what they look like.

use std::fs;
use std::process::{Command, Stdio};

use super::{Place, json, repository};

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let place = Place::new();
    let run = |name: &str, seed: &str| {
        place.good(&["run", "small.jsonc", "--seed", seed, "--json", name]);
        place.text(name)
    };
    assert_eq!(run("a.json", "7"), run("b.json", "7"));
    assert_ne!(run("a.json", "7"), run("b.json", "8"));
    assert_eq!(json(&place.text("b.json"))["seed"], 8);
}

#[test]
fn every_file_asked_for_is_written() {
    let place = Place::new();
    let files = [
        "--json",
        "r.json",
        "--html",
        "r.html",
        "--trace",
        "r.pftrace",
        "--events",
        "r.txt",
    ];
    let done = place
        .run(&[&["run", "small.jsonc"], &files[..]].concat())
        .exits(0);
    assert_eq!(
        place.names(),
        ["r.html", "r.json", "r.pftrace", "r.txt", "small.jsonc"]
    );
    for name in ["r.json", "r.html", "r.pftrace", "r.txt"] {
        assert!(done.stderr.contains(&format!("wrote {name}")), "{}", done.stderr);
    }
    assert_eq!(json(&place.text("r.json"))["schema"], "mmusim.run/1");
    assert!(place.text("r.html").starts_with("<!doctype html>"));
    assert!(place.text("r.txt").starts_with("# tracer: nop"));
    assert!(fs::read(place.path("r.pftrace")).expect("a trace").len() > 100);
}

#[test]
fn quiet_says_nothing() {
    let place = Place::new();
    let done = place
        .run(&["run", "small.jsonc", "--json", "r.json", "--quiet"])
        .exits(0);
    assert_eq!(done.stderr, "");
}

#[test]
fn stdout_holds_one_form() {
    let place = Place::new();
    let result = json(&place.good(&["run", "small.jsonc", "--format", "json"]));
    assert_eq!(result, json(&place.good(&["run", "small.jsonc", "--json", "-"])));
    for line in place.good(&["run", "small.jsonc", "--format", "ndjson"]).lines() {
        assert_eq!(json(line)["seed"], 1);
    }
    assert!(
        place
            .good(&["run", "small.jsonc", "--format", "csv"])
            .starts_with("run,design,")
    );
    assert!(place.good(&["run", "small.jsonc"]).contains("seed 1"));
    place
        .run(&["run", "small.jsonc", "--json", "-", "--html", "-"])
        .exits(2)
        .says("stdout");
    place
        .run(&["run", "small.jsonc", "--format", "csv", "--json", "-"])
        .exits(2)
        .says("stdout");
    assert_eq!(place.names(), ["small.jsonc"]);
}

#[test]
fn a_saved_result_is_rendered_as_it_was() {
    let place = Place::new();
    for (command, more) in [("run", "--html"), ("compare", "--html")] {
        let text = place.good(&[command, "small.jsonc", "--json", "r.json", more, "r.html"]);
        assert_eq!(text, place.good(&["report", "r.json"]));
        assert_eq!(
            place.text("r.json"),
            place.good(&["report", "r.json", "--format", "json"])
        );
        assert_eq!(
            place.text("r.html"),
            place.good(&["report", "r.json", "--html", "-"])
        );
    }
}

#[test]
fn events_are_filtered() {
    let place = Place::new();
    let lines = |more: &[&str]| {
        let text = place.good(&[&["run", "small.jsonc", "--events", "-"], more].concat());
        text.lines().filter(|l| !l.starts_with('#')).count()
    };
    let all = lines(&[]);
    let on_one = lines(&["--events-cpu", "1"]);
    assert!(0 < on_one && on_one < all, "{on_one} of {all}");
    assert_eq!(lines(&["--events-cpu", "0,1"]), all);
    assert_eq!(lines(&["--events-task", "nobody"]), 0);
    assert!(lines(&["--events-kind", "begin,end"]) < all);
}

#[test]
fn an_output_that_cannot_be_written_stops_before_the_run() {
    let place = Place::new();
    for flag in ["--json", "--html", "--trace", "--events"] {
        place
            .run(&["run", "small.jsonc", flag, "nowhere/x"])
            .exits(2)
            .says("nowhere");
        place
            .run(&["run", "small.jsonc", flag, "."])
            .exits(2)
            .says("directory");
    }
    place
        .run(&["run", "small.jsonc", "--json", "x", "--html", "x"])
        .exits(2)
        .says("two");
    assert_eq!(place.names(), ["small.jsonc"]);
}

#[test]
fn a_file_that_exists_survives_an_error() {
    let place = Place::new();
    place.put("out.json", "precious");
    place.put("bad.json", "{");
    place.run(&["run", "bad.json", "--json", "out.json"]).exits(2);
    assert_eq!(place.text("out.json"), "precious");
    place.good(&["run", "small.jsonc", "--json", "out.json"]);
    assert!(place.text("out.json").starts_with('{'));
}

#[test]
fn colour_is_asked_for_or_left_out() {
    let place = Place::new();
    let escapes = |command: &mut assert_cmd::Command| {
        let out = command.output().expect("the program starts");
        out.stdout.contains(&0x1b)
    };
    let run = |more: &[&str]| place.command(&[&["run", "small.jsonc"], more].concat());
    assert!(!escapes(&mut run(&[])), "stdout is no terminal");
    assert!(escapes(&mut run(&["--color", "always"])));
    assert!(escapes(run(&[]).env("CLICOLOR_FORCE", "1")));
    assert!(!escapes(run(&["--color", "never"]).env("CLICOLOR_FORCE", "1")));
    assert!(
        escapes(run(&["--color", "always"]).env("NO_COLOR", "1")),
        "the flag wins"
    );
}

#[test]
fn lines_keep_the_width() {
    let place = Place::new();
    for width in ["60", "160"] {
        let text = place.good(&["compare", "small.jsonc", "--seeds", "1", "--width", width]);
        let longest = text.lines().map(|l| l.chars().count()).max();
        assert!(longest <= width.parse().ok(), "{longest:?} > {width}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_mmusim"))
        .args(["run", "small.jsonc", "--format", "json"])
        .current_dir(place.path("."))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let done = child.wait_with_output().expect("it ends");
    assert_eq!((done.status.code(), done.stderr.len()), (Some(0), 0));
}

#[test]
fn a_full_disk_is_an_error() {
    let place = Place::new();
    place
        .run(&["run", "small.jsonc", "--json", "/dev/full"])
        .exits(2)
        .says("/dev/full");
    place.run(&["run", "small.jsonc", "--json", "/dev/null"]).exits(0);
}

#[test]
fn a_scenario_comes_from_stdin_too() {
    let place = Place::new();
    let mut command = place.command(&["run", "-", "--format", "json"]);
    let out = command
        .write_stdin(super::SMALL)
        .output()
        .expect("the program starts");
    assert_eq!(out.status.code(), Some(0));
    assert_eq!(
        json(&String::from_utf8_lossy(&out.stdout))["scenario"]["file"],
        "stdin"
    );
}

#[test]
fn a_recording_runs_as_its_import_does() {
    let place = Place::new();
    let log = repository("scenarios/recordings/gcc.strace.gz");
    let flags = [
        "--attach",
        "kvm:largest",
        "--touch",
        "fraction=0.1",
        "--accesses",
        "100",
    ];
    let done = place
        .run(&[&["import", "strace", &log, "-o", "gcc.jsonc"], &flags[..]].concat())
        .exits(0);
    assert_eq!(done.stdout, "");
    assert!(done.stderr.contains("imported:") && done.stderr.contains("wrote gcc.jsonc"));
    assert!(place.text("gcc.jsonc").contains("$schema"));
    place.good(&["check", "gcc.jsonc"]);
    let direct = json(&place.good(&[&["run", &log, "--format", "json"], &flags[..]].concat()));
    let imported = json(&place.good(&["run", "gcc.jsonc", "--format", "json"]));
    assert_eq!(direct["metrics"], imported["metrics"]);
    assert_eq!(direct["virtual_cycles"], imported["virtual_cycles"]);
}
