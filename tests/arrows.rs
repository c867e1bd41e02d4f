//! Arrows between the crates of the workspace run one way: each crate may use those listed for it
//! and no others. Dev-dependencies do not count.

use std::collections::BTreeMap;

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

const SIM: &str = "mmusim-sim";
const X86: &str = "mmusim-x86";
const MM: &str = "mmusim-mm";
const KVM: &str = "mmusim-kvm";
const GRU: &str = "mmusim-gru";
const XPMEM: &str = "mmusim-xpmem";
const REPORTS: &str = "mmusim-reports";
const SCENARIOS: &str = "mmusim-scenarios";
const TRANSLATE: &str = "mmusim-translate";

/// What each crate may use. The two at the top, `mmusim` and `mmusim-benches`, may use any.
const ALLOWED: [(&str, &[&str]); 9] = [
    (SIM, &[]),
    (X86, &[SIM]),
    (MM, &[SIM, X86]),
    (KVM, &[SIM, X86, MM]),
    (GRU, &[SIM, X86, MM]),
    (XPMEM, &[SIM, X86, MM]),
    (REPORTS, &[]),
    (TRANSLATE, &[SIM, X86, REPORTS]),
    (SCENARIOS, &[SIM, X86, MM, KVM, GRU, XPMEM, REPORTS]),
];
const TOP: [&str; 2] = ["mmusim", "mmusim-benches"];

fn packages() -> Vec<Package> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec();
    metadata.expect("cargo describes the workspace").packages
}

/// Workspace crates that a package uses, dev-dependencies aside.
fn used(package: &Package) -> Vec<&str> {
    let inside = package.dependencies.iter().filter(|d| d.path.is_some());
    let real = inside.filter(|d| d.kind != DependencyKind::Development);
    real.map(|d| d.name.as_str()).collect()
}

#[test]
fn arrows_run_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    for package in packages() {
        let name = package.name.as_str();
        if TOP.contains(&name) {
            continue;
        }
        let may = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the list of this test: say what it may use"));
        for other in used(&package) {
            assert!(
                may.contains(&other),
                "{name} must not use {other}: it may use {may:?}"
            );
        }
    }
}

#[test]
fn the_list_names_crates_that_exist() {
    let packages = packages();
    for (name, may) in ALLOWED {
        for name in [&[name], may].concat() {
            assert!(
                packages.iter().any(|p| p.name.as_str() == name),
                "there is no {name}"
            );
        }
    }
}

#[test]
fn nothing_uses_the_top() {
    for package in packages() {
        for other in used(&package) {
            assert!(!TOP.contains(&other), "{} must not use {other}", package.name);
        }
    }
}
