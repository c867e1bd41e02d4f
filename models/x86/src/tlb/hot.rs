//! Many references at once: the loop that makes up most of a program.
//!
//! It does what [`Tlb::lookup`] and [`Tlb::promote`] do, reference by reference and in order, as long as
//! the TLBs have an entry that passes; counts are the same to the last one.

use super::entry::{Check, Context, TlbEntry};
use super::level::{Client, Presence, Tried};
use super::stats::Packed;
use super::{SecondLevelFill, Tlb};
use crate::frames::Observer;
use crate::reference::Reference;
use crate::walker::Access;

/// A run of references that the TLBs served alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Run {
    /// References in it.
    pub length: usize,
    /// Why it ended.
    pub stop: Stop,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// No reference is left.
    End,
    /// The next reference misses both levels.
    Missed,
    /// The next reference finds an entry that does not let it pass.
    Refused,
}

impl Tlb {
    /// Makes the longest run of references that hit the TLBs with entries that pass; counts them, and
    /// says how many there are and why it ended. The reference after the run is untouched.
    #[inline]
    pub(crate) fn run(
        &mut self,
        context: Context,
        checks: &[Check; Access::ALL.len()],
        references: &[Reference],
        observer: &mut impl Observer,
    ) -> Run {
        let mut counts = Packed::default();
        let mut run = 0;
        let mut stop = Stop::End;
        for reference in references {
            let access = reference.access();
            let (client, vpn) = (Client::of(access), reference.va().vpn());
            let check = checks[access as usize];
            let first = &mut self.firsts[self.first_of[access as usize] as usize];
            match first.hit_again(client, context, vpn, |entry| {
                entry.satisfies(check) && observer.is_sound(entry)
            }) {
                Tried::Hit(_) => counts.count(access),
                Tried::Absent => match self.second_hit(access, context, *reference, check, observer) {
                    Tried::Hit(_) => {}
                    Tried::Absent => {
                        stop = Stop::Missed;
                        break;
                    }
                    Tried::Refused => {
                        stop = Stop::Refused;
                        break;
                    }
                },
                Tried::Refused => {
                    stop = Stop::Refused;
                    break;
                }
            }
            run += 1;
            if run % Packed::MOST == 0 {
                self.stats.l1_hits += counts.take();
            }
        }
        if run > 0 {
            self.stats.l1_hits += counts.take();
        }
        Run { length: run, stop }
    }

    // A reference that the first level does not have. Kept out of the loop, which needs its registers.
    #[inline(never)]
    fn second_hit(
        &mut self,
        access: Access,
        context: Context,
        reference: Reference,
        check: Check,
        observer: &mut impl Observer,
    ) -> Tried {
        let (client, vpn) = (Client::of(access), reference.va().vpn());
        let Some(second) = &mut self.second else {
            return Tried::Absent;
        };
        let passes = |entry: &TlbEntry| entry.satisfies(check) && observer.is_sound(entry);
        let tried = second.hit_if(client, context, vpn, passes);
        let Tried::Hit(slot) = tried else {
            return tried;
        };
        let entry = *second.entry(slot);
        self.stats.l2_hits.count(access);
        observer.second_level_hit(&entry);
        if self.fill == SecondLevelFill::OnEviction {
            observer.dropped(second.clear(slot).pfn);
        }
        self.fill_first(access, context, vpn, entry, Presence::Absent, observer);
        tried
    }
}
