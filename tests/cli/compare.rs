//! `compare`: columns, seeds, jobs, the gate, saved results.

use serde_json::Value;

use super::{Place, json};

fn labels(result: &Value) -> Vec<String> {
    let runs = result["runs"].as_array().expect("columns");
    runs.iter()
        .map(|r| r["label"].as_str().expect("a label").to_owned())
        .collect()
}

fn compare(place: &Place, more: &[&str]) -> Value {
    json(&place.good(&[&["compare", "small.jsonc", "--format", "json"], more].concat()))
}

#[test]
fn the_number_of_jobs_does_not_show() {
    let place = Place::new();
    let run = |jobs: &str| place.good(&["compare", "small.jsonc", "--format", "json", "--jobs", jobs]);
    let one = run("1");
    assert_eq!(one, run("3"));
    assert_eq!(one, run("64"));
}

#[test]
fn four_designs_and_five_seeds_are_usual_where_chance_plays_a_part() {
    let place = Place::new();
    let result = compare(&place, &[]);
    assert_eq!(labels(&result), ["v0", "v1", "v8", "v9"]);
    assert_eq!(result["baseline"], "v0");
    assert_eq!(result["seeds"], json("[1, 2, 3, 4, 5]"));
    assert_eq!(
        compare(&place, &["--seeds", "2", "--seed", "9"])["seeds"],
        json("[9, 10]")
    );
    place.put(
        "small.jsonc",
        super::SMALL
            .replace("\"uniform\"", "\"sequential\"")
            .replace("50 }", "0 }"),
    );
    assert_eq!(compare(&place, &[])["seeds"], json("[1]"));
}

#[test]
fn each_design_runs_on_the_kernel_it_was_made_for() {
    let place = Place::new();
    let result = compare(&place, &["--designs", "v8,v9", "--seeds", "1"]);
    assert_eq!(result["runs"][0]["kernel"], "linux-2.6.27");
    assert_eq!(result["runs"][1]["kernel"], "linux-2.6.27-sleepable");
    place
        .run(&[
            "compare",
            "small.jsonc",
            "--designs",
            "v8,v9",
            "--kernels",
            "linux-2.6.27",
        ])
        .exits(2)
        .says("v9");
}

#[test]
fn kernels_are_a_second_axis() {
    let place = Place::new();
    let kernels = "linux-2.6.27,linux-2.6.27-sleepable";
    let base = "v0/2.6.27-sleepable";
    let more = [
        "--designs",
        "v8,v0",
        "--kernels",
        kernels,
        "--seeds",
        "1",
        "--baseline",
        base,
    ];
    let result = compare(&place, &more);
    assert_eq!(
        labels(&result),
        [base, "v8/2.6.27", "v8/2.6.27-sleepable", "v0/2.6.27"]
    );
    assert_eq!(result["baseline"], base);
}

#[test]
fn what_the_rwsem_does_to_the_lock_of_a_file_stands_in_one_row() {
    let recording = super::repository("scenarios/recordings/redis-bgsave.strace.gz");
    let place = Place::new();
    let command = [
        "compare",
        &recording,
        "--designs",
        "v8",
        "--seeds",
        "1",
        "--format",
        "json",
    ];
    let kernels = ["--kernels", "linux-2.6.27,linux-2.6.27-sleepable"];
    let result = json(&place.good(&[&command[..], &kernels[..]].concat()));
    let rows = result["rows"].as_array().expect("rows");
    for figure in ["hold_cycles.total", "hold_cycles.max", "wait_cycles.total"] {
        let name = format!("lock.i_mmap_lock|sem-W.{figure}");
        let row = rows
            .iter()
            .find(|row| row["metric"] == name.as_str())
            .expect("a row");
        for cell in row["cells"].as_array().expect("cells") {
            assert!(
                cell["mean"].as_f64().expect("a figure of each kernel") > 0.0,
                "{row}"
            );
        }
    }
}

#[test]
fn columns_are_named_once_and_the_baseline_exists() {
    let place = Place::new();
    place
        .run(&["compare", "small.jsonc", "--designs", "v8,v8-merged"])
        .exits(2)
        .says("twice");
    place
        .run(&["compare", "small.jsonc", "--baseline", "v7"])
        .exits(2)
        .says("v0, v1, v8, v9");
    let all = compare(
        &place,
        &["--designs", "all", "--seeds", "1", "--baseline", "v8-merged"],
    );
    assert_eq!(all["baseline"], "v8");
    let own = compare(&place, &["--designs", "scenario,v9", "--seeds", "1"]);
    assert_eq!(labels(&own), ["scenario", "v9"]);
}

#[test]
fn growth_beyond_the_bound_is_1() {
    let place = Place::new();
    for design in ["v0", "v8"] {
        let file = format!("{design}.json");
        place.good(&["run", "small.jsonc", "--design", design, "--json", &file]);
    }
    place
        .run(&["compare", "v0.json", "v0.json", "--fail-above", "0%"])
        .exits(0);
    let done = place
        .run(&["compare", "v0.json", "v8.json", "--fail-above", "1%"])
        .exits(1);
    assert!(done.stderr.contains("grew"), "{}", done.stderr);
    place.run(&["compare", "v0.json", "v8.json"]).exits(0);
}

#[test]
fn saved_comparisons_are_held_against_each_other_column_by_column() {
    let place = Place::new();
    for name in ["before.json", "after.json"] {
        place.good(&["compare", "small.jsonc", "--seeds", "3", "--json", name]);
    }
    let args = [
        "compare",
        "before.json",
        "after.json",
        "--fail-above",
        "0",
        "--format",
        "json",
    ];
    let result = json(&place.good(&args));
    assert_eq!(labels(&result)[..2], ["before:v0", "before:v1"]);
    assert_eq!(labels(&result)[4], "after:v0");
    let first = json(&place.text("before.json"));
    assert_eq!(result["seeds"], first["seeds"]);
    for (new, old) in result["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .zip(first["rows"].as_array().expect("rows"))
    {
        assert_eq!(new["metric"], old["metric"]);
        for column in 0..4 {
            assert_eq!(new["cells"][column], old["cells"][column], "{}", new["metric"]);
            assert_eq!(new["cells"][column + 4]["values"], old["cells"][column]["values"]);
        }
    }
}

#[test]
fn saved_results_need_a_seed_in_common_and_cannot_be_changed() {
    let place = Place::new();
    place.good(&["run", "small.jsonc", "--seed", "1", "--json", "a.json"]);
    place.good(&["run", "small.jsonc", "--seed", "2", "--json", "b.json"]);
    place.run(&["compare", "a.json", "b.json"]).exits(2).says("seed");
    place
        .run(&["compare", "a.json", "a.json", "--seed", "3"])
        .exits(2)
        .says("--seed");
    place
        .run(&["compare", "a.json", "a.json", "--designs", "v8"])
        .exits(2)
        .says("--designs");
    place.run(&["compare", "a.json"]).exits(2).says("saved result");
    place
        .run(&["compare", "small.jsonc", "small.jsonc"])
        .exits(2)
        .says("small.jsonc");
}

#[test]
fn a_design_that_runs_on_another_kernel_than_the_scenario_names_says_so() {
    let place = Place::new();
    let named = super::SMALL.replacen('{', "{ \"kernel\": \"linux-2.6.27\",", 1);
    place.put("named.jsonc", named);
    let note = "runs on linux-2.6.27-sleepable, not on the scenario's linux-2.6.27";
    place
        .run(&["compare", "named.jsonc", "--designs", "v8,v9"])
        .exits(0)
        .says(&format!("v9-sleepable {note}"));
    let silent = place
        .run(&["compare", "named.jsonc", "--designs", "v1,v8"])
        .exits(0);
    assert!(!silent.stderr.contains("runs on"), "{}", silent.stderr);
}
