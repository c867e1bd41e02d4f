//! Lives of processes, threads and secondary MMUs: who registers, who detaches, whom exec, exit and the
//! end of a script set free.

mod running;

use reports::schema::{EndKind, RunResult};
use running::{metric, result};
use scenarios::load::{Loaded, MemoryFiles, load_str};
use scenarios::run::{Overrides, Request, RunError, run};

fn load(design: &str, members: &str) -> Loaded {
    let text = format!(
        r#"{{ "title": "t", "notifier": "{design}", "files": {{ "f": {{ "pages": 8 }} }}, "processes": {{ {members} }} }}"#
    );
    load_str("test", &text, &MemoryFiles::default()).unwrap_or_else(|found| panic!("{found}"))
}

#[track_caller]
fn good(design: &str, members: &str) -> RunResult {
    let loaded = load(design, members);
    let found = running::findings(&loaded);
    assert!(
        found.iter().all(|text| !text.contains("error")),
        "refused: {found:?}"
    );
    let result = result(&loaded.scenario, Overrides::default());
    assert_eq!(result.end.kind, EndKind::Completed, "{:?}", result.end);
    result
}

/// Runs what the checker may refuse.
fn unchecked(design: &str, members: &str) -> Result<RunResult, RunError> {
    let loaded = load(design, members);
    run(&Request {
        scenario: &loaded.scenario,
        file: "test",
        overrides: Overrides::default(),
        logging: sim::Logging::Ring,
        max_events: Some(1_000_000),
    })
    .map(|outcome| outcome.result)
}

#[track_caller]
fn refused(design: &str, members: &str, fragment: &str) {
    match unchecked(design, members) {
        Err(error) => assert!(error.to_string().contains(fragment), "{error}"),
        Ok(result) => panic!("not refused: {:?}", result.end),
    }
}

#[test]
fn a_rank_is_refused_what_changes_its_process_at_run_time_too() {
    for op in [
        r#"{ "mmap": { "pages": 4 } }"#,
        r#"{ "munmap": { "map": "ram" } }"#,
        r#"{ "exec": {} }"#,
        r#"{ "truncate": { "file": "f", "pages": 1 } }"#,
    ] {
        let members = format!(
            r#""p": {{ "maps": {{ "ram": {{ "pages": 4 }} }}, "attach": {{ "x": {{ "xpmem": {{}} }} }},
               "threads": {{ "main": {{ "script": [ {{ "sleep": {{ "ns": 1000000 }} }} ] }},
                             "r": {{ "as": "x", "script": [ {op} ] }} }} }}"#
        );
        refused("v9", &members, "another partition");
    }
}

#[test]
fn a_rank_may_register_for_its_process() {
    good(
        "v9",
        r#""p": { "maps": { "ram": { "pages": 4 } }, "attach": { "x": { "xpmem": { "register": "by-op" } } },
            "threads": { "main": { "script": [ { "touch": { "map": "ram", "write": true } }, { "sleep": { "ns": 9000000 } } ] },
                         "r": { "as": "x", "script": [ { "register": { "mmu": "x" } }, { "access": { "count": 8 } } ] } } }"#,
    );
}

#[test]
fn the_last_rank_detaches() {
    let two = |first: &str| {
        let members = format!(
            r#""p": {{ "maps": {{ "ram": {{ "pages": 4 }} }}, "attach": {{ "x": {{ "xpmem": {{}} }} }},
               "threads": {{ "main": {{ "script": [ {{ "touch": {{ "map": "ram", "write": true }} }}, {{ "sleep": {{ "ns": 20000000 }} }} ] }},
                             "q": {{ "as": "x", "script": [ {first} ] }},
                             "r": {{ "as": "x", "script": [ {{ "sleep": {{ "ns": 5000000 }} }}, {{ "touch": {{ "map": "ram" }} }} ] }} }} }}"#
        );
        good("v9", &members)
    };
    // The second rank finds what the first one brought, and brings it itself if nobody did.
    for first in [
        r#"{ "touch": { "map": "ram", "pages": 2 } }"#,
        r#"{ "sleep": { "ns": 1 } }"#,
    ] {
        let result = two(first);
        assert_eq!(metric(&result, "xpmem.imports"), 4, "{first}");
    }
}

#[test]
fn a_second_registration_is_refused() {
    for op in ["", r#"{ "unregister": { "mmu": "g" } },"#, r#"{ "exec": {} },"#] {
        let members = format!(
            r#""p": {{ "maps": {{ "ram": {{ "pages": 4 }} }}, "attach": {{ "g": {{ "gru": {{ "register": "by-op" }} }} }},
               "threads": {{ "main": {{ "script": [ {{ "register": {{ "mmu": "g" }} }}, {op} {{ "register": {{ "mmu": "g" }} }} ] }} }} }}"#
        );
        refused("v8", &members, "registered a second time");
    }
}

#[test]
fn an_unregistered_gru_keeps_no_translation() {
    good(
        "v8",
        r#""p": { "maps": { "ram": { "pages": 16 } }, "attach": { "g": { "gru": { "register": "by-op" } } },
            "threads": { "main": { "script": [ { "register": { "mmu": "g" } }, { "barrier": { "name": "b" } },
                { "touch": { "map": "ram", "write": true } }, { "sleep": { "ns": 100000 } },
                { "unregister": { "mmu": "g" } }, { "munmap": { "map": "ram" } } ] },
              "r": { "as": "g", "script": [ { "barrier": { "name": "b" } }, { "access": { "map": "ram", "count": 5000 } } ] } } }"#,
    );
}

#[test]
fn attachments_of_a_child_come_to_life_with_the_fork() {
    let result = good(
        "v8",
        r#""p": { "maps": { "ram": { "pages": 64 } }, "threads": { "main": { "script": [
                { "touch": { "map": "ram", "write": true } }, { "fork": { "child": "c" } }, { "wait": { "child": "c" } } ] } } },
           "c": { "forked": "by-parent", "attach": { "vm": { "kvm": {} } }, "threads": {
                "main": { "script": [ { "touch": { "map": "ram", "write": true } }, { "sleep": { "ns": 1000000 } } ] },
                "r": { "as": "vm", "script": [ { "access": { "count": 50, "map": "ram" } } ] } } }"#,
    );
    assert!(metric(&result, "kvm.sptes.installed") > 0);
}

#[test]
fn a_child_with_mappings_of_its_own_is_refused() {
    refused(
        "v8",
        r#""p": { "threads": { "main": { "script": [ { "fork": { "child": "c" } } ] } } },
           "c": { "forked": "by-parent", "maps": { "m": { "pages": 1 } }, "threads": { "t": { "script": [] } } }"#,
        "mappings of its own",
    );
}

#[test]
fn a_misfit_guest_is_refused() {
    refused(
        "v8",
        r#""p": { "maps": { "ram": { "pages": 4 } }, "attach": { "vm": { "kvm": { "paging": "tdp" } } },
            "threads": { "main": { "script": [] } } }"#,
        "nested paging",
    );
}

#[test]
fn accesses_that_need_no_event_exhaust_the_budget() {
    let result = unchecked(
        "v8",
        r#""p": { "maps": { "ram": { "pages": 4 } }, "threads": { "main": { "script": [
            { "access": { "map": "ram", "count": 1000000000000 } } ] } } }"#,
    );
    assert_eq!(result.expect("it can be run").end.kind, EndKind::BudgetExhausted);
}

#[test]
fn exec_and_exit_interrupt_a_sleep_and_a_wait() {
    for op in ["exec", "exit"] {
        for blocked in [
            r#"{ "sleep": { "ns": 1000000000000 } }, { "fork": { "child": "c" } }"#,
            r#"{ "fork": { "child": "c" } }, { "wait": { "child": "c" } }"#,
        ] {
            let members = format!(
                r#""p": {{ "threads": {{ "a": {{ "script": [ {blocked} ] }},
                    "b": {{ "script": [ {{ "sleep": {{ "ns": 1000000 }} }}, {{ "{op}": {{}} }}, {{ "barrier": {{ "name": "z" }} }} ] }} }} }},
                   "c": {{ "forked": "by-parent", "threads": {{ "main": {{ "script": [ {{ "barrier": {{ "name": "z" }} }} ] }} }} }}"#
            );
            let result = good("v8", &members);
            assert!(result.virtual_cycles < 1_000_000_000, "{op} {blocked}");
        }
    }
}

#[test]
fn a_thread_that_is_born_while_another_calls_exec_joins_the_address_space_that_comes_of_it() {
    for pages in [1, 64, 512] {
        // The last to come to the barrier goes on at once; the others wake later, into its exec.
        let members = format!(
            r#""p": {{ "maps": {{ "ram": {{ "pages": {pages}, "populate": "write" }} }},
                "attach": {{ "vm": {{ "kvm": {{ "maps": ["ram"] }} }} }},
                "threads": {{
                  "main": {{ "cpu": 0, "script": [ {{ "compute": {{ "ns": 50000 }} }}, {{ "barrier": {{ "name": "b" }} }}, {{ "exec": {{}} }},
                      {{ "mmap": {{ "name": "own", "pages": 4 }} }}, {{ "touch": {{ "map": "own", "write": true }} }} ] }},
                  "late": {{ "cpu": 2, "birth": "first-barrier", "script": [ {{ "barrier": {{ "name": "b" }} }},
                      {{ "mmap": {{ "name": "mine", "pages": 4 }} }}, {{ "touch": {{ "map": "mine", "write": true }} }} ] }} }} }}"#
        );
        let result = unchecked("v8", &members).expect("it can be run");
        assert_eq!(result.end.kind, EndKind::Completed, "{pages}: {:?}", result.end);
    }
}

#[test]
fn a_barrier_does_not_wait_for_the_unborn_children_of_the_dead() {
    good(
        "v8",
        r#""p": { "threads": { "main": { "script": [ { "exit": {} }, { "fork": { "child": "c" } } ] } } },
           "o": { "threads": { "m": { "script": [ { "barrier": { "name": "z" } } ] } } },
           "c": { "forked": "by-parent", "threads": { "main": { "script": [ { "fork": { "child": "d" } }, { "barrier": { "name": "z" } } ] } } },
           "d": { "forked": "by-parent", "threads": { "main": { "script": [ { "barrier": { "name": "z" } } ] } } }"#,
    );
}

#[test]
fn a_wait_without_a_child_returns_at_once() {
    good(
        "v8",
        r#""p": { "threads": { "main": { "script": [ { "wait": { "child": "c" } }, { "fork": { "child": "c" } } ] } } },
           "c": { "forked": "by-parent", "threads": { "main": { "script": [ { "sleep": { "ns": 1000 } } ] } } }"#,
    );
}
