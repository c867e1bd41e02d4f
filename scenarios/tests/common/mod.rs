//! What the tests of the scenario language share.
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod cases;

use scenarios::check::{Known, MachineFacts, check};
use scenarios::diagnostic::Diagnostics;
use scenarios::load::{Loaded, MemoryFiles, load_bytes};

/// Two machines, one with nested paging.
pub(crate) const MACHINES: &[(&str, MachineFacts)] = &[
    (
        "harpertown-2008",
        MachineFacts {
            cpus: 8,
            memory_pages: 1 << 22,
            nested_paging: false,
        },
    ),
    (
        "barcelona-2008",
        MachineFacts {
            cpus: 16,
            memory_pages: 1 << 23,
            nested_paging: true,
        },
    ),
];

/// Names the tests know.
pub(crate) const KNOWN: Known<'static> = Known {
    machines: MACHINES,
    machine_file: |name| match name {
        "small.json" => Some(Ok(MachineFacts {
            cpus: 2,
            memory_pages: 1 << 10,
            nested_paging: false,
        })),
        name if name.ends_with(".json") => Some(Err(format!("machine file {name} cannot be read"))),
        _ => None,
    },
    kernels: &["linux-2.6.25", "linux-2.6.27", "linux-6.18"],
    designs: &["v0-export-notifier", "v0", "v8-merged", "v8"],
};

/// Loads and, when that succeeds, checks.
pub(crate) fn findings(text: &[u8]) -> Diagnostics {
    match load_bytes("bad.jsonc", text, &MemoryFiles::default()) {
        Ok(loaded) => check(&loaded, &KNOWN),
        Err(found) => found,
    }
}

/// Loads a scenario that must load.
pub(crate) fn load(text: &str) -> Loaded {
    load_bytes("good.jsonc", text.as_bytes(), &MemoryFiles::default())
        .unwrap_or_else(|found| panic!("{found}"))
}

/// The example of the design brief with what it left out.
pub(crate) const GOOD: &str = r#"// A comment at the top.
{
  "$schema": "../schema/scenario.json",
  "title": "vmtruncate under a guest, a GRU job and an XPMEM import",
  "machine": "barcelona-2008", "kernel": "linux-2.6.27", "notifier": "v8-merged", // NPT
  "files": { "heap": { "pages": 0x10000 } },
  "processes": { "job": {
    "maps": { "ram": { "file": "heap", "sharing": "shared" } },
    "attach": {
      "vm": { "kvm": { "maps": ["ram"], "paging": "tdp", "version": "2.6.32" } },
      "gru0": { "gru": {} },
      "peer": { "xpmem": { "rtt_ns": 2000 } },
    },
    "threads": {
      "main": { "cpu": 0, "script": [
        { "touch": { "map": "ram", "write": true } },
        { "repeat": { "times": 3, "script": [ { "sleep": { "ns": 100 } } ] } },
        { "mmap": { "name": "late", "at": 0x7f0000000000, "pages": 16 } },
        { "munmap": { "map": "late", "first": 8, "pages": 8 } },
        { "barrier": { "name": "go" } },
        { "fork": { "child": "kid" } }, { "wait": { "child": "kid" } },
        { "truncate": { "file": "heap", "pages": 1024 } }
      ] },
      "vcpu0": { "cpu": 1, "as": "vm", "script": [
        { "barrier": { "name": "go" } },
        { "access": { "pattern": { "zipf": 0.99 }, "count": 100000 } }
      ] } } },
    "kid": { "forked": "by-parent", "threads": { "t": { "script": [
      { "touch": { "map": "ram", "first": 10, "pages": 2 } }, { "exit": {} } ] } } } },
  "expect": [ { "subject": "end", "is": "completed" },
              { "subject": "tlb.shootdown.ipis", "under": "v8", "at_most": 10 } ]
}
"#;
