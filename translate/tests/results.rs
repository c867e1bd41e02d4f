//! Results: what must add up, what must not change, and how a run can end.

use std::path::Path;

use reports::schema::Tool;
use reports::schema::translate::{Oracle as OracleKind, SourceInfo, TranslateResult};
use translate::engine::{DataCaching, Setup};
use translate::frames::Watched;
use translate::frames::{Oracle, Unwatched};
use translate::mapping::PagePolicy;
use translate::result::About;
use translate::stream::StreamSpec;
use translate::trace::{self, Looped, Repeated};
use translate::{Reuse, Source, Task, TranslateError, Translator, Unsupported, describe};
use x86::{Access, Frames, Generation, Machine, PageSize, PagingMode, Pfn, Reference, Slots, TlbEntry, Va};

const SMALL: PagePolicy = PagePolicy::Fixed(PageSize::Size4K);
const LARGE: PagePolicy = PagePolicy::Fixed(PageSize::Size2M);

fn recording() -> Looped {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/recordings/sqlite-groupby.lackey.gz");
    let recording = trace::open(Path::new(path)).expect("the recording is there");
    Looped::read(recording, 1).expect("a good recording")
}

fn stream(text: &str, count: u64) -> impl Source {
    let spec: StreamSpec = text.parse().expect("a stream");
    spec.open(1, count).expect("it can be")
}

fn setup(machine: &str) -> Setup {
    Setup {
        machine: Machine::preset(machine).expect("a preset"),
        mode: PagingMode::FourLevel,
        pages: SMALL,
        data: DataCaching::Bypass,
    }
}

fn task() -> Task {
    Task::new(setup("skylake-sp-2017"))
}

fn about() -> About {
    let spec: StreamSpec = "uniform:1m".parse().expect("a stream");
    About {
        tool: Tool {
            name: "test".into(),
            version: "0".into(),
        },
        seed: 1,
        source: describe::stream(&spec),
        oracle: OracleKind::On,
        top: usize::MAX,
    }
}

fn run(task: Task, source: impl Source) -> TranslateResult {
    let mut translator = Translator::<Watched>::new(task).expect("the machine can");
    translator.run(source, |_| {}).expect("a good source");
    translator.result(about())
}

/// A program of code, stack and a heap that is larger than the TLBs.
const MIXED: &str = "zipf=0.8:64m,writes=0.3";

/// What holds of every result.
fn adds_up(result: &TranslateResult) {
    let sum = |level: u32, of: fn(&reports::schema::translate::TlbRow) -> u64| -> u64 {
        result.level(level).map(of).sum()
    };
    for row in &result.tlb {
        assert_eq!(row.references, row.hits + row.misses);
    }
    assert_eq!(sum(1, |row| row.references), result.references.total());
    assert_eq!(sum(2, |row| row.references), sum(1, |row| row.misses));

    let walks: u64 = result.walks.iter().map(|row| row.walks).sum();
    let rewalks: u64 = result.walks.iter().map(|row| row.rewalks).sum();
    let faults: u64 = result.walks.iter().map(|row| row.faults).sum();
    assert_eq!(walks, result.misses() + rewalks);
    assert_eq!(faults, result.first_touches.pages);

    let booked = |account: &str| -> u64 {
        let rows = result.cycles.iter().filter(|row| row.account == account);
        rows.map(|row| row.total()).sum()
    };
    let accounts: u64 = result.cycles.iter().map(|row| row.total()).sum();
    assert_eq!(accounts, result.total_cycles);
    assert_eq!(
        result.charged.walk_cycles,
        result.total_cycles - booked("second-level hits")
    );
    for row in &result.walks[0].references {
        let count: u64 = result
            .walks
            .iter()
            .flat_map(|w| &w.references)
            .filter(|r| r.by == row.by)
            .map(|r| r.count)
            .sum();
        assert_eq!(booked(&format!("tables in {}", row.by)), count * row.latency);
    }

    let pages: u64 = result.hot_pages.iter().map(|page| page.cost.walk_cycles).sum();
    let regions: u64 = result
        .hot_regions
        .iter()
        .map(|region| region.cost.walk_cycles)
        .sum();
    assert_eq!(
        pages + result.first_touches.walk_cycles,
        result.charged.walk_cycles
    );
    assert_eq!(pages, regions);
    let walked: u64 = result.hot_pages.iter().map(|page| page.cost.walks).sum();
    assert_eq!(walked, walks);
}

#[test]
fn everything_adds_up_whatever_is_run() {
    for machine in ["harpertown-2008", "nehalem-2009", "skylake-sp-2017", "zen4-2022"] {
        let setup = setup(machine);
        adds_up(&run(Task::new(setup.clone()), recording()));
        adds_up(&run(Task::new(setup.clone()), stream(MIXED, 100_000)));
        let threads = format!("{MIXED},threads=5");
        adds_up(&run(Task::new(setup.clone()), stream(&threads, 100_000)));
        let through = Setup {
            data: DataCaching::Through,
            pages: "thp=8".parse().expect("a policy"),
            ..setup
        };
        adds_up(&run(Task::new(through), stream(MIXED, 100_000)));
    }
}

#[test]
fn the_references_counted_are_those_of_the_recording() {
    let result = run(task(), recording());
    // Lines by kind (see the README of the recordings): 1829924 I, 483407 L, 181587 S, 5082 M, and
    // 2445 accesses into another page.
    let counts = result.references;
    assert_eq!(counts.total(), 1_829_924 + 483_407 + 181_587 + 2 * 5082 + 2445);
    assert!(counts.loads >= 483_407 + 5082 && counts.stores >= 181_587 + 5082);
}

#[test]
fn a_first_touch_is_one_miss_though_it_is_looked_up_twice() {
    // Each page once: as many misses as pages, and no hit. The TLBs themselves count two look-ups.
    let mut translator = Translator::<Unwatched>::new(task()).expect("it can");
    let source = stream("sequential:4m,grain=4096", 1024);
    translator.run(source, |_| {}).expect("a good source");
    let tally = translator.counts().total();
    assert_eq!(tally.misses.total(), 1024);
    assert_eq!(tally.faults.total(), 1024);
    assert_eq!(tally.walks.total(), 1024);
    assert_eq!(tally.references().total(), 1024);
}

#[test]
fn large_pages_need_fewer_walks_and_save_what_the_difference_is() {
    let mut task = task();
    task.what_if = vec![LARGE, "thp".parse().expect("a policy")];
    let result = run(task.clone(), recording());
    let [small, large, thp] = &result.what_if[..] else {
        panic!("three rows")
    };
    assert_eq!(small.total_cycles, result.total_cycles);
    assert_eq!((small.misses, small.saved_cycles), (result.misses(), 0));
    assert!(large.misses <= small.misses && large.walk_cycles <= small.walk_cycles);
    assert_eq!(
        large.saved_cycles,
        small.total_cycles as i64 - large.total_cycles as i64
    );
    assert!(large.mapped_bytes >= small.mapped_bytes && thp.collapses > 0);
    assert_eq!(result.memory.touched_bytes, Some(small.mapped_bytes));
    // What runs beside does not change what was asked for.
    task.what_if.clear();
    let alone = run(task, recording());
    assert_eq!(
        (alone.total_cycles, &alone.tlb),
        (result.total_cycles, &result.tlb)
    );
}

#[test]
fn what_runs_beside_is_what_runs_alone() {
    let mut both = task();
    both.what_if = vec![LARGE];
    let beside = run(both, stream(MIXED, 50_000)).what_if[1].clone();
    let mut alone = task();
    alone.setup.pages = LARGE;
    let alone = run(alone, stream(MIXED, 50_000));
    adds_up(&alone);
    assert_eq!(
        (
            beside.misses,
            beside.total_cycles,
            beside.mapped_bytes,
            beside.page_tables
        ),
        (
            alone.misses(),
            alone.total_cycles,
            alone.memory.mapped_bytes,
            alone.memory.page_tables
        )
    );
}

#[test]
fn a_recording_replayed_twice_makes_twice_the_references_and_touches_no_new_page() {
    let once = run(task(), recording());
    let mut looped = recording();
    looped.rewind(2);
    let twice = run(task(), looped);
    adds_up(&twice);
    assert_eq!(twice.references.total(), 2 * once.references.total());
    assert_eq!(twice.first_touches, once.first_touches);
    assert_eq!(twice.memory, once.memory);
}

#[test]
fn a_recording_is_replayed_from_memory_or_from_its_file_alike() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/recordings/sqlite-groupby.lackey.gz");
    let repeated = |keep| Repeated::keeping(keep, || trace::open(Path::new(path)), 2).expect("opened");
    let kept = run(task(), &mut repeated(usize::MAX));
    let mut reopened = repeated(100_000);
    let again = run(task(), &mut reopened);
    assert_eq!(kept, again);
    // The summary is that of one round.
    assert_eq!(reopened.summary().records, 2_500_000);
    assert_eq!(kept.references.total(), 2 * 2_507_527);
}

#[test]
fn a_limit_and_a_warm_up_cut_a_run_where_they_say() {
    let part = |warmup: u64, limit: u64| {
        let task = Task {
            warmup,
            limit,
            reuse: Reuse::Found,
            ..task()
        };
        let result = run(task, stream(MIXED, 60_000));
        adds_up(&result);
        result
    };
    // Neither is a multiple of a batch.
    let (whole, before, after) = (part(0, 50_001), part(0, 20_003), part(20_003, 29_998));
    assert_eq!(before.references.total(), 20_003);
    assert_eq!(after.references.total(), 29_998);
    assert_eq!(after.setup.warmup, 20_003);
    assert_eq!(whole.total_cycles, before.total_cycles + after.total_cycles);
    assert_eq!(whole.misses(), before.misses() + after.misses());
    assert_eq!(
        whole.first_touches.pages,
        before.first_touches.pages + after.first_touches.pages
    );
    assert_eq!(whole.memory, after.memory);
    let cold = |result: &TranslateResult| result.reuse.as_ref().map_or(0, |reuse| reuse.all.cold);
    assert_eq!(cold(&whole), cold(&before) + cold(&after));
}

#[test]
fn a_source_that_ends_within_the_warm_up_is_an_error() {
    let task = Task {
        warmup: 1000,
        ..task()
    };
    let mut translator = Translator::<Unwatched>::new(task).expect("it can");
    let error = translator
        .run(stream(MIXED, 999), |_| {})
        .expect_err("nothing is left");
    assert!(matches!(
        error,
        TranslateError::OnlyWarmup {
            made: 999,
            warmup: 1000
        }
    ));
    assert!(error.to_string().contains("warm up for less"));
}

#[test]
fn data_in_the_caches_change_who_serves_walks_but_no_hit_or_miss() {
    let through = Task::new(Setup {
        data: DataCaching::Through,
        ..setup("skylake-sp-2017")
    });
    let (apart, together) = (
        run(task(), stream(MIXED, 100_000)),
        run(through, stream(MIXED, 100_000)),
    );
    assert_eq!(apart.tlb, together.tlb);
    let first = |result: &TranslateResult| result.walks[0].references[0].count;
    assert_eq!(
        apart.walks[0].page_table_references(),
        together.walks[0].page_table_references()
    );
    assert!(first(&together) < first(&apart), "data take the place of tables");
}

#[test]
fn threads_have_a_row_for_each_cpu_that_adds_up_to_the_whole() {
    let result = run(task(), stream("uniform:8m,threads=3,regions=private", 30_000));
    assert_eq!(result.cpus.len(), 3);
    assert_eq!(result.source.threads, 3);
    assert!(result.cpus.iter().all(|cpu| cpu.threads == 1));
    assert_eq!(result.cpus.iter().map(|cpu| cpu.references).sum::<u64>(), 30_000);
    assert_eq!(
        result.cpus.iter().map(|cpu| cpu.total_cycles).sum::<u64>(),
        result.total_cycles
    );
    // Harpertown has 8 CPUs: 9 threads share them.
    let many = run(
        Task::new(setup("harpertown-2008")),
        stream("uniform:1m,threads=9", 30_000),
    );
    let threads: Vec<u32> = many.cpus.iter().map(|cpu| cpu.threads).collect();
    assert_eq!(threads, [2, 1, 1, 1, 1, 1, 1, 1]);
    assert!(run(task(), stream("uniform:1m", 1000)).cpus.is_empty());
}

#[test]
fn small_pages_that_became_a_large_one_are_mapped_once() {
    let mut task = task();
    task.setup.pages = "thp=512".parse().expect("a policy");
    // Each page once: one collapse at the last of each region.
    let result = run(task, stream("sequential:4m,grain=4096", 1024));
    let mapped: Vec<_> = result
        .memory
        .mapped
        .iter()
        .map(|row| (row.size.as_str(), row.pages))
        .collect();
    assert_eq!(mapped, [("2m", 2)]);
    assert_eq!((result.collapses, result.memory.mapped_bytes), (2, 4 << 20));
}

#[test]
fn addresses_that_are_not_canonical_are_left_out_and_said() {
    let high = Reference::truncating(Access::Read, Va::new(1 << 50));
    let low = Reference::truncating(Access::Read, Va::new(1 << 20));
    let source = || Looped::new(vec![low, high, low], 1);
    let result = run(task(), source());
    assert_eq!((result.references.total(), result.non_canonical), (2, 1));
    assert!(
        result.notes[0].contains("not canonical with 4 levels"),
        "{:?}",
        result.notes
    );
    let five = Setup {
        mode: PagingMode::FiveLevel,
        ..setup("zen4-2022")
    };
    let result = run(Task::new(five), source());
    assert_eq!((result.references.total(), result.non_canonical), (3, 0));
}

#[test]
fn what_a_machine_cannot_do_is_refused() {
    let refused = |task: Task| Translator::<Unwatched>::new(task).err().expect("refused");
    let deep = Setup {
        mode: PagingMode::FiveLevel,
        ..setup("nehalem-2009")
    };
    assert!(matches!(
        refused(Task::new(deep)),
        Unsupported::Levels { most: 4, .. }
    ));
    let mut beside = Task::new(setup("harpertown-2008"));
    beside.what_if = vec![PagePolicy::Fixed(PageSize::Size1G)];
    let error = refused(beside);
    assert_eq!(
        error.to_string(),
        "harpertown-2008 has no pages of 1g: it has 4k, 2m"
    );
}

#[test]
fn nothing_at_all_is_a_result() {
    let result = run(task(), stream(MIXED, 0));
    adds_up(&result);
    assert_eq!((result.total_cycles, result.cycles_per_reference), (0, 0.0));
}

/// An oracle to whom the hundredth page is suspect.
#[derive(Default)]
struct Suspicious;

impl Slots for Suspicious {
    fn gained(&mut self, _: Pfn) {}
    fn dropped(&mut self, _: Pfn) {}
}

impl Frames for Suspicious {
    fn generation(&self, _: Pfn) -> Generation {
        Generation::FIRST
    }
}

impl Oracle for Suspicious {
    fn is_sound(&self, entry: &TlbEntry) -> bool {
        entry.pfn != Pfn::new(100)
    }
    fn free(&mut self, _: Pfn) -> u32 {
        0
    }
    fn look_ahead(&self, _: Pfn) -> u32 {
        0
    }
}

#[test]
fn a_stale_translation_ends_the_run_and_is_in_the_result() {
    let mut translator = Translator::<Suspicious>::new(task()).expect("it can");
    let mut reached = 0;
    let source = stream("sequential:4m,grain=4096,threads=1", 4096);
    translator
        .run(source, |done| reached = done)
        .expect("the source is good");
    let result = translator.result(about());
    assert_eq!(reached, 1024, "the batch of the violation is the last");
    assert!(
        result.violations[0].contains("before the frame was freed"),
        "{:?}",
        result.violations
    );
}

#[test]
fn the_source_is_described_by_the_summary_of_its_reader() {
    let path = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/recordings/sqlite-groupby.lackey.gz"
    ));
    let mut recording = trace::open(path).expect("the recording is there");
    run(task(), &mut recording);
    let SourceInfo {
        name,
        format,
        records,
        split,
        rounds,
        ..
    } = describe::recording(path, recording.format(), recording.summary(), 3);
    assert_eq!(
        (name.as_str(), format.as_str()),
        ("sqlite-groupby.lackey.gz", "lackey")
    );
    assert_eq!((records, split, rounds), (2_500_000, 2445, 3));
}
