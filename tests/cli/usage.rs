//! Help, listings, schemas, completions.

use super::{Place, SMALL, json, repository};

const COMMANDS: [&str; 9] = [
    "run",
    "compare",
    "translate",
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
    for kind in ["result", "compare", "translate"] {
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
        ("hardware", "page_sizes"),
        ("streams", "zipf=0.99:1g"),
        ("locks", "mmu_lock"),
        ("checks", "lock-rank"),
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
    let sleepable = ["list", "locks", "--kernel", "linux-2.6.27-sleepable"];
    assert!(place.good(&sleepable).contains("i_mmap_sem"));
    assert!(!place.good(&["list", "locks"]).contains("i_mmap_sem"));
    let unknown = ["list", "locks", "--kernel", "linux-0.01"];
    place.run(&unknown).exits(2).says("known: linux-2.6.25");
}

#[test]
fn every_preset_is_listed_with_its_shape() {
    let place = Place::new();
    let text = place.good(&["list", "machines"]);
    for name in x86::Machine::presets() {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        assert!(line.is_some(), "{name}");
    }
    let line = text.lines().find(|line| line.starts_with("zen4-2022 "));
    let line = line.unwrap_or_default();
    for part in [" 192 ", " NPT ", " 5 ", " 72 + 3072 "] {
        assert!(line.contains(part), "{line}");
    }
}

/// A machine file that extends a preset.
const MINE: &str = r#"{
  // Half a Skylake-SP with a dear INVLPG.
  "extends": "skylake-sp-2017", "name": "mine", "sockets": 1,
  "costs": { "invlpg": { "value": 999, "range": [1, 1000], "source": "no row", "note": "(assumed)" } },
}"#;

#[test]
fn machine_files_are_listed_and_run() {
    let place = Place::new();
    place.put("machines/mine.jsonc", MINE);
    let costs = place.good(&["list", "costs", "--machine", "machines/mine.jsonc"]);
    let invlpg = costs.lines().find(|line| line.starts_with("invlpg "));
    assert!(invlpg.unwrap_or_default().contains(" 999 "), "{costs}");
    let hardware = place.good(&["list", "hardware", "--machine", "machines/mine.jsonc"]);
    assert!(hardware.contains("1536 x 12-way, folded"), "{hardware}");

    // Relative to the scenario, not to where the program runs.
    let small = SMALL.replace("\"title\"", "\"machine\": \"../machines/mine.jsonc\", \"title\"");
    place.put("scenarios/mine.jsonc", &small);
    place.good(&["check", "scenarios/mine.jsonc"]);
    let result = json(&place.good(&["run", "scenarios/mine.jsonc", "--format", "json"]));
    assert_eq!(result["machine"], "mine");
}

#[test]
fn bad_machine_files_are_refused_with_their_place() {
    let place = Place::new();
    place.put("mine.json", MINE.replace("\"invlpg\"", "\"invlgp\""));
    let said = "mine.json:4:14: costs.invlgp: unknown key `invlgp` (did you mean `invlpg`?)";
    place
        .run(&["list", "costs", "--machine", "mine.json"])
        .exits(2)
        .says(said);
    place.put(
        "small.jsonc",
        SMALL.replace("\"title\"", "\"machine\": \"mine.json\", \"title\""),
    );
    place
        .run(&["run", "small.jsonc"])
        .exits(2)
        .says("E0233")
        .says(said);
    place
        .run(&["list", "costs", "--machine", "skylake-sp"])
        .exits(2)
        .says("did you mean `skylake-sp-2017`?");
    place
        .run(&["list", "costs", "--machine", "nowhere.json"])
        .exits(2)
        .says("there is no such file");
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
