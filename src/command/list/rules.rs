//! Lock order and checks, one line a rule.

use mm::invariants::{Asserted, INVARIANTS, Invariant};
use mm::lock_order::{self, LockRow};
use mm::{CONSERVATION, KernelProfile};
use serde_json::{Value, json};
use sim::{Irqs, LockKind, Nesting, ViolationKind};

/// Ends of a run that are findings themselves: name, what must hold, when it is looked at.
const ENDS: [(&str, &str, &str); 2] = [
    (
        "deadlock",
        "while a worker is unfinished something can happen; the wait-for graph is the evidence",
        "whenever nothing is pending",
    ),
    (
        "livelock",
        "tasks do not go round at one moment of virtual time for ever",
        "after millions of events at one moment",
    ),
];

/// Rank, lock, kind, nesting and source of each lock class of a kernel and of the secondary MMUs' drivers.
pub(super) fn locks(profile: &KernelProfile) -> Vec<Vec<Value>> {
    let mut rows = lock_order::rows(profile);
    rows.extend(kvm::LOCKS);
    rows.extend(gru::LOCKS);
    rows.extend(xpmem::LOCKS);
    // Those without a rank last; the order within a rank is the tables'.
    rows.sort_by_key(|row| row.rank.map_or(u16::MAX, |rank| u16::from(rank.get())));
    let line = |row: &LockRow| {
        let kind = match row.kind {
            LockKind::Spin => "spin",
            LockKind::RwLock => "rwlock",
            LockKind::Mutex => "mutex",
            LockKind::RwSem => "rwsem",
        };
        let nesting = match row.nesting {
            Nesting::Forbidden => "-",
            Nesting::ByCaller | Nesting::AscendingOrInside(_) => row.same_class,
        };
        let kind = match row.irqs {
            Irqs::Either => kind.to_owned(),
            Irqs::Off => format!("{kind}, irqs off"),
        };
        let rank = row.rank.map_or(json!("-"), |rank| json!(rank.get()));
        vec![
            rank,
            json!(row.name),
            json!(kind),
            json!(nesting),
            json!(row.source),
        ]
    };
    rows.iter().map(line).collect()
}

/// Check, invariant, kinds of violations, when, statement and exceptions: the host's invariants, then the
/// engine's rules, then the ends of runs that are findings.
pub(super) fn checks() -> Vec<Vec<Value>> {
    let invariant = |i: &Invariant| {
        let (kinds, when, except) = match i.asserted {
            Asserted::Always { kinds, when, except } => (kinds.join(", "), when, except),
            Asserted::Never(why) => ("not asserted".to_owned(), "never", why),
        };
        let except = if except.is_empty() { "-" } else { except };
        vec![
            json!(i.name),
            json!(i.id),
            json!(kinds),
            json!(when),
            json!(i.statement),
            json!(except),
        ]
    };
    let rule = |name: &str, statement: &str, when: &str| {
        let of: Vec<_> = Invariant::of_kind(name).map(|i| i.id).collect();
        let of = if of.is_empty() {
            "-".to_owned()
        } else {
            of.join(", ")
        };
        vec![
            json!(name),
            json!(of),
            json!(name),
            json!(when),
            json!(statement),
            json!("-"),
        ]
    };
    let mut rows: Vec<_> = INVARIANTS.iter().map(invariant).collect();
    rows.push(rule(
        CONSERVATION,
        "the books balance: what is kept in counters is what is there",
        "at the end of a run that completed",
    ));
    rows.extend(ViolationKind::ALL.iter().map(|kind| {
        let (statement, when) = kind.rule();
        rule(kind.id(), statement, when)
    }));
    rows.extend(
        ENDS.iter()
            .map(|(name, statement, when)| rule(name, statement, when)),
    );
    rows
}
