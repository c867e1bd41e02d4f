//! What the host mm counts.

sim::metric_set! {
    /// Counters of one kernel.
    pub struct MmMetrics {
        tlb_l1_hits: Counter, "tlb.l1.hits", "count", "accesses that hit the first-level TLB of a CPU";
        tlb_l2_hits: Counter, "tlb.l2.hits", "count", "accesses that hit only the second-level TLB of a CPU";
        tlb_misses: Counter, "tlb.misses", "count", "accesses that missed both TLB levels of a CPU";
        walk_references: Counter, "walk.references", "count", "page-table entries read by page walkers";
        walk_l1: Counter, "walk.served.l1", "count", "of these, read from the first-level cache of the CPU's core";
        walk_l2: Counter, "walk.served.l2", "count", "of these, read from the second-level cache";
        walk_llc: Counter, "walk.served.llc", "count", "of these, read from the last-level cache";
        walk_memory: Counter, "walk.served.memory", "count", "of these, read from memory of the CPU's own node";
        walk_remote: Counter, "walk.served.remote", "count", "of these, read from memory of another node";
        walk_dirty_assists: Counter, "walk.dirty_assists", "count", "walks for a store that found the dirty bit clear and had it set";
        flush_mm: Counter, "tlb.flush.mm.events", "count", "flush events for a whole address space (flush_tlb_mm)";
        flush_page: Counter, "tlb.flush.page.events", "count", "flush events for one page (flush_tlb_page)";
        flush_under_ptl: Counter, "tlb.flush.under_ptl", "count", "flush events of a full gather, inside the pte lock";
        flush_block_end: Counter, "tlb.flush.block_end", "count", "flush events at the end of a zap block";
        flush_final: Counter, "tlb.flush.final", "count", "flush events of the last tlb_finish_mmu of an operation";
        flush_local: Counter, "tlb.flush.local", "count", "flush events that flushed (or left) the address space on the initiating CPU";
        local_cr3: Counter, "tlb.flush.local.cr3", "count", "CR3 reloads on the initiating CPU";
        local_invlpg: Counter, "tlb.flush.local.invlpg", "count", "INVLPG on the initiating CPU";
        leave_mm: Counter, "tlb.leave_mm", "count", "lazy CPUs that left an address space instead of flushing it";
        shootdown_rounds: Counter, "tlb.shootdown.rounds", "count", "flush events that had to interrupt other CPUs";
        shootdown_ipis: Counter, "tlb.shootdown.ipis", "count", "CPUs interrupted to flush";
        icr_writes: Counter, "tlb.shootdown.icr_writes", "count", "writes to the interrupt command register";
        faults_anon: Counter, "faults.host.anon", "count", "first touches of anonymous memory";
        faults_file: Counter, "faults.host.file", "count", "faults that mapped a page of the page cache";
        faults_nonlinear: Counter, "faults.host.nonlinear", "count", "faults on an entry that says which page of the file belongs there";
        faults_cow: Counter, "faults.host.cow", "count", "writes that copied a page (do_wp_page or private file write)";
        faults_reuse: Counter, "faults.host.reuse", "count", "writes that made a present page writable without a copy";
        faults_spurious: Counter, "faults.host.spurious", "count", "faults that found nothing to change";
        faults_total: Counter, "faults.host", "count", "page faults of programs on the host, all kinds";
        faults_refused: Counter, "faults.host.refused", "count", "accesses without a mapping, right or page behind them (SIGSEGV, SIGBUS)";
        pages_zapped: Counter, "pages.zapped", "pages", "present entries removed by zap_pte_range";
        pages_freed: Counter, "pages.freed", "pages", "frames returned to the allocator";
        pages_allocated: Counter, "pages.allocated", "pages", "frames taken from the allocator";
        pages_in_use_max: Gauge, "pages.in_use.max", "pages", "most frames in use at a time";
        pages_pinned_max: Gauge, "pages.pinned.max", "pages", "most pages held by references of secondary MMUs at a time";
        pages_pinned_end: Gauge, "pages.pinned.end", "pages", "pages held by references of secondary MMUs at the end";
        rmap_vmas: Counter, "rmap.vmas", "count", "VMAs that reverse-map walks looked at";
        rmap_unmapped: Counter, "rmap.unmapped", "count", "entries that try_to_unmap took away";
        rmap_cleaned: Counter, "rmap.cleaned", "count", "entries that page_mkclean write-protected";
        notifier_young: Counter, "notifier.clear_flush_young.calls", "count", "calls of clear_flush_young (age_page of V1) into subscribers";
        lru_activated: Counter, "lru.activated", "pages", "pages moved from the inactive to the active list";
        lru_rotated: Counter, "lru.rotated", "pages", "pages moved to the end of the inactive list when they had been written";
        faults_mkwrite: Counter, "faults.host.mkwrite", "count", "first stores to a page of a file that asked the file system (page_mkwrite)";
        faults_migration: Counter, "faults.host.migration", "count", "faults that waited for a page on its way to another frame";
        pages_migrated: Counter, "pages.migrated", "pages", "pages that migrate_pages moved to another frame";
        pages_migrate_failed: Counter, "pages.migrate.failed", "pages", "pages that migrate_pages could not move in ten passes";
        pages_dirtied: Counter, "pages.dirtied", "pages", "pages of files that became dirty and got the dirty tag";
        io_reads: Counter, "io.reads", "pages", "pages read from block devices";
        io_writes: Counter, "io.writes", "pages", "pages written to block devices";
        io_wait_cycles: Counter, "io.wait_cycles", "cycles", "time tasks slept for pages to be read or written";
        tables_freed: Counter, "page_tables.freed", "pages", "page-table pages freed";
        pages_forked: Counter, "pages.forked", "pages", "entries copied by copy_page_range";
        pages_remapped: Counter, "pages.remapped", "pages", "file-offset entries stored by remap_file_pages";
        zap_compared: Counter, "zap.nonlinear.compared", "pages", "present entries of nonlinear mappings whose page index was compared with the range to unmap";
        zap_blocks: Counter, "zap.blocks", "count", "zap blocks used up (ZAP_BLOCK_SIZE)";
        ptl_holds: Counter, "zap.ptl_holds", "count", "page tables visited by zap_pte_range, each one hold of the pte lock";
        truncate_restarts: Counter, "truncate.restarts", "count", "times unmap_mapping_range dropped i_mmap_lock and walked the tree again";
        truncate_batches: Counter, "truncate.batches", "count", "pagevecs of truncate_inode_pages";
        i_mmap_nodes: Counter, "i_mmap.nodes_visited", "count", "tree nodes visited by walks of i_mmap";
        i_mmap_members: Counter, "i_mmap.members_visited", "count", "list members visited by walks of i_mmap";
        i_mmap_nonlinear: Counter, "i_mmap.nonlinear_visited", "count", "members visited by walks of the list of nonlinear mappings";
        notifier_page: Counter, "notifier.invalidate_page.calls", "count", "calls of invalidate_page into subscribers";
        notifier_start: Counter, "notifier.invalidate_range_start.calls", "count", "calls of invalidate_range_start into subscribers";
        notifier_end: Counter, "notifier.invalidate_range_end.calls", "count", "calls of invalidate_range_end into subscribers";
        notifier_pages: Counter, "notifier.invalidate_pages.calls", "count", "calls of invalidate_pages (V1) into subscribers";
        notifier_release: Counter, "notifier.release.calls", "count", "calls of release into subscribers";
        brackets: Counter, "notifier.brackets", "count", "range brackets opened for an address space with subscribers";
        registrations: Counter, "notifier.registrations", "count", "subscribers registered";
        registration_locks_max: Gauge, "notifier.registration.locks.max", "count", "most rmap locks (i_mmap and anon_vma) one registration held at a time";
        preempt_depth_max: Gauge, "preempt.depth.max", "count", "deepest nesting of spinlocks and preemption-off sections";
    }
}
