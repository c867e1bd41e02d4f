//! `do_swap_page`: a fault on an entry that names a slot of the swap device.
//!
//! Follows mm/memory.c of 2.6.27 (host-mm-paths B.5). The page is looked for in the swap cache, else it is read
//! with its neighbours (see [`crate::swap_state`]), while mmap_sem is held. Then, under PG_locked and the pte
//! lock, if the entry still names the slot: the page is mapped with the mapping's own rights, without the
//! right to write if it is private; a write makes it writable at once if nobody else maps the page or names
//! the slot, and goes through `do_wp_page` otherwise. The entry's use of the slot is given up, and, if the
//! device is more than half full, the page leaves the swap cache. Nothing is flushed: the entry mapped
//! nothing.
//!
//! Locks: mmap_sem for read; PG_locked, inside it the pte lock, inside that swap_lock.

use sim::{Cx, Guard};
use x86::{Entry, Pfn, Rights};

use super::fault::{Fault, Served, Still};
use crate::access::Refused;
use crate::account::PAGE_TABLE;
use crate::frame::Owner;
use crate::kernel::Kernel;
use crate::profile::work;
use crate::swapfile::Shared;
use crate::swapops::{NonPresent, SwapSlot};
use crate::vma::Sharing;

impl Kernel {
    /// `do_swap_page`.
    pub(super) async fn do_swap_page(
        &self,
        cx: &Cx,
        fault: Fault,
        slot: SwapSlot,
    ) -> Result<Served, Refused> {
        let _span = cx.span("do_swap_page");
        let expected = NonPresent::Swap(slot).entry();
        let pfn = match self.lookup_swap_cache(cx, slot).await {
            Some(pfn) => pfn,
            None => match self.swapin_readahead(cx, slot).await {
                Some(pfn) => {
                    self.st().metrics.faults_major += 1;
                    pfn
                }
                None => {
                    // Somebody else served this entry meanwhile, or there is no memory for it.
                    let (_ptl, _, still) = self.relock(cx, &fault, expected).await;
                    return match still {
                        Still::Changed => Ok(Served::Otherwise),
                        Still::Same => Err(Refused::OutOfMemory),
                    };
                }
            },
        };
        self.mark_page_accessed(cx, pfn).await;
        let locked = self.lock_page(cx, pfn).await;
        let (ptl, _, still) = self.relock(cx, &fault, expected).await;
        if still == Still::Changed {
            drop(ptl);
            drop(locked);
            self.put_page(cx, pfn).await;
            return Ok(Served::Otherwise);
        }
        self.install_swap_page(cx, fault, slot, pfn, ptl, locked).await
    }

    /// The page takes the entry's place; the caller's reference becomes the entry's.
    async fn install_swap_page(
        &self,
        cx: &Cx,
        fault: Fault,
        slot: SwapSlot,
        pfn: Pfn,
        ptl: Guard<'_>,
        locked: Guard<'_>,
    ) -> Result<Served, Refused> {
        let mut write = fault.access.is_write();
        let mut entry = {
            let st = self.st();
            let vma = st.vma(fault.vma);
            // vm_page_prot: a private mapping's has no write right.
            let rights = match vma.sharing {
                Sharing::Private => vma.rights().without(Rights::WRITE),
                Sharing::Shared => vma.rights(),
            };
            Entry::leaf(pfn, rights).with_accessed()
        };
        // The entry does not map the page yet, but still names its slot: that is one user.
        if write && self.can_share_swap_page(cx, pfn).await == Shared::No {
            entry = entry.with_write().with_dirty();
            write = false;
        }
        self.add_anon_rmap(cx, &fault, pfn, entry);
        let _ = self.swap_free(cx, slot).await;
        if self.st().swap.is_full() {
            let _ = self.remove_exclusive_swap_page(cx, pfn).await;
        }
        drop(locked);
        if write {
            return self.do_wp_page(cx, fault, entry, ptl).await;
        }
        Ok(Served::Otherwise)
    }

    /// `set_pte_at`, `page_add_anon_rmap` and rss, under the pte lock.
    fn add_anon_rmap(&self, cx: &Cx, fault: &Fault, pfn: Pfn, entry: Entry) {
        let mut st = self.st();
        self.set_pte(cx, &mut st, fault.table, fault.index, entry);
        st.metrics.faults_swap += 1;
        st.mm_mut(fault.mm).anon_rss += 1;
        let vma = st.vma(fault.vma);
        let anon = vma.anon_vma.expect("a mapping with swap entries has an anon_vma");
        let index = vma.pgoff_of(fault.va);
        let mut frames = self.frames();
        let frame = frames.get_mut(pfn);
        frame.mapcount += 1;
        if frame.mapcount == 1 {
            frame.set_owner(Owner::Anon(anon));
            frame.set_index(index);
        }
        drop(frames);
        drop(st);
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        self.touch_lines(cx, work::RMAP);
    }
}
