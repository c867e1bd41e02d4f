//! Checks of `memory` and `swap`.

use super::Checker;
use super::path::At;
use crate::diagnostic::Code;

impl Checker<'_> {
    /// A kernel that could not give a page to anybody is refused, and a device that holds nothing.
    pub(super) fn memory_and_swap(&mut self) {
        let root = At::ROOT;
        if let Some(memory) = self.scenario.memory {
            let kept = mm::Watermarks::of_memory(memory.pages).high;
            if memory.pages <= kept {
                let at = root.key("memory");
                let message = format!("{} pages of memory", memory.pages);
                let help = format!("the kernel keeps {kept} pages free; write more than that");
                self.error(Code::Memory, &at.key("pages"), message, help);
            }
        }
        if let Some(swap) = self.scenario.swap {
            let at = root.key("swap");
            if swap.pages == 0 {
                let help = "write 1 or more, or leave `swap` out";
                self.error(Code::Zero, &at.key("pages"), "a swap device of 0 pages", help);
            }
            self.duration(swap.read_ns, &at.key("read_ns"));
            self.duration(swap.write_ns, &at.key("write_ns"));
        }
    }

    /// Pages that fit on the swap device.
    pub(super) fn swap_pages(&self) -> u64 {
        self.scenario.swap.map_or(0, |swap| swap.pages.into())
    }
}
