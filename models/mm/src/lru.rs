//! The LRU lists and the pagevecs in front of them.
//!
//! Follows mm/swap.c and include/linux/mm_inline.h of 2.6.27 (host-mm-paths A.5, A.6, B.16, G.22). A
//! zone has an active and an inactive list, under `zone->lru_lock` with interrupts off. New pages wait in
//! one of two pagevecs of the CPU that made them (anonymous ones on their way to the active list, pages of
//! files to the inactive one), pages that were written for reclaim in a third, on their way to the end of the
//! inactive list (rotate.rs). A pagevec holds a reference to each of its 14 pages, and PG_lru of a new page
//! is set only when it is drained: when it is full, when a zap begins on that CPU or a pagevec of
//! looked-up pages is released there (`lru_add_drain`), or on all CPUs when somebody must find every page on
//! a list (`lru_add_drain_all`). So a page that was unmapped may stay until the pagevec of another CPU lets go
//! of it.
//!
//! A task fills and drains the pagevecs of its CPU with preemption off.
//!
//! Pages are taken off the lists, always under lru_lock, by reclaim and migration, which isolate them
//! (shrink_list.rs, migrate.rs), and by `release_pages` and `put_page` when their last reference goes: there the
//! lock is held once for all pages of a pagevec.
//!
//! Deviations: a kernel has one zone; pages are dropped from a pagevec of another CPU by whoever calls
//! `lru_add_drain_all`, one CPU after the other, at the price of a context switch each (keventd has to run
//! there), where the kernel queues work to every CPU and waits.

use sim::Cx;
use x86::Pfn;

use crate::account::BOOKKEEPING;
use crate::frame::{LastReference, LruList, PageFlags};
use crate::kernel::Kernel;
use crate::page::FreeOrder;
use crate::profile::{PAGEVEC_SIZE, work};

/// Pages on their way to an LRU list (`struct pagevec`), each with a reference.
#[derive(Clone, Debug, Default)]
pub struct Pagevec {
    pages: Vec<Pfn>,
}

impl Pagevec {
    fn add(&mut self, pfn: Pfn) -> Room {
        if self.pages.capacity() == 0 {
            self.pages.reserve_exact(PAGEVEC_SIZE);
        }
        self.pages.push(pfn);
        if self.pages.len() == PAGEVEC_SIZE {
            Room::None
        } else {
            Room::Some
        }
    }

    /// The pages waiting.
    #[must_use]
    pub fn pages(&self) -> &[Pfn] {
        &self.pages
    }
}

/// The pagevecs of a CPU.
#[derive(Clone, Debug, Default)]
pub struct Pagevecs {
    /// `lru_add_pvecs`, indexed by list: to the inactive, to the active one.
    lists: [Pagevec; 2],
    /// `lru_rotate_pvecs`.
    rotate: Vec<Pfn>,
}

impl Pagevecs {
    /// The pagevec in front of a list.
    #[must_use]
    pub fn of(&self, list: LruList) -> &Pagevec {
        &self.lists[list as usize]
    }

    /// Pages on their way to the end of the inactive list (rotate.rs).
    #[must_use]
    pub fn rotate(&self) -> &[Pfn] {
        &self.rotate
    }

    pub(crate) fn rotate_mut(&mut self) -> &mut Vec<Pfn> {
        &mut self.rotate
    }
}

/// Room in a pagevec after a page was added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a full pagevec must be drained"]
pub(crate) enum Room {
    Some,
    None,
}

impl Kernel {
    /// `lru_cache_add` and `lru_cache_add_active`.
    pub(crate) async fn lru_cache_add(&self, cx: &Cx, pfn: Pfn, list: LruList) {
        // get_cpu_var: the pagevec is this CPU's until it is drained.
        let _off = cx.preempt_disable();
        if self.lru_pagevec_add(cx, pfn, list) == Room::None {
            self.drain_pagevec(cx, list).await;
        }
    }

    /// `page_cache_get`, `pagevec_add`: says when the pagevec must be drained.
    #[inline]
    pub(crate) fn lru_pagevec_add(&self, cx: &Cx, pfn: Pfn, list: LruList) -> Room {
        self.frames().get_page(pfn);
        let cpu = self.local(cx.cpu());
        self.st().cpus[cpu].pagevecs.lists[list as usize].add(pfn)
    }

    /// `lru_add_drain`: what waits on this CPU goes to the lists.
    pub(crate) async fn lru_add_drain(&self, cx: &Cx) {
        // get_cpu
        let _off = cx.preempt_disable();
        for list in [LruList::Inactive, LruList::Active] {
            let cpu = self.local(cx.cpu());
            let waiting = !self.st().cpus[cpu].pagevecs.of(list).pages.is_empty();
            if waiting {
                self.drain_pagevec(cx, list).await;
            }
        }
        self.drain_rotated(cx, self.local(cx.cpu())).await;
    }

    /// `lru_add_drain_all`: what waits on any CPU goes to the lists.
    pub async fn lru_add_drain_all(&self, cx: &Cx) {
        let _span = cx.span("lru_add_drain_all");
        for cpu in 0..self.nr_cpus() {
            if cpu != self.local(cx.cpu()) {
                cx.charge(BOOKKEEPING, self.machine.costs.context_switch);
            }
            let _pin = cx.preempt_disable();
            for list in [LruList::Inactive, LruList::Active] {
                let pages = self.take_pagevec(cpu, list);
                self.pages_to_list(cx, &pages, list).await;
            }
            self.drain_rotated(cx, cpu).await;
        }
    }

    /// `__pagevec_lru_add`, `__pagevec_lru_add_active`.
    pub(crate) async fn drain_pagevec(&self, cx: &Cx, list: LruList) {
        let _span = cx.span(match list {
            LruList::Inactive => "__pagevec_lru_add",
            LruList::Active => "__pagevec_lru_add_active",
        });
        let pages = self.take_pagevec(self.local(cx.cpu()), list);
        self.pages_to_list(cx, &pages, list).await;
        // The pagevec is used again, with the memory it has.
        let mut emptied = pages;
        emptied.clear();
        let cpu = self.local(cx.cpu());
        let mut st = self.st();
        let pagevec = &mut st.cpus[cpu].pagevecs.lists[list as usize];
        if pagevec.pages.capacity() == 0 {
            pagevec.pages = emptied;
        }
    }

    fn take_pagevec(&self, cpu: usize, list: LruList) -> Vec<Pfn> {
        std::mem::take(&mut self.st().cpus[cpu].pagevecs.lists[list as usize].pages)
    }

    async fn pages_to_list(&self, cx: &Cx, pages: &[Pfn], list: LruList) {
        if pages.is_empty() {
            return;
        }
        {
            let _irqs = cx.irq_disable();
            let _lock = match cx.lock_now(self.locks.lru_lock) {
                Some(guard) => guard,
                None => cx.lock(self.locks.lru_lock).await,
            };
            let work = self.machine.costs.cacheline_touch * (pages.len() as u64 * work::LRU);
            cx.charge(BOOKKEEPING, work);
            let mut frames = self.frames();
            for &pfn in pages {
                frames.lru_add(pfn, list);
            }
        }
        self.release_pages(cx, pages).await;
    }

    /// `release_pages` for up to a pagevec of pages: drops a reference to each; those whose last it was go
    /// off the LRU, under one hold of lru_lock, and back to the allocator.
    pub(crate) async fn release_pages(&self, cx: &Cx, pages: &[Pfn]) {
        debug_assert!(pages.len() <= PAGEVEC_SIZE);
        let mut dead = [Pfn::new(0); PAGEVEC_SIZE];
        let mut n = 0;
        {
            let mut locked = None;
            for &pfn in pages {
                let on_lru = {
                    let mut frames = self.frames();
                    if frames.put_testzero(pfn) == LastReference::No {
                        continue;
                    }
                    frames.get(pfn).flags.has(PageFlags::LRU)
                };
                if on_lru {
                    if locked.is_none() {
                        let irqs = cx.irq_disable();
                        locked = Some((cx.lock(self.locks.lru_lock).await, irqs));
                    }
                    self.leave_lru(cx, pfn);
                }
                dead[n] = pfn;
                n += 1;
            }
        }
        for &pfn in &dead[..n] {
            self.free_page(cx, pfn, FreeOrder::Flushed);
        }
    }

    /// `pagevec_release`: drops the references of a pagevec. What waits on this CPU goes to the lists first
    /// (`__pagevec_release`).
    pub(crate) async fn pagevec_release(&self, cx: &Cx, pages: &[Pfn]) {
        if pages.is_empty() {
            return;
        }
        self.lru_add_drain(cx).await;
        self.release_pages(cx, pages).await;
    }

    /// `__page_cache_release`: a page without references goes off its list, if it is on one.
    pub(crate) async fn page_cache_release(&self, cx: &Cx, pfn: Pfn) {
        if !self.frames.borrow().get(pfn).flags.has(PageFlags::LRU) {
            return;
        }
        let _irqs = cx.irq_disable();
        let _lock = cx.lock(self.locks.lru_lock).await;
        self.leave_lru(cx, pfn);
    }

    /// `del_page_from_lru` under lru_lock.
    fn leave_lru(&self, cx: &Cx, pfn: Pfn) {
        cx.charge(BOOKKEEPING, self.machine.costs.cacheline_touch * work::LRU);
        let mut frames = self.frames();
        // Somebody may have taken it off while we waited for the lock.
        if frames.get(pfn).flags.has(PageFlags::LRU) {
            let _ = frames.lru_del(pfn);
        }
    }

    /// `activate_page`.
    pub(crate) async fn activate_page(&self, cx: &Cx, pfn: Pfn) {
        let _irqs = cx.irq_disable();
        let _lock = cx.lock(self.locks.lru_lock).await;
        cx.charge(BOOKKEEPING, self.machine.costs.cacheline_touch * work::LRU);
        let mut frames = self.frames();
        let flags = frames.get(pfn).flags;
        if flags.has(PageFlags::LRU) && !flags.has(PageFlags::ACTIVE) {
            let _ = frames.lru_del(pfn);
            frames.lru_add(pfn, LruList::Active);
            drop(frames);
            self.st().metrics.lru_activated += 1;
        }
    }

    /// `mark_page_accessed`: the first use marks a page as referenced, the second one activates it.
    pub async fn mark_page_accessed(&self, cx: &Cx, pfn: Pfn) {
        let activate = {
            let mut frames = self.frames();
            let flags = &mut frames.get_mut(pfn).flags;
            let referenced = flags.has(PageFlags::REFERENCED);
            if referenced && !flags.has(PageFlags::ACTIVE) && flags.has(PageFlags::LRU) {
                flags.clear(PageFlags::REFERENCED);
                true
            } else {
                flags.set(PageFlags::REFERENCED);
                false
            }
        };
        if activate {
            self.activate_page(cx, pfn).await;
        }
    }
}
