//! The memory calls.

use crate::ast::{
    AccessKind, Advice, BrkOp, MadviseOp, MmapOp, MprotectOp, MremapOp, Op, Prot, Sharing, TruncateOp,
};

use super::Touch;
use super::args::{has, number};
use super::line::Call;
use super::process::{Kind, Pending};
use super::replay::{Outcome, Place, Replay, skip};
use super::space::{Area, Backing, PAGE, Span, Touched, address, prot, writable};

/// Anonymous MAP_NORESERVE mappings from this size on are taken for reservations.
const RESERVATION: u64 = 64 << 20;
/// Pages of the machine's memory: nothing larger can have been touched as a whole.
const MEMORY: u64 = 1 << 22;
const RANGE: &str = "an address and a length in the user half of the address space";

/// Which gaps in the known address space are filled by assumption.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gaps {
    /// All: the call succeeded, so something was mapped there.
    All,
    /// Those that the log never maps: the call also succeeds on nothing.
    NeverMapped,
}

impl Replay<'_> {
    pub(super) fn memory(&mut self, place: Place, call: &Call, ret: u64) -> Outcome {
        let text = |at: usize| call.args.get(at).map_or("", String::as_str);
        match call.name.as_str() {
            "mmap" | "mmap2" => self.mmap(place, call, ret),
            "munmap" => self.on_range(place, call, Gaps::NeverMapped, Self::munmap),
            "mprotect" | "pkey_mprotect" => self.on_range(place, call, Gaps::All, |replay, place, span| {
                replay.mprotect(place, span, prot(text(2)));
            }),
            "madvise" if has(text(2), "MADV_DONTNEED") => {
                self.on_range(place, call, Gaps::All, |replay, place, span| {
                    let op = MadviseOp {
                        region: span.region(),
                        advice: Advice::Dontneed,
                    };
                    replay.processes[place.process].op(place.thread, Op::Madvise(op));
                })
            }
            "madvise" => Outcome::Skip(format!("{}: {}", text(2), advice_reason(text(2)))),
            "mremap" => self.mremap(place, call, ret),
            "brk" => self.brk(place, number(text(0)), ret),
            "ftruncate" | "ftruncate64" | "truncate" | "truncate64" => self.truncate(place, call),
            "fallocate" => self.fallocate(place, call),
            "remap_file_pages" | "process_madvise" | "process_mrelease" => {
                skip("the language has no operation for it")
            }
            "shmat" => skip("the size of the segment is not in the log"),
            "mlock2" if has(text(2), "MLOCK_ONFAULT") => skip("MLOCK_ONFAULT is younger than the profiles"),
            "mlock" | "mlock2" => self.on_range(place, call, Gaps::All, |replay, place, span| {
                replay.processes[place.process].op(place.thread, Op::Mlock(span.region()));
            }),
            "munlock" => self.on_range(place, call, Gaps::All, |replay, place, span| {
                replay.processes[place.process].op(place.thread, Op::Munlock(span.region()));
            }),
            "mlockall" | "munlockall" => skip("the language has no operation for it"),
            "mbind" | "set_mempolicy" | "get_mempolicy" | "migrate_pages" | "move_pages" => {
                skip("one memory node is modelled")
            }
            "msync" | "mincore" | "cachestat" => skip("does not change translations that the model follows"),
            _ => skip("does not change an address space that the model follows"),
        }
    }

    fn on_range(
        &mut self,
        place: Place,
        call: &Call,
        gaps: Gaps,
        act: impl FnOnce(&mut Self, Place, Span),
    ) -> Outcome {
        let arg = |at: usize| call.args.get(at).and_then(|arg| number(arg));
        let (Some(at), Some(length)) = (arg(0), arg(1)) else {
            return Outcome::Bad("no address and length", RANGE);
        };
        if length == 0 {
            return skip("of length 0");
        }
        let Some(span) = Span::bytes(at, length) else {
            return Outcome::Bad("not a range", RANGE);
        };
        self.ensure(place, span, gaps);
        self.processes[place.process].claim(place.thread, span, &mut self.orders);
        act(self, place, span);
        Outcome::Took
    }

    /// Maps, in hindsight, what the kernel must have mapped when the image was started.
    fn ensure(&mut self, place: Place, span: Span, gaps: Gaps) {
        let process = &mut self.processes[place.process];
        let mut missing = process.areas.gaps(span);
        if gaps == Gaps::NeverMapped {
            missing = missing
                .into_iter()
                .flat_map(|gap| process.ever.gaps(gap))
                .collect();
        }
        let image = &mut self.images[process.image];
        let area = Area {
            backing: Backing::Image,
            prot: Prot::ReadWrite,
            touched: Touched::Settled,
            base: 0,
        };
        for gap in missing {
            process.areas.set(gap, area);
            process.ever.set(gap, ());
            for new in image.known.gaps(gap) {
                image.known.set(new, ());
                image.ops.push(Op::Mmap(mmap_op(new, Prot::ReadWrite)));
                self.summary.assume(
                    "memory that the log uses without mapping it (the program's own image, mapped by the kernel at \
                     execve) is anonymous private memory mapped right after execve"
                        .to_owned(),
                );
            }
        }
    }

    fn mmap(&mut self, place: Place, call: &Call, ret: u64) -> Outcome {
        const RIGHT: &str = "mmap(address, length, protection, flags, descriptor, offset) = address";
        let arg = |at: usize| call.args.get(at).map_or("", String::as_str);
        let Some(span) = number(arg(1))
            .filter(|&length| length > 0)
            .and_then(|length| Span::bytes(ret, length))
        else {
            return Outcome::Bad("not a range", RANGE);
        };
        let (flags, prot) = (arg(3), prot(arg(2)));
        let anonymous = has(flags, "MAP_ANONYMOUS") || has(flags, "MAP_ANON");
        let shared = has(flags, "MAP_SHARED") || has(flags, "MAP_SHARED_VALIDATE");
        let file = if anonymous { None } else { self.file(place, arg(4)) };
        let scale = if call.name == "mmap2" { 1 } else { PAGE };
        let offset = if anonymous {
            Some(0)
        } else {
            number(arg(5)).map(|offset| offset / scale)
        };
        let (Some(offset), true) = (
            offset.filter(|offset| *offset < 1 << 51),
            anonymous || file.is_some(),
        ) else {
            return Outcome::Bad("a file mapping without descriptor or offset", RIGHT);
        };
        let zero = file.is_some_and(|file| self.files.name(file) == "/dev/zero");
        let backing = match (file.filter(|_| !zero), shared) {
            (Some(file), true) => Backing::Shared(file),
            (Some(file), false) => Backing::Private(file),
            (None, true) => Backing::Shmem(self.files.fresh("shared-anonymous")),
            (None, false) => Backing::Anon,
        };
        let reservation = has(flags, "MAP_NORESERVE") && span.pages() * PAGE >= RESERVATION;
        let idle = reservation || has(flags, "MAP_STACK") || has(flags, "MAP_GROWSDOWN");
        let later = prot == Prot::None && backing == Backing::Anon && !idle;
        let touched = if later { Touched::Later } else { Touched::Settled };
        let area = Area {
            backing,
            prot,
            touched,
            base: base(offset, span),
        };
        let change = self.map(place, span, area);
        if !idle {
            self.touch(place, span, area, change);
        } else {
            self.note_idle();
        }
        Outcome::Took
    }

    fn note_idle(&mut self) {
        let text = "thread stacks and reservations (MAP_NORESERVE of 64 MiB and more) are not touched";
        self.summary.assume(text.to_owned());
    }

    /// Emits an mmap and books it. Returns the number of the change.
    fn map(&mut self, place: Place, span: Span, area: Area) -> usize {
        if let Some(file) = area.file() {
            self.processes[place.process].claim_file(place.thread, file, &mut self.orders);
            if let Some(pages) = self.files.mapped(file, area.offset(span.start) + span.pages()) {
                self.summary.assume(
                    "a file that is mapped beyond its last size in the log has grown by writes just before"
                        .to_owned(),
                );
                self.resize(place, file, pages);
            }
        }
        let process = &mut self.processes[place.process];
        process.claim(place.thread, span, &mut self.orders);
        let op = MmapOp {
            file: area.file().map(|file| self.files.name(file)),
            offset: area.file().map_or(0, |_| area.offset(span.start)),
            sharing: if matches!(area.backing, Backing::Shared(_) | Backing::Shmem(_)) {
                Sharing::Shared
            } else {
                Sharing::Private
            },
            ..mmap_op(span, area.prot)
        };
        self.gone(place, span);
        let process = &mut self.processes[place.process];
        let change = process.change(Kind::Made(area), span, place.line, place.thread);
        process.areas.set(span, area);
        process.ever.set(span, ());
        process.op(place.thread, Op::Mmap(op));
        change
    }

    /// Books that what lay in a span is gone, before the step that does it.
    fn gone(&mut self, place: Place, span: Span) {
        let process = &mut self.processes[place.process];
        for thread in &mut process.threads {
            let rest = thread.pending.iter().flat_map(|touch| {
                let left = Span::between(touch.span.start, touch.span.end.min(span.start));
                let right = Span::between(touch.span.start.max(span.end), touch.span.end);
                left.into_iter()
                    .chain(right)
                    .map(|part| Pending { span: part, ..*touch })
            });
            thread.pending = rest.collect();
        }
        for (part, _) in process.areas.over(span) {
            process.change(Kind::Gone, part, place.line, place.thread);
        }
        process.areas.remove(span);
    }

    fn touch(&mut self, place: Place, span: Span, area: Area, change: usize) {
        let kind = match (area.backing, writable(area.prot)) {
            _ if area.prot == Prot::None => return,
            (Backing::Anon | Backing::Image | Backing::Heap | Backing::Shmem(_), true) => AccessKind::Write,
            (Backing::Anon | Backing::Image | Backing::Heap | Backing::Shmem(_), false) => return,
            (Backing::Private(_) | Backing::Shared(_), _) => AccessKind::Read,
        };
        let stride = match self.options.touch {
            Touch::All => 1,
            Touch::None | Touch::Fraction(0) => return,
            Touch::Fraction(permille) => u64::from((1000 / permille).max(1)),
        };
        if span.pages() > MEMORY {
            let text = "mappings of more than 16 GiB, the memory of the machine, are not touched";
            self.summary.assume(text.to_owned());
            return;
        }
        let process = &mut self.processes[place.process];
        process.threads[place.thread].pending.push(Pending {
            span,
            kind,
            stride,
            change,
        });
    }

    fn munmap(&mut self, place: Place, span: Span) {
        self.gone(place, span);
        self.processes[place.process].op(place.thread, Op::Munmap(span.region()));
    }

    fn mprotect(&mut self, place: Place, span: Span, prot: Prot) {
        let process = &mut self.processes[place.process];
        let parts = process.areas.over(span);
        process.op(
            place.thread,
            Op::Mprotect(MprotectOp {
                region: span.region(),
                prot,
            }),
        );
        for (part, mut area) in parts {
            area.prot = prot;
            let first = area.touched == Touched::Later && writable(prot);
            area.touched = if first { Touched::Settled } else { area.touched };
            self.processes[place.process].areas.set(part, area);
            if first {
                self.touch(place, part, area, usize::MAX);
            }
        }
    }

    fn mremap(&mut self, place: Place, call: &Call, ret: u64) -> Outcome {
        let arg = |at: usize| call.args.get(at).and_then(|arg| number(arg));
        let (Some(at), Some(old), Some(new)) = (arg(0), arg(1), arg(2)) else {
            return Outcome::Bad(
                "no address and lengths",
                "mremap(address, old length, new length, flags) = address",
            );
        };
        if old == 0 {
            return skip("a second mapping of the same pages (old length 0)");
        }
        let (Some(from), Some(to)) = (Span::bytes(at, old), Span::bytes(ret, new)) else {
            return Outcome::Bad("not a range", RANGE);
        };
        self.ensure(place, from, Gaps::All);
        let orders = &mut self.orders;
        let process = &mut self.processes[place.process];
        process.claim(place.thread, from, orders);
        process.claim(place.thread, to, orders);
        let Some(mut area) = process.areas.over(from).first().map(|(_, area)| *area) else {
            return Outcome::Bad("not a range", RANGE);
        };
        area.base = base(area.offset(from.start), to);
        let moved = from.start != to.start;
        if let Some(file) = area.file()
            && let Some(pages) = self.files.mapped(file, area.offset(to.start) + to.pages())
        {
            self.resize(place, file, pages);
        }
        self.gone(place, from);
        if moved {
            self.gone(place, to);
        }
        let process = &mut self.processes[place.process];
        let change = process.change(Kind::Made(area), to, place.line, place.thread);
        process.areas.set(to, area);
        process.ever.set(to, ());
        let op = MremapOp {
            region: from.region(),
            new_pages: to.pages(),
            to: moved.then(|| address(to.start)),
        };
        process.op(place.thread, Op::Mremap(op));
        if let Some(grown) = Span::between(to.start + (from.end - from.start).min(to.end - to.start), to.end)
        {
            self.touch(place, grown, area, change);
        }
        if has(call.args.get(3).map_or("", String::as_str), "MREMAP_DONTUNMAP") {
            self.map(
                place,
                from,
                Area {
                    backing: Backing::Anon,
                    touched: Touched::Settled,
                    ..area
                },
            );
        }
        Outcome::Took
    }

    fn brk(&mut self, place: Place, wish: Option<u64>, ret: u64) -> Outcome {
        let Some(wish) = wish else {
            return Outcome::Bad("no address", "brk(NULL or address) = address");
        };
        let Some(end) = ret.checked_next_multiple_of(PAGE) else {
            return Outcome::Bad("not an address", RANGE);
        };
        let process = &mut self.processes[place.process];
        let Some((start, old)) = process.heap else {
            process.heap = Some((end, end));
            process.op(place.thread, Op::Brk(BrkOp { to: address(end) }));
            return Outcome::Took;
        };
        if wish == 0 {
            return skip("asks only where the heap ends");
        }
        if ret < wish {
            return skip("the kernel left the heap as it was");
        }
        if end < start {
            return Outcome::Bad(
                "the heap ends before it starts",
                "an address above the first result of brk",
            );
        }
        process.heap = Some((start, end));
        let (grown, shrunk) = (Span::between(old, end), Span::between(end, old));
        if let Some(span) = grown.or(shrunk) {
            process.claim(place.thread, span, &mut self.orders);
        }
        shrunk.into_iter().for_each(|span| self.gone(place, span));
        let area = Area {
            backing: Backing::Heap,
            prot: Prot::ReadWrite,
            touched: Touched::Settled,
            base: 0,
        };
        let process = &mut self.processes[place.process];
        let change = grown.map(|span| {
            (
                span,
                process.change(Kind::Made(area), span, place.line, place.thread),
            )
        });
        process.op(place.thread, Op::Brk(BrkOp { to: address(end) }));
        if let Some((span, change)) = change {
            process.areas.set(span, area);
            process.ever.set(span, ());
            self.touch(place, span, area, change);
        }
        Outcome::Took
    }

    fn truncate(&mut self, place: Place, call: &Call) -> Outcome {
        let Some(length) = call.args.get(1).and_then(|arg| number(arg)) else {
            return Outcome::Bad("no length", "ftruncate(descriptor, length) = 0");
        };
        let file = match call.args.first() {
            Some(path) if call.name.starts_with("truncate") => {
                super::args::quoted(path).map(|path| self.files.path(path))
            }
            Some(fd) => self.file(place, fd),
            None => None,
        };
        let Some(file) = file else {
            return Outcome::Bad("no file", "a descriptor or a path as first argument");
        };
        self.resize(place, file, length.div_ceil(PAGE));
        Outcome::Took
    }

    fn fallocate(&mut self, place: Place, call: &Call) -> Outcome {
        let arg = |at: usize| call.args.get(at).map_or("", String::as_str);
        if has(arg(1), "FALLOC_FL_KEEP_SIZE") || has(arg(1), "FALLOC_FL_COLLAPSE_RANGE") {
            return skip("the language has no operation for holes and ranges of files");
        }
        let (Some(file), Some(offset), Some(length)) =
            (self.file(place, arg(0)), number(arg(2)), number(arg(3)))
        else {
            return Outcome::Bad("no range", "fallocate(descriptor, mode, offset, length) = 0");
        };
        let pages = offset.saturating_add(length).div_ceil(PAGE);
        if self
            .files
            .get(file)
            .is_some_and(|entry| entry.used && entry.current >= pages)
        {
            return skip("the file is that large already");
        }
        self.resize(place, file, pages);
        Outcome::Took
    }

    pub(super) fn resize(&mut self, place: Place, file: usize, pages: u64) {
        let process = &mut self.processes[place.process];
        process.claim_file(place.thread, file, &mut self.orders);
        process.op(
            place.thread,
            Op::Truncate(TruncateOp {
                file: self.files.name(file),
                pages,
            }),
        );
        process.sized(place.thread, file);
        self.files.resized(file, pages);
    }
}

fn mmap_op(span: Span, prot: Prot) -> MmapOp {
    MmapOp {
        name: None,
        at: Some(address(span.start)),
        pages: span.pages(),
        file: None,
        offset: 0,
        sharing: Sharing::Private,
        prot,
        populate: false,
        locked: false,
    }
}

/// File page of address 0 when `offset` lies at the start of a span.
fn base(offset: u64, span: Span) -> i64 {
    let page = i64::try_from(span.start / PAGE).unwrap_or(0);
    i64::try_from(offset).unwrap_or(0) - page
}

fn advice_reason(advice: &str) -> &'static str {
    match advice {
        "MADV_FREE"
        | "MADV_COLD"
        | "MADV_PAGEOUT"
        | "MADV_POPULATE_READ"
        | "MADV_POPULATE_WRITE"
        | "MADV_COLLAPSE" => "newer than the operations of the language",
        "MADV_REMOVE" | "MADV_DONTNEED_LOCKED" => "the language has no operation for it",
        _ => "a hint that no profile acts on",
    }
}
