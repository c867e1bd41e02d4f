//! Random programs of remap_file_pages, faults, truncation, holes, fork and munmap against a naive
//! model: a table of what each address of each address space says, and lists of mappings.

mod common;

use std::rc::Rc;

use common::{BASE, Setup, range, shared_file};
use mm::{
    FileId, FileKind, Kernel, MapError, MmId, NonPresent, Prefault, Prot, Refused, RemapError, RemapRequest,
    RemoveError,
};
use proptest::prelude::*;
use sim::{Cx, End};
use x86::{Access, Entry, Pgoff, Va, VaRange};

/// Addresses that are mapped at first, in pages.
const WINDOW: u64 = 24;
/// File page of the first of them.
const OFFSET: u64 = 3;
/// Pages of the file at first.
const FILE: u64 = 20;
/// Address spaces at most.
const SPACES: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Says {
    Nothing,
    File(u64),
    Page(u64),
}

/// A mapping of the model.
#[derive(Clone, Debug)]
struct Area {
    start: u64,
    end: u64,
    pgoff: u64,
    nonlinear: bool,
}

impl Area {
    fn linear(&self, page: u64) -> u64 {
        self.pgoff + page - self.start
    }

    /// What stays behind when the page goes for a reason that concerns the file or the memory only.
    fn forgets(&self, page: u64, index: u64) -> Says {
        if self.nonlinear && self.linear(page) != index {
            Says::File(index)
        } else {
            Says::Nothing
        }
    }
}

#[derive(Clone, Debug)]
struct Space {
    areas: Vec<Area>,
    says: Vec<Says>,
}

impl Space {
    fn area(&self, page: u64) -> Option<usize> {
        self.areas.iter().position(|a| a.start <= page && page < a.end)
    }

    fn touch(&mut self, page: u64, size: u64) -> Result<(), Refused> {
        let area = self.area(page).ok_or(Refused::NoMapping)?;
        let index = match self.says[page as usize] {
            Says::Page(_) => return Ok(()),
            Says::File(index) => index,
            Says::Nothing => self.areas[area].linear(page),
        };
        if index >= size {
            return Err(Refused::BeyondEof);
        }
        self.says[page as usize] = Says::Page(index);
        Ok(())
    }

    /// Pages of the file go.
    fn lose(&mut self, gone: impl Fn(u64) -> bool) {
        for area in &self.areas {
            for page in area.start..area.end {
                if let Says::Page(index) = self.says[page as usize]
                    && gone(index)
                {
                    self.says[page as usize] = area.forgets(page, index);
                }
            }
        }
    }

    fn remap(
        &mut self,
        (first, pages): (u64, u64),
        pgoff: u64,
        prefault: Prefault,
        size: u64,
    ) -> Result<(), RemapError> {
        let at = self.area(first).ok_or(RemapError::Invalid)?;
        let area = &mut self.areas[at];
        if first + pages > area.end {
            return Err(RemapError::Invalid);
        }
        if !area.nonlinear && area.linear(first) == pgoff {
            return Ok(());
        }
        area.nonlinear = true;
        for page in 0..pages {
            self.says[(first + page) as usize] = Says::File(pgoff + page);
        }
        if prefault == Prefault::Yes {
            let _ = (first..first + pages).try_for_each(|page| self.touch(page, size));
        }
        Ok(())
    }

    fn unmap(&mut self, first: u64, pages: u64) {
        let end = first + pages;
        let mut left = Vec::new();
        for area in &self.areas {
            for (from, to) in [(area.start, area.end.min(first)), (area.start.max(end), area.end)] {
                if from < to {
                    left.push(Area {
                        start: from,
                        end: to,
                        pgoff: area.linear(from),
                        ..*area
                    });
                }
            }
        }
        self.areas = left;
        self.says[first as usize..end as usize].fill(Says::Nothing);
    }

    /// Tells whether there is no hole.
    fn dontneed(&mut self, first: u64, pages: u64) -> bool {
        for page in first..first + pages {
            if let (Some(area), Says::Page(index)) = (self.area(page), self.says[page as usize]) {
                self.says[page as usize] = self.areas[area].forgets(page, index);
            }
        }
        (first..first + pages).all(|page| self.area(page).is_some())
    }

    fn fork(&self) -> Space {
        let mut child = self.clone();
        for area in self.areas.iter().filter(|a| !a.nonlinear) {
            child.says[area.start as usize..area.end as usize].fill(Says::Nothing);
        }
        child
    }
}

/// The naive model.
struct Model {
    size: u64,
    spaces: Vec<Space>,
}

impl Model {
    fn new() -> Model {
        let area = Area {
            start: 0,
            end: WINDOW,
            pgoff: OFFSET,
            nonlinear: false,
        };
        Model {
            size: FILE,
            spaces: vec![Space {
                areas: vec![area],
                says: vec![Says::Nothing; WINDOW as usize],
            }],
        }
    }

    fn remove(&mut self, space: usize, first: u64, pages: u64) -> Result<(), RemoveError> {
        let (mut at, end) = (first, first + pages);
        let mut result = Ok(());
        while at < end {
            let areas = &self.spaces[space].areas;
            let Some(area) = areas.iter().find(|a| a.end > at && a.start < end) else {
                return Err(RemoveError::Unmapped);
            };
            if area.start > at {
                result = Err(RemoveError::Unmapped);
            }
            if area.nonlinear {
                return Err(RemoveError::Invalid);
            }
            let (from, to) = (area.start.max(at), area.end.min(end));
            let gone = area.linear(from)..area.linear(from) + to - from;
            for space in &mut self.spaces {
                space.lose(|index| gone.contains(&index));
            }
            at = to;
        }
        result
    }
}

#[derive(Clone, Debug)]
enum Op {
    Remap {
        space: usize,
        first: u64,
        pages: u64,
        pgoff: u64,
        prefault: Prefault,
    },
    Touch {
        space: usize,
        first: u64,
        pages: u64,
        access: Access,
    },
    Truncate(u64),
    Remove {
        space: usize,
        first: u64,
        pages: u64,
    },
    Unmap {
        space: usize,
        first: u64,
        pages: u64,
    },
    DontNeed {
        space: usize,
        first: u64,
        pages: u64,
    },
    Fork(usize),
}

fn ops() -> impl Strategy<Value = Op> {
    let part = |longest: u64| {
        (0..SPACES, 0..WINDOW, 1..=longest)
            .prop_map(|(space, first, n)| (space, first, n.min(WINDOW - first)))
    };
    let prefault = prop_oneof![Just(Prefault::Yes), Just(Prefault::No)];
    let access = prop_oneof![Just(Access::Read), Just(Access::Write)];
    prop_oneof![
        6 => (part(8), 0..FILE + 4, prefault).prop_map(|((space, first, pages), pgoff, prefault)| {
            Op::Remap { space, first, pages, pgoff, prefault }
        }),
        6 => (part(10), access).prop_map(|((space, first, pages), access)| {
            Op::Touch { space, first, pages, access }
        }),
        2 => (0..FILE + 8).prop_map(Op::Truncate),
        2 => part(8).prop_map(|(space, first, pages)| Op::Remove { space, first, pages }),
        1 => part(3).prop_map(|(space, first, pages)| Op::Unmap { space, first, pages }),
        2 => part(10).prop_map(|(space, first, pages)| Op::DontNeed { space, first, pages }),
        1 => (0..SPACES).prop_map(Op::Fork),
    ]
}

fn place(first: u64) -> Va {
    BASE.add_pages(first)
}

fn part(first: u64, pages: u64) -> VaRange {
    range(place(first), pages)
}

/// Both worlds.
struct Both {
    cx: Cx,
    k: Rc<Kernel>,
    file: FileId,
    mms: Vec<MmId>,
    model: Model,
}

impl Both {
    async fn step(&mut self, op: &Op) {
        let (cx, k) = (&self.cx, &self.k);
        let of = |space: usize| space % self.mms.len();
        match *op {
            Op::Remap {
                space,
                first,
                pages,
                pgoff,
                prefault,
            } => {
                let space = of(space);
                let request = RemapRequest {
                    range: part(first, pages),
                    prot: Prot::NONE,
                    pgoff: Pgoff::new(pgoff),
                    prefault,
                };
                let size = self.model.size;
                assert_eq!(
                    k.sys_remap_file_pages(cx, self.mms[space], request).await,
                    self.model.spaces[space].remap((first, pages), pgoff, prefault, size)
                );
            }
            Op::Touch {
                space,
                first,
                pages,
                access,
            } => {
                let space = of(space);
                // The thread goes over to that process.
                k.activate_mm(cx, self.mms[space]);
                for page in first..first + pages {
                    assert_eq!(
                        k.access(cx, self.mms[space], place(page), access).await,
                        self.model.spaces[space].touch(page, self.model.size),
                        "page {page} of space {space}"
                    );
                }
            }
            Op::Truncate(size) => {
                k.do_truncate(cx, self.file, size).await;
                self.model.size = size;
                for space in &mut self.model.spaces {
                    space.lose(|index| index >= size);
                }
            }
            Op::Remove { space, first, pages } => {
                let space = of(space);
                assert_eq!(
                    k.madvise_remove(cx, self.mms[space], part(first, pages)).await,
                    self.model.remove(space, first, pages)
                );
            }
            Op::Unmap { space, first, pages } => {
                let space = of(space);
                k.sys_munmap(cx, self.mms[space], part(first, pages))
                    .await
                    .expect("mapped");
                self.model.spaces[space].unmap(first, pages);
            }
            Op::DontNeed { space, first, pages } => {
                let space = of(space);
                let told = k.madvise_dontneed(cx, self.mms[space], part(first, pages)).await;
                let mapped = self.model.spaces[space].dontneed(first, pages);
                assert_eq!(told, if mapped { Ok(()) } else { Err(MapError::Hole) });
            }
            Op::Fork(space) => {
                if self.mms.len() < SPACES {
                    let space = of(space);
                    let child = k.sys_fork(cx, self.mms[space], "child".into()).await;
                    self.mms.push(child);
                    let copy = self.model.spaces[space].fork();
                    self.model.spaces.push(copy);
                }
            }
        }
    }

    fn says(&self, space: usize, page: u64) -> Says {
        let entry = self.k.peek_pte(self.mms[space], place(page));
        match NonPresent::of(entry) {
            Some(NonPresent::File(index)) => Says::File(index.get()),
            Some(other) => panic!("{other:?}"),
            None if entry == Entry::NONE => Says::Nothing,
            None => Says::Page(self.k.frames().get(entry.pfn()).index().get()),
        }
    }

    fn compare(&self, after: &Op) {
        for (space, expected) in self.model.spaces.iter().enumerate() {
            for page in 0..WINDOW {
                assert_eq!(
                    self.says(space, page),
                    expected.says[page as usize],
                    "page {page} of space {space} after {after:?}"
                );
            }
        }
        let areas = self.model.spaces.iter().flat_map(|s| &s.areas);
        let nonlinear = areas.filter(|a| a.nonlinear).count();
        let st = self.k.st();
        assert_eq!(
            st.file(self.file).i_mmap_nonlinear.len(),
            nonlinear,
            "after {after:?}"
        );
    }
}

fn agree(program: Vec<Op>) {
    let mut setup = Setup::linux_2_6_27();
    setup.cpus = 1;
    let b = setup.build();
    let file = b.kernel.new_file_of(FileKind::Tmpfs, "f", FILE);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        let whole = mm::MapRequest {
            pgoff: Pgoff::new(OFFSET),
            ..shared_file(BASE, WINDOW, file)
        };
        k.sys_mmap(&cx, mm, whole).await.expect("free");
        let mut both = Both {
            cx,
            k,
            file,
            mms: vec![mm],
            model: Model::new(),
        };
        for op in &program {
            both.step(op).await;
            both.compare(op);
        }
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn truncation_finds_pages_that_are_mapped_twice_by_one_mapping() {
    let remap = |first, pages| Op::Remap {
        space: 0,
        first,
        pages,
        pgoff: 0,
        prefault: Prefault::Yes,
    };
    agree(vec![remap(5, 2), remap(0, 1), Op::Truncate(1)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_programs_agree_with_the_naive_model(program in prop::collection::vec(ops(), 1..40)) {
        agree(program);
    }
}
