//! What XPMEM counts.

sim::metric_set! {
    /// Counters of one XPMEM link, both partitions together.
    pub struct XpmemMetrics {
        faults: Counter, "faults.xpmem", "count", "page faults of the importing process in attached memory";
        imports: Counter, "xpmem.imports", "pages", "entries set in the importer's page tables";
        requests: Counter, "xpmem.requests", "count", "fault requests sent to the exporting partition";
        requests_invalidated: Counter, "xpmem.requests.invalidated", "count", "page requests that a recall crossed while get_user_pages ran";
        retries: Counter, "xpmem.retries", "count", "page requests made again after they were invalidated";
        eagain: Counter, "xpmem.eagain", "count", "fault requests answered with EAGAIN after too many retries; the faulter backed off";
        refused: Counter, "xpmem.refused", "count", "faults that no page could be found for (SIGSEGV, SIGBUS)";
        gate_sleeps: Counter, "xpmem.gate.sleeps", "count", "times a fault or a recall slept at the recall gate";
        slot_sleeps: Counter, "xpmem.slot.sleeps", "count", "times a sender slept because no message slot was free";
        recalls: Counter, "xpmem.recalls", "count", "recalls of a range of a segment in which pages were known";
        recall_messages: Counter, "xpmem.recall.messages", "count", "recall messages sent to the importing partition, each acknowledged";
        recall_pages: Counter, "xpmem.recall.pages", "pages", "pages whose translations were recalled";
        recall_wait_cycles: Counter, "xpmem.recall.wait_cycles", "cycles", "time from sending a recall to its acknowledgement";
        pinned: Counter, "xpmem.pinned", "pages", "page references taken by the exporter's PFN table";
        unpinned: Counter, "xpmem.unpinned", "pages", "page references dropped by recalls and removals";
        pages_known_max: Gauge, "xpmem.pages.known.max", "pages", "most pages in the PFN tables at a time";
    }
}
