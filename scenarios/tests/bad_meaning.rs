//! Scenarios of the right shape that make no sense: each finding has its code, its exact place and
//! a helpful text.

mod common;

use common::cases::{Case, case, head, op, process, run};
use scenarios::diagnostic::Code;

#[test]
fn names_of_the_world() {
    run(&[
        head(Code::EmptyTitle, "\"title\": §\" \"", "title is empty"),
        head(
            Code::UnknownMachine,
            "\"title\": \"t\", \"machine\": §\"barcelona-2009\"",
            "did you mean `barcelona-2008`?",
        ),
        head(
            Code::BadMachineFile,
            "\"title\": \"t\", \"machine\": §\"nowhere.json\"",
            "machine file nowhere.json cannot be read",
        ),
        head(
            Code::CpuCount,
            "\"title\": \"t\", \"machine\": \"small.json\", \"cpus\": §3",
            "`small.json` has 2",
        ),
        head(
            Code::UnknownKernel,
            "\"title\": \"t\", \"kernel\": §\"linux-2.6.26\"",
            "2.6.25",
        ),
        head(
            Code::UnknownKernel,
            "\"title\": \"t\", \"kernel\": { \"base\": §\"bsd\" }",
            "unknown kernel profile `bsd`",
        ),
        head(
            Code::UnknownDesign,
            "\"title\": \"t\", \"notifier\": §\"v99\"",
            "v8-merged",
        ),
        head(
            Code::CpuCount,
            "\"title\": \"t\", \"cpus\": §1000000",
            "1000000 CPUs",
        ),
        head(Code::CpuCount, "\"title\": \"t\", \"cpus\": §0", "write 1 to 256"),
        head(
            Code::CpuCount,
            "\"title\": \"t\", \"cpus\": §9",
            "`harpertown-2008` has 8",
        ),
        head(
            Code::Memory,
            "\"title\": \"t\", \"files\": { \"f\": { \"pages\": §99999999999 } }",
            "4194304 pages of memory",
        ),
        case(
            Code::NoProcess,
            "{ \"title\": \"t\", \"processes\": §{} }",
            "the scenario has no process",
        ),
    ]);
}

#[test]
fn mappings() {
    let threads = "\"threads\": { \"t\": { \"script\": [] } }";
    let maps =
        |code, maps: &str, fragment| process(code, &format!("\"maps\": {{ {maps} }},\n{threads}"), fragment);
    run(&[
        maps(Code::NoSize, "\"m\": §{}", "neither `file` nor `pages`"),
        maps(
            Code::UnknownFile,
            "\"m\": { \"file\": §\"haep\" }",
            "did you mean `heap`?",
        ),
        maps(
            Code::BeyondFile,
            "\"m\": { \"file\": \"heap\", \"offset\": 60, \"pages\": §5 }",
            "ends at page 65 of file `heap`, which has 64",
        ),
        maps(
            Code::BeyondFile,
            "\"m\": { \"pages\": 1, \"offset\": §3 }",
            "without `file`",
        ),
        maps(Code::Zero, "\"m\": { \"pages\": §0 }", "0 pages"),
        maps(
            Code::Zero,
            "\"m\": { \"pages\": 1, \"copies\": §0 }",
            "`copies` is 0",
        ),
        maps(
            Code::Memory,
            "\"m\": { \"pages\": §1000, \"copies\": 60000 }",
            "needs 60000000 pages",
        ),
        maps(
            Code::BadAddress,
            "\"m\": { \"pages\": §0xffffffffffff, \"copies\": 2 }",
            "beyond the address space",
        ),
        maps(
            Code::BadAddress,
            "\"m\": { \"pages\": 1, \"at\": §0x1234 }",
            "not page aligned",
        ),
        maps(
            Code::BadAddress,
            "\"m\": { \"pages\": 1, \"at\": §\"0x1000000000000\" }",
            "not canonical",
        ),
        maps(
            Code::BadAddress,
            "\"m\": { \"pages\": 1, \"at\": §\"top\" }",
            "not a number",
        ),
        maps(
            Code::Overlap,
            "\"m\": { \"pages\": 4, \"at\": 0x10000 },\n  \"n\": { \"pages\": 1, \"at\": §0x13000 }",
            "the other mapping",
        ),
    ]);
}

#[test]
fn secondary_mmus() {
    let attach = |code, attach: &str, fragment| {
        let members = format!(
            "\"maps\": {{ \"ram\": {{ \"pages\": 16 }} }},\n\"attach\": {{ {attach} }},\n\
             \"threads\": {{ \"t\": {{ \"script\": [] }} }}"
        );
        process(code, &members, fragment)
    };
    run(&[
        attach(
            Code::NoNestedPaging,
            "\"vm\": { \"kvm\": { \"paging\": §\"tdp\" } }",
            "`\"paging\": \"direct\"`",
        ),
        attach(
            Code::UnknownMap,
            "\"vm\": { \"kvm\": { \"maps\": [§\"rom\"] } }",
            "`ram`",
        ),
        attach(
            Code::BadVersion,
            "\"vm\": { \"kvm\": { \"version\": §\"2.6\" } }",
            "`2.6`",
        ),
        attach(
            Code::BadVersion,
            "\"vm\": { \"kvm\": { \"version\": §\"2.6.16\" } }",
            "with KVM",
        ),
        attach(
            Code::OwnImporter,
            "\"x\": { \"xpmem\": { \"importer\": §\"host\" } }",
            "own partition",
        ),
        attach(
            Code::Zero,
            "\"g\": { \"gru\": { \"chiplets\": §0 } }",
            "`chiplets` is 0",
        ),
        attach(
            Code::NeverRegistered,
            "\"g\": §{ \"gru\": { \"register\": \"by-op\" } }",
            "never registered",
        ),
        process(
            Code::ShadowsNothing,
            "\"attach\": { \"vm\": { \"kvm\": §{} } }, \"threads\": { \"t\": { \"script\": [] } }",
            "shadows nothing",
        ),
    ]);
}

#[test]
fn operations() {
    run(&[
        op(
            Code::UnknownMap,
            "{ \"touch\": { \"map\": §\"rma\" } }",
            "did you mean `ram`?",
        ),
        op(
            Code::BadRegion,
            "{ \"touch\": §{ \"write\": true } }",
            "neither `map` nor `at`",
        ),
        op(
            Code::BadRegion,
            "{ \"touch\": { \"map\": \"ram\", \"at\": §4096, \"pages\": 1 } }",
            "both `map` and `at`",
        ),
        op(
            Code::BadRegion,
            "{ \"munmap\": §{ \"at\": 4096 } }",
            "needs `pages`",
        ),
        op(
            Code::BeyondMap,
            "{ \"touch\": { \"map\": \"ram\", \"first\": 10, \"pages\": §7 } }",
            "ends at page 17 of mapping `ram`, which has 16",
        ),
        op(
            Code::BeyondMap,
            "{ \"touch\": { \"map\": \"ram\", \"first\": §16 } }",
            "starts at",
        ),
        op(
            Code::Zero,
            "{ \"munmap\": { \"map\": \"ram\", \"pages\": §0 } }",
            "0 pages",
        ),
        op(
            Code::Zero,
            "{ \"touch\": { \"map\": \"ram\", \"stride\": §0 } }",
            "`stride` is 0",
        ),
        op(
            Code::Zero,
            "{ \"access\": { \"map\": \"ram\", \"count\": §0 } }",
            "`count` is 0",
        ),
        op(
            Code::Zero,
            "{ \"repeat\": { \"times\": §0, \"script\": [ { \"exit\": {} } ] } }",
            "0 times",
        ),
        op(
            Code::Zero,
            "{ \"repeat\": { \"times\": 3, \"script\": §[] } }",
            "without operations",
        ),
        op(
            Code::TooLong,
            "{ \"sleep\": { \"ns\": §1000000000000001 } }",
            "at most 1000000000000000",
        ),
        op(
            Code::TooLong,
            "{ \"compute\": { \"ns\": §9000000000000000000 } }",
            "shorter",
        ),
        op(
            Code::TooMuch,
            "{ \"truncate\": { \"file\": \"heap\", \"pages\": §2251799813685249 } }",
            "a file of 2251799813685249 pages",
        ),
        op(
            Code::BadPattern,
            "{ \"access\": { \"at\": 4096, \"pages\": 16777217, \"count\": 1, \"pattern\": §\"pointer_chase\" } }",
            "chase",
        ),
        op(
            Code::TooManyOps,
            "{ \"repeat\": { \"times\": 99999999, \"script\": [ { \"touch\": §{ \"at\": 4096, \"pages\": 20000 } } ] } }",
            "touch less",
        ),
        op(Code::Zero, "{ \"mmap\": { \"pages\": §0 } }", "0 pages"),
        op(
            Code::Zero,
            "{ \"mremap\": { \"region\": { \"map\": \"ram\" }, \"new_pages\": §0 } }",
            "munmap",
        ),
        op(
            Code::BadPattern,
            "{ \"access\": { \"map\": \"ram\", \"count\": 1, \"pattern\": { \"zipf\": §0 } } }",
            "exponent 0",
        ),
        op(
            Code::BadPattern,
            "{ \"access\": { \"map\": \"ram\", \"count\": 1, \"pattern\": { \"zipf\": §-1.5 } } }",
            "exponent -1.5",
        ),
        op(
            Code::BadPattern,
            "{ \"access\": { \"map\": \"ram\", \"count\": 1, \"pattern\": { \"stride\": §0 } } }",
            "stride of 0",
        ),
        op(
            Code::BadPercent,
            "{ \"access\": { \"map\": \"ram\", \"count\": 1, \"write_percent\": §101 } }",
            "write 0 to 100",
        ),
        op(
            Code::UnknownFile,
            "{ \"truncate\": { \"file\": §\"f\", \"pages\": 1 } }",
            "heap",
        ),
        op(
            Code::UnknownFile,
            "{ \"writeback\": { \"file\": §\"f\" } }",
            "heap",
        ),
        op(
            Code::WrongMapping,
            "{ \"remap_file_pages\": { \"region\": { \"map\": §\"ram\" }, \"offset\": 1 } }",
            "mapping `ram` is not a shared mapping of a file",
        ),
        op(
            Code::Zero,
            "{ \"remap_file_pages\": { \"region\": { \"at\": 4096, \"pages\": §0 }, \"offset\": 1 } }",
            "0 pages",
        ),
        op(
            Code::WrongMapping,
            "{ \"madvise\": { \"region\": { \"map\": §\"ram\" }, \"advice\": \"remove\" } }",
            "it is private",
        ),
        op(
            Code::BadAddress,
            "{ \"brk\": { \"to\": §0xffff800000000000 } }",
            "user half",
        ),
        op(
            Code::UnknownMmu,
            "{ \"register\": { \"mmu\": §\"vm\" } }",
            "attached here: none",
        ),
        op(
            Code::UnknownProcess,
            "{ \"fork\": { \"child\": §\"q\" } }",
            "unknown process `q`",
        ),
        op(
            Code::BadFork,
            "{ \"fork\": { \"child\": §\"p\" } }",
            "forks itself",
        ),
        op(
            Code::BadFork,
            "{ \"wait\": { \"child\": §\"p\" } }",
            "not a child",
        ),
        op(
            Code::LonelyBarrier,
            "{ \"barrier\": { \"name\": §\"b\" } }",
            "only this thread",
        ),
    ]);
}

#[test]
fn memory_and_devices() {
    run(&[
        head(
            Code::Memory,
            "\"title\": \"t\", \"memory\": { \"pages\": §1 }",
            "the kernel keeps",
        ),
        head(
            Code::Zero,
            "\"title\": \"t\", \"swap\": { \"pages\": §0 }",
            "a swap device of 0 pages",
        ),
        head(
            Code::TooLong,
            "\"title\": \"t\", \"swap\": { \"pages\": 1, \"read_ns\": §1000000000000001 }",
            "at most 1000000000000000",
        ),
        head(
            Code::TooLong,
            "\"title\": \"t\", \"swap\": { \"pages\": 1, \"write_ns\": §1000000000000001 }",
            "at most 1000000000000000",
        ),
        head(
            Code::TooLong,
            "\"title\": \"t\", \"disk\": { \"read_ns\": §1000000000000001 }",
            "at most 1000000000000000",
        ),
        head(
            Code::TooLong,
            "\"title\": \"t\", \"disk\": { \"write_ns\": §1000000000000001 }",
            "at most 1000000000000000",
        ),
        op(
            Code::Zero,
            "{ \"reclaim\": { \"pages\": §0 } }",
            "`reclaim` of 0 pages",
        ),
    ]);
}

/// A case in a world with a file of four huge pages and a mapping of it.
fn huge(code: Code, file: &str, map: &str, operation: &str, fragment: &'static str) -> Case {
    let text = format!(
        "{{ \"title\": \"t\", \"kernel\": {{ \"hugepages\": 4 }},\n  \"files\": {{ \"h\": {{ {file} }} }},\n  \
         \"processes\": {{ \"p\": {{ \"maps\": {{ \"m\": {{ \"file\": \"h\"{map} }} }},\n    \
         \"threads\": {{ \"t\": {{ \"script\": [\n {operation} ] }} }} }} }} }}"
    );
    case(code, &text, fragment)
}

#[test]
fn huge_pages() {
    const FILE: &str = "\"pages\": 2048, \"page_size\": \"2m\"";
    let aligned = Code::HugeAlignment;
    run(&[
        head(
            Code::Memory,
            "\"title\": \"t\", \"kernel\": { \"hugepages\": §10000 }",
            "10000 huge pages do not fit",
        ),
        head(
            Code::NoHugePages,
            "\"title\": \"t\", \"files\": { \"h\": { \"pages\": 512, \"page_size\": §\"2m\" } }",
            "has huge pages, but there are none",
        ),
        huge(
            aligned,
            "\"pages\": §513, \"page_size\": \"2m\"",
            ", \"pages\": 512",
            "",
            "the size of huge pages ends 1 pages into one",
        ),
        huge(aligned, FILE, ", \"offset\": §8, \"pages\": 512", "", "offset"),
        huge(aligned, FILE, ", \"pages\": §100", "", "ends 100 pages into one"),
        huge(
            aligned,
            FILE,
            ", \"at\": §\"0x7f4000001000\"",
            "",
            "the address of huge pages",
        ),
        huge(
            aligned,
            FILE,
            ", \"pages\": 512, \"copies\": §2",
            "",
            "one by one",
        ),
        huge(
            aligned,
            FILE,
            "",
            "{ \"mmap\": { \"file\": \"h\", \"pages\": §7 } }",
            "the length of huge pages",
        ),
        huge(
            aligned,
            FILE,
            "",
            "{ \"mmap\": { \"file\": \"h\", \"pages\": 512, \"at\": §\"0x7f4000003000\" } }",
            "ends 3 pages into one",
        ),
        huge(
            aligned,
            FILE,
            "",
            "{ \"truncate\": { \"file\": \"h\", \"pages\": §1 } }",
            "512 pages",
        ),
    ]);
}

#[test]
fn operations_on_the_file_behind_a_mapping() {
    let shared = |code, op: &str, fragment| {
        let members = format!(
            "\"maps\": {{ \"m\": {{ \"file\": \"heap\", \"sharing\": \"shared\" }} }},\n\
             \"threads\": {{ \"t\": {{ \"script\": [ {op} ] }} }}"
        );
        process(code, &members, fragment)
    };
    run(&[
        shared(
            Code::BeyondFile,
            "{ \"remap_file_pages\": { \"region\": { \"map\": \"m\", \"first\": 8 }, \"offset\": §9 } }",
            "the pages end at page 65 of file `heap`, which has 64",
        ),
        shared(
            Code::WrongMapping,
            "{ \"madvise\": { \"region\": { \"map\": §\"m\" }, \"advice\": \"remove\" } }",
            "give the file `\"kind\": \"tmpfs\"`",
        ),
    ]);
}

#[test]
fn a_name_that_may_mean_another_mapping_is_not_judged_before_the_run() {
    let text = "{ \"title\": \"t\", \"processes\": { \"p\": {\n\
                \"maps\": { \"ram\": { \"pages\": 16 } }, \"threads\": { \"t\": { \"script\": [\n\
                { \"mmap\": { \"name\": \"ram\", \"pages\": 16, \"sharing\": \"shared\" } },\n\
                { \"madvise\": { \"region\": { \"map\": \"ram\" }, \"advice\": \"remove\" } } ] } } } } }";
    assert_eq!(common::findings(text.as_bytes()).len(), 0);
}

#[test]
fn too_many_operations() {
    let inner = "{ \"repeat\": { \"times\": 100000, \"script\": [ { \"exit\": {} } ] } }";
    let members = format!(
        "\"threads\": {{ \"t\": {{ \"script\": §[ \
         {{ \"repeat\": {{ \"times\": 100000, \"script\": [ {inner} ] }} }} ] }} }}"
    );
    run(&[process(
        Code::TooManyOps,
        &members,
        "executes 10000000000 operations",
    )]);
}

#[test]
fn a_rank_changes_nothing_of_its_process() {
    for (name, rest) in [
        ("mmap", "{ \"pages\": 4 }"),
        ("munmap", "{ \"map\": \"ram\" }"),
        (
            "mprotect",
            "{ \"region\": { \"map\": \"ram\" }, \"prot\": \"read\" }",
        ),
        ("mremap", "{ \"region\": { \"map\": \"ram\" }, \"new_pages\": 4 }"),
        (
            "madvise",
            "{ \"region\": { \"map\": \"ram\" }, \"advice\": \"dontneed\" }",
        ),
        (
            "remap_file_pages",
            "{ \"region\": { \"at\": 4096, \"pages\": 1 }, \"offset\": 0 }",
        ),
        ("brk", "{ \"to\": 4096 }"),
        ("exec", "{}"),
        ("truncate", "{ \"file\": \"heap\", \"pages\": 1 }"),
        ("writeback", "{ \"file\": \"heap\" }"),
        ("msync", "{ \"map\": \"ram\" }"),
        ("migrate", "{ \"region\": { \"map\": \"ram\" } }"),
    ] {
        let members = format!(
            "\"maps\": {{ \"ram\": {{ \"pages\": 16 }} }}, \"attach\": {{ \"x\": {{ \"xpmem\": {{}} }} }}, \
             \"threads\": {{ \"r\": {{ \"as\": \"x\", \"script\": [ {{ \"{name}\": §{rest} }} ] }} }}"
        );
        run(&[process(Code::RankOperation, &members, "another partition")]);
    }
}

#[test]
fn repeating_nothing_but_repeats_counts() {
    let members = "\"threads\": { \"t\": { \"script\": §[ { \"repeat\": { \"times\": 1000000, \"script\": [ \
                   { \"repeat\": { \"times\": 1000, \"script\": [ { \"exit\": {} } ] } } ] } } ] } }";
    run(&[process(Code::TooManyOps, members, "1000000000 operations")]);
}

#[test]
fn sizes_of_secondary_mmus() {
    let attach = |code, def: &str, fragment| {
        process(
            code,
            &format!("\"threads\": {{ \"t\": {{ \"script\": [] }} }}, \"attach\": {{ \"m\": {def} }}"),
            fragment,
        )
    };
    let range = "{ \"at\": 4096, \"pages\": 8388609 }";
    run(&[
        attach(
            Code::TooMuch,
            "{ \"gru\": { \"chiplets\": §513 } }",
            "write 1 to 512",
        ),
        attach(
            Code::TooLong,
            "{ \"xpmem\": { \"ranges\": [ { \"at\": 4096, \"pages\": 1 } ], \"rtt_ns\": §1000000000000001 } }",
            "shorter",
        ),
        attach(
            Code::TooMuch,
            &format!("{{ \"kvm\": §{{ \"ranges\": [ {range}, {range} ] }} }}"),
            "shadows 16777218 pages",
        ),
        attach(
            Code::BadVersion,
            "{ \"kvm\": { \"ranges\": [ { \"at\": 4096, \"pages\": 1 } ], \"version\": §\"3.70000\" } }",
            "not a release",
        ),
    ]);
}

#[test]
fn processes_and_threads() {
    let thread = |code, thread: &str, fragment| {
        process(
            code,
            &format!("\"threads\": {{ \"t\": {{ {thread} }} }}"),
            fragment,
        )
    };
    run(&[
        thread(Code::CpuRange, "\"cpu\": §8, \"script\": []", "write 0 to 7"),
        thread(
            Code::UnknownMmu,
            "\"as\": §\"vm\", \"script\": []",
            "unknown secondary MMU `vm`",
        ),
        thread(Code::MissingKey, "\"cpu\": 1", "script").object_marked(),
        process(Code::BadFork, "\"forked\": §\"by-parent\"", "no thread forks it"),
        case(
            Code::NoThreads,
            "{ \"title\": \"t\", \"processes\": { §\"p\": {} } }",
            "process `p` has no thread",
        ),
        case(
            Code::BadFork,
            "{ \"title\": \"t\", \"processes\": { \"p\": { \"threads\": { \"t\": { \"script\": [\n\
             { \"fork\": { \"child\": \"k\" } },\n{ \"fork\": { \"child\": §\"k\" } } ] } } },\n\
             \"k\": { \"forked\": \"by-parent\" } } }",
            "a second time",
        ),
        case(
            Code::BadFork,
            "{ \"title\": \"t\", \"processes\": { \"p\": { \"threads\": { \"t\": { \"script\": [\n\
             { \"fork\": { \"child\": §\"k\" } } ] } } },\n\
             \"k\": { \"threads\": { \"t\": { \"script\": [] } } } } }",
            "not declared so",
        ),
        case(
            Code::ForkedMaps,
            "{ \"title\": \"t\", \"processes\": { \"p\": { \"threads\": { \"t\": { \"script\": [\n\
             { \"fork\": { \"child\": \"k\" } } ] } } },\n\
             \"k\": { \"forked\": \"by-parent\", \"maps\": §{ \"m\": { \"pages\": 1 } } } } }",
            "mappings of its parent",
        ),
    ]);
}

#[test]
fn expectations() {
    let expect = |expect: &str, fragment| {
        head(
            Code::BadExpect,
            &format!("\"title\": \"t\", \"expect\": [ {expect} ]"),
            fragment,
        )
    };
    run(&[
        expect("§{ \"subject\": \"tlb.flush.local\" }", "has no condition"),
        expect("{ \"subject\": §\"ned\", \"equals\": 1 }", "did you mean `end`?"),
        expect(
            "{ \"subject\": §\"reclam\", \"equals\": 1 }",
            "did you mean `reclaim`?",
        ),
        expect("§{ \"subject\": \"end\", \"equals\": 1 }", "is a text"),
        expect("{ \"subject\": \"tlb.flush\", \"is\": §\"1\" }", "is a number"),
        expect(
            "{ \"subject\": \"end\", \"is\": §\"complete\" }",
            "did you mean `completed`?",
        ),
        expect(
            "§{ \"subject\": \"a.b\", \"at_least\": 2, \"at_most\": 1 }",
            "no number",
        ),
    ]);
}
