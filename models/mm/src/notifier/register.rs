//! Registration and unregistration.
//!
//! V1: the list's spinlock; nothing in flight is excluded, and nothing needs to be, because each
//! pte is cleared and notified under one hold of its lock (notifier-variants V1.4).
//!
//! V8: `mmu_notifier_register` and `mm_take_all_locks` of mm/mmu_notifier.c and mm/mmap.c, 2.6.27
//! with the order fixed by 7cd5a02f54f4 (host-mm-paths B.19): W(mmap_sem); the global mutex; every
//! distinct i_mmap_lock in VMA order; every distinct anon_vma->lock; the list is extended; all are
//! dropped. While all are held no bracket of this mm is open, so a subscriber never sees an end
//! without its start.
//!
//! V6 and V9: `mm_lock` (v14 of the series): the same locks, collected in two arrays, sorted by
//! address, taken without duplicates, i_mmap_locks first. Sorting is charged as V log V compares. Addresses
//! of locks are their numbers. v12 does not sort: it looks for the next higher address among all VMAs
//! before each lock, V looks a lock. v15 and v16 take the anon_vma->locks first, against the documented
//! hierarchy (notifier-variants 10.22), as did 2.6.27-rc1, which took the locks VMA by VMA.
//!
//! Deviations: v12's unregistration, which took mm_lock, too, and could fail, is that of the others; a
//! signal cannot arrive and memory for the arrays does not run out (that comes with
//! the registration study); a lock's seen-bit is a set here.

use std::collections::BTreeSet;
use std::rc::Rc;

use sim::{Cx, Guard, LockId};

use super::{Registration, Subscriber, Subscription, SubscriptionId};
use crate::account::REGISTRATION;
use crate::kernel::Kernel;
use crate::mm::{MmId, Notified};
use crate::profile::work;
use crate::vma::VmaId;

impl Kernel {
    /// `mmu_notifier_register`: the subscriber hears of everything that begins from now on.
    pub async fn mmu_notifier_register(
        &self,
        cx: &Cx,
        mm: MmId,
        handler: Rc<dyn Subscriber>,
    ) -> SubscriptionId {
        let _span = cx.span("mmu_notifier_register");
        let _booking = cx.book_to(REGISTRATION);
        match self.design.registration {
            Registration::ListLock => self.link(cx, mm, handler).await,
            Registration::TakeAllLocks => {
                let _sem = cx.lock(self.mmap_sem(mm)).await;
                let _all = self.mm_take_all_locks(cx, mm).await;
                self.link(cx, mm, handler).await
            }
            Registration::TakeAllInterleaved => {
                let _sem = cx.lock(self.mmap_sem(mm)).await;
                let _all = self.mm_take_all_locks_interleaved(cx, mm).await;
                self.link(cx, mm, handler).await
            }
            Registration::MmLock | Registration::MmLockSearch | Registration::MmLockAnonFirst => {
                let _sem = cx.lock(self.mmap_sem(mm)).await;
                let _all = self.mm_lock(cx, mm).await;
                self.link(cx, mm, handler).await
            }
        }
    }

    /// `mmu_notifier_unregister`: after this no callback runs or will run. Sleeps for a grace period.
    pub async fn mmu_notifier_unregister(&self, cx: &Cx, id: SubscriptionId) {
        let _span = cx.span("mmu_notifier_unregister");
        let mm = self.st().subscriptions[id.0 as usize].mm;
        let lock = self.st().mm(mm).notifier_lock;
        let list = cx.lock(lock).await;
        let listed = {
            let mut st = self.st();
            let subscribers = &mut st.mm_mut(mm).subscribers;
            let before = subscribers.len();
            subscribers.retain(|s| *s != id);
            before != subscribers.len()
        };
        // Exactly one of release and unregister calls ->release (notifier-variants V6.4), inside a
        // read section begun before the list lock goes, so that exit_mmap waits for it.
        let reader = self.protect_list(cx);
        drop(list);
        if listed {
            self.tell_release(cx, id).await;
        }
        drop(reader);
        self.synchronize_list(cx).await;
    }

    async fn link(&self, cx: &Cx, mm: MmId, handler: Rc<dyn Subscriber>) -> SubscriptionId {
        let lock = self.st().mm(mm).notifier_lock;
        let _list = cx.lock(lock).await;
        let mut st = self.st();
        st.subscriptions.push(Subscription::new(handler, mm));
        let id = SubscriptionId((st.subscriptions.len() - 1) as u32);
        st.mm_mut(mm).subscribers.insert(0, id);
        st.mm_mut(mm).notified = Notified::Once;
        st.metrics.registrations += 1;
        id
    }

    /// `mm_take_all_locks`. The caller holds mmap_sem for write.
    async fn mm_take_all_locks<'a>(&self, cx: &'a Cx, mm: MmId) -> (Vec<Guard<'a>>, Guard<'a>) {
        let _span = cx.span("mm_take_all_locks");
        let mutex = cx.lock(self.locks.mm_all_locks).await;
        let mut held = Vec::new();
        let (files, anon) = self.rmap_locks(mm);
        let mut seen = BTreeSet::new();
        for lock in files.into_iter().chain(anon) {
            self.touch_lines(cx, work::FIND_VMA);
            if seen.insert(lock) {
                held.push(cx.lock(lock).await);
            }
        }
        self.note_registration_locks(held.len());
        // Dropped in this order: the mutex last.
        (held, mutex)
    }

    /// `mm_take_all_locks` as first merged: VMA by VMA, its anon_vma->lock before its i_mmap_lock
    /// (notifier-variants 10.22).
    async fn mm_take_all_locks_interleaved<'a>(&self, cx: &'a Cx, mm: MmId) -> (Vec<Guard<'a>>, Guard<'a>) {
        let _span = cx.span("mm_take_all_locks");
        let mutex = cx.lock(self.locks.mm_all_locks).await;
        let locks: Vec<LockId> = {
            let st = self.st();
            let of = |v: VmaId| {
                let v = st.vma(v);
                let file = v.file().map(|f| st.file(f).i_mmap_lock);
                let anon = v.anon_vma.map(|a| st.anon_vma(a).lock);
                anon.into_iter().chain(file)
            };
            st.mm(mm).vmas.iter().flat_map(of).collect()
        };
        let (mut held, mut seen) = (Vec::new(), BTreeSet::new());
        for lock in locks {
            self.touch_lines(cx, work::FIND_VMA);
            if seen.insert(lock) {
                held.push(cx.lock(lock).await);
            }
        }
        self.note_registration_locks(held.len());
        (held, mutex)
    }

    /// `mm_lock` of v12 to v16. The caller holds mmap_sem for write.
    async fn mm_lock<'a>(&self, cx: &'a Cx, mm: MmId) -> Vec<Guard<'a>> {
        let _span = cx.span("mm_lock");
        let mut held = Vec::new();
        let (files, anon) = self.rmap_locks(mm);
        let vmas = self.st().mm(mm).vmas.len() as u64;
        let arrays = match self.design.registration {
            Registration::MmLockAnonFirst => [anon, files],
            _ => [files, anon],
        };
        for mut array in arrays {
            let n = array.len() as u64;
            array.sort_unstable();
            array.dedup();
            let looks = match self.design.registration {
                // Each lock, and the end, is found by a look at every VMA.
                Registration::MmLockSearch => (array.len() as u64 + 1) * vmas * work::FIND_VMA,
                _ => n * work::FIND_VMA + n * u64::from(n.max(1).ilog2() + 1),
            };
            self.touch_lines(cx, looks);
            for lock in array {
                held.push(cx.lock(lock).await);
            }
        }
        self.note_registration_locks(held.len());
        held
    }

    /// i_mmap and anon_vma locks of all VMAs, in VMA order, with duplicates.
    fn rmap_locks(&self, mm: MmId) -> (Vec<LockId>, Vec<LockId>) {
        let st = self.st();
        let vmas: Vec<_> = st.mm(mm).vmas.iter().collect();
        let files = vmas
            .iter()
            .filter_map(|v| st.vma(*v).file())
            .map(|f| st.file(f).i_mmap_lock)
            .collect();
        let anon = vmas
            .iter()
            .filter_map(|v| st.vma(*v).anon_vma)
            .map(|a| st.anon_vma(a).lock)
            .collect();
        (files, anon)
    }

    fn note_registration_locks(&self, held: usize) {
        let m = &mut self.st().metrics;
        m.registration_locks_max = m.registration_locks_max.max(held as u64);
    }
}
