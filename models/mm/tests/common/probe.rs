//! A subscriber that looks, at each start and end of a bracket, at which locks are held.

use std::cell::RefCell;
use std::rc::Rc;

use mm::notifier::{CallbackFuture, MmuKind, Subscriber};
use mm::{FileId, Kernel, MmId};
use sim::{Cx, LockId};
use x86::{Pfn, Va, VaRange};

/// What the probe was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    Start,
    End,
}

/// How a lock is held, by whomever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    No,
    Read,
    Write,
}

/// One call and the locks at that moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    pub who: &'static str,
    pub said: Said,
    pub range: VaRange,
    pub mmap_sem: Held,
    pub i_mmap_lock: Held,
    pub i_mutex: Held,
    pub i_alloc_sem: Held,
    pub ptl: Held,
}

pub type Log = Rc<RefCell<Vec<Heard>>>;

/// Watches the locks of one address space and one file.
pub struct Probe {
    pub who: &'static str,
    pub kernel: Rc<Kernel>,
    pub mm: MmId,
    pub file: FileId,
    pub log: Log,
}

async fn held(cx: &Cx, lock: LockId) -> Held {
    if cx.try_lock(lock).await.is_some() {
        Held::No
    } else if cx.try_lock_shared(lock).await.is_some() {
        Held::Read
    } else {
        Held::Write
    }
}

impl Probe {
    fn look<'a>(&'a self, cx: &'a Cx, said: Said, range: VaRange) -> CallbackFuture<'a> {
        Box::pin(async move {
            let (mmap_sem, i_mmap_lock, i_mutex, i_alloc_sem, ptl) = {
                let st = self.kernel.st();
                let (m, f) = (st.mm(self.mm), st.file(self.file));
                let table = st.tables.leaf_table(m.pgd, range.start().vpn());
                let ptl = table.map(|t| st.ptl(t));
                (m.mmap_sem, f.i_mmap_lock, f.i_mutex, f.i_alloc_sem, ptl)
            };
            let heard = Heard {
                who: self.who,
                said,
                range,
                mmap_sem: held(cx, mmap_sem).await,
                i_mmap_lock: held(cx, i_mmap_lock).await,
                i_mutex: held(cx, i_mutex).await,
                i_alloc_sem: held(cx, i_alloc_sem).await,
                ptl: match ptl {
                    Some(ptl) => held(cx, ptl).await,
                    None => Held::No,
                },
            };
            self.log.borrow_mut().push(heard);
        })
    }
}

impl Subscriber for Probe {
    fn name(&self) -> Rc<str> {
        self.who.into()
    }

    fn kind(&self) -> MmuKind {
        MmuKind::Device
    }

    fn invalidate_page<'a>(&'a self, _: &'a Cx, _: Va) -> CallbackFuture<'a> {
        Box::pin(async {})
    }

    fn invalidate_range_start<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a> {
        self.look(cx, Said::Start, range)
    }

    fn invalidate_range_end<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a> {
        self.look(cx, Said::End, range)
    }

    fn invalidate_pages<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        Box::pin(async {})
    }

    fn release<'a>(&'a self, _: &'a Cx) -> CallbackFuture<'a> {
        Box::pin(async {})
    }

    fn reaches(&self, _: Pfn) -> bool {
        false
    }
}
