//! How page tables come into being.

mod common;

use common::{BASE, Setup, anonymous, shared_file, wait};
use sim::End;
use x86::Access;

#[test]
fn a_page_table_is_allocated_and_cleared_before_page_table_lock_is_taken() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        let stat = cx.engine().lock_stat();
        let class = stat.iter().find(|c| c.def.name == "page_table_lock");
        let held = class.expect("it was taken").exclusive.hold.max();
        assert!(held < k.machine.costs.clear_page.get(), "{held}");
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn of_two_faults_that_make_the_same_tables_one_gives_its_own_back() {
    const BEGIN: u64 = 1_000_000;
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let file = b.kernel.new_file("f", 2);
    for cpu in 0..2 {
        b.thread(cpu, Some(mm), move |cx, k| async move {
            if cpu == 0 {
                k.sys_mmap(&cx, mm, shared_file(BASE, 2, file))
                    .await
                    .expect("free");
            }
            wait(&cx, BEGIN - cx.now().get()).await;
            let at = BASE.add_pages(u64::from(cpu));
            k.access(&cx, mm, at, Access::Write).await.expect("mapped");
        });
    }
    assert_eq!(b.engine.run(), End::Completed);
    assert_eq!(b.kernel.st().mm(mm).nr_ptes, 1);
    let stat = b.engine.lock_stat();
    let class = stat.iter().find(|c| c.def.name == "page_table_lock");
    // Each of the two makes a PUD, a PMD and a PTE table.
    assert_eq!(class.expect("it was taken").exclusive.acquisitions, 2 * 3);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}
