//! PG_locked: the sleeping bit lock of a page.
//!
//! Follows `lock_page` and `trylock_page` of include/linux/pagemap.h, 2.6.27 (host-mm-paths E, rank 30). A
//! bit in the kernel's `struct page`; here a lock that is made when a frame is first locked and then stays
//! with the frame, whatever it holds later, as the bit does. Of most frames, those of anonymous memory
//! that is never reclaimed, nobody ever takes it.
//!
//! A store to an anonymous page that may be shared tries the lock for a moment; of a page that never had one
//! none is made for that (a lock is larger than all else that is known of a page). Deviation: somebody
//! else who tries the same lock in the few cycles of that moment gets it.
//!
//! A page that is read from a device and that nobody waits for (swap readahead) is locked without an owner
//! until the interrupt at the end of the read: whoever takes the lock before waits for the rest, and who only
//! tries does not get it.

use sim::{Action, Cx, Guard, LockId, Object};
use x86::Pfn;

use crate::kernel::Kernel;

/// Frames whose locks lie side by side: as many as a page of numbers holds.
const CHUNK: usize = 1024;

/// Class of PG_locked among the objects of steps.
const PAGE_LOCK_OBJECT: u16 = 10;

/// The locks of all frames that were ever locked.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageLocks {
    chunks: Vec<Option<Box<[Option<LockId>; CHUNK]>>>,
}

impl PageLocks {
    fn get(&self, pfn: Pfn) -> Option<LockId> {
        let chunk = self.chunks.get(pfn.index() / CHUNK)?.as_ref()?;
        chunk[pfn.index() % CHUNK]
    }

    fn get_or_make(&mut self, pfn: Pfn, make: impl FnOnce() -> LockId) -> LockId {
        let (chunk, place) = (pfn.index() / CHUNK, pfn.index() % CHUNK);
        if self.chunks.len() <= chunk {
            self.chunks.resize(chunk + 1, None);
        }
        let locks = self.chunks[chunk].get_or_insert_with(|| Box::new([None; CHUNK]));
        *locks[place].get_or_insert_with(make)
    }
}

impl Kernel {
    /// `PageLocked`.
    #[must_use]
    pub(crate) fn page_is_locked(&self, pfn: Pfn) -> bool {
        let lock = self.state.borrow().page_locks.get(pfn);
        lock.is_some_and(|lock| self.engine.is_locked(lock)) || self.page_being_read(pfn)
    }

    /// PG_locked of a page.
    pub(crate) fn page_lock(&self, pfn: Pfn) -> LockId {
        let make = || self.engine.new_lock(self.classes.page_locked);
        self.st().page_locks.get_or_make(pfn, make)
    }

    /// `lock_page`.
    pub(crate) async fn lock_page<'a>(&self, cx: &'a Cx, pfn: Pfn) -> Guard<'a> {
        let lock = self.page_lock(pfn);
        let guard = match cx.lock_now(lock) {
            Some(guard) => guard,
            None => cx.lock(lock).await,
        };
        self.wait_on_read(cx, pfn).await;
        guard
    }

    /// `wait_on_page_locked`: until nobody has the page locked. Who waits here takes the lock and lets it
    /// go at once, which is one acquisition more in lock_stat.
    pub(crate) async fn wait_on_page_locked(&self, cx: &Cx, pfn: Pfn) {
        cx.step(
            Object::Other(PAGE_LOCK_OBJECT, u64::from(pfn.get())),
            Action::Read,
        )
        .await;
        if self.page_is_locked(pfn) {
            drop(self.lock_page(cx, pfn).await);
        }
    }

    /// `trylock_page` and `unlock_page` with nothing between that waits. Says whether the lock was had.
    pub(crate) async fn pass_page_lock(&self, cx: &Cx, pfn: Pfn) -> bool {
        if cx.must_sync() {
            let lock = Object::Other(PAGE_LOCK_OBJECT, u64::from(pfn.get()));
            cx.step(lock, Action::Write).await;
        }
        if self.state.borrow().page_locks.get(pfn).is_some() {
            return self.trylock_page(cx, pfn).await.is_some();
        }
        if self.page_being_read(pfn) {
            return false;
        }
        cx.pass_lock(self.classes.page_locked);
        true
    }

    /// `trylock_page`.
    pub(crate) async fn trylock_page<'a>(&self, cx: &'a Cx, pfn: Pfn) -> Option<Guard<'a>> {
        let guard = cx.try_lock(self.page_lock(pfn)).await?;
        (!self.page_being_read(pfn)).then_some(guard)
    }
}
