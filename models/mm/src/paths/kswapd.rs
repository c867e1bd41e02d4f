//! `kswapd`, `balance_pgdat`: freeing pages in the background.
//!
//! Follows mm/vmscan.c of 2.6.27 (host-mm-paths B.12). Whoever finds no more than `pages_low` frames free wakes
//! kswapd, which frees until more than `pages_high` are: with a priority that falls from 12 to 0, as direct
//! reclaim does, from the beginning again once 32 pages were freed. A zone of which everything was
//! scanned six times without a page being freed is all unreclaimable: until one is, it is only
//! tried at the first priority, and kswapd goes to sleep.
//!
//! The task is made when it is first woken. It is a daemon, and a worker while it frees, so that no run ends with
//! pages in its hands.

use std::rc::Rc;

use sim::{Affinity, Cx, QueueId, Role, TaskSpec};

use super::vmscan::{DEF_PRIORITY, NAP_BELOW, SWAP_CLUSTER_MAX, ScanControl};
use crate::frame::{LruList, Watermark};
use crate::kernel::Kernel;
use crate::page_alloc::RECLAIM_NAP_NS;

/// A zone is all unreclaimable when so many times the pages of its lists were scanned without one being
/// freed (`balance_pgdat`).
const UNRECLAIMABLE_FACTOR: u64 = 6;

/// Whether enough frames are free.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Balanced {
    Yes,
    No,
}

impl Kernel {
    /// `wakeup_kswapd`.
    pub(crate) fn wakeup_kswapd(&self, cx: &Cx) {
        if self.frames.borrow().watermark_ok(self.zone, Watermark::Low) {
            return;
        }
        let known = self.st().reclaim.kswapd_wait;
        match known {
            Some(queue) => cx.engine().wake_all(queue),
            None => self.start_kswapd(),
        }
    }

    fn start_kswapd(&self) {
        let queue = self.engine.wait_queue("kswapd_wait");
        self.st().reclaim.kswapd_wait = Some(queue);
        let kernel = self.me.upgrade().expect("a kernel that runs exists");
        let first = self.cpu(0);
        let spec = TaskSpec {
            name: format!("kswapd{}", self.id.0).into(),
            cpu: first,
            affinity: Affinity::Any {
                first,
                count: self.nr_cpus() as u16,
            },
            role: Role::Daemon,
        };
        self.engine
            .spawn(spec, |cx| async move { kswapd(cx, kernel, queue).await });
    }

    /// `balance_pgdat`.
    async fn balance_pgdat(&self, cx: &Cx) {
        let _span = cx.span("balance_pgdat");
        self.st().metrics.kswapd_runs += 1;
        while self.balance_once(cx).await == Balanced::No {
            cx.cond_resched().await;
        }
    }

    /// One fall of the priority.
    async fn balance_once(&self, cx: &Cx) -> Balanced {
        let mut sc = ScanControl::new();
        let (mut scanned, mut reclaimed) = (0, 0);
        let (mut balanced, mut last) = (Balanced::Yes, DEF_PRIORITY);
        for priority in (0..=DEF_PRIORITY).rev() {
            balanced = Balanced::Yes;
            if self.given_up_at(priority) || self.frames.borrow().watermark_ok(self.zone, Watermark::High) {
                break;
            }
            balanced = Balanced::No;
            last = priority;
            sc.scanned = 0;
            self.note_zone_scanning_priority(priority);
            reclaimed += self.shrink_zone(cx, priority, &mut sc).await;
            scanned += sc.scanned;
            self.note_unreclaimable();
            if scanned > 0 && priority < NAP_BELOW {
                self.congestion_wait(cx, RECLAIM_NAP_NS).await;
            }
            if reclaimed >= SWAP_CLUSTER_MAX {
                break;
            }
        }
        self.st().reclaim.prev_priority = last;
        balanced
    }

    fn note_unreclaimable(&self) {
        let mut frames = self.frames();
        let lists = [LruList::Active, LruList::Inactive];
        let pages: u64 = lists.iter().map(|list| frames.lru_len(self.zone, *list)).sum();
        if frames.scanned_in_vain(self.zone) >= pages * UNRECLAIMABLE_FACTOR {
            frames.set_all_unreclaimable(self.zone);
        }
    }
}

async fn kswapd(cx: Cx, kernel: Rc<Kernel>, queue: QueueId) {
    let _span = cx.span("kswapd");
    loop {
        cx.set_role(Role::Worker);
        kernel.balance_pgdat(&cx).await;
        cx.set_role(Role::Daemon);
        cx.wait_on(queue).await;
    }
}
