//! The exporting side: serving fault requests (secondary-mmus 3.4) and recalling pages (3.5).

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use mm::account::{BOOKKEEPING, FAULT_XPMEM};
use mm::{Gup, Kernel, MmId, Refused};
use sim::{Cx, LockId, QueueId};
use x86::{Access, VaRange};

use crate::costs;
use crate::gate::{Entered, Gate};
use crate::segment::{PfnEntry, RECALL_MUTEX, Request, Requests, Segment, SegmentState, new_lock};
use crate::wire::{Inbox, Slot, Slots, Waits, until};
use crate::{Mode, Pins, Xpmem};

/// What the importing partition asks for.
pub(crate) enum Call {
    /// `xpmem_get`: an access permit.
    Get(Rc<Slot<Answer>>),
    /// A page of a segment.
    Fault {
        slot: Rc<Slot<Answer>>,
        segment: usize,
        page: u64,
    },
    /// `xpmem_release`: the permit and all attachments are gone.
    Release(Rc<Slot<Answer>>),
}

/// What it gets.
pub(crate) enum Answer {
    /// Done.
    Done,
    /// A page. The gate stays closed to recalls until [`Note::Mapped`] comes back.
    Page(PfnEntry),
    /// EAGAIN: back off and try again.
    Again,
    /// There is no such page.
    Refused(Refused),
}

/// Messages that need no answer and never make their receiver sleep.
pub(crate) enum Note {
    /// The importer has dealt with the page of an [`Answer::Page`].
    Mapped,
    /// A recall is done.
    Recalled(Rc<Slot<()>>),
}

/// Whether the importing partition holds an access permit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Permit {
    No,
    Held,
}

/// What a kernel thread does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Thread {
    Waiting,
    Working,
}

pub(crate) struct Export {
    pub(crate) kernel: Rc<Kernel>,
    pub(crate) mm: MmId,
    pub(crate) segments: Vec<Segment>,
    pub(crate) gate: Gate,
    pub(crate) calls: Inbox<Call>,
    pub(crate) notes: Inbox<Note>,
    pub(crate) recall_slots: Slots<()>,
    recall_mutex: LockId,
    requests: Requests,
    permit: Cell<Permit>,
    known: Cell<u64>,
    thread: Cell<Thread>,
    idle: QueueId,
}

impl Export {
    pub(crate) fn new(kernel: &Rc<Kernel>, mm: MmId, ranges: &[VaRange]) -> Self {
        let engine = kernel.engine();
        Export {
            kernel: Rc::clone(kernel),
            mm,
            segments: ranges.iter().map(|r| Segment::new(engine, *r)).collect(),
            gate: Gate::new(engine, mm.index() as u64),
            calls: Inbox::new(engine, "xpmem calls"),
            notes: Inbox::new(engine, "xpmem notes"),
            recall_slots: Slots::new(engine, "xpmem recall acknowledgement", costs::MESSAGE_SLOTS),
            recall_mutex: new_lock(engine, &RECALL_MUTEX),
            requests: Requests::default(),
            permit: Cell::new(Permit::No),
            known: Cell::new(0),
            thread: Cell::new(Thread::Waiting),
            idle: engine.wait_queue("xpmem exporter idle"),
        }
    }
}

impl Xpmem {
    /// The exporter's XPC thread for calls; it may sleep.
    pub(crate) async fn exporter_calls(self: Rc<Self>, cx: Cx) {
        let export = &self.export;
        loop {
            let call = export.calls.receive(&cx).await;
            export.thread.set(Thread::Working);
            self.receive_interrupt(&cx, &export.kernel);
            match call {
                Call::Get(slot) => self.serve_get(&cx, slot),
                Call::Fault { slot, segment, page } => {
                    let _booking = cx.book_to(FAULT_XPMEM);
                    self.serve_fault(&cx, slot, segment, page).await;
                }
                Call::Release(slot) => {
                    export.permit.set(Permit::No);
                    self.drop_all(&cx).await;
                    self.reply(&cx, slot, Answer::Done);
                }
            }
            export.thread.set(Thread::Waiting);
            cx.engine().wake_all(export.idle);
        }
    }

    /// The exporter's XPC thread for notes; it never waits for anything but them.
    pub(crate) async fn exporter_notes(self: Rc<Self>, cx: Cx) {
        let export = &self.export;
        loop {
            let note = export.notes.receive(&cx).await;
            self.receive_interrupt(&cx, &export.kernel);
            match note {
                Note::Mapped => export.gate.fault_exit(&cx),
                Note::Recalled(slot) => slot.fill(&cx, ()),
            }
        }
    }

    /// Pages the importer was given and that were not recalled yet.
    pub(crate) fn known(&self) -> u64 {
        self.export.known.get()
    }

    fn reply(&self, cx: &Cx, slot: Rc<Slot<Answer>>, answer: Answer) {
        self.send_interrupt(cx, &self.export.kernel);
        self.import.answers.send(cx, (slot, answer), self.one_way());
    }

    fn serve_get(&self, cx: &Cx, slot: Rc<Slot<Answer>>) {
        let live = self.export.segments.iter().any(Segment::is_live);
        let answer = if live {
            self.export.permit.set(Permit::Held);
            Answer::Done
        } else {
            Answer::Refused(Refused::NoMapping)
        };
        self.reply(cx, slot, answer);
    }

    async fn serve_fault(&self, cx: &Cx, slot: Rc<Slot<Answer>>, segment: usize, page: u64) {
        let export = &self.export;
        let (kernel, mm) = (&export.kernel, export.mm);
        // `get_task_mm`: a dying address space must not be faulted into.
        if kernel.st().mm(mm).users == 0 {
            self.reply(cx, slot, Answer::Refused(Refused::NoMapping));
            return;
        }
        kernel.mmget(mm);
        let answer = {
            let _sem = cx.lock_shared(kernel.mmap_sem(mm)).await;
            self.ensure_valid_pfn(cx, &export.segments[segment], page).await
        };
        self.reply(cx, slot, answer);
        // After the answer: the last user tears down, and that recalls.
        kernel.mmput(cx, mm).await;
    }

    /// `xpmem_ensure_valid_PFNs` of one page. With [`Answer::Page`] the fault is still inside the gate.
    async fn ensure_valid_pfn(&self, cx: &Cx, segment: &Segment, page: u64) -> Answer {
        let _span = cx.span("xpmem_ensure_valid_PFNs");
        let (export, va) = (&self.export, segment.va(page));
        let mut failures = 0;
        loop {
            if export.gate.fault_enter(cx).await == Entered::Gone {
                return Answer::Refused(Refused::NoMapping);
            }
            let request = {
                let _sema = cx.lock_shared(segment.sema).await;
                let _table = cx.lock(segment.pfn_table_mutex).await;
                if !segment.is_live() || export.permit.get() == Permit::No {
                    export.gate.fault_exit(cx);
                    return Answer::Refused(Refused::NoMapping);
                }
                if let Some(entry) = segment.get(page) {
                    return Answer::Page(entry);
                }
                export.requests.publish(VaRange::page_of(va))
            };
            export.gate.fault_exit(cx);
            // Outside the gate: it may copy on write, and that recalls (R-X4).
            let got = self.pin_page(cx, va).await;
            if export.gate.fault_enter(cx).await == Entered::Gone {
                export.requests.withdraw(request);
                self.give_back(cx, &got).await;
                return Answer::Refused(Refused::NoMapping);
            }
            let _sema = cx.lock_shared(segment.sema).await;
            let _table = cx.lock(segment.pfn_table_mutex).await;
            let request = export.requests.withdraw(request);
            let gup = match got {
                Ok(gup) => gup,
                Err(refused) => {
                    export.gate.fault_exit(cx);
                    return Answer::Refused(refused);
                }
            };
            let granted = segment.is_live() && export.permit.get() == Permit::Held;
            if request == Request::Valid && granted {
                // Another request may have been faster.
                if let Some(entry) = segment.get(page) {
                    self.give_back(cx, &got).await;
                    return Answer::Page(entry);
                }
                return Answer::Page(self.store(cx, segment, page, gup).await);
            }
            self.give_back(cx, &got).await;
            export.gate.fault_exit(cx);
            if !granted {
                return Answer::Refused(Refused::NoMapping);
            }
            self.count(|m| m.requests_invalidated += 1);
            failures += 1;
            if failures == costs::MOST_FAILURES {
                self.count(|m| m.eagain += 1);
                return Answer::Again;
            }
            self.count(|m| m.retries += 1);
        }
    }

    /// `xpmem_pin_page`: for writing, where the exporter itself may write.
    async fn pin_page(&self, cx: &Cx, va: x86::Va) -> Result<Gup, Refused> {
        let (kernel, mm) = (&self.export.kernel, self.export.mm);
        let vma = kernel.find_vma(cx, mm, va).ok_or(Refused::NoMapping)?;
        let writable = kernel.st().vma(vma).prot.can_write();
        let access = if writable { Access::Write } else { Access::Read };
        kernel.get_user_page(cx, mm, va, access).await
    }

    async fn give_back(&self, cx: &Cx, got: &Result<Gup, Refused>) {
        if let Ok(gup) = got {
            self.export.kernel.put_page(cx, gup.pfn).await;
        }
    }

    /// UNKNOWN to KNOWN: the reference becomes a pin, or is dropped where the notifier stands in for
    /// it.
    async fn store(&self, cx: &Cx, segment: &Segment, page: u64, gup: Gup) -> PfnEntry {
        let export = &self.export;
        let entry = PfnEntry {
            pfn: gup.pfn,
            access: gup.access,
        };
        segment.set(page, entry);
        let at = segment.va(page);
        export
            .kernel
            .check_secondary_map(cx, export.mm, at, &self.config.name);
        export.known.set(export.known.get() + 1);
        let known = export.known.get();
        self.count(|m| m.pages_known_max = m.pages_known_max.max(known));
        match self.holds_pins() {
            Pins::Held => {
                export.kernel.keep_as_pin(cx, gup.pfn);
                self.count(|m| m.pinned += 1);
            }
            Pins::None => {
                export.kernel.secondary_mapped(gup.pfn);
                export.kernel.put_page(cx, gup.pfn).await;
            }
        }
        entry
    }

    /// KNOWN to UNKNOWN: nobody can use the page any more.
    async fn forget(&self, cx: &Cx, entry: PfnEntry) {
        let export = &self.export;
        export.known.set(export.known.get() - 1);
        match self.holds_pins() {
            Pins::Held => {
                export.kernel.unpin_page(cx, entry.pfn).await;
                self.count(|m| m.unpinned += 1);
            }
            Pins::None => export.kernel.secondary_unmapped(entry.pfn),
        }
    }

    pub(crate) fn holds_pins(&self) -> Pins {
        match self.config.mode {
            Mode::Notified => self.config.pins,
            Mode::PinsOnly => Pins::Held,
        }
    }

    /// `invalidate_start`.
    pub(crate) async fn recall_range(&self, cx: &Cx, range: VaRange) {
        self.export.gate.recall_begin(cx).await;
        self.recall_pfns(cx, range, Reach::Importer).await;
    }

    /// `xpmem_recall_PFNs`: the gate is open to recalls only.
    async fn recall_pfns(&self, cx: &Cx, range: VaRange, reach: Reach) {
        let _span = cx.span("xpmem_recall_PFNs");
        let export = &self.export;
        let _mutex = cx.lock(export.recall_mutex).await;
        export.requests.invalidate(range);
        for (number, segment) in export.segments.iter().enumerate() {
            if let Some(pages) = segment.pages_in(range) {
                self.recall_segment(cx, number, pages, reach).await;
            }
        }
    }

    async fn recall_segment(&self, cx: &Cx, number: usize, pages: Range<u64>, reach: Reach) {
        let _span = cx.span("xpmem_recall_PFNs_of_seg");
        let segment = &self.export.segments[number];
        if !self.probe(cx, segment, &pages).await {
            return;
        }
        let _sema = cx.lock(segment.sema).await;
        if reach == Reach::Importer {
            self.count(|m| m.recalls += 1);
            segment.state.set(SegmentState::Sending);
            self.recall_from_importer(cx, number, pages.clone()).await;
        }
        segment.state.set(SegmentState::Unpin);
        let dropped = self.unpin(cx, segment, pages).await;
        if reach == Reach::Importer {
            self.count(|m| m.recall_pages += dropped);
        }
        segment.state.set(SegmentState::Drained);
    }

    async fn probe(&self, cx: &Cx, segment: &Segment, pages: &Range<u64>) -> bool {
        let _table = cx.lock(segment.pfn_table_mutex).await;
        self.export.kernel.touch_lines(cx, 1);
        segment.knows_any(pages)
    }

    /// SENDING and WAIT_ACK.
    async fn recall_from_importer(&self, cx: &Cx, number: usize, pages: Range<u64>) {
        let _span = cx.span("xpmem_send_recall");
        let (export, segment) = (&self.export, &self.export.segments[number]);
        let before = cx.now();
        let slot = self.take_slot(cx, &export.recall_slots).await;
        self.send_interrupt(cx, &export.kernel);
        let recall = crate::import::Recall {
            slot: Rc::clone(&slot),
            segment: number,
            pages,
        };
        self.import.recalls.send(cx, recall, self.one_way());
        self.count(|m| m.recall_messages += 1);
        segment.state.set(SegmentState::WaitAck);
        export.recall_slots.answer(cx, slot).await;
        let waited = (cx.now() - before).get();
        self.count(|m| m.recall_wait_cycles += waited);
    }

    /// UNPIN. The posted driver sorts the pages by node and lets a work queue on each drop them.
    async fn unpin(&self, cx: &Cx, segment: &Segment, pages: Range<u64>) -> u64 {
        let _span = cx.span("xpmem_unpin_pages");
        let mut dropped = 0;
        let lines = costs::recall_lines_of_page(&self.export.kernel.machine);
        let _table = cx.lock(segment.pfn_table_mutex).await;
        for page in pages {
            let Some(entry) = segment.take(page) else {
                continue;
            };
            cx.charge(BOOKKEEPING, lines);
            self.forget(cx, entry).await;
            dropped += 1;
            if cx.need_resched() {
                cx.cond_resched().await;
            }
        }
        dropped
    }

    /// `invalidate_end`.
    pub(crate) async fn end_recall(&self, cx: &Cx, range: VaRange) {
        for segment in &self.export.segments {
            if segment.state.get() == SegmentState::Drained && segment.range.overlaps(&range) {
                segment.state.set(SegmentState::Idle);
            }
        }
        self.export.gate.recall_end(cx).await;
    }

    /// The importer has given its permit back: nobody maps anything any more.
    async fn drop_all(&self, cx: &Cx) {
        let export = &self.export;
        export.gate.recall_begin(cx).await;
        for segment in &export.segments {
            self.recall_pfns(cx, segment.range, Reach::ExporterOnly).await;
        }
        export.gate.recall_end(cx).await;
    }

    /// `release`, and `xpmem_remove_segs_of_tg` at exit: the same drain, then nothing more.
    pub(crate) async fn remove_segments(&self, cx: &Cx) {
        let _span = cx.span("xpmem_remove_segs_of_tg");
        let export = &self.export;
        export.gate.recall_begin(cx).await;
        for segment in &export.segments {
            self.recall_pfns(cx, segment.range, Reach::Importer).await;
        }
        for segment in &export.segments {
            segment.state.set(SegmentState::Destroyed);
        }
        export.gate.close(cx);
        export.gate.recall_end(cx).await;
    }

    /// Sleeps until the exporter's thread has nothing to do.
    pub(crate) async fn wait_until_idle(&self, cx: &Cx) {
        let export = &self.export;
        until(cx, export.idle, Waits::Event, || {
            export.thread.get() == Thread::Waiting
        })
        .await;
    }
}

/// Whom a recall has to reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// The importing partition, by message.
    Importer,
    /// Nobody: it has unmapped everything by itself.
    ExporterOnly,
}
