//! How runs end: what a design cannot carry is pinned, left out, or breaks; what it carries completes.

mod running;

use mm::KernelProfile;
use mm::notifier::{Design, Sleepable};
use mm::profile::RmapLocks;
use reports::schema::{Carried, EndKind, RunResult};
use running::{ALL_MMUS, DESIGNS, RECORDINGS, bytes, library, metric, recording, result, under};
use scenarios::ast::Unsupported;
use scenarios::run::{Overrides, Request, run};

fn breaking(design: &str) -> Overrides {
    Overrides {
        unsupported: Some(Unsupported::Break),
        ..under(design)
    }
}

fn on(profile: &KernelProfile, design: &Design) -> Overrides {
    Overrides {
        kernel: Some(profile.name.to_owned()),
        ..under(design.short)
    }
}

fn carried(r: &RunResult, mmu: &str) -> Carried {
    r.secondaries
        .iter()
        .find(|s| s.name == mmu)
        .expect("declared")
        .carried
}

#[test]
fn xpmem_under_merged_notifiers_sleeps_under_i_mmap_lock() {
    let scenario = library("seed/vmtruncate-sleeps.jsonc");
    let r = result(&scenario, breaking("v8"));
    assert_eq!(r.end.kind, EndKind::Violation);
    assert_eq!(carried(&r, "peer"), Carried::Broken);
    let violation = &r.violations[0];
    assert_eq!(violation.kind, "sleep-in-atomic");
    assert!(
        violation.held.iter().any(|held| held.contains("i_mmap_lock")),
        "{:?}",
        violation.held
    );
    for function in ["unmap_mapping_range", "xpmem_invalidate_range_start"] {
        assert!(
            violation.stack.iter().any(|f| f == function),
            "{function} in {:?}",
            violation.stack
        );
    }
    assert!(violation.task.contains("main"), "{}", violation.task);
}

#[test]
fn xpmem_under_the_first_notifiers_sleeps_under_the_pte_lock() {
    let r = result(&library("seed/vmtruncate-sleeps.jsonc"), breaking("v1"));
    let violation = &r.violations[0];
    assert_eq!(violation.kind, "sleep-in-atomic");
    assert!(
        violation.held.iter().any(|held| held.contains("ptl")),
        "{:?}",
        violation.held
    );
    assert!(
        violation.stack.iter().any(|f| f == "xpmem_invalidate_page"),
        "{:?}",
        violation.stack
    );
}

#[test]
fn xpmem_under_sleepable_notifiers_waits_for_the_network_and_completes() {
    let r = result(&library("seed/vmtruncate-sleeps.jsonc"), breaking("v9"));
    assert_eq!(r.end.kind, EndKind::Completed, "{}", r.end.summary);
    assert_eq!(carried(&r, "peer"), Carried::Full);
    assert_eq!(metric(&r, "xpmem.recall.pages"), 1024);
    assert!(metric(&r, "xpmem.recall.wait_cycles") > 0);
    // The truncating thread holds i_mmap_lock while it waits.
    let held = r
        .locks
        .iter()
        .find(|l| l.class == "i_mmap_sem-W")
        .expect("truncate takes it")
        .hold
        .max;
    assert!(held >= metric(&r, "xpmem.recall.wait_cycles"), "{held}");
}

#[test]
fn what_pins_in_its_place_completes_under_every_design() {
    for design in DESIGNS {
        let r = result(&library("seed/vmtruncate.jsonc"), under(design));
        assert_eq!(r.end.kind, EndKind::Completed, "{design}: {}", r.end.summary);
        let expected = match design {
            "v0" => [Carried::Pinned, Carried::Omitted, Carried::Pinned],
            "v9" => [Carried::Full, Carried::Full, Carried::Full],
            _ => [Carried::Full, Carried::Full, Carried::Pinned],
        };
        assert_eq!(
            ["vm", "gru0", "peer"].map(|mmu| carried(&r, mmu)),
            expected,
            "{design}"
        );
        let notes = r.notes.iter().filter(|n| n.contains("because")).count();
        assert_eq!(
            notes,
            expected.iter().filter(|c| **c != Carried::Full).count(),
            "{design}: every cell is marked"
        );
    }
}

#[test]
fn what_shall_be_omitted_is_left_out() {
    let overrides = Overrides {
        unsupported: Some(Unsupported::Omit),
        ..under("v8")
    };
    let r = result(&library("seed/vmtruncate.jsonc"), overrides);
    assert_eq!(r.end.kind, EndKind::Completed);
    assert_eq!(carried(&r, "peer"), Carried::Omitted);
    assert_eq!(metric(&r, "xpmem.imports"), 0);
}

#[test]
fn a_gru_without_notifiers_is_left_out_unless_it_shall_break() {
    let scenario = library("seed/gru-without-notifiers.jsonc");
    for unsupported in [Unsupported::Pin, Unsupported::Omit] {
        let r = result(
            &scenario,
            Overrides {
                unsupported: Some(unsupported),
                ..under("v0")
            },
        );
        assert_eq!(carried(&r, "gru0"), Carried::Omitted);
        assert_eq!(metric(&r, "faults.gru"), 0);
    }
    let r = result(&scenario, breaking("v0"));
    assert_eq!(r.end.kind, EndKind::Violation);
    assert_eq!(carried(&r, "gru0"), Carried::Broken);
    assert_eq!(r.violations[0].kind, "free-while-mapped");
}

#[test]
fn a_guest_without_notifiers_pins_and_nothing_comes_back() {
    let r = result(&library("seed/balloon.jsonc"), under("v0"));
    assert_eq!(r.end.kind, EndKind::Completed);
    assert_eq!(carried(&r, "vm"), Carried::Pinned);
    assert_eq!(metric(&r, "pages.pinned.end"), 4096);
    assert_eq!(metric(&r, "pages.freed"), 0);
}

#[test]
fn unpinning_before_the_flush_frees_what_a_vcpu_can_reach() {
    let r = result(&library("seed/unpin-first.jsonc"), under("v0"));
    assert_eq!(r.end.kind, EndKind::Violation);
    assert_eq!(r.violations[0].kind, "free-while-mapped");
    assert!(
        r.violations[0].stack.iter().any(|f| f == "kvm_mmu_zap_all"),
        "{:?}",
        r.violations[0].stack
    );
    let r = result(&library("seed/unpin-flush-first.jsonc"), under("v0"));
    assert_eq!(r.end.kind, EndKind::Completed);
}

#[test]
fn the_seed_changes_the_counts_of_random_accesses() {
    let scenario = library("tutorial/07-random-access.jsonc");
    let counts = |seed| {
        let r = result(
            &scenario,
            Overrides {
                seed: Some(seed),
                ..Overrides::default()
            },
        );
        assert_eq!(r.seed, seed);
        ["tlb.l1.hits", "tlb.misses", "kvm.tlb.hits", "faults.host.anon"].map(|m| metric(&r, m))
    };
    assert_ne!(counts(1), counts(2));
    assert_eq!(counts(2), counts(2));
}

#[test]
fn a_prepared_process_may_have_threads_on_the_importing_partition_only() {
    let mut scenario = library("tutorial/05-xpmem.jsonc");
    scenario.expect.clear();
    let owner = scenario.processes.get_mut("owner").expect("the file has it");
    owner.threads.remove("main");
    let r = result(&scenario, under("v9"));
    assert_eq!(r.end.kind, EndKind::Completed);
    assert_eq!(metric(&r, "xpmem.imports"), 64);
}

#[test]
fn recordings_with_all_mmus_complete_under_every_design() {
    std::thread::scope(|scope| {
        for name in RECORDINGS {
            scope.spawn(move || {
                let loaded = recording(name, &ALL_MMUS);
                for design in DESIGNS {
                    let r = result(&loaded.scenario, under(design));
                    assert_eq!(
                        r.end.kind,
                        EndKind::Completed,
                        "{name} {design}: {}",
                        r.end.summary
                    );
                    assert!(r.violations.is_empty(), "{name} {design}");
                    let again = result(&loaded.scenario, under(design));
                    assert!(
                        bytes(&r) == bytes(&again),
                        "{name} {design}: same seed, other bytes"
                    );
                }
            });
        }
    });
}

/// Whether a design and a kernel fit: callbacks that sleep need rmap locks that may be slept with.
fn fits(design: &Design, profile: &KernelProfile) -> bool {
    design.sleepable == Sleepable::No || profile.rmap_locks == RmapLocks::RwSem
}

#[test]
fn recordings_complete_on_every_kernel_under_every_design_it_can_have() {
    std::thread::scope(|scope| {
        for name in ["redis-bgsave.strace.gz", "sqlite-vacuum.strace.gz"] {
            scope.spawn(move || {
                let loaded = recording(name, &ALL_MMUS);
                for profile in &KernelProfile::ALL {
                    for design in Design::ALL.iter().filter(|design| fits(design, profile)) {
                        let r = result(&loaded.scenario, on(profile, design));
                        let cell = format!("{name} {} {}", profile.name, design.short);
                        assert_eq!(r.config["kernel"]["base"], profile.name, "{cell}");
                        assert_eq!(r.end.kind, EndKind::Completed, "{cell}: {}", r.end.summary);
                        assert!(r.violations.is_empty(), "{cell}");
                    }
                }
            });
        }
    });
}

#[test]
fn a_design_whose_callbacks_sleep_is_refused_on_kernels_whose_rmap_locks_spin() {
    let scenario = library("seed/vmtruncate.jsonc");
    let mut refused = Vec::new();
    for profile in &KernelProfile::ALL {
        for design in &Design::ALL {
            let request = Request {
                scenario: &scenario,
                file: "test",
                overrides: on(profile, design),
                logging: sim::Logging::Ring,
                max_events: None,
            };
            if let Err(error) = run(&request) {
                assert!(error.message.contains("i_mmap_lock"), "{}", error.message);
                refused.push((design.short, profile.name));
            }
        }
    }
    assert_eq!(refused, [("v9", "linux-2.6.25"), ("v9", "linux-2.6.27")]);
}
