//! Block devices: pages are read and written after a latency, while others run.
//!
//! Follows mm/filemap.c (`wait_on_page_bit`, `end_page_writeback`), mm/page-writeback.c
//! (`test_set_page_writeback`), mm/page_io.c and block/blk-core.c of 2.6.27 (host-mm-paths A.5, A.7, E). A
//! kernel has two devices, the disk of its files and the swap device. Each serves one request of one page
//! after the other, in the order of submission; a request keeps nobody: the submitter queues it and goes
//! on, and when the device is done it interrupts the CPU that submitted (the block layer completes a
//! request on the CPU it came from).
//!
//! Reading: the caller holds PG_locked and sleeps. Writing: the caller holds PG_locked when PG_writeback is
//! set, and lets go of it afterwards; until the interrupt clears PG_writeback the page stays where it is,
//! by the tree's reference: truncate, reclaim and migration wait for it or pass it over. The bit and its tag
//! in the tree change together under the tree_lock of the page's mapping, with interrupts off, also in the
//! handler: `tree_lock` is what that handler can have to spin for, and `lru_lock` when it fills the
//! pagevec of pages that go to the end of the inactive list (see [`crate::lru`]).
//!
//! Deviations: requests are not merged, sorted or plugged, so a device costs the same for each page wherever it
//! lies (inferred; true of flash, and of a disk as far as its latencies are averages); the lock of a
//! request queue is not modelled, no rank of host-mm-paths E names it; waiters have a queue for each page
//! where the kernel hashes pages to queues and wakes by key, which wakes the same tasks. A handler that finds
//! `lru_lock` handed to a task at that very moment leaves the full pagevec to the next one that drains it.

use std::collections::{BTreeMap, BTreeSet};

use sim::{Action, CpuId, Cx, Cycles, Guard, Interrupt, LockId, Mark, Object, QueueId, Scope};
use x86::Pfn;

use crate::frame::{Owner, PageFlags};
use crate::kernel::Kernel;
use crate::profile::work;
use crate::radix_tree::Tag;

/// `FIRST_DEVICE_VECTOR`, 2.6.27 include/asm-x86/irq_vectors.h: the disk controller's.
pub const DISK_VECTOR: u8 = 0x41;

/// Class of a device among the objects of steps.
const DEVICE_OBJECT: u16 = 8;
/// Class of a page that is waited for among the objects of steps.
const PAGE_OBJECT: u16 = 9;

static SUBMIT: Mark = Mark {
    name: "submit_bio",
    args: ["pfn", "device", "write"],
    scope: Scope::Object,
};

/// A device of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Device {
    /// The disk that holds files.
    Files,
    /// The swap device.
    Swap,
}

/// How long a device takes for a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskSpec {
    /// Nanoseconds to read a page.
    pub read_ns: u64,
    /// Nanoseconds to write a page.
    pub write_ns: u64,
}

impl DiskSpec {
    /// Intel X25-M of 2008, flash (hardware-costs D2). The default: its latency does not depend on
    /// where a page lies, and neither does the model's.
    pub const X25_M: DiskSpec = DiskSpec {
        read_ns: 85_000,
        write_ns: 115_000,
    };
    /// A disk of 7200 rpm: average seek and half a revolution (hardware-costs D1).
    pub const SATA_7200: DiskSpec = DiskSpec {
        read_ns: 12_670_000,
        write_ns: 13_670_000,
    };
}

/// What a device is asked to do; the second argument of its interrupt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    Read,
    Write,
}

#[derive(Clone, Copy, Debug)]
struct DeviceState {
    spec: DiskSpec,
    // When it will have served what it was given.
    busy_until: Cycles,
}

/// The devices of a kernel, and who waits for pages.
#[derive(Clone, Debug)]
pub(crate) struct Disks {
    devices: [DeviceState; 2],
    reading: BTreeSet<Pfn>,
    waiters: BTreeMap<Pfn, QueueId>,
    spare: Vec<QueueId>,
}

impl Default for Disks {
    fn default() -> Self {
        let idle = DeviceState {
            spec: DiskSpec::X25_M,
            busy_until: Cycles::ZERO,
        };
        Disks {
            devices: [idle; 2],
            reading: BTreeSet::new(),
            waiters: BTreeMap::new(),
            spare: Vec::new(),
        }
    }
}

/// Whether a bit of a page is waited for any longer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WaitFor {
    Read,
    Writeback,
}

impl Kernel {
    /// Says how long a device takes; [`DiskSpec::X25_M`] until then.
    pub fn set_disk(&self, device: Device, spec: DiskSpec) {
        self.st().disks.devices[device as usize].spec = spec;
    }

    /// `readpage` and the wait for it: the page holds what the device has. The caller holds PG_locked.
    pub async fn read_page(&self, cx: &Cx, pfn: Pfn, device: Device) {
        debug_assert!(self.page_is_locked(pfn), "{pfn} is locked to be read");
        self.start_read(cx, pfn, device).await;
        self.wait_on_read(cx, pfn).await;
    }

    /// `readpage` alone: the read is on its way when this returns. The page counts as locked until it is
    /// done, whoever asked for it.
    pub(crate) async fn start_read(&self, cx: &Cx, pfn: Pfn, device: Device) {
        let _span = cx.span("submit_bio");
        self.st().disks.reading.insert(pfn);
        self.submit(cx, pfn, device, Request::Read).await;
        self.st().metrics.io_reads += 1;
    }

    /// Waits until a page holds what the device has (`wait_on_page_locked`, for a read that somebody
    /// started).
    pub(crate) async fn wait_on_read(&self, cx: &Cx, pfn: Pfn) {
        if self.page_being_read(pfn) {
            self.wait_on_page(cx, pfn, WaitFor::Read).await;
        }
    }

    /// Whether a page is on its way from a device.
    #[must_use]
    pub(crate) fn page_being_read(&self, pfn: Pfn) -> bool {
        self.waited_for(pfn, WaitFor::Read)
    }

    /// `set_page_writeback`, `unlock_page` and `submit_bio`: the page is on its way when this returns, and
    /// no longer locked. The caller has cleared PG_dirty.
    pub async fn start_writeback(&self, cx: &Cx, pfn: Pfn, device: Device, locked: Guard<'_>) {
        debug_assert_eq!(
            locked.lock(),
            self.page_lock(pfn),
            "{pfn} is locked to be written"
        );
        let _span = cx.span("set_page_writeback");
        self.test_set_page_writeback(cx, pfn).await;
        drop(locked);
        let _span = cx.span("submit_bio");
        self.submit(cx, pfn, device, Request::Write).await;
        self.st().metrics.io_writes += 1;
    }

    /// `wait_on_page_writeback`. The caller holds a reference or PG_locked.
    pub async fn wait_on_page_writeback(&self, cx: &Cx, pfn: Pfn) {
        // What comes first in virtual time may set or clear the bit.
        cx.step(Object::Other(PAGE_OBJECT, u64::from(pfn.get())), Action::Read)
            .await;
        if self.waited_for(pfn, WaitFor::Writeback) {
            let _span = cx.span("wait_on_page_writeback");
            self.wait_on_page(cx, pfn, WaitFor::Writeback).await;
        }
    }

    /// `PageWriteback`.
    #[must_use]
    pub fn page_writeback(&self, pfn: Pfn) -> bool {
        self.waited_for(pfn, WaitFor::Writeback)
    }

    /// The lock of the tree a page is in: its file's, or that of the swap cache (`page_mapping`).
    pub(crate) fn page_tree_lock(&self, pfn: Pfn) -> Option<LockId> {
        let frames = self.frames.borrow();
        let frame = frames.get(pfn);
        if frame.flags.has(PageFlags::SWAPCACHE) {
            return Some(self.locks.swapper_tree_lock);
        }
        match frame.owner() {
            Owner::File(file) => Some(self.state.borrow().file(file).tree_lock),
            Owner::Anon(_) | Owner::None => None,
        }
    }

    /// Nodes on the way to a page in its tree: one in the swap cache, whose tree is no tree here.
    fn page_tree_height(&self, pfn: Pfn) -> u64 {
        let owner = self.frames.borrow().get(pfn).owner();
        match owner {
            Owner::File(file) => u64::from(self.state.borrow().file(file).pages.height()),
            Owner::Anon(_) | Owner::None => 1,
        }
    }

    /// `test_set_page_writeback`; a page that was not dirtied again loses its dirty tag.
    async fn test_set_page_writeback(&self, cx: &Cx, pfn: Pfn) {
        let tree_lock = self.page_tree_lock(pfn);
        let _irqs = cx.irq_disable();
        let _tree = match tree_lock {
            Some(lock) => Some(cx.lock(lock).await),
            None => None,
        };
        let (owner, index, dirty) = {
            let mut frames = self.frames();
            let frame = frames.get_mut(pfn);
            debug_assert!(
                !frame.flags.has(PageFlags::WRITEBACK),
                "{pfn} is written back already"
            );
            frame.flags.set(PageFlags::WRITEBACK);
            (frame.owner(), frame.index(), frame.flags.has(PageFlags::DIRTY))
        };
        if let Owner::File(file) = owner {
            let mut st = self.st();
            let tree = &mut st.file_mut(file).pages;
            let mut nodes = tree.tag_set(index.get(), Tag::Writeback).nodes;
            if !dirty {
                nodes += tree.tag_clear(index.get(), Tag::Dirty).nodes;
            }
            drop(st);
            self.touch_lines(cx, nodes * work::PAGE_CACHE_NODE);
        }
    }

    /// Gives a request to a device; those before it are served first.
    async fn submit(&self, cx: &Cx, pfn: Pfn, device: Device, request: Request) {
        self.touch_lines(cx, work::SUBMIT_BIO);
        cx.step(Object::Other(DEVICE_OBJECT, device as u64), Action::Write)
            .await;
        let done = {
            let mut st = self.st();
            let state = &mut st.disks.devices[device as usize];
            let ns = match request {
                Request::Read => state.spec.read_ns,
                Request::Write => state.spec.write_ns,
            };
            state.busy_until = state.busy_until.max(cx.now()) + self.machine.ns(ns);
            state.busy_until
        };
        cx.mark(&SUBMIT, [u64::from(pfn.get()), device as u64, request as u64]);
        let interrupt = Interrupt {
            vector: DISK_VECTOR,
            a: u64::from(pfn.get()),
            b: request as u64,
        };
        self.engine.interrupt_at(done, cx.cpu(), interrupt);
    }

    fn waited_for(&self, pfn: Pfn, what: WaitFor) -> bool {
        match what {
            WaitFor::Read => self.state.borrow().disks.reading.contains(&pfn),
            WaitFor::Writeback => self.frames.borrow().get(pfn).flags.has(PageFlags::WRITEBACK),
        }
    }

    /// `wait_on_page_bit`.
    async fn wait_on_page(&self, cx: &Cx, pfn: Pfn, what: WaitFor) {
        let before = cx.now();
        while self.waited_for(pfn, what) {
            let queue = self.page_waitqueue(pfn);
            cx.wait_on(queue).await;
        }
        self.st().metrics.io_wait_cycles += (cx.now() - before).get();
    }

    fn page_waitqueue(&self, pfn: Pfn) -> QueueId {
        let mut st = self.st();
        let disks = &mut st.disks;
        if let Some(queue) = disks.waiters.get(&pfn) {
            return *queue;
        }
        let queue = disks
            .spare
            .pop()
            .unwrap_or_else(|| self.engine.wait_queue("a page's I/O"));
        disks.waiters.insert(pfn, queue);
        queue
    }

    /// `wake_up_page`.
    fn wake_up_page(&self, pfn: Pfn) {
        let queue = {
            let mut st = self.st();
            let queue = st.disks.waiters.remove(&pfn);
            st.disks.spare.extend(queue);
            queue
        };
        if let Some(queue) = queue {
            self.engine.wake_all(queue);
        }
    }

    /// The interrupt of a device that has served a request (`end_swap_bio_read`, `end_buffer_async_write`
    /// and their kin). Returns what the handler costs.
    pub(crate) fn disk_interrupt(&self, cpu: CpuId, interrupt: Interrupt) -> Cycles {
        let pfn = Pfn::new(interrupt.a as u32);
        let work = self.machine.costs.cacheline_touch * work::END_BIO;
        if interrupt.b == Request::Read as u64 {
            self.st().disks.reading.remove(&pfn);
            self.wake_up_page(pfn);
            return work;
        }
        work + self.end_page_writeback(cpu, pfn, interrupt)
    }

    /// `end_page_writeback` in an interrupt: a page that reclaim wants is moved first, then the bit goes, then
    /// who waits for it is woken.
    fn end_page_writeback(&self, cpu: CpuId, pfn: Pfn, interrupt: Interrupt) -> Cycles {
        let now = self.engine.now();
        let reclaim = {
            let mut frames = self.frames();
            frames.get_mut(pfn).flags.test_and_clear(PageFlags::RECLAIM)
        };
        let mut spent = Cycles::ZERO;
        if reclaim {
            spent += self.rotate_reclaimable_page(cpu, pfn);
        }
        if let Some(lock) = self.page_tree_lock(pfn) {
            let nodes = self.page_tree_height(pfn);
            let work = self.machine.costs.cacheline_touch * (nodes * work::PAGE_CACHE_NODE);
            let Some(end) = self.engine.hold_in_interrupt(lock, cpu, now + spent, work) else {
                // A task is being handed the lock. Spinning for it is coming again a little later.
                let again = spent + self.machine.costs.lock_uncontended;
                self.engine.interrupt_at(now + again, cpu, interrupt);
                return again;
            };
            spent = end - now;
        }
        let (owner, index) = {
            let mut frames = self.frames();
            let frame = frames.get_mut(pfn);
            let was = frame.flags.test_and_clear(PageFlags::WRITEBACK);
            debug_assert!(was, "{pfn} was not under writeback");
            (frame.owner(), frame.index())
        };
        if let Owner::File(file) = owner {
            let mut st = self.st();
            let _ = st.file_mut(file).pages.tag_clear(index.get(), Tag::Writeback);
        }
        self.wake_up_page(pfn);
        spent
    }
}
