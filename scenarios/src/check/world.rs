//! Checks of what stands still: machine, kernel, design, files, mappings, secondary MMUs.

use std::collections::{BTreeMap, BTreeSet};

use super::address::{PAGE, Release, USER_END, parse_address, parse_release};
use super::facts::map_pages;
use super::path::At;
use super::{Checker, DEFAULT_PARTITION};
use crate::ast::{
    Address, AttachDef, GuestPaging, KernelChoice, KvmDef, MapDef, NotifierChoice, Populate, ProcessDef,
    RangeDef, RegisterWhen, Sharing, XpmemDef,
};
use crate::diagnostic::Code;
use crate::diagnostic::suggest::{self, quote};
use crate::load::source::Part;

/// Most CPUs of a simulated kernel.
pub const MAX_CPUS: u32 = 256;

/// Most mappings of a process (`vm.max_map_count`).
pub const MAX_MAPS: u64 = 65_530;

/// Most pages that one secondary MMU shadows: 64 GiB.
pub const MAX_SHADOWED: u64 = 1 << 24;

/// Most chiplets with a context of one process.
const MAX_CHIPLETS: u32 = 512;

/// First release with KVM.
const FIRST_KVM: Release = Release {
    major: 2,
    minor: 6,
    patch: 20,
};

/// A mapping at a stated address, for the search for overlaps.
struct Placed<'a> {
    start: u64,
    end: u64,
    name: &'a str,
}

impl<'a> Checker<'a> {
    pub(super) fn head(&mut self) {
        let at = At::ROOT;
        if self.scenario.title.trim().is_empty() {
            self.error(
                Code::EmptyTitle,
                &at.key("title"),
                "the title is empty",
                "say in one line what the scenario shows",
            );
        }
        self.machine_name();
        match &self.scenario.kernel {
            KernelChoice::Name(name) => self.kernel_name(name, &at.key("kernel")),
            KernelChoice::Custom(def) => {
                if let Some(base) = &def.base {
                    self.kernel_name(base, &at.key("kernel").key("base"));
                }
            }
        }
        match &self.scenario.notifier {
            NotifierChoice::Name(name) => self.design_name(name, &at.key("notifier")),
            NotifierChoice::Custom(def) => {
                self.design_name(&def.base, &at.key("notifier").key("base"));
            }
        }
        self.cpu_count();
        for (name, file) in &self.scenario.files {
            // With little memory on purpose, what does not fit is read again.
            if self.scenario.memory.is_none()
                && self
                    .machine
                    .is_some_and(|machine| file.pages > machine.memory_pages)
            {
                let message = format!(
                    "file {} of {} pages does not fit into memory",
                    quote(name),
                    file.pages
                );
                self.memory_error(&at.key("files").key(name).key("pages"), message);
            }
        }
        if let Some(disk) = self.scenario.disk {
            let at = at.key("disk");
            self.duration(disk.read_ns, &at.key("read_ns"));
            self.duration(disk.write_ns, &at.key("write_ns"));
        }
        if self.scenario.processes.is_empty() {
            self.error(
                Code::NoProcess,
                &at.key("processes"),
                "the scenario has no process",
                "declare at least one process with a thread",
            );
        }
    }

    fn machine_name(&mut self) {
        if let Some(why) = self.machine_error.clone() {
            let help = "paths are relative to the scenario file; docs/how-to/add-a-machine.md has the format";
            self.error(Code::BadMachineFile, &At::ROOT.key("machine"), why, help);
            return;
        }
        let name = &self.scenario.machine;
        let names: Vec<&str> = self.known.machines.iter().map(|(name, _)| *name).collect();
        if self.machine.is_none() {
            let help = suggest::help("machines", name, &names);
            let message = format!("unknown machine {}", quote(name));
            self.error(Code::UnknownMachine, &At::ROOT.key("machine"), message, help);
        }
    }

    fn kernel_name(&mut self, name: &str, at: &At<'_>) {
        if !self.known.kernels.contains(&name) {
            let help = suggest::help("kernel profiles", name, self.known.kernels);
            self.error(
                Code::UnknownKernel,
                at,
                format!("unknown kernel profile {}", quote(name)),
                help,
            );
        }
    }

    pub(super) fn design_name(&mut self, name: &str, at: &At<'_>) {
        if !self.known.designs.contains(&name) {
            let help = suggest::help("designs", name, self.known.designs);
            self.error(
                Code::UnknownDesign,
                at,
                format!("unknown notifier design {}", quote(name)),
                help,
            );
        }
    }

    fn cpu_count(&mut self) {
        let Some(cpus) = self.scenario.cpus else {
            return;
        };
        let root = At::ROOT;
        let at = root.key("cpus");
        if cpus == 0 || cpus > MAX_CPUS {
            let message = format!("{cpus} CPUs cannot be simulated");
            self.error(Code::CpuCount, &at, message, format!("write 1 to {MAX_CPUS}"));
        } else if let Some(machine) = self.machine
            && cpus > machine.cpus
        {
            let message = format!(
                "{cpus} CPUs, but machine `{}` has {}",
                self.scenario.machine, machine.cpus
            );
            self.error(
                Code::CpuCount,
                &at,
                message,
                format!("write 1 to {}", machine.cpus),
            );
        }
    }

    pub(super) fn memory_error(&mut self, at: &At<'_>, message: String) {
        let pages = self.machine.map_or(0, |machine| machine.memory_pages);
        let swap = match self.swap_pages() {
            0 => String::new(),
            slots => format!(", and {slots} of swap"),
        };
        let whose = match self.scenario.memory {
            None => format!("machine `{}`", self.scenario.machine),
            Some(_) => "the scenario".to_owned(),
        };
        let help = format!("{whose} has {pages} pages of memory{swap}");
        self.error(Code::Memory, at, message, help);
    }

    /// All mappings made at the start, and the memory they take in each partition.
    pub(super) fn mappings(&mut self) {
        let scenario = self.scenario;
        let mut used: BTreeMap<&str, (u64, BTreeSet<&str>)> = BTreeMap::new();
        let root = At::ROOT;
        let processes = root.key("processes");
        for (name, process) in &scenario.processes {
            let here = processes.key(name);
            let maps = here.key("maps");
            let partition = process.partition.as_deref().unwrap_or(DEFAULT_PARTITION);
            let used = used.entry(partition).or_default();
            let mut placed = Vec::new();
            for (map_name, map) in &process.maps {
                let at = maps.key(map_name);
                placed.extend(self.mapping(map_name, map, &at));
                self.account(map, partition, used, &at);
            }
            self.overlaps(placed, &maps);
        }
    }

    /// One mapping; where it lies, when that is stated and right.
    fn mapping(&mut self, name: &'a str, map: &'a MapDef, at: &At<'_>) -> Option<Placed<'a>> {
        if map.copies == 0 {
            self.error(
                Code::Zero,
                &at.key("copies"),
                "`copies` is 0",
                "leave the mapping out, or write 1 or more",
            );
        } else if map.copies > MAX_MAPS {
            let message = format!(
                "{} copies, but a process has at most {MAX_MAPS} mappings",
                map.copies
            );
            self.error(
                Code::Memory,
                &at.key("copies"),
                message,
                format!("write 1 to {MAX_MAPS}"),
            );
        }
        self.file_range(map.file.as_deref(), map.offset, map.pages, at);
        let start = map
            .at
            .as_ref()
            .and_then(|address| self.address(address, &at.key("at")));
        self.huge_place(map.file.as_deref(), start, at);
        self.huge_copies(map.file.as_deref(), map.copies, at);
        if map.file.is_none() && map.pages.is_none() {
            let message = format!("mapping {} has neither `file` nor `pages`", quote(name));
            self.error(Code::NoSize, at, message, "give it a length: `\"pages\": ...`");
            return None;
        }
        let pages = map_pages(map, self.scenario)?;
        if pages == 0 {
            self.error(
                Code::Zero,
                &at.key("pages"),
                format!("mapping {} has 0 pages", quote(name)),
                "map at least one page",
            );
            return None;
        }
        let total = pages.saturating_add(1).saturating_mul(map.copies) - u64::from(map.copies > 0);
        let end = self.end(start.unwrap_or(0), total, &at.key("pages"))?;
        start.map(|start| Placed { start, end, name })
    }

    /// File name, and offset plus length against the file's size. Also for `mmap`.
    pub(super) fn file_range(&mut self, file: Option<&str>, offset: u64, pages: Option<u64>, at: &At<'_>) {
        let Some(file) = file else {
            if offset != 0 {
                self.error(
                    Code::BeyondFile,
                    &at.key("offset"),
                    "`offset` without `file`",
                    "anonymous memory has no offset; name a `file` or leave it out",
                );
            }
            return;
        };
        if !self.file_name(file, &at.key("file")) {
            return;
        }
        self.huge_range(file, offset, pages, at);
        let size = self.facts.files.get(file).copied().unwrap_or(0);
        let end = offset.saturating_add(pages.unwrap_or(0));
        if end > size || (pages.is_none() && offset >= size && offset > 0) {
            let message = format!(
                "the mapping ends at page {end} of file {}, which has {size}",
                quote(file)
            );
            let key = if pages.is_some() { "pages" } else { "offset" };
            self.error(
                Code::BeyondFile,
                &at.key(key),
                message,
                "map less, or make the file larger",
            );
        }
    }

    pub(super) fn file_name(&mut self, file: &str, at: &At<'_>) -> bool {
        let known = self.scenario.files.contains_key(file);
        if !known {
            let names: Vec<&str> = self.scenario.files.keys().map(String::as_str).collect();
            let help = suggest::help("files", file, &names);
            self.error(
                Code::UnknownFile,
                at,
                format!("unknown file {}", quote(file)),
                help,
            );
        }
        known
    }

    fn account(
        &mut self,
        map: &'a MapDef,
        partition: &str,
        used: &mut (u64, BTreeSet<&'a str>),
        at: &At<'_>,
    ) {
        let (Some(machine), Some(pages)) = (self.machine, map_pages(map, self.scenario)) else {
            return;
        };
        if map.file.as_ref().is_some_and(|file| self.is_huge(file)) {
            return; // from the pool
        }
        let all = pages.saturating_mul(map.copies);
        if all > USER_END / PAGE {
            return; // told already
        }
        let copied = map.sharing == Sharing::Private && map.populate == Some(Populate::Write);
        let mut taken = match &map.file {
            None => all,
            Some(_) if copied => all,
            Some(_) => 0,
        };
        if let Some(file) = &map.file
            && self.scenario.memory.is_none()
            && used.1.insert(file)
        {
            taken = taken.saturating_add(self.facts.files.get(file.as_str()).copied().unwrap_or(0));
        }
        let before = used.0;
        used.0 = before.saturating_add(taken);
        let room = machine.memory_pages.saturating_add(self.swap_pages());
        if before <= room && used.0 > room {
            let message = format!(
                "with this mapping partition `{partition}` needs {} pages of memory",
                used.0
            );
            let key = if map.pages.is_some() { "pages" } else { "file" };
            self.memory_error(&at.key(key), message);
        }
    }

    fn overlaps(&mut self, mut placed: Vec<Placed<'_>>, maps: &At<'_>) {
        placed.sort_by_key(|map| (map.start, map.end));
        let mut placed = placed.into_iter();
        let Some(mut last) = placed.next() else {
            return;
        };
        for map in placed {
            if map.start < last.end {
                let message = format!(
                    "mapping {} at {:#x} overlaps {}, which ends at {:#x}",
                    quote(map.name),
                    map.start,
                    quote(last.name),
                    last.end
                );
                let other = maps.key(last.name);
                let mut diagnostic = self
                    .diagnostic(Code::Overlap, &maps.key(map.name).key("at"), Part::Value, message)
                    .with_help("move one of them, or leave `at` out");
                diagnostic
                    .labels
                    .push(self.label(&other.key("at"), "the other mapping"));
                self.found.push(diagnostic);
            }
            if map.end > last.end {
                last = map;
            }
        }
    }

    /// A usable address.
    pub(super) fn address(&mut self, address: &Address, at: &At<'_>) -> Option<u64> {
        match parse_address(address) {
            Ok(value) => Some(value),
            Err(error) => {
                let shown = match address {
                    Address::Number(value) => format!("{value:#x}"),
                    Address::Text(text) => quote(text),
                };
                let message = format!("address {shown} is {error}");
                let help = format!("write a multiple of {PAGE:#x} below {USER_END:#x}");
                self.error(Code::BadAddress, at, message, help);
                None
            }
        }
    }

    /// End of a range of pages, if it lies in the user half.
    pub(super) fn end(&mut self, start: u64, pages: u64, at: &At<'_>) -> Option<u64> {
        let end = pages.checked_mul(PAGE).and_then(|bytes| start.checked_add(bytes));
        match end.filter(|end| *end <= USER_END) {
            Some(end) => Some(end),
            None => {
                let message = format!("{pages} pages from {start:#x} reach beyond the address space");
                self.error(
                    Code::BadAddress,
                    at,
                    message,
                    format!("the last address is {USER_END:#x}"),
                );
                None
            }
        }
    }

    /// The secondary MMUs of a process.
    pub(super) fn attachments(&mut self, name: &'a str, process: &'a ProcessDef, at: &At<'_>) {
        let attach = at.key("attach");
        for (mmu, def) in &process.attach {
            let here = attach.key(mmu);
            let register = match def {
                AttachDef::Kvm(kvm) => self.kvm(name, process, mmu, kvm, &here.key("kvm")),
                AttachDef::Gru(gru) => {
                    if gru.chiplets == 0 {
                        self.error(
                            Code::Zero,
                            &here.key("gru").key("chiplets"),
                            "`chiplets` is 0",
                            "write 1 or more",
                        );
                    } else if gru.chiplets > MAX_CHIPLETS {
                        let message = format!("{} chiplets cannot be simulated", gru.chiplets);
                        self.error(
                            Code::TooMuch,
                            &here.key("gru").key("chiplets"),
                            message,
                            format!("write 1 to {MAX_CHIPLETS}"),
                        );
                    }
                    gru.register
                }
                AttachDef::Xpmem(xpmem) => self.xpmem(name, process, mmu, xpmem, &here.key("xpmem")),
            };
            if register == RegisterWhen::ByOp && !self.facts.registered.contains(&(name, mmu)) {
                let message = format!("secondary MMU {} is never registered", quote(mmu));
                self.warn(
                    Code::NeverRegistered,
                    &here,
                    message,
                    "let a thread execute `{\"register\": {\"mmu\": ...}}`, or leave `register` out",
                );
            }
        }
    }

    fn kvm(
        &mut self,
        process: &'a str,
        def: &ProcessDef,
        mmu: &str,
        kvm: &KvmDef,
        at: &At<'_>,
    ) -> RegisterWhen {
        if let (GuestPaging::Tdp, Some(machine)) = (kvm.paging, self.machine)
            && !machine.nested_paging
        {
            let message = format!("machine `{}` has no nested paging", self.scenario.machine);
            self.error(
                Code::NoNestedPaging,
                &at.key("paging"),
                message,
                "write `\"paging\": \"direct\"`, or choose a machine with EPT or NPT",
            );
        }
        match parse_release(&kvm.version) {
            Some(release) if release >= FIRST_KVM => {}
            _ => {
                let message = format!("{} is not a release of Linux with KVM", quote(&kvm.version));
                self.error(
                    Code::BadVersion,
                    &at.key("version"),
                    message,
                    "write `2.6.20` to `2.6.39`, or `3.0` and later as `N.M`",
                );
            }
        }
        self.shadowed(process, def, mmu, (&kvm.maps, &kvm.ranges), at);
        kvm.register
    }

    fn xpmem(
        &mut self,
        process: &'a str,
        def: &ProcessDef,
        mmu: &str,
        xpmem: &XpmemDef,
        at: &At<'_>,
    ) -> RegisterWhen {
        let own = def.partition.as_deref().unwrap_or(DEFAULT_PARTITION);
        if xpmem.importer == own {
            let message = format!("importer `{own}` is the exporter's own partition");
            self.error(
                Code::OwnImporter,
                &at.key("importer"),
                message,
                "name another partition, or leave `importer` out",
            );
        }
        self.duration(xpmem.rtt_ns, &at.key("rtt_ns"));
        self.shadowed(process, def, mmu, (&xpmem.maps, &xpmem.ranges), at);
        xpmem.register
    }

    /// The mappings and ranges that a secondary MMU shadows.
    fn shadowed(
        &mut self,
        process: &'a str,
        def: &ProcessDef,
        mmu: &str,
        (maps, ranges): (&[String], &[RangeDef]),
        at: &At<'_>,
    ) {
        let list = at.key("maps");
        for (index, map) in maps.iter().enumerate() {
            self.map_name(process, map, &list.index(index));
        }
        let list = at.key("ranges");
        for (index, range) in ranges.iter().enumerate() {
            let here = list.index(index);
            if range.pages == 0 {
                self.error(
                    Code::Zero,
                    &here.key("pages"),
                    "a range of 0 pages",
                    "write 1 or more",
                );
            }
            if let Some(start) = self.address(&range.at, &here.key("at")) {
                self.end(start, range.pages, &here.key("pages"));
            }
        }
        let pages = self.shadowed_pages(process, maps, ranges);
        if pages > MAX_SHADOWED {
            let message = format!(
                "secondary MMU {} shadows {pages} pages, at most {MAX_SHADOWED} are possible",
                quote(mmu)
            );
            self.error(Code::TooMuch, at, message, "name fewer or smaller mappings");
        }
        if maps.is_empty() && ranges.is_empty() && def.maps.is_empty() && def.forked.is_none() {
            let message = format!("secondary MMU {} shadows nothing", quote(mmu));
            self.warn(
                Code::ShadowsNothing,
                at,
                message,
                "name mappings in `maps`, or give addresses in `ranges`",
            );
        }
    }

    /// Pages that a secondary MMU shadows, as far as the file tells.
    pub(super) fn shadowed_pages(&self, process: &str, maps: &[String], ranges: &[RangeDef]) -> u64 {
        let known = self.facts.maps.get(process);
        let size = |map: &str| {
            known
                .and_then(|known| known.get(map).copied().flatten())
                .unwrap_or(0)
        };
        let sum = |sum: u64, pages: u64| sum.saturating_add(pages);
        if maps.is_empty() && ranges.is_empty() {
            let def = self.scenario.processes.get(process);
            let named = def.into_iter().flat_map(|def| def.maps.keys());
            return named.map(|map| size(map)).fold(0, sum);
        }
        let by_name = maps.iter().map(|map| size(map));
        by_name.chain(ranges.iter().map(|range| range.pages)).fold(0, sum)
    }
}
