//! Import, recall, pins: one step after the other.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{BASE, Bench, Flag, Setup, anonymous, range, shared_file};
use mm::Refused;
use sim::End;
use x86::Access;
use xpmem::{Mode, NEEDS, Pins};

const PAGES: u64 = 16;

/// The importer reads everything, then the exporter does something, then the importer goes.
#[derive(Clone, Default)]
struct Stages {
    exported: Flag,
    imported: Flag,
    changed: Flag,
}

fn import_everything(b: &Bench, stages: &Stages) {
    let s = stages.clone();
    b.importing(0, move |cx, side| async move {
        s.exported.wait(&cx).await;
        side.link.attach(&cx).await;
        side.read_all(&cx).await;
        s.imported.raise();
        s.changed.wait(&cx).await;
    });
}

#[test]
fn munmap_recalls_what_was_imported() {
    for pins in [Pins::Held, Pins::None] {
        let b = Setup::sleepable(PAGES).pins(pins).timed(1);
        let stages = Stages::default();
        import_everything(&b, &stages);
        let (s, world) = (stages, Rc::clone(&b.world));
        b.exporting(0, move |cx, side| async move {
            side.map(&cx, anonymous(BASE, PAGES)).await;
            side.touch(&cx, PAGES).await;
            side.register(&cx).await;
            s.exported.raise();
            s.imported.wait(&cx).await;
            let m = side.link.metrics();
            assert_eq!((m.imports, m.faults, m.requests), (PAGES, PAGES, PAGES));
            let expected = if pins == Pins::Held { PAGES } else { 0 };
            assert_eq!(world.frames().pinned().0, expected);
            side.kernel
                .sys_munmap(&cx, side.mm, range(BASE, PAGES))
                .await
                .expect("mapped");
            s.changed.raise();
        });
        b.complete();
        let m = b.link.metrics();
        assert_eq!((m.recalls, m.recall_messages, m.recall_pages), (1, 1, PAGES));
        assert_eq!(m.unpinned, if pins == Pins::Held { PAGES } else { 0 });
        assert!(
            m.recall_wait_cycles >= 60_000,
            "an acknowledgement takes a round trip"
        );
        assert_eq!((b.pinned(), b.importer_entries(), b.exporter_frames()), (0, 0, 0));
    }
}

#[test]
fn one_recall_of_a_part_leaves_the_rest() {
    let b = Setup::sleepable(PAGES).timed(1);
    let stages = Stages::default();
    import_everything(&b, &stages);
    let s = stages;
    b.exporting(0, move |cx, side| async move {
        side.map(&cx, anonymous(BASE, PAGES)).await;
        side.touch(&cx, PAGES).await;
        side.register(&cx).await;
        s.exported.raise();
        s.imported.wait(&cx).await;
        for at in [4, 0, 4] {
            side.kernel
                .madvise_dontneed(&cx, side.mm, range(BASE.add_pages(at), 4))
                .await
                .expect("mapped");
        }
        s.changed.raise();
    });
    b.complete();
    let m = b.link.metrics();
    assert_eq!(
        (m.recalls, m.recall_pages),
        (2, 8),
        "the third finds nothing known"
    );
    assert_eq!(
        (b.pinned(), b.importer_entries()),
        (PAGES - 8, (PAGES - 8) as usize)
    );
}

#[test]
fn truncation_of_an_exported_file_completes_when_callbacks_may_sleep() {
    let b = Setup::sleepable(PAGES).timed(1);
    let stages = Stages::default();
    import_everything(&b, &stages);
    let (s, truncated) = (stages.clone(), stages.changed);
    let refused = Rc::new(Cell::new(None));
    b.exporting(0, move |cx, side| async move {
        let file = side.kernel.new_file("heap", PAGES);
        side.map(&cx, shared_file(BASE, PAGES, file)).await;
        side.register(&cx).await;
        s.exported.raise();
        s.imported.wait(&cx).await;
        side.kernel.lru_add_drain_all(&cx).await;
        side.kernel.do_truncate(&cx, file, 4).await;
        s.changed.raise();
    });
    let out = Rc::clone(&refused);
    b.importing(1, move |cx, side| async move {
        truncated.wait(&cx).await;
        out.set(Some(side.link.access(&cx, PAGES - 1, Access::Read).await));
    });
    b.complete();
    assert_eq!(refused.get(), Some(Err(Refused::BeyondEof)));
    let m = b.link.metrics();
    assert_eq!((m.recall_pages, m.refused), (PAGES - 4, 1));
    assert_eq!((b.pinned(), b.importer_entries(), b.exporter_frames()), (4, 4, 4));
}

#[test]
fn the_merged_notifier_cannot_carry_it() {
    let b = Setup::merged(PAGES, Mode::Notified).timed(1);
    assert_ne!(b.exporter.design.carries(NEEDS), mm::notifier::Carries::Yes);
    let stages = Stages::default();
    import_everything(&b, &stages);
    let s = stages;
    b.exporting(0, move |cx, side| async move {
        let file = side.kernel.new_file("heap", PAGES);
        side.map(&cx, shared_file(BASE, PAGES, file)).await;
        side.register(&cx).await;
        s.exported.raise();
        s.imported.wait(&cx).await;
        side.kernel.lru_add_drain_all(&cx).await;
        side.kernel.do_truncate(&cx, file, 4).await;
        s.changed.raise();
    });
    let End::Violation(v) = b.engine.run() else {
        panic!("a callback that sleeps under i_mmap_lock is a violation");
    };
    assert_eq!(v.kind.id(), "sleep-in-atomic");
    for context in ["i_mmap_lock", "preemption off", "rcu_read_lock"] {
        let found = v.held.iter().any(|h| h.starts_with(context));
        assert!(found, "{context} is not among {:?}", v.held);
    }
    assert!(v.stack.contains(&"xpmem_invalidate_range_start"), "{:?}", v.stack);
}

#[test]
fn with_pins_only_pages_stay_until_the_importer_detaches() {
    let b = Setup::merged(PAGES, Mode::PinsOnly).timed(1);
    let stages = Stages::default();
    let (s, world) = (stages.clone(), Rc::clone(&b.world));
    b.importing(0, move |cx, side| async move {
        s.exported.wait(&cx).await;
        side.link.attach(&cx).await;
        side.read_all(&cx).await;
        s.imported.raise();
        s.changed.wait(&cx).await;
        assert_eq!(world.frames().pinned().0, PAGES);
        // Stale, but somebody's.
        side.read_all(&cx).await;
        side.link.detach(&cx).await;
        assert_eq!(world.frames().pinned().0, 0);
        assert_eq!(
            side.link.access(&cx, 0, Access::Read).await,
            Err(Refused::NoMapping)
        );
    });
    let s = stages;
    b.exporting(0, move |cx, side| async move {
        side.map(&cx, anonymous(BASE, PAGES)).await;
        side.touch(&cx, PAGES).await;
        side.register(&cx).await;
        s.exported.raise();
        s.imported.wait(&cx).await;
        side.kernel
            .sys_munmap(&cx, side.mm, range(BASE, PAGES))
            .await
            .expect("mapped");
        s.changed.raise();
    });
    b.complete();
    let m = b.link.metrics();
    assert_eq!((m.recall_messages, m.unpinned), (0, PAGES));
    assert_eq!(b.exporter_frames(), 0);
}

#[test]
fn closing_the_device_recalls_what_pins_kept() {
    for setup in [Setup::merged(PAGES, Mode::PinsOnly), Setup::sleepable(PAGES)] {
        let mode = setup.mode;
        let b = setup.timed(1);
        let stages = Stages::default();
        import_everything(&b, &stages);
        let (s, world) = (stages, Rc::clone(&b.world));
        b.exporting(0, move |cx, side| async move {
            side.map(&cx, anonymous(BASE, PAGES)).await;
            side.touch(&cx, PAGES).await;
            side.register(&cx).await;
            s.exported.raise();
            s.imported.wait(&cx).await;
            side.kernel.exit_mm(&cx, side.mm).await;
            let left = if mode == Mode::PinsOnly { PAGES } else { 0 };
            assert_eq!(world.frames().pinned().0, left);
            side.link.destroy(&cx).await;
            assert_eq!(world.frames().pinned().0, 0);
            s.changed.raise();
        });
        b.complete();
        assert_eq!((b.importer_entries(), b.exporter_frames()), (0, 0));
        assert_eq!(b.link.metrics().recall_messages, 1);
    }
}

#[test]
fn getting_a_page_that_must_be_copied_recalls_and_is_repeated() {
    let b = Setup::sleepable(PAGES).timed(1);
    let stages = Stages::default();
    import_everything(&b, &stages);
    let s = stages;
    b.exporting(0, move |cx, side| async move {
        side.map(&cx, anonymous(BASE, PAGES)).await;
        side.touch(&cx, PAGES).await;
        side.register(&cx).await;
        // Every page is shared with the child now: get_user_pages for writing copies.
        let child = side.kernel.sys_fork(&cx, side.mm, "child".into()).await;
        s.exported.raise();
        s.imported.wait(&cx).await;
        side.kernel.mmput(&cx, child).await;
        s.changed.raise();
    });
    b.complete();
    let m = b.link.metrics();
    assert_eq!((m.requests_invalidated, m.retries, m.eagain), (PAGES, PAGES, 0));
    assert_eq!(
        (m.recall_messages, b.pinned()),
        (0, PAGES),
        "nobody had imported them yet"
    );
}

#[test]
fn rights_follow_the_exporter() {
    let b = Setup::sleepable(PAGES).timed(1);
    let exported = Flag::default();
    let e = exported.clone();
    b.importing(0, move |cx, side| async move {
        e.wait(&cx).await;
        side.link.attach(&cx).await;
        side.link.access(&cx, 0, Access::Read).await.expect("readable");
        let write = side.link.access(&cx, 0, Access::Write).await;
        assert_eq!(write, Err(Refused::NoMapping));
        assert_eq!(
            side.link.access(&cx, PAGES, Access::Read).await,
            Err(Refused::NoMapping)
        );
    });
    b.exporting(0, move |cx, side| async move {
        let mut request = anonymous(BASE, PAGES);
        request.prot = mm::Prot::READ;
        side.map(&cx, request).await;
        side.register(&cx).await;
        exported.raise();
    });
    b.complete();
}
