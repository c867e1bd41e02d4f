//! What stands before the threads start: mappings, population, attachments. None of it is measured.

use std::rc::Rc;

use mm::{Backing, Kernel, MapRequest};
use sim::{Action, Cx, Object};
use x86::{Access, Pgoff, Va, VaRange};

use super::RunError;
use super::attach;
use super::exec;
use super::process::Process;
use super::world::Run;
use crate::ast::{AtEnd, MapDef, Populate, RegisterWhen};
use crate::check::parse_address;

impl Run {
    /// One task a process prepares it, one after the other; the last one starts the measurement.
    pub(super) fn spawn_preparation(self: &Rc<Self>, starting: &[Rc<Process>]) {
        let total = starting.len() as u32;
        let turn = self.engine.wait_queue("preparation of another process");
        for (n, process) in starting.iter().enumerate() {
            let run = Rc::clone(self);
            let process = Rc::clone(process);
            let home = process.home().unwrap_or_else(|| process.kernel.cpu(0));
            let mm = process.mm.get().expect("it starts with an address space");
            let kernel = Rc::clone(&process.kernel);
            let task = self.engine.spawn(
                self.task(&format!("{}-setup", process.name), home),
                |cx| async move {
                    while run.prepared.get() < n as u32 {
                        cx.wait_on(turn).await;
                    }
                    if let Err(error) = run.prepare(&cx, &process).await {
                        run.fail(error);
                    }
                    run.prepared.set(n as u32 + 1);
                    if run.prepared.get() == total {
                        run.start_measuring();
                        run.start.complete_all(&run.engine);
                    }
                    run.engine.wake_all(turn);
                    if process.home().is_none() {
                        // All its threads are ranks on other partitions: none of them keeps it alive.
                        while process.alive.get() > 0 {
                            cx.wait_on(process.ended).await;
                        }
                        if run.at_end == AtEnd::Stay {
                            return;
                        }
                    }
                    process.kernel.exit_mm(&cx, mm).await;
                },
            );
            kernel.set_task_mm(task, Some(mm));
        }
    }

    async fn prepare(&self, cx: &Cx, process: &Rc<Process>) -> Result<(), RunError> {
        for (name, def) in &process.def.maps {
            let range = self.initial_map(cx, process, name, def).await?;
            process.maps.borrow_mut().insert(name.clone(), range);
        }
        let mm = process.mm.get().expect("it starts with an address space");
        for mmu in process.mmus.values() {
            if attach::register_when(&mmu.def) == RegisterWhen::Start {
                mmu.come_to_life(cx, process, mm).await?;
            }
        }
        // Memory is at rest when the threads start: no page is still on its way to the LRU.
        process.kernel.lru_add_drain_all(cx).await;
        cx.step(Object::None, Action::Run).await;
        Ok(())
    }

    async fn initial_map(
        &self,
        cx: &Cx,
        process: &Process,
        name: &str,
        def: &MapDef,
    ) -> Result<VaRange, RunError> {
        let kernel = &process.kernel;
        let mm = process.mm.get().expect("it starts with an address space");
        let bad = |why: String| RunError {
            message: format!("mapping `{name}` of process `{}`: {why}", process.name),
            help: "mend `maps`".to_owned(),
        };
        let (backing, rest) = match &def.file {
            Some(file) => {
                let size = self.scenario_file_pages(kernel, file)?;
                (
                    Backing::File(self.file(kernel, file)?),
                    size.saturating_sub(def.offset),
                )
            }
            None => (Backing::Anonymous, 0),
        };
        let pages = def.pages.unwrap_or(rest);
        let at = def
            .at
            .as_ref()
            .map(parse_address)
            .transpose()
            .map_err(|e| bad(e.to_string()))?
            .map(Va::new);
        let request = MapRequest {
            at,
            pages,
            backing,
            pgoff: Pgoff::new(def.offset),
            sharing: exec::sharing(def.sharing),
            prot: exec::prot(def.prot),
            flags: mm::MapFlags::NONE,
        };
        // Many copies: find room for all of them and their gaps first.
        let room = if def.copies > 1 && at.is_none() {
            let total = (pages + 1) * def.copies;
            let all = MapRequest {
                pages: total,
                backing: Backing::Anonymous,
                ..request
            };
            let room = kernel
                .sys_mmap(cx, mm, all)
                .await
                .map_err(|e| bad(format!("{e:?}")))?;
            kernel
                .sys_munmap(cx, mm, room)
                .await
                .map_err(|e| bad(format!("{e:?}")))?;
            Some(room.start())
        } else {
            at
        };
        let mut first = None;
        for copy in 0..def.copies {
            let at = room.map(|r| r.add_pages(copy * (pages + 1)));
            let range = kernel
                .sys_mmap(cx, mm, MapRequest { at, ..request })
                .await
                .map_err(|e| bad(format!("{e:?}")))?;
            first.get_or_insert(range);
            if let Some(populate) = def.populate {
                let access = match populate {
                    Populate::Read => Access::Read,
                    Populate::Write => Access::Write,
                };
                for vpn in range.vpns() {
                    let touched = kernel.access(cx, mm, vpn.va(), access).await;
                    touched.map_err(|e| bad(format!("cannot be populated: {e:?}")))?;
                }
            }
        }
        first.ok_or_else(|| bad("no copies".to_owned()))
    }

    fn scenario_file_pages(&self, kernel: &Kernel, name: &str) -> Result<u64, RunError> {
        let file = self.file(kernel, name)?;
        Ok(kernel.st().file(file).size)
    }

    pub(super) fn start_measuring(&self) {
        self.engine.start_measuring();
        for kernel in self.world.kernels() {
            kernel.start_measuring();
        }
        let mut baseline = self.baseline.borrow_mut();
        for mmu in self.processes.values().flat_map(|p| p.mmus.values()) {
            if let Some(device) = mmu.device.get() {
                baseline.push((Rc::clone(&mmu.name), attach::metrics(device)));
            }
        }
    }
}
