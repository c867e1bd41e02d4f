//! The simulation engine of mmusim: virtual time, tasks, locks, contexts, choices, metrics.
//!
//! It knows nothing of MMUs. A world is an [`Engine`]; model code runs in tasks and works through
//! [`Cx`]. See [`engine`](Engine) for how time and order come about, [`Chooser`] for how chance
//! does, and [`End`] for how a run ends.

mod account;
mod acquire;
mod choose;
mod config;
mod context;
mod cx;
mod end;
mod engine;
mod guard;
mod histogram;
mod holding;
mod inner;
mod ipi;
mod lock;
mod lock_rules;
mod metrics;
mod record;
mod sched;
mod task;
mod time;
mod told;
mod wait;

pub use account::{Account, AccountDef, ENGINE_ACCOUNTS, MAX_ACCOUNTS};
pub use acquire::{Acquire, Guard, TryAcquire};
pub use choose::{Action, Chooser, Enabled, Object, RandomWalk, Replay, Seeded, Step, Stream};
pub use config::{EngineConfig, KernelPreemption};
pub use cx::{Booking, Cx, Resched, Span, SyncPoint};
pub use end::{Blocked, End, Violation, ViolationKind};
pub use engine::{Engine, Platform, Schedule};
pub use guard::{IrqGuard, PreemptGuard};
pub use histogram::Histogram;
pub use holding::Holding;
pub use ipi::{Handled, Interrupt, IpiCall};
pub use lock::{Class, ClassDef, ClassId, ClassStats, Irqs, LockId, LockKind, Mode, Nesting, Rank};
pub use metrics::{MetricDef, MetricKind};
pub use record::{Logging, MARK_ARGS, Mark, Record, RecordKind, Scope};
pub use task::{Affinity, Role, TaskId, TaskSpec};
pub use time::{CpuId, CpuSet, Cycles, MAX_CPUS};
pub use wait::{Completion, DomainId, Mailbox, QueueId, ReaderGuard, ReaderKind, SeqCount, Sleep};
