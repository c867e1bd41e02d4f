//! Constants of the driver and of XPC, with their provenance.
//!
//! Interrupts, wake-ups and context switches of the XPC threads are charged by the engine and the
//! machine's own primitives; the round trip of a message is a parameter of the scenario because no
//! figure was ever published (secondary-mmus 3.9: suggested 20 to 60 us, sweep 5 to 1000).

use sim::Cycles;
use x86::{Machine, PAGE_SIZE};

/// Failed page requests in one fault before it is answered with EAGAIN: the fourth failure gives
/// up (secondary-mmus 3.4, R-X5 \[XP08\]).
pub(crate) const MOST_FAILURES: u32 = 4;

/// One jiffy in nanoseconds at HZ=250 (1 to 10 ms). XPC waits one jiffy at a time for a free message
/// slot (secondary-mmus 3.9 \[K27 xpc_channel.c\]); a faulter that got EAGAIN waits as long (assumed,
/// the posted driver returns to user mode and faults again).
const JIFFY_NS: u64 = 4_000_000;

/// Message entries of one direction of the channel. No source gives XPMEM's; assumed 64, range 2 to
/// 1024.
pub(crate) const MESSAGE_SLOTS: usize = 64;

/// Cache lines of one message: 128 bytes with its header (secondary-mmus 3.5 \[K27 xpc.h\]).
pub(crate) const MESSAGE_LINES: u64 = 2;

/// Cache lines of 128 bytes that can be recalled in a second from partitions they were opened to
/// (secondary-mmus 3.9 \[XP08 xpmem_private.h\]: 30 us a page of 16 KiB).
const RECALL_LINES_PER_SECOND: u64 = 4_273_504;

/// Size of those lines in bytes, same source.
const RECALL_LINE_BYTES: u64 = 128;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// One jiffy.
pub(crate) fn jiffy(machine: &Machine) -> Cycles {
    machine.ns(JIFFY_NS)
}

/// Recalling the cache lines of one page from the importing partition.
pub(crate) fn recall_lines_of_page(machine: &Machine) -> Cycles {
    machine.ns(PAGE_SIZE / RECALL_LINE_BYTES * NS_PER_SECOND / RECALL_LINES_PER_SECOND)
}
