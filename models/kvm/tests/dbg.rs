mod common;
use common::*;
use mm::notifier::Design;
use std::rc::Rc; use std::cell::{Cell,RefCell};
use sim::*;
struct W(RandomWalk, Rc<RefCell<std::collections::VecDeque<String>>>);
impl Chooser for W { fn next(&mut self, e:&[Enabled])->usize{ let n=self.0.next(e); let mut q=self.1.borrow_mut(); q.push_back(format!("{} of {:?}", n, e.iter().map(|x|format!("{} {:?} {:?} {}:{}",x.actor,x.step.object,x.step.action,x.step.location.file(),x.step.location.line())).collect::<Vec<_>>())); if q.len()>12{q.pop_front();} n } fn draw(&mut self,s:Stream,b:u64)->u64{self.0.draw(s,b)} }
#[test]
fn dbg(){
  for seed in 0..150 {
    let mut setup = Setup::new(Design::V8, 2);
    setup.explored=Some(seed); setup.max_events=20_000;
    let q=Rc::new(RefCell::new(Default::default()));
    let b=setup.build_with(Box::new(W(RandomWalk::new(seed),Rc::clone(&q))));
            let vcpu = b.kvm.add_vcpu();
            let ready = Rc::new(Cell::new(false));
            let set_up = Rc::clone(&ready);
            let guest = b.thread(1, move |cx, h| async move {
                h.kvm.register(&cx).await;
                h.map(&cx).await;
                set_up.set(true);
                for n in 0..12 {
                    let _ = h.kvm.access(&cx, vcpu, FIRST_GFN.add(n % 2), x86::Access::Write).await;
                }
                h.kvm.exit(&cx, vcpu);
            });
            b.thread(0, move |cx, h| async move {
                while !ready.get() {
                    cx.sleep(Cycles::new(1)).await;
                }
                h.kernel.madvise_dontneed(&cx, h.mm, h.range(2)).await;
                h.munmap(&cx).await;
                cx.join(guest).await;
                h.kvm.destroy(&cx).await;
            });
            let end = b.engine.run();
    if end!=End::Completed { println!("seed {seed} {end:?} now {:?}", b.engine.now()); for l in q.borrow().iter(){println!("{l}");} panic!(); }
  }
}
