//! A thread at work: one function an operation.

use std::rc::Rc;

use mm::{Backing, Locked, MapFlags, MapRequest, MmId, Now, Populate, Prefault, Prot, RemapRequest, Sharing};
use sim::{Action, Cx, Cycles, Object, QueueId, Stream};
use x86::{Access, Pgoff, Va, VaRange};

use super::RunError;
use super::attach::{Driver, Mmu, Place};
use super::pattern::Pages;
use super::process::Process;
use super::world::Run;
use crate::ast::{self, AccessOp, MmapOp, Op, Pattern, Region, TouchOp};
use crate::check::{MAX_CHASE, changes_process, parse_address};

/// Accesses that are counted towards the budget of events at once.
const ACCESSES_AT_ONCE: u64 = 4096;

/// First stream of random numbers that threads draw from; one each.
const THREAD_STREAMS: u32 = 16;

/// A running thread.
pub(super) struct Thread {
    pub(super) run: Rc<Run>,
    pub(super) process: Rc<Process>,
    pub(super) name: String,
    /// Ordinal among all threads of the scenario.
    pub(super) ordinal: u32,
    pub(super) drives: Option<Rc<Mmu>>,
    pub(super) driver: Option<Driver>,
    /// Where it sleeps, if another thread may end it meanwhile.
    pub(super) nap: Option<QueueId>,
    pub(super) mm: MmId,
    pub(super) life: Life,
}

/// Whether a thread runs in its process's address space.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It waits at the barrier it begins with; there is no such thread yet.
    Unborn,
    /// It was born into this epoch of its process.
    Born(u64),
    /// It is an XPMEM importer: a process of its own on another partition.
    Elsewhere,
}

/// What the thread does after an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Continue,
    End,
}

impl Thread {
    /// Whether exec or exit of another thread ended this one.
    pub(super) fn gone(&self) -> bool {
        match self.life {
            Life::Born(epoch) => self.process.epoch.get() != epoch,
            Life::Unborn => self.process.exiting.get(),
            Life::Elsewhere => false,
        }
    }

    /// clone(2) of this thread is over: it joins the address space its process has now, or will have when
    /// execve(2) is done.
    async fn be_born(&mut self, cx: &Cx) {
        // Whoever came earlier may have changed the address space, or look at who is in it.
        cx.step(Object::None, Action::Run).await;
        while self.process.changing.get() && !self.gone() {
            cx.wait_on(self.process.ended).await;
        }
        if self.gone() {
            return;
        }
        let Some(mm) = self.process.mm.get() else { return };
        self.life = Life::Born(self.process.epoch.get());
        self.process.born.set(self.process.born.get() + 1);
        self.mm = mm;
        self.process.kernel.mmget(mm);
        self.process.kernel.activate_mm(cx, mm);
    }

    fn stream(&self) -> Stream {
        Stream(THREAD_STREAMS + self.ordinal)
    }

    /// Executes a script; ends early on exit.
    pub(super) async fn script(&mut self, cx: &Cx, script: &[Op]) -> Result<Next, RunError> {
        for op in script {
            if self.gone() {
                return Ok(Next::End);
            }
            if let Op::Repeat(r) = op {
                for _ in 0..r.times {
                    // Scripts nest, so this call is boxed.
                    if Box::pin(self.script(cx, &r.script)).await? == Next::End {
                        return Ok(Next::End);
                    }
                }
                continue;
            }
            let begin = cx.now();
            let next = self.operation(cx, op).await?;
            self.run.record_latency(op.name(), cx.now() - begin);
            if next == Next::End {
                return Ok(Next::End);
            }
            // Back in user mode: the scheduler may want the CPU.
            cx.cond_resched().await;
        }
        Ok(Next::Continue)
    }

    async fn operation(&mut self, cx: &Cx, op: &Op) -> Result<Next, RunError> {
        let kernel = Rc::clone(&self.process.kernel);
        if self.life == Life::Elsewhere && changes_process(op) {
            return Err(self.refused(op.name(), "a rank lives on another partition than the process"));
        }
        match op {
            Op::Touch(o) => self.touch(cx, o).await?,
            Op::Access(o) => self.access(cx, o).await?,
            Op::Mmap(o) => self.mmap(cx, o).await?,
            Op::Munmap(r) => {
                let range = self.region(r)?;
                let done = kernel.sys_munmap(cx, self.mm, range).await;
                done.map_err(|e| self.refused("munmap", &format!("{e:?}")))?;
            }
            Op::Mprotect(o) => {
                let range = self.region(&o.region)?;
                let done = kernel.sys_mprotect(cx, self.mm, range, prot(o.prot)).await;
                done.map_err(|e| self.refused("mprotect", &format!("{e:?}")))?;
            }
            Op::Mremap(o) => self.mremap(cx, o).await?,
            Op::RemapFilePages(o) => {
                let request = RemapRequest {
                    range: self.region(&o.region)?,
                    prot: Prot::NONE,
                    pgoff: Pgoff::new(o.offset),
                    prefault: if o.nonblock { Prefault::No } else { Prefault::Yes },
                };
                let done = kernel.sys_remap_file_pages(cx, self.mm, request).await;
                done.map_err(|e| self.refused(op.name(), &format!("{e:?}")))?;
            }
            Op::Madvise(o) => {
                let range = self.region(&o.region)?;
                let done = match o.advice {
                    ast::Advice::Dontneed => kernel.madvise_dontneed(cx, self.mm, range).await,
                    ast::Advice::Remove => {
                        let done = kernel.madvise_remove(cx, self.mm, range).await;
                        done.map_err(|e| self.refused("madvise", &format!("{e:?}")))?;
                        Ok(())
                    }
                };
                done.map_err(|e| self.refused("madvise", &format!("{e:?}")))?;
            }
            Op::Mlock(r) => {
                let range = self.region(r)?;
                let done = kernel.sys_mlock(cx, self.mm, range).await;
                done.map_err(|e| self.refused("mlock", &format!("{e:?}")))?;
            }
            Op::Munlock(r) => {
                let range = self.region(r)?;
                let done = kernel.sys_munlock(cx, self.mm, range).await;
                done.map_err(|e| self.refused("munlock", &format!("{e:?}")))?;
            }
            Op::Writeback(o) => {
                let file = self.run.file(&kernel, &o.file)?;
                kernel.sys_fsync(cx, file).await;
            }
            Op::Msync(r) => {
                let range = self.region(r)?;
                kernel.sys_msync(cx, self.mm, range).await;
            }
            Op::Migrate(o) => {
                let range = self.region(&o.region)?;
                let which = match o.which {
                    ast::MigrateWhich::Own => mm::Which::Own,
                    ast::MigrateWhich::All => mm::Which::All,
                };
                let _ = kernel.sys_move_pages(cx, self.mm, range, which).await;
            }
            Op::Brk(o) => {
                let to = self.address(&o.to)?;
                kernel.sys_brk(cx, self.mm, to).await;
            }
            Op::Truncate(o) => {
                let file = self.run.file(&kernel, &o.file)?;
                kernel.do_truncate(cx, file, o.pages).await;
            }
            Op::Reclaim(o) => {
                let _ = kernel.shrink_all_memory(cx, o.pages).await;
            }
            Op::Fork(o) => self.run.fork(cx, self, &o.child).await?,
            Op::Exec(_) => return Ok(self.exec(cx).await),
            Op::Exit(_) => {
                // Leaves this thread behind an older epoch, too: it exits whatever `at_end` says.
                self.process.exiting.set(true);
                self.run.end_others(&self.process);
                return Ok(Next::End);
            }
            Op::Wait(o) => self.wait(cx, &o.child).await?,
            Op::Barrier(o) => {
                let barrier = self.run.barrier(&o.name);
                barrier.meet(cx, || self.gone()).await;
                if self.life == Life::Unborn {
                    self.be_born(cx).await;
                }
            }
            Op::Compute(o) => {
                cx.charge(mm::account::USER, kernel.machine.ns(o.ns));
                cx.step(Object::None, Action::Run).await;
            }
            Op::Sleep(o) => self.sleep(cx, kernel.machine.ns(o.ns)).await,
            Op::Register(o) => {
                let mmu = self.run.mmu(&self.process, &o.mmu)?;
                // A rank outlives the process, and has another address space than it.
                let mm = self.process.mm.get().filter(|_| !self.process.exiting.get());
                let mm = mm.ok_or_else(|| self.refused("register", "the process has ended"))?;
                mmu.come_to_life(cx, &self.process, mm).await?;
            }
            Op::Unregister(o) => self.run.mmu(&self.process, &o.mmu)?.leave(cx, &kernel).await,
            Op::Repeat(_) => unreachable!("handled by the caller"),
        }
        Ok(Next::Continue)
    }

    /// wait4(2): returns when the child has ended, or when there is none (ECHILD), and does not if this
    /// thread must end.
    async fn wait(&self, cx: &Cx, name: &str) -> Result<(), RunError> {
        let child = self.run.process(name)?;
        while !child.done.is_done() && !self.gone() {
            let expected = match child.parent.get() {
                Some(parent) => Rc::ptr_eq(parent, &self.process),
                // Another thread may be about to fork it.
                None => !child.never.get() && self.process.forks_elsewhere(&self.name, name),
            };
            if !expected {
                break;
            }
            cx.wait_on(self.process.children).await;
        }
        Ok(())
    }

    /// Sleeps; ends early if another thread ends this one.
    async fn sleep(&self, cx: &Cx, duration: Cycles) {
        let Some(nap) = self.nap else {
            return cx.sleep(duration).await;
        };
        let until = cx.now() + duration;
        cx.engine().wake_all_at(nap, until);
        while cx.now() < until && !self.gone() {
            cx.wait_on(nap).await;
        }
    }

    /// Accesses that need no event count towards the budget all the same.
    fn spend(cx: &Cx, accesses: &mut u64) {
        *accesses += 1;
        if accesses.is_multiple_of(ACCESSES_AT_ONCE) {
            cx.engine().spend_events(ACCESSES_AT_ONCE);
        }
    }

    /// Takes hold of the MMU this thread drives; false if there is none to drive.
    async fn grip(&mut self, cx: &Cx) -> bool {
        let Some(mmu) = self.drives.clone() else {
            return true;
        };
        if self.driver.is_none() {
            self.driver = mmu.driver(cx, self.ordinal).await;
        }
        self.driver.is_some()
    }

    async fn touch(&mut self, cx: &Cx, o: &TouchOp) -> Result<(), RunError> {
        let region = Region {
            map: o.map.clone(),
            at: o.at.clone(),
            first: o.first,
            pages: o.pages,
        };
        let access = if o.write { Access::Write } else { Access::Read };
        if !self.grip(cx).await {
            return Ok(());
        }
        let (range, pages) = self.reach(&region)?;
        let (mut page, mut spent) = (0_u64, 0);
        while page < pages && !self.gone() {
            Self::spend(cx, &mut spent);
            self.one_access(cx, range, page, access).await;
            page = page.saturating_add(o.stride.max(1));
        }
        self.rest(cx);
        Ok(())
    }

    async fn access(&mut self, cx: &Cx, o: &AccessOp) -> Result<(), RunError> {
        const PERCENT: u64 = 100;
        let region = Region {
            map: o.map.clone(),
            at: o.at.clone(),
            first: o.first,
            pages: o.pages,
        };
        if !self.grip(cx).await {
            return Ok(());
        }
        let (range, pages) = self.reach(&region)?;
        if pages == 0 {
            return Ok(());
        }
        if o.pattern == Pattern::PointerChase && pages > MAX_CHASE {
            let why = format!("a pointer chase over {pages} pages, at most {MAX_CHASE} are possible");
            return Err(self.refused("access", &why));
        }
        let mut spent = 0;
        let stream = self.stream();
        let engine = Rc::clone(cx.engine());
        let mut order = Pages::new(o.pattern, pages, &engine, stream);
        let always = [Access::Read, Access::Write];
        for _ in 0..o.count {
            if self.gone() {
                break;
            }
            Self::spend(cx, &mut spent);
            let page = order.next(&engine, stream);
            let access = match u64::from(o.write_percent) {
                0 => always[0],
                PERCENT => always[1],
                share => always[usize::from(engine.draw(stream, PERCENT) < share)],
            };
            self.one_access(cx, range, page, access).await;
        }
        self.rest(cx);
        Ok(())
    }

    fn rest(&self, cx: &Cx) {
        if let Some(driver) = &self.driver {
            driver.rest(cx);
        }
    }

    /// A refused access is counted by whoever refused it; the program goes on, as one that handles
    /// the signal.
    async fn one_access(&self, cx: &Cx, range: Option<VaRange>, page: u64, access: Access) {
        let Some(driver) = &self.driver else {
            if let Some(range) = range {
                let va = range.start().add_pages(page);
                let kernel = &self.process.kernel;
                match kernel.access_now(cx, va, access) {
                    Now::Done => {}
                    begun => {
                        let _ = kernel.finish_access(cx, self.mm, va, access, begun).await;
                    }
                }
            }
            return;
        };
        let place = match (driver, range) {
            (Driver::GruJob(..), Some(range)) => Place::Va(range.start().add_pages(page)),
            (_, None) => Place::Index(page),
            (_, Some(range)) => {
                let mmu = self.drives.as_ref().expect("a driver drives an MMU");
                match mmu.index_of(range.start().add_pages(page)) {
                    Some(index) => Place::Index(index),
                    None => return,
                }
            }
        };
        let _ = driver.access(cx, place, access).await;
    }

    /// The pages an access operation means: a region of the process, or everything the driven MMU
    /// shadows.
    fn reach(&self, region: &Region) -> Result<(Option<VaRange>, u64), RunError> {
        if region.map.is_none() && region.at.is_none() {
            if let Some(Driver::GruJob(..)) = self.driver {
                // The GRU shadows the whole address space; without a region it works on the first
                // named mapping.
                let first = self.process.maps.borrow().values().next().copied();
                return Ok((first, first.map_or(0, |r| r.pages())));
            }
            return Ok((None, self.drives.as_ref().map_or(0, |m| m.pages())));
        }
        let range = self.region(region)?;
        Ok((Some(range), range.pages()))
    }

    async fn mmap(&mut self, cx: &Cx, o: &MmapOp) -> Result<(), RunError> {
        let kernel = Rc::clone(&self.process.kernel);
        let at = o.at.as_ref().map(|a| self.address(a)).transpose()?;
        let backing = match &o.file {
            Some(name) => Backing::File(self.run.file(&kernel, name)?),
            None => Backing::Anonymous,
        };
        let request = MapRequest {
            at,
            pages: o.pages,
            backing,
            pgoff: Pgoff::new(o.offset),
            sharing: sharing(o.sharing),
            prot: prot(o.prot),
            flags: map_flags(o),
        };
        let mapped = kernel.sys_mmap(cx, self.mm, request).await;
        let range = mapped.map_err(|e| self.refused("mmap", &format!("{e:?}")))?;
        if let Some(name) = &o.name {
            self.process.maps.borrow_mut().insert(name.clone(), range);
        }
        Ok(())
    }

    async fn mremap(&mut self, cx: &Cx, o: &ast::MremapOp) -> Result<(), RunError> {
        let old = self.region(&o.region)?;
        let to = o.to.as_ref().map(|a| self.address(a)).transpose()?;
        let kernel = Rc::clone(&self.process.kernel);
        let moved = kernel.sys_mremap(cx, self.mm, old, o.new_pages, to).await;
        let range = moved.map_err(|e| self.refused("mremap", &format!("{e:?}")))?;
        if let Some(name) = &o.region.map {
            self.process.maps.borrow_mut().insert(name.clone(), range);
        }
        Ok(())
    }

    /// execve(2): the other threads end, then the address space is replaced.
    async fn exec(&mut self, cx: &Cx) -> Next {
        self.run.end_others(&self.process);
        self.life = Life::Born(self.process.epoch.get());
        while self.process.born.get() > 1 {
            if self.gone() {
                return Next::End;
            }
            cx.wait_on(self.process.ended).await;
        }
        self.process.changing.set(true);
        self.process.wind_up(cx).await;
        let kernel = Rc::clone(&self.process.kernel);
        self.mm = kernel.exec_mmap(cx, self.mm, Rc::clone(&self.process.name)).await;
        self.process.destroy(cx).await;
        self.process.mm.set(Some(self.mm));
        self.process.maps.borrow_mut().clear();
        self.process.changing.set(false);
        cx.engine().wake_all(self.process.ended);
        Next::Continue
    }

    fn address(&self, address: &ast::Address) -> Result<Va, RunError> {
        parse_address(address)
            .map(Va::new)
            .map_err(|e| self.refused("address", &e.to_string()))
    }

    pub(super) fn region(&self, region: &Region) -> Result<VaRange, RunError> {
        let (start, available) = match (&region.map, &region.at) {
            (Some(name), _) => {
                let maps = self.process.maps.borrow();
                let range = maps
                    .get(name)
                    .ok_or_else(|| self.refused("region", &format!("no mapping `{name}` now")))?;
                (range.start(), Some(range.pages()))
            }
            (None, Some(at)) => (self.address(at)?, None),
            (None, None) => return Err(self.refused("region", "neither a mapping nor an address")),
        };
        let rest = available.map(|a| a.saturating_sub(region.first));
        let pages = region
            .pages
            .or(rest)
            .ok_or_else(|| self.refused("region", "an address without a length"))?;
        VaRange::from_pages(start.add_pages(region.first), pages)
            .ok_or_else(|| self.refused("region", "no page in it"))
    }

    fn refused(&self, what: &str, why: &str) -> RunError {
        RunError {
            message: format!(
                "thread `{}` of process `{}`: {what}: {why}",
                self.name, self.process.name
            ),
            help: "mend the script".to_owned(),
        }
    }
}

fn map_flags(o: &MmapOp) -> MapFlags {
    MapFlags {
        locked: if o.locked { Locked::Yes } else { Locked::No },
        populate: if o.populate {
            Populate::Now
        } else {
            Populate::OnDemand
        },
        ..MapFlags::NONE
    }
}

pub(super) fn prot(p: ast::Prot) -> Prot {
    match p {
        ast::Prot::None => Prot::NONE,
        ast::Prot::Read => Prot::READ,
        ast::Prot::ReadWrite => Prot::READ_WRITE,
        ast::Prot::ReadExec => Prot::READ_EXEC,
        ast::Prot::ReadWriteExec => Prot::ALL,
    }
}

pub(super) fn sharing(s: ast::Sharing) -> Sharing {
    match s {
        ast::Sharing::Private => Sharing::Private,
        ast::Sharing::Shared => Sharing::Shared,
    }
}
