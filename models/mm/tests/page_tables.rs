//! How page tables come into being.

mod common;

use common::{BASE, Setup, anonymous};
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
