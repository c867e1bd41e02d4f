//! Mappings that grow downwards.

mod common;

use std::future::Future;
use std::rc::Rc;

use common::{BASE, Setup, anonymous, range, touch};
use mm::{Growth, Kernel, Locked, MapFlags, MapRequest, MmId, Refused};
use sim::{Cx, End, RandomWalk, Schedule};
use x86::{Access, Va};

/// `_STK_LIM`, include/linux/resource.h: 8 MiB.
const LIMIT: u64 = 2048;

fn stack(at: Va, pages: u64, locked: Locked) -> MapRequest {
    MapRequest {
        flags: MapFlags {
            growth: Growth::Down,
            locked,
            ..MapFlags::NONE
        },
        ..anonymous(at, pages)
    }
}

fn solo<F: Future<Output = ()> + 'static>(body: impl FnOnce(Cx, Rc<Kernel>, MmId) -> F + 'static) {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    assert_eq!(b.work(move |cx, k| body(cx, k, mm)), End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn a_stack_grows_to_the_page_that_is_touched_and_keeps_its_pages() {
    solo(|cx, k, mm| async move {
        let at = |page| BASE.add_pages(page);
        k.sys_mmap(&cx, mm, anonymous(at(0), 1)).await.expect("free");
        k.sys_mmap(&cx, mm, stack(at(100), 4, Locked::No))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(at(100), 4), Access::Write).await;
        k.access(&cx, mm, at(90), Access::Write).await.expect("it grows");
        assert_eq!(k.metrics().faults_anon, 5, "one page only");
        k.access(&cx, mm, at(1), Access::Read)
            .await
            .expect("down to its neighbour");
        let ranges: Vec<_> = {
            let st = k.st();
            st.mm(mm).vmas.iter().map(|v| st.vma(v).range).collect()
        };
        assert_eq!(ranges, [range(at(0), 1), range(at(1), 103)]);
        k.sys_mmap(&cx, mm, anonymous(at(300), 1)).await.expect("free");
        let beside = k.access(&cx, mm, at(299), Access::Read).await;
        assert_eq!(beside, Err(Refused::NoMapping), "other mappings do not");
    });
}

#[test]
fn a_stack_grows_no_further_than_its_limit() {
    solo(|cx, k, mm| async move {
        k.sys_mmap(&cx, mm, stack(BASE.add_pages(LIMIT), 4, Locked::No))
            .await
            .expect("free");
        let too_far = BASE.add_pages(3);
        assert_eq!(
            k.access(&cx, mm, too_far, Access::Write).await,
            Err(Refused::NoMapping)
        );
        assert_eq!(
            k.access(&cx, mm, too_far.add_pages(1), Access::Write).await,
            Ok(())
        );
    });
}

#[test]
fn a_locked_stack_is_made_present_by_get_user_pages_but_not_by_a_fault() {
    solo(|cx, k, mm| async move {
        let at = |page| BASE.add_pages(page);
        k.sys_mmap(&cx, mm, stack(at(100), 4, Locked::Yes))
            .await
            .expect("free");
        k.access(&cx, mm, at(98), Access::Write).await.expect("it grows");
        assert!(!k.peek_pte(mm, at(99)).present());
        let page = {
            let _sem = cx.lock_shared(k.mmap_sem(mm)).await;
            k.get_user_page(&cx, mm, at(90), Access::Write)
                .await
                .expect("it grows")
        };
        k.put_page(&cx, page.pfn).await;
        assert!((90..98).all(|page| k.peek_pte(mm, at(page)).present()));
        assert_eq!(k.st().mm(mm).locked_vm, 14);
    });
}

#[test]
fn two_threads_may_grow_one_stack_at_once() {
    for seed in 0..40 {
        let b = Setup::linux_2_6_27().build_with(Schedule::Explored(Box::new(RandomWalk::new(seed))));
        let mm = b.mm;
        b.thread(0, Some(mm), move |cx, k| async move {
            k.sys_mmap(&cx, mm, stack(BASE.add_pages(100), 1, Locked::No))
                .await
                .expect("free");
            touch(&cx, &k, mm, range(BASE.add_pages(90), 10), Access::Write).await;
        });
        b.thread(1, Some(mm), move |cx, k| async move {
            for page in (80..100).rev() {
                let _ = k.access(&cx, mm, BASE.add_pages(page), Access::Write).await;
            }
        });
        assert_eq!(b.engine.run(), End::Completed, "seed {seed}");
        assert_eq!(b.world.audit(), Vec::<String>::new(), "seed {seed}");
    }
}
