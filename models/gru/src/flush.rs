//! `gru_flush_tlb_range` and the notifier callbacks.
//!
//! Follows grutlbpurge.c of 2.6.28 (secondary-mmus 2.4, 2.5). Locks, outer to inner: whatever the host
//! holds, `ms_asid_lock`, the purge handle of one chiplet at a time; all spin, so no callback sleeps.
//! The entries are gone, and later drop-ins ignored, at the moment a command completes. The driver
//! keeps `ms_asidmap` of the chiplets with an identifier; here that is the identifiers themselves.

use std::rc::Rc;

use mm::account::CALLBACK_GRU;
use mm::notifier::{CallbackFuture, MmuKind, Subscriber};
use sim::{Action, Cx, Mark, Object, Scope};
use x86::{Pfn, Va, VaRange};

use crate::costs::{MAX_PURGE_PAGES, PURGE};
use crate::{Gru, Life, Purge, STEP_OBJECT};

static PURGED: Mark = Mark {
    name: "gru_purge",
    args: ["chiplet", "va", "pages"],
    scope: Scope::Global,
};
static ZEROED: Mark = Mark {
    name: "gru_zero_asid",
    args: ["chiplet", "va", "pages"],
    scope: Scope::Global,
};

impl Gru {
    /// `gru_flush_tlb_range`.
    async fn flush_tlb_range(&self, cx: &Cx, range: VaRange) {
        let _span = cx.span("gru_flush_tlb_range");
        self.st().metrics.callbacks += 1;
        let pages = range.pages().min(MAX_PURGE_PAGES);
        let what = if pages < MAX_PURGE_PAGES {
            Purge::Pages(range.start().vpn(), pages)
        } else {
            Purge::WholeAsid
        };
        let args = |chiplet: u32| [u64::from(chiplet), range.start().get(), pages];
        let _asids = cx.lock(self.locks.ms_asid_lock).await;
        for chiplet in 0..self.config.chiplets {
            let (held, loaded) = {
                let st = self.st();
                let c = &st.chiplets[chiplet as usize];
                (c.asid.is_some(), c.contexts > 0)
            };
            match (held, loaded) {
                (true, true) => {
                    self.purge(cx, chiplet, what).await;
                    cx.mark(&PURGED, args(chiplet));
                }
                (true, false) => {
                    self.zero_asid(chiplet);
                    cx.mark(&ZEROED, args(chiplet));
                }
                (false, _) => {}
            }
        }
    }

    /// One invalidate command on one chiplet; the caller holds `ms_asid_lock`, so the identifier stays.
    async fn purge(&self, cx: &Cx, chiplet: u32, what: Purge) {
        let _handle = cx.lock(self.locks.tgh_locks[chiplet as usize]).await;
        cx.charge(CALLBACK_GRU, PURGE.on(&self.kernel.machine));
        cx.step(Object::Other(STEP_OBJECT, u64::from(chiplet)), Action::Write)
            .await;
        let mut st = self.st();
        let c = &mut st.chiplets[chiplet as usize];
        let asid = c.asid.expect("ms_asid_lock keeps the identifier");
        let entries = c.purge(asid, what, &mut self.unmapped());
        st.metrics.purges += 1;
        st.metrics.purged_entries += entries;
        st.metrics.purges_whole_asid += u64::from(what == Purge::WholeAsid);
    }

    /// No context is loaded there: the identifier is forgotten, the hardware left alone.
    pub(crate) fn zero_asid(&self, chiplet: u32) {
        let mut st = self.st();
        let lost = st.chiplets[chiplet as usize].forget_asid(&mut self.unmapped());
        st.metrics.zero_asid += 1;
        st.metrics.lost_entries += lost;
    }
}

impl Subscriber for Gru {
    fn name(&self) -> Rc<str> {
        Rc::clone(&self.config.name)
    }

    fn kind(&self) -> MmuKind {
        MmuKind::Gru
    }

    fn invalidate_page<'a>(&'a self, cx: &'a Cx, at: Va) -> CallbackFuture<'a> {
        Box::pin(async move {
            let _span = cx.span("gru_invalidate_page");
            self.flush_tlb_range(cx, VaRange::page_of(at)).await;
        })
    }

    fn invalidate_range_start<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a> {
        Box::pin(async move {
            let _span = cx.span("gru_invalidate_range_start");
            cx.charge(CALLBACK_GRU, self.kernel.machine.costs.atomic_op);
            self.st().range_active += 1;
            self.flush_tlb_range(cx, range).await;
        })
    }

    fn invalidate_range_end<'a>(&'a self, cx: &'a Cx, _range: VaRange) -> CallbackFuture<'a> {
        Box::pin(async move {
            let _span = cx.span("gru_invalidate_range_end");
            cx.charge(CALLBACK_GRU, self.kernel.machine.costs.atomic_op);
            {
                let mut st = self.st();
                // A GRU registered inside a bracket hears an end it saw no start of; the core reports it.
                st.range_active = st.range_active.saturating_sub(1);
            }
            cx.engine().wake_all(self.wait_queue);
        })
    }

    fn invalidate_pages<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a> {
        Box::pin(async move {
            let _span = cx.span("gru_invalidate_pages");
            self.flush_tlb_range(cx, range).await;
        })
    }

    /// `gru_release`: marks, and purges nothing (notifier-variants 10.26b).
    fn release<'a>(&'a self, cx: &'a Cx) -> CallbackFuture<'a> {
        Box::pin(async move {
            let _span = cx.span("gru_release");
            let mut st = self.st();
            if st.life == Life::Serving {
                st.life = Life::Released;
            }
        })
    }

    fn reaches(&self, pfn: Pfn) -> bool {
        self.state.borrow().chiplets.iter().any(|c| c.tlb.reaches(pfn))
    }
}
