//! A subscriber that writes down what it is told, and what its caller holds.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use mm::notifier::{AgeFuture, CallbackFuture, MmuKind, Subscriber, Young};
use sim::{Cx, Holding};
use x86::{Pfn, Va, VaRange};

/// What a scribe was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    Start(VaRange),
    End(VaRange),
    Page(Va),
    Block(VaRange),
    Young(Va),
    Release,
}

/// What else is done when a scribe is told something.
type Look = Box<dyn Fn(Told)>;

/// Writes down what it is told, and what its caller holds.
#[derive(Default)]
pub struct Scribe {
    told: RefCell<Vec<(Told, Vec<Holding>)>>,
    look: RefCell<Option<Look>>,
    /// What it says to `clear_flush_young`; otherwise no.
    pub answer: Cell<Option<Young>>,
}

impl Scribe {
    fn note(&self, cx: &Cx, told: Told) -> CallbackFuture<'static> {
        self.told.borrow_mut().push((told, cx.holdings()));
        if let Some(look) = &*self.look.borrow() {
            look(told);
        }
        Box::pin(async {})
    }

    /// Looks around at each call from now on.
    pub fn look(&self, look: impl Fn(Told) + 'static) {
        *self.look.borrow_mut() = Some(Box::new(look));
    }

    /// How often it was called.
    pub fn calls(&self) -> usize {
        self.told.borrow().len()
    }

    /// Whether it was told this already.
    pub fn was_told(&self, what: Told) -> bool {
        self.told.borrow().iter().any(|(told, _)| *told == what)
    }

    /// What was told so far; it is forgotten.
    pub fn take(&self) -> Vec<(Told, Vec<Holding>)> {
        self.told.take()
    }
}

impl Subscriber for Scribe {
    fn name(&self) -> Rc<str> {
        "scribe".into()
    }
    fn kind(&self) -> MmuKind {
        MmuKind::Device
    }
    fn invalidate_page<'a>(&'a self, cx: &'a Cx, at: Va) -> CallbackFuture<'a> {
        self.note(cx, Told::Page(at))
    }
    fn invalidate_range_start<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a> {
        self.note(cx, Told::Start(range))
    }
    fn invalidate_range_end<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a> {
        self.note(cx, Told::End(range))
    }
    fn invalidate_pages<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a> {
        self.note(cx, Told::Block(range))
    }
    fn clear_flush_young<'a>(&'a self, cx: &'a Cx, at: Va) -> AgeFuture<'a> {
        Box::pin(async move {
            self.note(cx, Told::Young(at)).await;
            self.answer.get().unwrap_or(Young::No)
        })
    }
    fn release<'a>(&'a self, cx: &'a Cx) -> CallbackFuture<'a> {
        self.note(cx, Told::Release)
    }
    fn reaches(&self, _: Pfn) -> bool {
        false
    }
}

/// A bracket, both ends with the same locks held.
pub fn pair(range: VaRange, held: &[Holding]) -> Vec<(Told, Vec<Holding>)> {
    vec![
        (Told::Start(range), held.to_vec()),
        (Told::End(range), held.to_vec()),
    ]
}
