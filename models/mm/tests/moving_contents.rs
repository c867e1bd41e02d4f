//! Random programs whose memory moves, is written back, truncated, forked and protected while they use it,
//! in any order, read what they stored.
//!
//! What a frame contains is kept here: a store writes a number into the frame that the CPU's TLB leads
//! to, and the kernel's copies are replayed from the marks it leaves. Against that stands a naive model that
//! knows no frames: memory of a process by address, a file by page.

mod common;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use common::{BASE, Setup, anonymous, range, shared_file, wait};
use mm::{FileId, Kernel, MmId, Prot, Refused, Which};
use proptest::prelude::*;
use sim::{Affinity, Cx, End, Logging, RandomWalk, RecordKind, Role, Schedule, TaskSpec};
use x86::{Access, Pfn};

const ANON_PAGES: u64 = 2;
const FILE_PAGES: u64 = 2;
const PAGES: u64 = ANON_PAGES + FILE_PAGES;
const CPUS: u16 = 8;

#[derive(Clone, Copy, Debug)]
enum Op {
    Load(u64),
    Store(u64),
    /// The child runs the rest of the script, too.
    Fork,
    /// Takes the write right of a page away and gives it back.
    Protect(u64),
    Discard(u64),
    /// Moves a page of this process.
    Migrate(u64),
    Fsync,
    /// To so many pages, and back to full length.
    Truncate(u64),
    Pause,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..PAGES).prop_map(Op::Load),
        6 => (0..PAGES).prop_map(Op::Store),
        1 => Just(Op::Fork),
        1 => (0..PAGES).prop_map(Op::Protect),
        1 => (0..ANON_PAGES).prop_map(Op::Discard),
        4 => (0..PAGES).prop_map(Op::Migrate),
        2 => Just(Op::Fsync),
        1 => (0..FILE_PAGES).prop_map(Op::Truncate),
        2 => Just(Op::Pause),
    ]
}

/// What a file contains, and since when nobody knows.
#[derive(Default)]
struct NaiveFile {
    pages: BTreeMap<u64, u64>,
    truncating: Option<u64>,
}

struct Shared {
    file: FileId,
    naive: RefCell<NaiveFile>,
    contents: RefCell<BTreeMap<u64, u64>>,
    serial: Cell<u64>,
    checked: Cell<u64>,
    truncates: Cell<u32>,
    // Scripts running, those of children among them.
    running: Cell<u32>,
}

impl Shared {
    /// The contents of a frame now: what the kernel copied and freed since we last looked comes first.
    fn content(&self, k: &Kernel, pfn: Pfn) -> std::cell::RefMut<'_, u64> {
        let mut contents = self.contents.borrow_mut();
        for record in k.engine().take_log() {
            match record.kind {
                RecordKind::Mark(mark, [from, to, _]) if mark.name == "copy_page" => {
                    let copied = contents.get(&from).copied().unwrap_or(0);
                    contents.insert(to, copied);
                }
                RecordKind::Mark(mark, [pfn, ..]) if mark.name == "free_page" => {
                    contents.remove(&pfn);
                }
                _ => {}
            }
        }
        std::cell::RefMut::map(contents, |c| c.entry(u64::from(pfn.get())).or_insert(0))
    }
}

/// One process: its memory as the naive model has it.
#[derive(Clone)]
struct Process {
    mm: MmId,
    memory: [u64; ANON_PAGES as usize],
}

impl Process {
    async fn access(&mut self, cx: &Cx, k: &Kernel, world: &Shared, page: u64, access: Access) {
        let va = BASE.add_pages(page);
        let result = k.access(cx, self.mm, va, access).await;
        let beyond = result == Err(Refused::BeyondEof);
        assert!(result.is_ok() || beyond, "page {page}: {result:?}");
        let in_file = page.checked_sub(ANON_PAGES);
        let unknown = |from: Option<u64>| in_file.is_some_and(|at| from.is_some_and(|from| at >= from));
        let mut naive = world.naive.borrow_mut();
        if unknown(naive.truncating) {
            return;
        }
        assert!(!beyond, "page {page} is inside of its file");
        let expected = match in_file {
            Some(at) => naive.pages.entry(at).or_insert(0),
            None => &mut self.memory[page as usize],
        };
        let mut content = world.content(k, common::cached_frame(k, cx, va));
        if access.is_write() {
            world.serial.set(world.serial.get() + 1);
            *content = world.serial.get();
            *expected = world.serial.get();
        } else {
            assert_eq!(*content, *expected, "page {page}");
            world.checked.set(world.checked.get() + 1);
        }
    }
}

fn run_script(cx: Cx, k: Rc<Kernel>, world: Rc<Shared>, mut process: Process, script: Vec<Op>) -> Boxed {
    Box::pin(async move {
        let mm = process.mm;
        for (at, op) in script.iter().enumerate() {
            match *op {
                Op::Load(page) => process.access(&cx, &k, &world, page, Access::Read).await,
                Op::Store(page) => process.access(&cx, &k, &world, page, Access::Write).await,
                Op::Fork => {
                    let child = Process {
                        mm: k.sys_fork(&cx, mm, "child".into()).await,
                        ..process.clone()
                    };
                    spawn(&cx, &k, &world, child, script[at + 1..].to_vec());
                }
                Op::Protect(page) => {
                    for prot in [Prot::READ, Prot::READ_WRITE] {
                        k.sys_mprotect(&cx, mm, range(BASE.add_pages(page), 1), prot)
                            .await
                            .expect("mapped");
                    }
                }
                Op::Discard(page) => {
                    k.madvise_dontneed(&cx, mm, range(BASE.add_pages(page), 1))
                        .await
                        .expect("mapped");
                    process.memory[page as usize] = 0;
                }
                Op::Migrate(page) => {
                    let _ = k
                        .sys_move_pages(&cx, mm, range(BASE.add_pages(page), 1), Which::All)
                        .await;
                }
                Op::Fsync => k.sys_fsync(&cx, world.file).await,
                Op::Truncate(pages) => truncate(&cx, &k, &world, pages).await,
                Op::Pause => wait(&cx, 1).await,
            }
        }
        // Everything once more.
        for page in 0..PAGES {
            process.access(&cx, &k, &world, page, Access::Read).await;
        }
        k.exit_mm(&cx, mm).await;
        world.running.set(world.running.get() - 1);
    })
}

type Boxed = std::pin::Pin<Box<dyn Future<Output = ()>>>;

fn spawn(cx: &Cx, k: &Rc<Kernel>, world: &Rc<Shared>, process: Process, script: Vec<Op>) {
    world.running.set(world.running.get() + 1);
    let spec = TaskSpec {
        name: "child".into(),
        cpu: k.cpu(0),
        affinity: Affinity::Any {
            first: k.cpu(0),
            count: CPUS,
        },
        role: Role::Worker,
    };
    let mm = process.mm;
    let (kernel, world) = (Rc::clone(k), Rc::clone(world));
    let task = cx
        .engine()
        .spawn(spec, |cx| run_script(cx, kernel, world, process, script));
    k.set_task_mm(task, Some(mm));
}

/// One at a time, so that what is known afterwards is simple.
async fn truncate(cx: &Cx, k: &Kernel, world: &Shared, pages: u64) {
    if world.naive.borrow().truncating.is_some() {
        return;
    }
    world.naive.borrow_mut().truncating = Some(pages);
    k.do_truncate(cx, world.file, pages).await;
    world.naive.borrow_mut().pages.retain(|at, _| *at < pages);
    k.do_truncate(cx, world.file, FILE_PAGES).await;
    world.naive.borrow_mut().truncating = None;
    world.truncates.set(world.truncates.get() + 1);
}

/// Runs the scripts, each in a process of its own, and a task without memory that moves the pages of all of
/// them. Gives what was counted and how many loads were compared.
fn run(seed: u64, scripts: &[Vec<Op>], movers: u32) -> (mm::MmMetrics, u64) {
    let mut setup = Setup::linux_2_6_27();
    setup.cpus = u32::from(CPUS);
    let b = setup.build_with(Schedule::Explored(Box::new(RandomWalk::new(seed))));
    b.engine.set_logging(Logging::Full);
    let world = Rc::new(Shared {
        file: b.kernel.new_file("f", FILE_PAGES),
        naive: RefCell::default(),
        contents: RefCell::default(),
        serial: Cell::new(0),
        checked: Cell::new(0),
        truncates: Cell::new(0),
        running: Cell::new(scripts.len() as u32),
    });
    let mut mms = Vec::new();
    for (n, script) in scripts.iter().enumerate() {
        let mm = if n == 0 {
            b.mm
        } else {
            b.kernel.new_mm("process".into())
        };
        mms.push(mm);
        let (world, script) = (Rc::clone(&world), script.clone());
        b.thread(n as u32, Some(mm), move |cx, k| async move {
            k.sys_mmap(&cx, mm, anonymous(BASE, ANON_PAGES))
                .await
                .expect("free");
            let file = shared_file(BASE.add_pages(ANON_PAGES), FILE_PAGES, world.file);
            k.sys_mmap(&cx, mm, file).await.expect("free");
            let memory = [0; ANON_PAGES as usize];
            run_script(cx, k, world, Process { mm, memory }, script).await;
        });
    }
    for mover in 0..movers {
        let (mms, world) = (mms.clone(), Rc::clone(&world));
        b.thread(6 + mover, None, move |cx, k| async move {
            let mut n = mover as usize;
            while world.running.get() > 0 {
                let mm = mms[n % mms.len()];
                // `get_task_mm`.
                if k.st().mm(mm).users > 0 {
                    k.mmget(mm);
                    let _ = k.sys_move_pages(&cx, mm, range(BASE, PAGES), Which::All).await;
                    k.mmput(&cx, mm).await;
                }
                wait(&cx, 1).await;
                n += 1;
            }
        });
    }
    assert_eq!(b.engine.run(), End::Completed, "seed {seed}");
    assert_eq!(b.world.audit(), Vec::<String>::new(), "seed {seed}");
    (b.kernel.metrics(), world.checked.get())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_read_what_they_stored_wherever_it_is_now(
        seed in any::<u64>(),
        scripts in prop::collection::vec(prop::collection::vec(op(), 1..14), 1..4),
        movers in 0_u32..3,
    ) {
        let forks = scripts.iter().flatten().filter(|op| matches!(op, Op::Fork)).count();
        prop_assume!(forks <= 4);
        let (_, checked) = run(seed, &scripts, movers);
        prop_assert!(checked > 0);
    }
}

#[test]
fn a_load_meets_the_migration_of_its_neighbour_and_a_store_its_writeback() {
    for seed in 0..40 {
        assert!(run(seed, &[vec![Op::Load(0), Op::Migrate(1)]], 1).1 > 0);
        assert!(run(seed, &[vec![Op::Store(2), Op::Fsync]], 0).1 > 0);
    }
}

#[test]
fn the_random_programs_meet_what_they_are_meant_to_meet() {
    // Stores and loads of a forking process, of another one, and of one that truncates.
    let scripts = [
        vec![
            Op::Store(0),
            Op::Store(2),
            Op::Fork,
            Op::Store(0),
            Op::Load(2),
            Op::Protect(0),
            Op::Store(0),
        ],
        vec![Op::Store(3), Op::Load(2), Op::Fsync, Op::Store(2), Op::Migrate(2)],
        vec![Op::Store(3), Op::Pause, Op::Truncate(1), Op::Store(3), Op::Fsync],
    ];
    let mut sum = mm::MmMetrics::default();
    for seed in 0..60 {
        let (m, _) = run(seed, &scripts, 2);
        sum.pages_migrated += m.pages_migrated;
        sum.pages_migrate_failed += m.pages_migrate_failed;
        sum.faults_migration += m.faults_migration;
        sum.faults_cow += m.faults_cow;
        sum.io_writes += m.io_writes;
    }
    assert!(sum.pages_migrated > 400, "{}", sum.pages_migrated);
    assert!(sum.faults_migration > 40, "{}", sum.faults_migration);
    assert!(sum.faults_cow > 40 && sum.io_writes > 40);
}
