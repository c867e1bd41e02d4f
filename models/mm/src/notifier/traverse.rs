//! Walking the list of subscribers at a point of a path.

use sim::{Action, Cx, Mark, Object, ReaderGuard, Scope};
use x86::{Pfn, Va, VaRange};

use super::{Callback, Path, Point, SubscriptionId, Traversal, Young};
use crate::account::NOTIFIER;
use crate::kernel::Kernel;
use crate::mm::{MmId, Notified};
use crate::profile::work;
use crate::watch::Life;

static OPEN: Mark = Mark {
    name: "invalidate_range_start",
    args: ["mm", "start", "end"],
    scope: Scope::Global,
};
static CLOSE: Mark = Mark {
    name: "invalidate_range_end",
    args: ["mm", "start", "end"],
    scope: Scope::Global,
};
static PAGE: Mark = Mark {
    name: "invalidate_page",
    args: ["mm", "va", ""],
    scope: Scope::Global,
};

/// A subscriber was told the end of a bracket whose start it never saw, or the reverse.
pub const UNBALANCED_BRACKET: &str = "unbalanced-bracket";

/// A subscriber was called after it had been released: its memory may be somebody else's (10.7, 10.8). Only
/// designs that do not wait for walks of the list can do that.
pub const CALLBACK_AFTER_RELEASE: &str = "callback-after-release";

/// Class of a subscriber among the objects of steps.
const SUBSCRIBER_OBJECT: u16 = 1;

/// A bracket of a path; it must be closed on every way out of it.
#[must_use = "every subscriber that saw the start must see the end"]
pub struct Bracket {
    mm: MmId,
    path: Path,
    range: VaRange,
    told: Vec<SubscriptionId>,
}

impl Bracket {
    /// One that nobody has been told of yet.
    pub(crate) fn of(mm: MmId, path: Path, range: VaRange) -> Self {
        Bracket {
            mm,
            path,
            range,
            told: Vec::new(),
        }
    }
}

#[derive(Clone, Copy)]
enum Subject {
    Page(Va),
    Range(VaRange),
    Everything,
}

impl Kernel {
    /// Whether anybody is registered: the NULL test that every hook costs.
    #[inline]
    pub(crate) fn has_subscribers(&self, mm: MmId) -> bool {
        !self.state.borrow().mm(mm).subscribers.is_empty()
    }

    /// Point [`Point::Open`].
    pub(crate) async fn notify_open(&self, cx: &Cx, mm: MmId, path: Path, range: VaRange) -> Bracket {
        let mut bracket = Bracket::of(mm, path, range);
        self.open_at(cx, &mut bracket, Point::Open).await;
        bracket
    }

    /// Point [`Point::Close`].
    pub(crate) async fn notify_close(&self, cx: &Cx, bracket: Bracket) {
        self.close_at(cx, &bracket, Point::Close).await;
    }

    /// Does something with one page inside a bracket of its own, if the design has one there.
    pub(crate) async fn in_page_bracket<T>(
        &self,
        cx: &Cx,
        mm: MmId,
        path: Path,
        at: Va,
        work: impl Future<Output = T>,
    ) -> T {
        if self.table.at(path, Point::Open).is_none() {
            return work.await;
        }
        let page = VaRange::from_pages(at.vpn().va(), 1).expect("a page");
        let bracket = self.notify_open(cx, mm, path, page).await;
        let done = work.await;
        self.notify_close(cx, bracket).await;
        done
    }

    /// A point where a bracket may begin: [`Point::Open`] or [`Point::OpenOutside`].
    pub(crate) async fn open_at(&self, cx: &Cx, bracket: &mut Bracket, point: Point) {
        let (mm, range) = (bracket.mm, bracket.range);
        if self.table.at(bracket.path, point).is_none() || !self.has_subscribers(mm) {
            return;
        }
        self.st().metrics.brackets += 1;
        cx.mark(&OPEN, [u64::from(mm.0), range.start().get(), range.end().get()]);
        bracket.told = self
            .tell_all(cx, mm, Callback::InvalidateRangeStart, Subject::Range(range))
            .await;
    }

    /// A point where it may end: [`Point::Close`] or [`Point::CloseOutside`].
    pub(crate) async fn close_at(&self, cx: &Cx, bracket: &Bracket, point: Point) {
        let Bracket {
            mm,
            path,
            range,
            ref told,
        } = *bracket;
        if self.table.at(path, point).is_none() {
            return;
        }
        if !self.has_subscribers(mm) {
            self.check_ended(cx, mm, told, &[]);
            return;
        }
        self.check_range_over(cx, mm, path, range);
        cx.mark(&CLOSE, [u64::from(mm.0), range.start().get(), range.end().get()]);
        let ended = self
            .tell_all(cx, mm, Callback::InvalidateRangeEnd, Subject::Range(range))
            .await;
        self.check_ended(cx, mm, told, &ended);
    }

    /// A point that concerns one page; `page` is what its entry mapped, if it did.
    pub(crate) async fn notify_page(
        &self,
        cx: &Cx,
        mm: MmId,
        (path, point): (Path, Point),
        at: Va,
        page: Option<Pfn>,
    ) {
        let Some(callback) = self.table.at(path, point) else {
            return;
        };
        if !self.has_subscribers(mm) {
            return;
        }
        if let Some(pfn) = page {
            self.check_page_notice(cx, mm, (path, point), at, pfn);
        }
        cx.mark(&PAGE, [u64::from(mm.0), at.get(), 0]);
        self.tell_all(cx, mm, callback, Subject::Page(at)).await;
    }

    /// A point that asks whether a page was used. Everybody is asked, whatever the others said.
    pub(crate) async fn notify_young(&self, cx: &Cx, mm: MmId, point: Point, at: Va) -> Young {
        if self.table.at(Path::Age, point).is_none() || !self.has_subscribers(mm) {
            return Young::No;
        }
        let _span = cx.span("__mmu_notifier_clear_flush_young");
        let _reader = self.protect_list(cx);
        let list = self.st().mm(mm).subscribers.clone();
        let mut young = Young::No;
        for id in list {
            self.find_subscriber(cx, id).await;
            self.st().metrics.notifier_young += 1;
            let handler = self.st().subscriptions[id.0 as usize].handler.clone();
            let before = cx.now();
            let _booking = cx.book_to(handler.kind().account());
            if handler.clear_flush_young(cx, at).await == Young::Yes {
                young = Young::Yes;
            }
            let spent = (cx.now() - before).get();
            self.st().subscriptions[id.0 as usize].count(Callback::ClearFlushYoung, spent);
        }
        young
    }

    /// Goes to the next subscriber of the list, which has not been released meanwhile.
    async fn find_subscriber(&self, cx: &Cx, id: SubscriptionId) {
        cx.charge(NOTIFIER, self.machine.costs.cacheline_touch * work::SUBSCRIBER);
        cx.step(
            Object::Other(SUBSCRIBER_OBJECT, u64::from(id.0)),
            Action::Callback,
        )
        .await;
        let st = self.st();
        let subscription = &st.subscriptions[id.0 as usize];
        // A reader's section keeps what its walk may still meet.
        if self.design.traversal == Traversal::Bare && subscription.life.get() == Life::Released {
            let text = format!(
                "{} is called after its release was over",
                subscription.handler.name()
            );
            let about = Some(("mm", u64::from(subscription.mm.0)));
            cx.engine().violate(CALLBACK_AFTER_RELEASE, text, about);
        }
    }

    /// A point that concerns a block of entries.
    pub(crate) async fn notify_block(&self, cx: &Cx, mm: MmId, path: Path, range: VaRange) {
        let Some(callback) = self.table.at(path, Point::PteBlock) else {
            return;
        };
        if self.has_subscribers(mm) {
            self.tell_all(cx, mm, callback, Subject::Range(range)).await;
        }
    }

    /// Points of exit_mmap. Each subscriber is taken off the list before it is told, as
    /// `__mmu_notifier_release` does, so that it is told once; then whoever still walks the list, or
    /// is being unregistered, is waited for before pages may go.
    pub(crate) async fn notify_release(&self, cx: &Cx, mm: MmId, point: Point) {
        if self.table.at(Path::Exit, point).is_none() || self.st().mm(mm).notified == Notified::Never {
            return;
        }
        let _span = cx.span("mmu_notifier_release");
        let lock = self.st().mm(mm).notifier_lock;
        loop {
            let list = cx.lock(lock).await;
            let first = {
                let mut st = self.st();
                let subscribers = &mut st.mm_mut(mm).subscribers;
                if subscribers.is_empty() {
                    None
                } else {
                    Some(subscribers.remove(0))
                }
            };
            let Some(id) = first else { break };
            let _reader = self.protect_list(cx);
            drop(list);
            self.tell_release(cx, id).await;
        }
        self.synchronize_list(cx).await;
    }

    /// Calls ->release of one subscriber; the caller is inside a read section of the list.
    pub(super) async fn tell_release(&self, cx: &Cx, id: SubscriptionId) {
        let _span = cx.span("__mmu_notifier_release");
        self.subscription_leaves(id);
        self.tell(cx, id, Callback::Release, Subject::Everything).await;
        self.subscription_left(id);
    }

    pub(crate) async fn synchronize_list(&self, cx: &Cx) {
        match self.design.traversal {
            // Nobody says when a walk is over: what comes of that is `callback-after-release`.
            Traversal::Bare => {}
            Traversal::Rcu => cx.synchronize(self.rcu).await,
            Traversal::Srcu => cx.synchronize(self.srcu).await,
        }
    }

    pub(super) fn protect_list<'a>(&self, cx: &'a Cx) -> Option<ReaderGuard<'a>> {
        match self.design.traversal {
            Traversal::Bare => None,
            Traversal::Rcu => Some(cx.read_lock(self.rcu)),
            Traversal::Srcu => Some(cx.read_lock(self.srcu)),
        }
    }

    async fn tell_all(&self, cx: &Cx, mm: MmId, callback: Callback, subject: Subject) -> Vec<SubscriptionId> {
        let _span = cx.span(match callback {
            Callback::InvalidatePage => "__mmu_notifier_invalidate_page",
            Callback::InvalidatePages => "__mmu_notifier_invalidate_pages",
            Callback::InvalidateRangeStart => "__mmu_notifier_invalidate_range_start",
            Callback::InvalidateRangeEnd => "__mmu_notifier_invalidate_range_end",
            Callback::Release => "__mmu_notifier_release",
            Callback::ClearFlushYoung => "__mmu_notifier_clear_flush_young",
        });
        let _reader = self.protect_list(cx);
        let list = self.st().mm(mm).subscribers.clone();
        for &id in &list {
            self.find_subscriber(cx, id).await;
            if let (Callback::InvalidateRangeEnd, Subject::Range(range)) = (callback, subject) {
                self.bracket_closes(cx, mm, range, id);
            }
            self.tell(cx, id, callback, subject).await;
            if let (Callback::InvalidateRangeStart, Subject::Range(range)) = (callback, subject) {
                self.bracket_opened(mm, range, id);
            }
        }
        list
    }

    async fn tell(&self, cx: &Cx, id: SubscriptionId, callback: Callback, subject: Subject) {
        let handler = {
            let mut st = self.st();
            let m = &mut st.metrics;
            *match callback {
                Callback::InvalidatePage => &mut m.notifier_page,
                Callback::InvalidatePages => &mut m.notifier_pages,
                Callback::InvalidateRangeStart => &mut m.notifier_start,
                Callback::InvalidateRangeEnd => &mut m.notifier_end,
                Callback::Release => &mut m.notifier_release,
                Callback::ClearFlushYoung => &mut m.notifier_young,
            } += 1;
            st.subscriptions[id.0 as usize].handler.clone()
        };
        let before = cx.now();
        {
            let _booking = cx.book_to(handler.kind().account());
            match (callback, subject) {
                (Callback::InvalidatePage, Subject::Page(at)) => handler.invalidate_page(cx, at).await,
                (Callback::InvalidatePages, Subject::Range(r)) => handler.invalidate_pages(cx, r).await,
                (Callback::InvalidateRangeStart, Subject::Range(r)) => {
                    handler.invalidate_range_start(cx, r).await
                }
                (Callback::InvalidateRangeEnd, Subject::Range(r)) => {
                    handler.invalidate_range_end(cx, r).await
                }
                (Callback::Release, _) => handler.release(cx).await,
                (_, Subject::Page(_) | Subject::Range(_) | Subject::Everything) => {
                    unreachable!("points and callbacks speak of the same subject")
                }
            }
        }
        let spent = cx.now() - before;
        self.st().subscriptions[id.0 as usize].count(callback, spent.get());
    }
}
