//! Reclaim: who looks for pages to free, how many, and how hard.
//!
//! Follows mm/vmscan.c of 2.6.27 (host-mm-paths B.12). Three come here: a task that needs a page and finds
//! too few free ([`Kernel::try_to_free_pages`], direct reclaim), kswapd (kswapd.rs), and whoever asks
//! for a number of pages ([`Kernel::shrink_all_memory`]). All scan the two LRU lists of the zone from their
//! ends in batches (shrink_list.rs), pages of the inactive list one by one (shrink_page_list.rs).
//!
//! `priority` falls from 12 to 0 as long as too little was freed: of each list, its length shifted right by
//! it is scanned, and one page more; less than a batch is saved up for the next time. From the fourth
//! attempt on, after one that scanned anything, the task naps. Mapped pages leave the active list only if
//! `reclaim_mapped` says so: if much of memory is mapped, the active list is much longer than the
//! inactive one, or reclaim is in distress.
//!
//! Locks: none here. The caller may hold mmap_sem, i_mutex and PG_locked of other pages, but no spinlock.
//!
//! Deviations: slab caches are not shrunk (there are none); laptop mode, the swap token and throttling by
//! dirty limits (`balance_dirty_pages`) are not modelled, and pdflush, which direct reclaim wakes when it has
//! scanned more than a batch and a half (`wakeup_pdflush`), does not exist: reclaim writes what it meets;
//! control groups, `zone_reclaim` and requests for several pages in a row are not, and with the latter goes
//! synchronous pageout, which serves nothing else. The share of mapped memory (NR_FILE_MAPPED and
//! NR_ANON_PAGES of `vm_total_pages`) is counted once for each call of shrink_zone, of the pages that are on a
//! list: those isolated at that moment or waiting in a pagevec are left out; and it is a share of all pages of
//! the zone, where the kernel leaves `pages_high` out.

use sim::Cx;

use crate::frame::{Frames, LruList, Zone};
use crate::kernel::Kernel;
use crate::page_alloc::RECLAIM_NAP_NS;

/// `DEF_PRIORITY`, include/linux/mmzone.h 2.6.27.
pub(super) const DEF_PRIORITY: u32 = 12;
/// `SWAP_CLUSTER_MAX`: pages that one caller frees, and that are taken off a list at a time,
/// include/linux/swap.h 2.6.27.
pub(super) const SWAP_CLUSTER_MAX: u64 = 32;
/// `vm_swappiness`, mm/vmscan.c 2.6.27.
const SWAPPINESS: u64 = 60;
/// Swappiness of the passes of shrink_all_memory that take mapped pages; same place.
const SWAPPINESS_FORCED: u64 = 100;
/// A tendency to swap from which on mapped pages are reclaimed, a percentage (`calc_reclaim_mapped`).
const SWAP_TENDENCY_LIMIT: u64 = 100;
const PERCENT: u64 = 100;
/// A zone is near the end of its memory when so many times the pages of its lists were scanned without
/// one being freed (`zone_is_near_oom`).
const NEAR_OOM_FACTOR: u64 = 3;
/// The lowest priority after which reclaim does not nap: the first three attempts follow at once
/// (`do_try_to_free_pages`, `shrink_all_memory`, `balance_pgdat`).
pub(super) const NAP_BELOW: u32 = DEF_PRIORITY - 2;

/// What reclaim remembers of a zone.
#[derive(Clone, Debug)]
pub(crate) struct ReclaimState {
    /// `nr_scan_inactive`, `nr_scan_active`: what is saved up, by list.
    nr_scan: [u64; 2],
    /// `prev_priority`.
    pub(super) prev_priority: u32,
    /// Where kswapd sleeps, once it was started.
    pub(super) kswapd_wait: Option<sim::QueueId>,
}

impl Default for ReclaimState {
    fn default() -> Self {
        ReclaimState {
            nr_scan: [0; 2],
            prev_priority: DEF_PRIORITY,
            kswapd_wait: None,
        }
    }
}

/// `struct scan_control`.
#[derive(Clone, Debug)]
pub(super) struct ScanControl {
    /// `nr_scanned`: pages of the inactive list looked at; mapped ones and those with a slot count twice.
    pub(super) scanned: u64,
    /// `swap_cluster_max`.
    pub(super) batch: u64,
    /// Pages that were kept because nobody could be asked for their age.
    pub(super) contended: u64,
    /// `swappiness`.
    swappiness: u64,
    /// `all_unreclaimable`, of the last attempt.
    zones: Zones,
}

/// What direct reclaim achieved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Progress {
    /// Pages were freed.
    Freed,
    /// None, but of some that it met it could not be told whether they are used: rmap locks that sleep were
    /// held by others.
    Contended,
    /// None.
    None,
}

/// Whether an attempt of direct reclaim tried any zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Zones {
    /// It did.
    SomeTried,
    /// All were passed over.
    AllUnreclaimable,
}

impl ScanControl {
    pub(super) fn new() -> Self {
        ScanControl {
            scanned: 0,
            contended: 0,
            batch: SWAP_CLUSTER_MAX,
            swappiness: SWAPPINESS,
            zones: Zones::SomeTried,
        }
    }
}

/// `reclaim_mapped`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReclaimMapped {
    /// Mapped pages stay on the active list.
    No,
    /// They leave it if they are not young.
    Yes,
}

/// What `calc_reclaim_mapped` decides by.
#[derive(Clone, Copy, Debug)]
struct Tendency {
    active: u64,
    inactive: u64,
    scanned_in_vain: u64,
    /// The smaller of the zone's and the present priority.
    priority: u32,
    mapped: u64,
    memory: u64,
    swappiness: u64,
}

impl Tendency {
    /// `calc_reclaim_mapped`.
    fn reclaim_mapped(&self) -> ReclaimMapped {
        let near_oom = self.scanned_in_vain >= (self.active + self.inactive) * NEAR_OOM_FACTOR;
        let distress = PERCENT >> self.priority;
        let mapped_ratio = self.mapped * PERCENT / self.memory.max(1);
        let imbalance =
            self.active / (self.inactive + 1) * (self.swappiness + 1) / PERCENT * mapped_ratio / PERCENT;
        let tendency = mapped_ratio / 2 + distress + self.swappiness + imbalance;
        if near_oom || tendency >= SWAP_TENDENCY_LIMIT {
            ReclaimMapped::Yes
        } else {
            ReclaimMapped::No
        }
    }
}

impl Kernel {
    /// `try_to_free_pages`: direct reclaim. It made no progress, unless it freed a batch, if the zone had been
    /// given up by the last attempt.
    pub(crate) async fn try_to_free_pages(&self, cx: &Cx) -> Progress {
        let _span = cx.span("try_to_free_pages");
        self.st().metrics.reclaim_direct += 1;
        let mut sc = ScanControl::new();
        let (mut reclaimed, mut last) = (0, 0);
        for priority in (0..=DEF_PRIORITY).rev() {
            last = priority;
            (sc.scanned, sc.contended) = (0, 0);
            reclaimed += self.shrink_zones(cx, priority, &mut sc).await;
            if reclaimed >= sc.batch {
                break;
            }
            if sc.scanned > 0 && priority < NAP_BELOW {
                self.congestion_wait(cx, RECLAIM_NAP_NS).await;
            }
        }
        self.st().reclaim.prev_priority = last;
        match sc.zones {
            Zones::SomeTried if reclaimed > 0 => Progress::Freed,
            _ if sc.contended > 0 => Progress::Contended,
            _ => Progress::None,
        }
    }

    /// `shrink_zones` for the only zone.
    async fn shrink_zones(&self, cx: &Cx, priority: u32, sc: &mut ScanControl) -> u64 {
        self.note_zone_scanning_priority(priority);
        if self.given_up_at(priority) {
            sc.zones = Zones::AllUnreclaimable;
            return 0;
        }
        sc.zones = Zones::SomeTried;
        self.shrink_zone(cx, priority, sc).await
    }

    /// `note_zone_scanning_priority`.
    pub(super) fn note_zone_scanning_priority(&self, priority: u32) {
        let mut st = self.st();
        st.reclaim.prev_priority = st.reclaim.prev_priority.min(priority);
    }

    /// Whether the zone is passed over: of one that is all unreclaimable only the first priority is tried.
    pub(super) fn given_up_at(&self, priority: u32) -> bool {
        priority != DEF_PRIORITY && self.frames.borrow().all_unreclaimable(self.zone)
    }

    /// `shrink_zone`. Returns how many pages were freed.
    pub(super) async fn shrink_zone(&self, cx: &Cx, priority: u32, sc: &mut ScanControl) -> u64 {
        let _span = cx.span("shrink_zone");
        let mut active = self.nr_to_scan(LruList::Active, priority, sc.batch);
        let mut inactive = self.nr_to_scan(LruList::Inactive, priority, sc.batch);
        let mapped = self.reclaim_mapped(priority, sc);
        let mut reclaimed = 0;
        while active > 0 || inactive > 0 {
            if active > 0 {
                let pages = active.min(sc.batch);
                active -= pages;
                self.shrink_active_list(cx, pages, mapped).await;
            }
            if inactive > 0 {
                let pages = inactive.min(sc.batch);
                inactive -= pages;
                reclaimed += self.shrink_inactive_list(cx, pages, sc).await;
            }
        }
        reclaimed
    }

    /// How many pages of a list are due: nothing before a batch has come together.
    fn nr_to_scan(&self, list: LruList, priority: u32, batch: u64) -> u64 {
        let len = self.frames.borrow().lru_len(self.zone, list);
        let mut st = self.st();
        let saved = &mut st.reclaim.nr_scan[list as usize];
        *saved += (len >> priority) + 1;
        if *saved >= batch { std::mem::take(saved) } else { 0 }
    }

    fn reclaim_mapped(&self, priority: u32, sc: &ScanControl) -> ReclaimMapped {
        let prev = self.st().reclaim.prev_priority;
        let frames = self.frames.borrow();
        let tendency = Tendency {
            active: frames.lru_len(self.zone, LruList::Active),
            inactive: frames.lru_len(self.zone, LruList::Inactive),
            scanned_in_vain: frames.scanned_in_vain(self.zone),
            priority: prev.min(priority),
            mapped: 0,
            memory: frames.present_pages(self.zone),
            swappiness: sc.swappiness,
        };
        // Counting takes a look at every page; with enough distress the count does not matter.
        if tendency.reclaim_mapped() == ReclaimMapped::Yes {
            return ReclaimMapped::Yes;
        }
        let mapped = mapped_pages(&frames, self.zone);
        Tendency { mapped, ..tendency }.reclaim_mapped()
    }

    /// `shrink_all_memory`, its passes that take mapped pages: frees so many pages, if it can. The task
    /// does it itself. Returns how many were freed.
    ///
    /// Deviation: of the five passes of 2.6.27 only the last two; the others spare mapped pages, and whoever asks
    /// wants to see those go.
    pub async fn shrink_all_memory(&self, cx: &Cx, pages: u64) -> u64 {
        let _span = cx.span("shrink_all_memory");
        let mut freed = 0;
        for pass in [Pass::WhenDue, Pass::AtOnce] {
            for priority in (0..=DEF_PRIORITY).rev() {
                if freed >= pages {
                    return freed;
                }
                let mut sc = ScanControl {
                    batch: pages,
                    swappiness: SWAPPINESS_FORCED,
                    ..ScanControl::new()
                };
                freed += self
                    .shrink_all_zones(cx, pages - freed, priority, pass, &mut sc)
                    .await;
                if freed < pages && sc.scanned > 0 && priority < NAP_BELOW {
                    self.congestion_wait(cx, RECLAIM_NAP_NS).await;
                }
            }
        }
        freed
    }

    /// `shrink_all_zones` for the only zone.
    async fn shrink_all_zones(
        &self,
        cx: &Cx,
        pages: u64,
        priority: u32,
        pass: Pass,
        sc: &mut ScanControl,
    ) -> u64 {
        if self.given_up_at(priority) {
            return 0;
        }
        let batch = match pass {
            Pass::WhenDue => pages,
            Pass::AtOnce => 0,
        };
        if self.nr_to_scan(LruList::Active, priority, batch) > 0 {
            let len = self.frames.borrow().lru_len(self.zone, LruList::Active);
            let mapped = self.reclaim_mapped(priority, sc);
            self.shrink_active_list(cx, pages.min(len), mapped).await;
        }
        if self.nr_to_scan(LruList::Inactive, priority, batch) == 0 {
            return 0;
        }
        let len = self.frames.borrow().lru_len(self.zone, LruList::Inactive);
        self.shrink_inactive_list(cx, pages.min(len), sc).await
    }
}

/// The passes of shrink_all_memory that are modelled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// A list is scanned when as many pages of it are due as are wanted.
    WhenDue,
    /// It is scanned each time.
    AtOnce,
}

/// NR_FILE_MAPPED + NR_ANON_PAGES, of pages that are on a list.
fn mapped_pages(frames: &Frames, zone: Zone) -> u64 {
    let lists = [LruList::Active, LruList::Inactive];
    let pages = lists.into_iter().flat_map(|list| frames.lru_pages(zone, list));
    pages.filter(|pfn| frames.get(*pfn).mapcount > 0).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_REST: Tendency = Tendency {
        active: 500,
        inactive: 500,
        scanned_in_vain: 0,
        priority: DEF_PRIORITY,
        mapped: 0,
        memory: 1000,
        swappiness: SWAPPINESS,
    };

    #[test]
    fn mapped_pages_go_when_most_of_memory_is_mapped_or_reclaim_is_in_distress() {
        let says = |t: Tendency| t.reclaim_mapped() == ReclaimMapped::Yes;
        assert!(!says(AT_REST));
        // Half the percentage of mapped memory, 60 of swappiness.
        assert!(!says(Tendency {
            mapped: 799,
            ..AT_REST
        }));
        assert!(says(Tendency {
            mapped: 800,
            ..AT_REST
        }));
        // 100 >> priority: 25 at 2, 50 at 1.
        assert!(!says(Tendency {
            priority: 2,
            mapped: 299,
            ..AT_REST
        }));
        assert!(says(Tendency {
            priority: 2,
            mapped: 300,
            ..AT_REST
        }));
        assert!(says(Tendency {
            priority: 1,
            ..AT_REST
        }));
        // Everything was scanned three times.
        assert!(!says(Tendency {
            scanned_in_vain: 2999,
            ..AT_REST
        }));
        assert!(says(Tendency {
            scanned_in_vain: 3000,
            ..AT_REST
        }));
        assert!(says(Tendency {
            swappiness: SWAPPINESS_FORCED,
            ..AT_REST
        }));
    }

    #[test]
    fn an_active_list_that_is_much_longer_counts_as_far_as_memory_is_mapped() {
        // (900 / (9 + 1)) * 61 / 100 = 54 times the mapped share.
        let long = Tendency {
            active: 900,
            inactive: 9,
            ..AT_REST
        };
        let says = |mapped| Tendency { mapped, ..long }.reclaim_mapped() == ReclaimMapped::Yes;
        // 38 / 2 + 54 * 38 / 100 + 60 = 19 + 20 + 60.
        assert!(!says(380));
        // 39 / 2 + 54 * 39 / 100 + 60 = 19 + 21 + 60.
        assert!(says(390));
    }
}
