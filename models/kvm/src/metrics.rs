//! What a virtual machine counts.

sim::metric_set! {
    /// Counters of one virtual machine.
    pub struct KvmMetrics {
        flush_remote: Counter, "kvm.flush.remote", "count", "remote TLB flushes that interrupted at least one CPU (stat.remote_tlb_flush)";
        flush_requests: Counter, "kvm.flush.requests", "count", "calls of kvm_flush_remote_tlbs";
        flush_passed_over: Counter, "kvm.flush.passed_over", "count", "vCPUs passed over by a remote flush because an earlier request was still pending";
        flush_kicks: Counter, "kvm.flush.kicks", "count", "CPUs interrupted by remote flushes";
        flush_kicks_outside: Counter, "kvm.flush.kicks.outside", "count", "of these, CPUs on which no vCPU of this machine was in guest mode";
        vcpu_flushes: Counter, "kvm.vcpu.flushes", "count", "flush requests consumed by vCPUs before guest entry";
        tlb_flushed: Counter, "kvm.tlb.flushed_entries", "count", "slots of vCPU TLBs, of either level, emptied by flushes";
        exits: Counter, "kvm.exits", "count", "VM exits of vCPUs by themselves; exits for interrupts are not among them";
        sptes_installed: Counter, "kvm.sptes.installed", "count", "sptes made present";
        sptes_dropped: Counter, "kvm.sptes.dropped", "count", "present sptes removed";
        sptes_aged: Counter, "kvm.sptes.aged", "count", "sptes whose accessed bit clear_flush_young found set, and cleared";
        shadow_pages: Counter, "kvm.shadow_pages", "pages", "tables of sptes made";
        shadow_pages_zapped: Counter, "kvm.shadow_pages.zapped", "pages", "tables with leaf sptes emptied by kvm_mmu_zap_all";
        faults: Counter, "faults.kvm", "count", "guest page faults handled by the host, retries included";
        faults_refused: Counter, "faults.kvm.refused", "count", "guest page faults without a memory slot, mapping or page behind them";
        retry_window: Counter, "kvm.retry.window", "count", "faults discarded because a range bracket was open (mmu_notifier_count)";
        retry_seq: Counter, "kvm.retry.seq", "count", "faults discarded because an invalidation came in between (mmu_notifier_seq)";
        tlb_hits: Counter, "kvm.tlb.hits", "count", "guest accesses that hit the vCPU's TLB, either level";
        tlb_misses: Counter, "kvm.tlb.misses", "count", "guest accesses that missed the vCPU's TLB";
        walk_references: Counter, "kvm.walk.references", "count", "page-table entries read by walks for guests, both dimensions";
        pages_checked: Counter, "kvm.pages_checked", "count", "comparisons of a page with a memory slot in callbacks";
        pins_taken: Counter, "kvm.pins", "count", "references taken for sptes";
        pins_max: Gauge, "kvm.pins.max", "count", "most references held for sptes at a time";
        pins_end: Gauge, "kvm.pins.end", "count", "references held for sptes at the end";
    }
}
