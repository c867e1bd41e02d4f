//! The chooser: every choice and every draw of a simulation goes through it.
//!
//! In *timed* mode the clock decides who runs next (ties by time, priority, sequence) and the
//! chooser only draws random numbers. In *explored* mode it also decides which of the enabled
//! steps happens next, costs are ignored, and each step was announced (object, action, source
//! location) before it happens. A list of choices is the reproduction of an execution.

use std::panic::Location;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Consumer of random numbers; each has a ChaCha stream of its own, so that a draw added in one
/// place does not shift the others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Stream(pub u32);

/// What a step is about to touch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Object {
    /// Nothing shared: the start of a task or a scheduling point.
    None,
    /// A lock, by number.
    Lock(u32),
    /// A wait queue, by number.
    Queue(u32),
    /// A CPU's interrupt input.
    Cpu(u16),
    /// An object of an upper layer: class and number.
    Other(u16, u64),
}

/// What a step is about to do to its object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Action {
    /// Run on.
    Run,
    /// Take a lock exclusively.
    Lock,
    /// Take a lock shared.
    LockShared,
    /// Read shared state.
    Read,
    /// Change shared state.
    Write,
    /// Deliver an interrupt.
    Interrupt,
    /// Let time pass: a timer or a message.
    Timer,
    /// Enter a callback.
    Callback,
}

/// A visible step, known before it happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Object.
    pub object: Object,
    /// Action on it.
    pub action: Action,
    /// Place in the model's source.
    pub location: &'static Location<'static>,
}

/// One of the things that may happen next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enabled {
    /// Who: a task or the machine itself.
    pub actor: String,
    /// What it would do.
    pub step: Step,
}

/// Decides what the clock does not.
pub trait Chooser {
    /// Index into `enabled` (never empty) of what happens next. Explored mode only.
    fn next(&mut self, enabled: &[Enabled]) -> usize;

    /// A number in `0..bound`; `bound` is at least 1.
    fn draw(&mut self, stream: Stream, bound: u64) -> u64;
}

/// Draws from ChaCha streams of one seed; lets the first enabled step happen.
#[derive(Debug)]
pub struct Seeded {
    seed: u64,
    streams: Vec<Option<ChaCha8Rng>>,
}

impl Seeded {
    /// All streams of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Seeded {
            seed,
            streams: Vec::new(),
        }
    }

    fn stream(&mut self, stream: Stream) -> &mut ChaCha8Rng {
        let index = stream.0 as usize;
        if self.streams.len() <= index {
            self.streams.resize_with(index + 1, || None);
        }
        self.streams[index].get_or_insert_with(|| {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            rng.set_stream(u64::from(stream.0));
            rng
        })
    }
}

impl Chooser for Seeded {
    fn next(&mut self, _enabled: &[Enabled]) -> usize {
        0
    }

    fn draw(&mut self, stream: Stream, bound: u64) -> u64 {
        // Multiply-shift with rejection (Lemire 2019): exact and independent of the rand crate's
        // own algorithm, which is not promised to be stable across versions.
        let rng = self.stream(stream);
        loop {
            let wide = u128::from(rng.next_u64()) * u128::from(bound);
            if (wide as u64) >= bound.wrapping_neg() % bound {
                return (wide >> u64::BITS) as u64;
            }
        }
    }
}

/// Explores at random: every enabled step is equally likely.
#[derive(Debug)]
pub struct RandomWalk(Seeded);

impl RandomWalk {
    const SCHEDULE: Stream = Stream(0);

    /// A walk determined by its seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        RandomWalk(Seeded::new(seed))
    }
}

impl Chooser for RandomWalk {
    fn next(&mut self, enabled: &[Enabled]) -> usize {
        self.0.draw(Self::SCHEDULE, enabled.len() as u64) as usize
    }

    fn draw(&mut self, stream: Stream, bound: u64) -> u64 {
        self.0.draw(stream, bound)
    }
}

/// Follows recorded choices, then the first enabled step.
#[derive(Debug, Default)]
pub struct Replay {
    choices: std::collections::VecDeque<u64>,
}

impl Replay {
    /// Replays these choices, in order.
    #[must_use]
    pub fn new(choices: impl IntoIterator<Item = u64>) -> Self {
        Replay {
            choices: choices.into_iter().collect(),
        }
    }
}

impl Chooser for Replay {
    fn next(&mut self, enabled: &[Enabled]) -> usize {
        self.choices
            .pop_front()
            .map_or(0, |c| (c as usize).min(enabled.len() - 1))
    }

    fn draw(&mut self, _stream: Stream, bound: u64) -> u64 {
        self.choices.pop_front().unwrap_or(0).min(bound - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_do_not_disturb_each_other() {
        let mut alone = Seeded::new(7);
        let mut mixed = Seeded::new(7);
        let a: Vec<u64> = (0..20).map(|_| alone.draw(Stream(1), 1000)).collect();
        let b: Vec<u64> = (0..20)
            .map(|_| {
                mixed.draw(Stream(2), 10);
                mixed.draw(Stream(1), 1000)
            })
            .collect();
        assert_eq!(a, b);
        assert_ne!(
            a,
            (0..20)
                .map(|_| Seeded::new(8).draw(Stream(1), 1000))
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn draws_stay_inside_their_bound() {
        let mut s = Seeded::new(1);
        assert!((0..1000).all(|_| s.draw(Stream(3), 3) < 3));
        assert_eq!(s.draw(Stream(3), 1), 0);
    }
}
