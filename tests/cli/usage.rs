//! Help, listings, schemas, completions.

use super::{Place, json, repository};

const COMMANDS: [&str; 8] = [
    "run",
    "compare",
    "check",
    "import",
    "report",
    "schema",
    "list",
    "completions",
];

#[test]
fn help_names_every_command_and_exit_code() {
    let place = Place::new();
    let help = place.good(&["--help"]);
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
        let own = place.good(&[command, "--help"]);
        assert!(own.contains("Usage: mmusim"), "{own}");
    }
    for text in [
        &help,
        &place.good(&["run", "--help"]),
        &place.good(&["compare", "--help"]),
    ] {
        for code in ["\n  0 ", "\n  1 ", "\n  2 ", "\n  3 ", "\n  4 ", "\n  101 "] {
            assert!(text.contains(code), "{code} is not documented");
        }
    }
}

#[test]
fn help_is_not_an_error_but_wrong_usage_is() {
    let place = Place::new();
    assert!(place.good(&["--version"]).starts_with("mmusim "));
    place.run(&[]).exits(2);
    place
        .run(&["explore", "small.jsonc"])
        .exits(2)
        .says("unrecognized subcommand");
    place.run(&["run"]).exits(2).says("<SCENARIO>");
    place.run(&["run", "small.jsonc", "--no-such-flag"]).exits(2);
    place
        .run(&["run", "small.jsonc", "--design", "v77"])
        .exits(2)
        .says("v8-merged");
    place.run(&["run", "small.jsonc", "--seed", "-1"]).exits(2);
    place
        .run(&["run", "small.jsonc", "--events-cpu", "1"])
        .exits(2)
        .says("--events");
    place.run(&["compare"]).exits(2);
    place.run(&["compare", "small.jsonc", "--jobs", "0"]).exits(2);
    place
        .run(&["compare", "small.jsonc", "--fail-above", "lots"])
        .exits(2)
        .says("5%");
    place.run(&["list", "nothing"]).exits(2).says("designs");
}

#[test]
fn schemas_are_json_and_the_committed_one_is_current() {
    let place = Place::new();
    let scenario = json(&place.good(&["schema"]));
    assert_eq!(scenario, json(&place.good(&["schema", "scenario"])));
    let committed = std::fs::read_to_string(repository("scenarios/schema/scenario.json"));
    let committed = json(&committed.expect("the schema is committed"));
    assert!(
        scenario == committed,
        "scenarios/schema/scenario.json is out of date"
    );
    for kind in ["result", "compare"] {
        let schema = json(&place.good(&["schema", kind]));
        assert!(schema["properties"]["schema"].is_object(), "{kind}");
    }
}

#[test]
fn lists_have_rows_in_both_forms() {
    let place = Place::new();
    let expected = [
        ("designs", "v8-merged"),
        ("kernels", "linux-2.6.27-sleepable"),
        ("machines", "barcelona-2008"),
        ("metrics", "tlb.shootdown.ipis"),
        ("costs", "invlpg"),
    ];
    for (what, name) in expected {
        let text = place.good(&["list", what]);
        assert!(text.lines().count() > 2 && text.contains(name), "{text}");
        let rows = json(&place.good(&["list", what, "--format", "json"]));
        let rows = rows.as_array().expect("an array");
        assert_eq!(rows.len() + 1, text.lines().count(), "{what}");
    }
    let costs = place.good(&["list", "costs", "--machine", "modern-2s"]);
    assert_ne!(costs, place.good(&["list", "costs"]));
}

#[test]
fn every_metric_of_a_result_is_listed() {
    let place = Place::new();
    let listed = place.good(&["list", "metrics"]);
    let result = json(&place.good(&["run", "small.jsonc", "--format", "json"]));
    for metric in result["metrics"].as_array().expect("metrics") {
        let name = metric["name"].as_str().expect("a name");
        assert!(listed.contains(&format!("\n{name} ")), "{name} is not listed");
    }
}

#[test]
fn scenarios_below_a_folder_are_listed_with_their_titles() {
    let place = Place::new();
    place.put("bad.json", "{");
    place.put("log.strace", "");
    let text = place.good(&["list", "scenarios", "."]);
    assert!(text.contains("munmap under a guest") && text.contains("broken") && text.contains("recording"));
    place
        .run(&["list", "scenarios", "nowhere"])
        .exits(2)
        .says("nowhere");
    let library = place.good(&["list", "scenarios", &repository("scenarios")]);
    assert!(library.contains("redis-bgsave.strace.gz"));
    assert!(!library.contains("broken"), "{library}");
}

#[test]
fn every_shell_has_completions() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.good(&["completions", shell]);
        assert!(script.contains("mmusim") && script.contains("compare"), "{shell}");
    }
}
