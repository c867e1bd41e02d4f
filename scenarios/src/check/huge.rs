//! Checks of files of huge pages: everything about them is a multiple of 2 MiB, and they need a pool.

use super::Checker;
use super::address::PAGE;
use super::path::At;
use crate::ast::{FilePages, KernelChoice};
use crate::diagnostic::Code;
use crate::diagnostic::suggest::quote;

/// Pages of 4 KiB in a huge page.
const HUGE: u64 = 512;

impl<'a> Checker<'a> {
    /// The pool, and the files that live on it.
    pub(super) fn huge_pages(&mut self) {
        let root = At::ROOT;
        let pool = match &self.scenario.kernel {
            KernelChoice::Name(_) => 0,
            KernelChoice::Custom(def) => def.hugepages,
        };
        let memory = self.machine.map_or(u64::MAX, |machine| machine.memory_pages);
        if pool.saturating_mul(HUGE) > memory {
            let message = format!("{pool} huge pages do not fit into memory");
            self.memory_error(&root.key("kernel").key("hugepages"), message);
        }
        let files = root.key("files");
        for (name, file) in &self.scenario.files {
            if file.page_size == FilePages::Small {
                continue;
            }
            let at = files.key(name);
            self.huge_multiple("the size", file.pages, &at.key("pages"));
            if pool == 0 {
                let message = format!("file {} has huge pages, but there are none", quote(name));
                self.error(
                    Code::NoHugePages,
                    &at.key("page_size"),
                    message,
                    "say how many: `\"kernel\": { \"hugepages\": ... }`",
                );
            }
        }
    }

    pub(super) fn is_huge(&self, file: &str) -> bool {
        let file = self.scenario.files.get(file);
        file.is_some_and(|file| file.page_size == FilePages::Huge)
    }

    /// Offset and length of a mapping of such a file.
    pub(super) fn huge_range(&mut self, file: &str, offset: u64, pages: Option<u64>, at: &At<'_>) {
        if self.is_huge(file) {
            self.huge_multiple("the offset", offset, &at.key("offset"));
            if let Some(pages) = pages {
                self.huge_multiple("the length", pages, &at.key("pages"));
            }
        }
    }

    /// Address of a mapping of such a file.
    pub(super) fn huge_place(&mut self, file: Option<&str>, start: Option<u64>, at: &At<'_>) {
        if let (Some(file), Some(start)) = (file, start)
            && self.is_huge(file)
        {
            self.huge_multiple("the address", start / PAGE, &at.key("at"));
        }
    }

    /// Copies lie one page apart, where no mapping of huge pages can begin.
    pub(super) fn huge_copies(&mut self, file: Option<&str>, copies: u64, at: &At<'_>) {
        if copies > 1 && file.is_some_and(|file| self.is_huge(file)) {
            self.error(
                Code::HugeAlignment,
                &at.key("copies"),
                "copies of a mapping of huge pages begin inside huge pages",
                "write the mappings one by one",
            );
        }
    }

    /// Size to which such a file is truncated.
    pub(super) fn huge_truncate(&mut self, file: &str, pages: u64, at: &At<'_>) {
        if self.is_huge(file) {
            self.huge_multiple("the size", pages, at);
        }
    }

    fn huge_multiple(&mut self, what: &str, pages: u64, at: &At<'_>) {
        if !pages.is_multiple_of(HUGE) {
            let message = format!("{what} of huge pages ends {} pages into one", pages % HUGE);
            let help = format!("write a multiple of 2 MiB: {HUGE} pages");
            self.error(Code::HugeAlignment, at, message, help);
        }
    }
}
