//! What a GRU counts. Names in brackets are the driver's own statistics (grutables.h 2.6.28).

sim::metric_set! {
    /// Counters of one GRU.
    pub struct GruMetrics {
        faults: Counter, "faults.gru", "count", "accesses that missed the chiplet TLB and were handed to the driver";
        hits: Counter, "gru.tlb.hits", "count", "accesses that hit the chiplet TLB";
        misses: Counter, "gru.tlb.misses", "count", "look-ups that missed the chiplet TLB, repeated ones included";
        refused: Counter, "gru.faults.refused", "count", "misses that ended in an exception: no mapping, right or page";
        interrupts: Counter, "gru.miss.interrupts", "count", "misses taken by the interrupt handler [intr]";
        polled: Counter, "gru.miss.polled", "count", "misses served by a user poll entering the kernel [call_os]";
        fail_mmap_sem: Counter, "gru.miss.mmap_sem_busy", "count", "misses the interrupt handler left to polling because mmap_sem was taken [intr_mm_lock_failed]";
        dropin: Counter, "gru.dropin", "count", "drop-in commands, ignored ones included [tlb_dropin]";
        dropin_ignored: Counter, "gru.dropin.ignored", "count", "drop-ins the hardware ignored because a purge crossed them";
        dropin_fail_range_active: Counter, "gru.dropin.fail_range_active", "count", "drop-ins not tried because a window was open [tlb_dropin_fail_range_active]";
        dropin_fail_upm: Counter, "gru.dropin.fail_upm", "count", "drop-ins the interrupt handler left to polling because the entry was unusable [tlb_dropin_fail_upm]";
        slow_walks: Counter, "gru.miss.slow", "count", "misses that needed get_user_pages";
        callbacks: Counter, "gru.flush.callbacks", "count", "flush requests by the notifier [flush_tlb]";
        purges: Counter, "gru.flush.purges", "count", "hardware purges, one a chiplet [flush_tlb_gru_tgh]";
        purges_whole_asid: Counter, "gru.flush.purges.whole_asid", "count", "hardware purges of everything an address space has in a chiplet";
        purged_entries: Counter, "gru.flush.entries", "count", "TLB entries removed by hardware purges";
        zero_asid: Counter, "gru.flush.zero_asid", "count", "address-space identifiers forgotten instead of purged [flush_tlb_gru_zero_asid]";
        lost_entries: Counter, "gru.flush.zero_asid.entries", "count", "TLB entries lost with a forgotten identifier";
        asid_new: Counter, "gru.asid.new", "count", "identifiers assigned [asid_new]";
        asid_reuse: Counter, "gru.asid.reuse", "count", "context loads that kept the identifier [asid_reuse]";
        asid_wraps: Counter, "gru.asid.wraps", "count", "times a chiplet ran out of identifiers and was purged entirely [asid_wrap]";
        context_loads: Counter, "gru.context.loads", "count", "contexts loaded [load_context]";
        context_unloads: Counter, "gru.context.unloads", "count", "contexts unloaded [unload_context]";
        context_steals: Counter, "gru.context.steals", "count", "contexts that had to make room for another [steal_context]";
        call_os_waits: Counter, "gru.call_os.waits", "count", "sleeps of polled misses until no window is open";
        call_os_retries: Counter, "gru.call_os.retries", "count", "extra turns of polled misses [call_os_wait_queue]";
        live_entries_max: Gauge, "gru.tlb.live.max", "count", "most reachable entries in one chiplet TLB";
    }
}
