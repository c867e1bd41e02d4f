//! Exit codes 0, 1, 3 and 4.

use super::{Place, SMALL, json};

/// Each thread waits where the other is not.
const DEADLOCK: &str = r#"{
  "title": "two barriers in opposite order",
  "processes": { "p": { "threads": {
    "a": { "script": [ { "barrier": { "name": "x" } }, { "barrier": { "name": "y" } } ] },
    "b": { "script": [ { "barrier": { "name": "y" } }, { "barrier": { "name": "x" } } ] } } } }
}"#;

/// A truncate under an export whose callbacks sleep.
const SLEEPER: &str = r#"{
  "title": "truncate under an export",
  "files": { "heap": { "pages": 64 } },
  "processes": { "p": {
    "maps": { "ram": { "file": "heap", "sharing": "shared", "populate": "write" } },
    "attach": { "peer": { "xpmem": { "maps": ["ram"] } } },
    "threads": {
      "main": { "cpu": 0, "script": [
        { "barrier": { "name": "mapped" } }, { "truncate": { "file": "heap", "pages": 8 } } ] },
      "rank": { "cpu": 1, "as": "peer", "script": [
        { "access": { "count": 64 } }, { "barrier": { "name": "mapped" } } ] } } } }
}"#;

/// The small scenario with a bound on its accesses' faults.
fn with_expectation(clause: &str) -> String {
    let clause = format!("\"expect\": [ {{ \"subject\": \"faults.host\", {clause} }} ], \"title\"");
    SMALL.replacen("\"title\"", &clause, 1)
}

#[test]
fn a_failed_expectation_is_1() {
    let place = Place::new();
    place.put("holds.json", with_expectation("\"at_most\": 1000000"));
    place.put("fails.json", with_expectation("\"at_least\": 1000000"));
    place.run(&["run", "holds.json"]).exits(0);
    let done = place.run(&["run", "fails.json", "--json", "r.json"]).exits(1);
    assert!(done.stdout.contains("FAILED"), "{}", done.stdout);
    let result = json(&place.text("r.json"));
    assert_eq!(result["end"]["kind"], "expectation-failed");
    place.run(&["compare", "fails.json", "--seeds", "1"]).exits(1);
}

#[test]
fn a_violation_is_1() {
    let place = Place::new();
    place.put("sleeper.json", SLEEPER);
    place.run(&["run", "sleeper.json", "--design", "v9"]).exits(0);
    place.run(&["run", "sleeper.json", "--design", "v8"]).exits(0);
    let done = place
        .run(&["run", "sleeper.json", "--design", "v8", "--unsupported", "break"])
        .exits(1);
    assert!(done.stdout.contains("violation 1"), "{}", done.stdout);
    place
        .run(&[
            "compare",
            "sleeper.json",
            "--designs",
            "v8,v9",
            "--unsupported",
            "break",
        ])
        .exits(1);
    place
        .run(&["compare", "sleeper.json", "--designs", "v8,v9"])
        .exits(0);
}

#[test]
fn a_deadlock_is_3() {
    let place = Place::new();
    place.put("deadlock.json", DEADLOCK);
    let done = place.run(&["run", "deadlock.json", "--json", "r.json"]).exits(3);
    assert!(!done.stdout.is_empty());
    assert_eq!(json(&place.text("r.json"))["end"]["kind"], "deadlock");
    place.run(&["compare", "deadlock.json"]).exits(3);
}

#[test]
fn a_spent_budget_is_4() {
    let place = Place::new();
    place
        .run(&["run", "small.jsonc", "--max-events", "10", "--json", "r.json"])
        .exits(4);
    assert_eq!(json(&place.text("r.json"))["end"]["kind"], "budget-exhausted");
}
