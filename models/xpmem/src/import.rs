//! The importing side: attachments, import faults (secondary-mmus 3.4), and what a recall message
//! makes of them (3.5, "Importer side").

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use mm::account::{CALLBACK_XPMEM, ENTRY, FAULT_XPMEM};
use mm::{Attempt, Backing, Inserted, Kernel, MapError, MapRequest, Mapped, MmId, Prot, Refused, Sharing};
use sim::{Cx, LockId};
use x86::{Access, Pgoff, Va, VaRange};

use crate::export::{Answer, Call, Note};
use crate::segment::{ATT_MUTEX, PfnEntry, new_lock};
use crate::wire::{Inbox, Slot, Slots};
use crate::{Xpmem, costs};

/// Life of an attachment (secondary-mmus 3.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Attached {
    /// Not mapped.
    No,
    /// ATTACHED.
    At(VaRange),
    /// DESTROYING: still mapped, recalls apply, faults do not.
    Leaving(VaRange),
}

/// VALIDPTES.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ValidPtes {
    No,
    /// Some entry may be present.
    Maybe,
}

struct Attachment {
    /// `att->mutex`.
    mutex: LockId,
    state: Cell<Attached>,
    valid_ptes: Cell<ValidPtes>,
}

/// The message of an exporter that wants pages back.
pub(crate) struct Recall {
    pub(crate) slot: Rc<Slot<()>>,
    pub(crate) segment: usize,
    pub(crate) pages: Range<u64>,
}

pub(crate) struct Import {
    pub(crate) kernel: Rc<Kernel>,
    pub(crate) mm: MmId,
    pub(crate) recalls: Inbox<Recall>,
    pub(crate) answers: Inbox<(Rc<Slot<Answer>>, Answer)>,
    slots: Slots<Answer>,
    attachments: Vec<Attachment>,
}

impl Import {
    pub(crate) fn new(kernel: &Rc<Kernel>, mm: MmId, segments: usize) -> Self {
        let engine = kernel.engine();
        let attachment = |_| Attachment {
            mutex: new_lock(engine, &ATT_MUTEX),
            state: Cell::new(Attached::No),
            valid_ptes: Cell::new(ValidPtes::No),
        };
        Import {
            kernel: Rc::clone(kernel),
            mm,
            recalls: Inbox::new(engine, "xpmem recalls"),
            answers: Inbox::new(engine, "xpmem answers"),
            slots: Slots::new(engine, "xpmem answer", costs::MESSAGE_SLOTS),
            attachments: (0..segments).map(attachment).collect(),
        }
    }
}

impl Xpmem {
    /// The importer's XPC thread for recalls; it may sleep.
    pub(crate) async fn importer_recalls(self: Rc<Self>, cx: Cx) {
        let import = &self.import;
        loop {
            let recall = import.recalls.receive(&cx).await;
            let _booking = cx.book_to(CALLBACK_XPMEM);
            self.receive_interrupt(&cx, &import.kernel);
            self.clear_ptes(&cx, recall.segment, recall.pages).await;
            self.send_interrupt(&cx, &import.kernel);
            let done = Note::Recalled(recall.slot);
            self.export.notes.send(&cx, done, self.one_way());
        }
    }

    /// The importer's XPC thread for answers; it never waits for anything but them.
    pub(crate) async fn importer_answers(self: Rc<Self>, cx: Cx) {
        let import = &self.import;
        loop {
            let (slot, answer) = import.answers.receive(&cx).await;
            self.receive_interrupt(&cx, &import.kernel);
            slot.fill(&cx, answer);
        }
    }

    /// `xpmem_clear_PTEs`: on return no entry and no TLB of the importer leads to the pages.
    async fn clear_ptes(&self, cx: &Cx, segment: usize, pages: Range<u64>) {
        let _span = cx.span("xpmem_clear_PTEs");
        let (import, attachment) = (&self.import, &self.import.attachments[segment]);
        let (kernel, mm) = (&import.kernel, import.mm);
        // `get_task_mm`: a dying address space clears its entries itself; wait until it has.
        if kernel.st().mm(mm).users == 0 {
            while !kernel.st().mm(mm).vmas.is_empty() {
                cx.sleep(costs::jiffy(&kernel.machine)).await;
            }
            return;
        }
        kernel.mmget(mm);
        {
            let _sem = cx.lock_shared(kernel.mmap_sem(mm)).await;
            let _att = cx.lock(attachment.mutex).await;
            if let Attached::At(range) | Attached::Leaving(range) = attachment.state.get()
                && attachment.valid_ptes.get() == ValidPtes::Maybe
            {
                let whole = pages.end - pages.start == range.pages();
                let start = range.start().add_pages(pages.start);
                let part = VaRange::from_pages(start, pages.end - pages.start);
                kernel
                    .zap_driver_range(cx, mm, part.expect("a recall names pages of its segment"))
                    .await;
                if whole {
                    attachment.valid_ptes.set(ValidPtes::No);
                }
            }
        }
        kernel.mmput(cx, mm).await;
    }

    /// Sends a call and sleeps until its answer is here.
    async fn call(&self, cx: &Cx, call: impl FnOnce(Rc<Slot<Answer>>) -> Call) -> Answer {
        let import = &self.import;
        let slot = self.take_slot(cx, &import.slots).await;
        self.send_interrupt(cx, &import.kernel);
        self.export.calls.send(cx, call(Rc::clone(&slot)), self.one_way());
        import.slots.answer(cx, slot).await
    }

    pub(crate) async fn attach_all(&self, cx: &Cx) -> Result<(), MapError> {
        let _span = cx.span("xpmem_attach");
        if let Answer::Refused(_) = self.call(cx, Call::Get).await {
            return Ok(());
        }
        let (import, export) = (&self.import, &self.export);
        for (attachment, segment) in import.attachments.iter().zip(&export.segments) {
            if attachment.state.get() != Attached::No {
                continue;
            }
            let request = MapRequest {
                at: None,
                pages: segment.range.pages(),
                backing: Backing::Driver,
                pgoff: Pgoff::new(0),
                sharing: Sharing::Shared,
                prot: Prot::READ_WRITE,
                flags: mm::MapFlags::NONE,
            };
            let range = import.kernel.sys_mmap(cx, import.mm, request).await?;
            let _att = cx.lock(attachment.mutex).await;
            attachment.state.set(Attached::At(range));
        }
        Ok(())
    }

    pub(crate) async fn detach_all(&self, cx: &Cx) {
        let _span = cx.span("xpmem_detach");
        let import = &self.import;
        let mut left = 0;
        for attachment in &import.attachments {
            let Attached::At(range) = attachment.state.get() else {
                continue;
            };
            {
                let _att = cx.lock(attachment.mutex).await;
                attachment.state.set(Attached::Leaving(range));
            }
            let gone = import.kernel.sys_munmap(cx, import.mm, range).await;
            gone.expect("a driver's mapping is never merged, so nothing is split");
            let _att = cx.lock(attachment.mutex).await;
            attachment.state.set(Attached::No);
            attachment.valid_ptes.set(ValidPtes::No);
            left += 1;
        }
        if left > 0 {
            self.call(cx, Call::Release).await;
        }
    }

    /// Address of a page where it is attached.
    pub(crate) fn attached_at(&self, segment: usize, page: u64) -> Option<Va> {
        match self.import.attachments[segment].state.get() {
            Attached::At(range) => Some(range.start().add_pages(page)),
            Attached::No | Attached::Leaving(_) => None,
        }
    }

    pub(crate) async fn access_page(
        &self,
        cx: &Cx,
        segment: usize,
        page: u64,
        access: Access,
    ) -> Result<(), Refused> {
        let import = &self.import;
        let mut attempt = Attempt::First;
        loop {
            let va = self.attached_at(segment, page).ok_or(Refused::NoMapping)?;
            if import
                .kernel
                .access_mapped(cx, import.mm, va, access, attempt)
                .await
                == Mapped::Done
            {
                return Ok(());
            }
            self.fault_handler(cx, segment, page, access).await?;
            attempt = Attempt::Restarted;
        }
    }

    /// `xpmem_fault_handler`: on `Ok` the access is worth another try.
    async fn fault_handler(&self, cx: &Cx, segment: usize, page: u64, access: Access) -> Result<(), Refused> {
        let _span = cx.span("xpmem_fault_handler");
        let _booking = cx.book_to(FAULT_XPMEM);
        let kernel = &self.import.kernel;
        cx.charge(ENTRY, kernel.machine.costs.exception_entry_exit);
        kernel.st().metrics.faults_total += 1;
        self.count(|m| m.faults += 1);
        let served = self.import_page(cx, segment, page, access).await;
        if served.is_err() {
            kernel.st().metrics.faults_refused += 1;
            self.count(|m| m.refused += 1);
        }
        served
    }

    async fn import_page(&self, cx: &Cx, segment: usize, page: u64, access: Access) -> Result<(), Refused> {
        let kernel = &self.import.kernel;
        loop {
            {
                // The vma is looked up, and let go of before the other partition is asked.
                let _sem = cx.lock_shared(kernel.mmap_sem(self.import.mm)).await;
                let va = self.attached_at(segment, page).ok_or(Refused::NoMapping)?;
                kernel
                    .find_vma(cx, self.import.mm, va)
                    .ok_or(Refused::NoMapping)?;
            }
            self.count(|m| m.requests += 1);
            let answer = self.call(cx, |slot| Call::Fault { slot, segment, page }).await;
            match answer {
                Answer::Page(entry) => {
                    let mapped = self.map_page(cx, segment, page, entry).await;
                    self.send_interrupt(cx, kernel);
                    self.export.notes.send(cx, Note::Mapped, self.one_way());
                    if access.is_write() && !entry.access.is_write() {
                        return Err(Refused::NoMapping);
                    }
                    return mapped;
                }
                Answer::Again => cx.sleep(costs::jiffy(&kernel.machine)).await,
                Answer::Refused(refused) => return Err(refused),
                Answer::Done => unreachable!("a fault is answered with a page or without"),
            }
        }
    }

    /// `xpmem_remap_pages`. Recalls wait until the exporter hears that this is over.
    async fn map_page(&self, cx: &Cx, segment: usize, page: u64, entry: PfnEntry) -> Result<(), Refused> {
        let (import, attachment) = (&self.import, &self.import.attachments[segment]);
        let _sem = cx.lock_shared(import.kernel.mmap_sem(import.mm)).await;
        let _att = cx.lock(attachment.mutex).await;
        let va = self.attached_at(segment, page).ok_or(Refused::NoMapping)?;
        // Before the entry: a recall must never find an entry without it.
        attachment.valid_ptes.set(ValidPtes::Maybe);
        let inserted = import
            .kernel
            .insert_pfn(cx, import.mm, va, entry.pfn, entry.access)
            .await?;
        if inserted == Inserted::New {
            self.count(|m| m.imports += 1);
        }
        Ok(())
    }
}
