//! Messages between partitions, and waiting without losing a wake-up.
//!
//! XPC delivers a message into a buffer agreed upon, raises an interrupt, and a kernel thread of the
//! receiver picks it up (secondary-mmus 3.5, R. Holt, 2008-05-14). "Delivered" says nothing about
//! "processed", so whatever needs an answer gets one as a message of its own, into the [`Slot`] its
//! caller sleeps on. There is a fixed number of slots; who finds none sleeps a jiffy at a time.
//!
//! [`Until`] looks at its condition and goes to sleep in one step of the task: between the two
//! nothing else happens. (`sim::Mailbox` and `sim::Completion` look first and may then let others
//! run before they are on the queue, so that a message without latency could be missed.)

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use sim::{Cx, Cycles, Engine, QueueId, Sleep};

/// On what account a wait goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waits {
    /// For a message.
    Event,
    /// At the gate.
    Gate,
}

/// Future of [`until`].
#[must_use = "nothing is waited for until this is awaited"]
pub(crate) struct Until<'a, F> {
    cx: &'a Cx,
    queue: QueueId,
    waits: Waits,
    ready: F,
    asleep: Option<Sleep<'a>>,
}

/// Sleeps on a queue until a condition holds; looks again at each wake-up.
pub(crate) fn until<F: Fn() -> bool + Unpin>(
    cx: &Cx,
    queue: QueueId,
    waits: Waits,
    ready: F,
) -> Until<'_, F> {
    Until {
        cx,
        queue,
        waits,
        ready,
        asleep: None,
    }
}

impl<F: Fn() -> bool + Unpin> Future for Until<'_, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            if (this.ready)() {
                return Poll::Ready(());
            }
            let (cx, queue, waits) = (this.cx, this.queue, this.waits);
            let sleep = this.asleep.get_or_insert_with(|| match waits {
                Waits::Event => cx.wait_on(queue),
                Waits::Gate => cx.wait_on_gate(queue),
            });
            match Pin::new(sleep).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => this.asleep = None,
            }
        }
    }
}

/// Messages on their way to one thread of one partition, in order of arrival.
pub(crate) struct Inbox<T> {
    queue: QueueId,
    messages: RefCell<VecDeque<(Cycles, T)>>,
}

impl<T> Inbox<T> {
    pub(crate) fn new(engine: &Engine, name: &'static str) -> Self {
        Inbox {
            queue: engine.wait_queue(name),
            messages: RefCell::default(),
        }
    }

    /// Posts a message that arrives `latency` from now.
    pub(crate) fn send(&self, cx: &Cx, message: T, latency: Cycles) {
        let at = cx.now() + latency;
        let mut messages = self.messages.borrow_mut();
        let place = messages.partition_point(|(arrival, _)| *arrival <= at);
        messages.insert(place, (at, message));
        drop(messages);
        cx.engine().wake_all_at(self.queue, at);
    }

    /// Takes the next message, sleeping until there is one.
    pub(crate) async fn receive(&self, cx: &Cx) -> T {
        let arrived = || {
            self.messages
                .borrow()
                .front()
                .is_some_and(|(at, _)| *at <= cx.now())
        };
        until(cx, self.queue, Waits::Event, arrived).await;
        let first = self.messages.borrow_mut().pop_front();
        first.expect("nobody else receives from this inbox").1
    }
}

/// Where the answer to one message arrives.
pub(crate) struct Slot<A> {
    queue: QueueId,
    answer: RefCell<Option<A>>,
}

impl<A> Slot<A> {
    /// The answer is here.
    pub(crate) fn fill(&self, cx: &Cx, answer: A) {
        *self.answer.borrow_mut() = Some(answer);
        cx.engine().wake_all(self.queue);
    }

    async fn wait(&self, cx: &Cx) -> A {
        until(cx, self.queue, Waits::Event, || self.answer.borrow().is_some()).await;
        self.answer.borrow_mut().take().expect("looked at it just now")
    }
}

/// Message slots of one direction.
pub(crate) struct Slots<A>(RefCell<Vec<Rc<Slot<A>>>>);

impl<A> Slots<A> {
    pub(crate) fn new(engine: &Engine, name: &'static str, count: usize) -> Self {
        let slot = |_| {
            Rc::new(Slot {
                queue: engine.wait_queue(name),
                answer: RefCell::new(None),
            })
        };
        Slots(RefCell::new((0..count).map(slot).collect()))
    }

    /// A slot, if one is free.
    pub(crate) fn take(&self) -> Option<Rc<Slot<A>>> {
        self.0.borrow_mut().pop()
    }

    /// Sleeps until the answer is in the slot, and frees it.
    pub(crate) async fn answer(&self, cx: &Cx, slot: Rc<Slot<A>>) -> A {
        let answer = slot.wait(cx).await;
        self.0.borrow_mut().push(slot);
        answer
    }
}
