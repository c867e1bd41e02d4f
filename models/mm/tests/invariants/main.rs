//! Every invariant of host-mm-paths F1 to F27 that is asserted, broken on purpose and found.
//!
//! The paths contain nothing for this. What breaks them is misuse of what a kernel shows anyway: its state
//! (`Kernel::st`: a CPU left out of a mask, a lock put in another's place while a path waits for it, an
//! entry changed behind its back), its calls (an entry set without the lock, a subscriber registered with
//! a dying address space), and a subscriber that meddles while it is told something. Each has a twin
//! without the meddling that completes.

#[path = "../common/mod.rs"]
mod common;

mod books;
mod entries;
mod files;
mod locks;
mod meddle;
mod notifier;
mod translations;

use mm::invariants::{INVARIANTS, Invariant};
use sim::{End, Violation};

/// The violation that ended a run, which must be of this kind and belong to this invariant.
fn broken(end: End, id: &str, kind: &str) -> Violation {
    let End::Violation(v) = end else {
        panic!("{id} must be found broken: {end:?}")
    };
    assert_eq!(v.kind.id(), kind, "{id}: {}", v.summary);
    assert!(
        Invariant::of_kind(kind).any(|i| i.id == id),
        "{kind} is listed under {id}"
    );
    *v
}

/// The lines of an audit that name an invariant, of which there must be some.
fn in_audit(audit: Vec<String>, id: &str) -> Vec<String> {
    let end = format!("({id})");
    let (named, other): (Vec<_>, Vec<_>) = audit.into_iter().partition(|line| line.ends_with(&end));
    assert!(!named.is_empty(), "the audit finds {id}: {other:?}");
    named
}

#[test]
fn no_asserted_invariant_is_without_a_test_here() {
    let files = [
        include_str!("books.rs"),
        include_str!("entries.rs"),
        include_str!("files.rs"),
        include_str!("locks.rs"),
        include_str!("notifier.rs"),
        include_str!("translations.rs"),
    ];
    let has = |what: &str| files.iter().any(|file| file.contains(what));
    for invariant in INVARIANTS.iter().filter(|i| !i.kinds().is_empty()) {
        assert!(
            has(&format!("\"{}\"", invariant.id)),
            "{} has a test",
            invariant.id
        );
        for kind in invariant.kinds().iter().filter(|kind| **kind != mm::CONSERVATION) {
            let constant = kind.to_uppercase().replace('-', "_");
            let broken = has(&format!("\"{kind}\"")) || has(&constant);
            assert!(broken, "{kind} of {} has a test", invariant.id);
        }
    }
}
