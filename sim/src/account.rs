//! Where cycles are booked.
//!
//! Every cycle of a task's life is booked on exactly one account, so that a breakdown adds up to
//! the total by construction. Charges name their account; a wait is booked when it ends. Inside a
//! notifier callback a task books everything on that callback's account, see
//! [`crate::Cx::book_to`].

/// An account of the cost breakdown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Account(u8);

/// Most accounts an engine can hold; bounds the flat array that [`crate::Cx::charge`] adds to.
pub const MAX_ACCOUNTS: usize = 32;

/// Name and meaning of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountDef {
    /// Short name, lower case.
    pub name: &'static str,
    /// What is booked there.
    pub description: &'static str,
}

impl Account {
    /// Taking and releasing locks without contention.
    pub const LOCK: Account = Account(0);
    /// Waiting for a lock, spinning or asleep.
    pub const LOCK_WAIT: Account = Account(1);
    /// Waiting for acknowledgements of inter-processor interrupts.
    pub const IPI_WAIT: Account = Account(2);
    /// Interrupts that arrived while the task ran.
    pub const INTERRUPT: Account = Account(3);
    /// Waiting for a CPU, context switches, wake-up latency.
    pub const SCHED: Account = Account(4);
    /// Waiting for an event (a message, a child, a barrier, a grace period).
    pub const EVENT_WAIT: Account = Account(5);
    /// Sleeping because the script says so.
    pub const SLEEP: Account = Account(6);
    /// First account that upper layers may define.
    pub const FIRST_FREE: u8 = 7;

    /// An account of an upper layer; `number` must be at least [`Account::FIRST_FREE`].
    #[must_use]
    pub const fn new(number: u8) -> Self {
        assert!(number >= Account::FIRST_FREE && (number as usize) < MAX_ACCOUNTS);
        Account(number)
    }

    /// Index into the array of accounts, below [`MAX_ACCOUNTS`] by construction; the mask tells the
    /// compiler so.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize % MAX_ACCOUNTS
    }
}

/// The accounts that the engine books on by itself, in index order.
pub const ENGINE_ACCOUNTS: [AccountDef; Account::FIRST_FREE as usize] = [
    AccountDef {
        name: "locks",
        description: "taking and releasing locks without contention",
    },
    AccountDef {
        name: "lock wait",
        description: "waiting for a lock, spinning or asleep",
    },
    AccountDef {
        name: "ipi wait",
        description: "waiting until all targets acknowledged an interrupt",
    },
    AccountDef {
        name: "interrupts",
        description: "interrupt handlers that stole time from the task",
    },
    AccountDef {
        name: "scheduler",
        description: "waiting for a CPU, context switches and wake-ups",
    },
    AccountDef {
        name: "event wait",
        description: "waiting for messages, children, barriers and grace periods",
    },
    AccountDef {
        name: "sleep",
        description: "sleeping because the script says so",
    },
];
