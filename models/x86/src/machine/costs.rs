//! The primitives a machine charges for, in one table.
//!
//! Primitives only. A whole minor fault or a whole zap is the sum of its parts, and is listed in the
//! machine file as a target to calibrate against, see [`super::Target`].

use sim::Cycles;

use super::spec::CostSpec;
use crate::cache::Served;

macro_rules! costs {
    (
        always { $($(#[doc = $doc:literal])+ $name:ident,)+ }
        sometimes { $($(#[doc = $some_doc:literal])+ $some:ident,)+ }
    ) => {
        /// Price of each primitive in cycles of the machine. Value, range and source of each are in
        /// the machine file; [`super::Machine::cost_table`] lists them. What a machine lacks has no
        /// price.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Costs {
            $($(#[doc = $doc])+ pub $name: Cycles,)+
            $($(#[doc = $some_doc])+ pub $some: Option<Cycles>,)+
        }

        impl Costs {
            /// Names of all primitives, in the order of the table.
            pub const NAMES: &'static [&'static str] =
                &[$(stringify!($name),)+ $(stringify!($some),)+];

            /// The price of a primitive by name; `None` also if the machine lacks it.
            #[must_use]
            pub fn get(&self, name: &str) -> Option<Cycles> {
                match name {
                    $(stringify!($name) => Some(self.$name),)+
                    $(stringify!($some) => self.$some,)+
                    _ => None,
                }
            }

            /// The price of a primitive by name, to be changed; `None` also if the machine lacks it.
            pub fn get_mut(&mut self, name: &str) -> Option<&mut Cycles> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)+
                    $(stringify!($some) => self.$some.as_mut(),)+
                    _ => None,
                }
            }
        }

        /// The `costs` object of a machine file.
        #[derive(Clone, Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct CostSheet {
            $($name: CostSpec,)+
            $($some: Option<CostSpec>,)+
        }

        impl CostSheet {
            pub(super) fn in_cycles(&self, cycle_ps: u64) -> Costs {
                Costs {
                    $($name: self.$name.in_cycles(cycle_ps),)+
                    $($some: self.$some.as_ref().map(|spec| spec.in_cycles(cycle_ps)),)+
                }
            }

            /// Name, description and figure of every primitive the machine has.
            pub(super) fn rows(&self) -> Vec<(&'static str, &'static str, &CostSpec)> {
                let always = [$((stringify!($name), concat!($($doc),+).trim_ascii(), &self.$name),)+];
                let sometimes = [
                    $((stringify!($some), concat!($($some_doc),+).trim_ascii(), &self.$some),)+
                ];
                let sometimes = sometimes
                    .into_iter()
                    .filter_map(|(name, doc, spec)| Some((name, doc, spec.as_ref()?)));
                always.into_iter().chain(sometimes).collect()
            }
        }
    };
}

costs! {
always {
    /// Extra latency of a lookup that misses the first TLB level and hits the second.
    tlb_l2_hit,
    /// Fixed part of a hardware page walk.
    walk_base,
    /// Load that hits the first-level data cache, as a page-table reference does.
    cache_l1,
    /// Load that hits the second-level cache.
    cache_l2,
    /// Load from memory of the CPU's own node.
    dram_local,
    /// Load from memory of another node.
    dram_remote,
    /// Setting the dirty bit at the first store through a clean translation, the walk excluded.
    dirty_assist,
    /// One INVLPG.
    invlpg,
    /// CR3 write that drops all non-global translations.
    cr3_reload,
    /// Flush including global translations (CR4.PGE toggled twice).
    global_flush,
    /// One write to the interrupt command register.
    icr_write,
    /// IPI from the end of the sender's ICR write to the first instruction of the target's handler; includes the interrupt entry.
    ipi_latency,
    /// Handler's last store becoming visible to the sender; acknowledgements to one mask word serialise.
    ipi_ack,
    /// Time an interrupt takes from the interrupted task, entry and exit, handler body excluded.
    interrupt_entry_exit,
    /// Cache line from another core of the same socket; from another complex if the socket has several.
    line_transfer_near,
    /// Cache line from a CPU of another socket.
    line_transfer_far,
    /// Uncontended lock: acquire and release together.
    lock_uncontended,
    /// One locked read-modify-write of a line this CPU owns.
    atomic_op,
    /// Exception (page fault) entry and return, handler body excluded.
    exception_entry_exit,
    /// System call entry and return, body excluded.
    syscall_entry_exit,
    /// Taking one frame from the page allocator.
    page_alloc,
    /// Giving one frame back to the page allocator.
    page_free,
    /// Zeroing 4 KiB.
    clear_page,
    /// Copying 4 KiB.
    copy_page,
    /// Software read-modify-write of one page-table entry, the line being cached.
    pte_access,
    /// Load of one line that is in this CPU's caches, second level.
    cacheline_touch,
    /// Switch from one runnable thread to another.
    context_switch,
    /// Wakeup of a blocked thread until it is runnable on its CPU.
    wakeup,
    /// VM exit and re-entry with a minimal handler.
    vm_exit,
    /// Hypervisor invalidation of one guest's tagged translations (INVEPT, INVVPID or SVM TLB_CONTROL).
    vm_flush,
    /// Time a thread runs before the scheduler wants the CPU back.
    sched_slice,
}
sometimes {
    /// Load that hits the last-level cache.
    cache_llc,
    /// Cache line from another core of the same complex: the cores that share the outermost cache.
    line_transfer_complex,
    /// Cache line from the other hardware thread of the core.
    line_transfer_sibling,
    /// One INVPCID, whatever its type.
    invpcid,
    /// CR3 write that keeps the translations of the loaded tag (bit 63 set).
    cr3_noflush,
    /// One INVLPGB, without waiting for its completion.
    invlpgb,
    /// TLBSYNC: waiting until every CPU has done the INVLPGBs issued before.
    tlbsync,
}
}

impl Costs {
    /// What a page-table reference costs, by who serves it. Memory stands in for a last level that the
    /// machine lacks.
    #[must_use]
    pub fn served(&self) -> [u64; Served::ALL.len()] {
        let price = |served| match served {
            Served::L1 => self.cache_l1,
            Served::L2 => self.cache_l2,
            Served::Llc => self.cache_llc.unwrap_or(self.dram_local),
            Served::Memory => self.dram_local,
            Served::Remote => self.dram_remote,
        };
        Served::ALL.map(|served| price(served).get())
    }
}
