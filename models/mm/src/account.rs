//! Accounts of the cost breakdown that the mm paths and the secondary MMUs book on.

use sim::{Account, AccountDef};

/// Memory accesses of programs, guests and devices that hit a TLB.
pub const USER: Account = Account::new(7);
/// TLB misses: page walks.
pub const WALK: Account = Account::new(8);
/// Entering and leaving the kernel.
pub const ENTRY: Account = Account::new(9);
/// Reading and changing page tables.
pub const PAGE_TABLE: Account = Account::new(10);
/// Taking frames from and returning them to the allocator.
pub const PAGE_ALLOC: Account = Account::new(11);
/// Clearing and copying pages.
pub const PAGE_COPY: Account = Account::new(12);
/// VMAs, reverse maps, page cache and LRU.
pub const BOOKKEEPING: Account = Account::new(13);
/// Flushing the local TLB and sending interrupts.
pub const TLB_FLUSH: Account = Account::new(14);
/// The notifier core itself.
pub const NOTIFIER: Account = Account::new(15);
/// Registering and unregistering notifiers.
pub const REGISTRATION: Account = Account::new(16);
/// KVM's callbacks.
pub const CALLBACK_KVM: Account = Account::new(17);
/// GRU's callbacks.
pub const CALLBACK_GRU: Account = Account::new(18);
/// XPMEM's callbacks.
pub const CALLBACK_XPMEM: Account = Account::new(19);
/// Callbacks of described devices.
pub const CALLBACK_DEVICE: Account = Account::new(20);
/// Faults of KVM guests, VM exits and entries.
pub const FAULT_KVM: Account = Account::new(21);
/// TLB misses of the GRU.
pub const FAULT_GRU: Account = Account::new(22);
/// Import faults of XPMEM.
pub const FAULT_XPMEM: Account = Account::new(23);

/// Name and meaning of the accounts above, in index order from [`Account::FIRST_FREE`].
pub const ACCOUNTS: [AccountDef; 17] = [
    AccountDef {
        name: "memory access",
        description: "accesses of programs, guests and devices that hit a TLB",
    },
    AccountDef {
        name: "page walks",
        description: "walks of page tables after a TLB miss",
    },
    AccountDef {
        name: "kernel entry",
        description: "system calls and exceptions: entry and return",
    },
    AccountDef {
        name: "page tables",
        description: "reading and changing page-table entries, tables made and freed",
    },
    AccountDef {
        name: "page allocator",
        description: "frames taken and returned",
    },
    AccountDef {
        name: "page copies",
        description: "clearing and copying pages",
    },
    AccountDef {
        name: "bookkeeping",
        description: "VMAs, reverse maps, page cache, LRU",
    },
    AccountDef {
        name: "tlb flush",
        description: "local TLB flushes and sending interrupts",
    },
    AccountDef {
        name: "notifier core",
        description: "walking the list of subscribers",
    },
    AccountDef {
        name: "registration",
        description: "registering and unregistering notifiers",
    },
    AccountDef {
        name: "callbacks kvm",
        description: "inside KVM's callbacks, waits included",
    },
    AccountDef {
        name: "callbacks gru",
        description: "inside the GRU driver's callbacks, waits included",
    },
    AccountDef {
        name: "callbacks xpmem",
        description: "inside XPMEM's callbacks, waits included",
    },
    AccountDef {
        name: "callbacks device",
        description: "inside described devices' callbacks, waits included",
    },
    AccountDef {
        name: "faults kvm",
        description: "guest faults, VM exits and entries",
    },
    AccountDef {
        name: "faults gru",
        description: "GRU TLB misses",
    },
    AccountDef {
        name: "faults xpmem",
        description: "XPMEM import faults",
    },
];
