//! When no program reads any more what was removed.

use std::thread::{self, JoinHandle};

use crate::sys::wait_for_programs;

/// Grace periods of RCU: what ran when a period began has ended when it is over. A period takes about 15 ms, so waiting is
/// left to a thread where nobody needs the room of what was removed.
#[derive(Debug, Default)]
pub(super) struct Grace {
    /// How many periods have begun.
    begun: u64,
    /// The last one that is over.
    over: u64,
    /// Waits for the end of the last one that has begun.
    waiter: Option<JoinHandle<()>>,
}

/// A period, by its number.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Period(u64);

impl Grace {
    /// Returns the period after which no program reads what is removed by now.
    pub(super) const fn next(&self) -> Period {
        Period(self.begun.saturating_add(1))
    }

    /// Has a period begin as soon as the one before is over.
    pub(super) fn begin(&mut self, period: Period) {
        if !self.is_over(period) && self.begun < period.0 && self.waiter.is_none() {
            self.begun += 1;
            // Without a thread, whoever needs the period waits for another one.
            self.waiter = thread::Builder::new().spawn(wait_for_programs).ok();
        }
    }

    /// Returns whether a period is over.
    pub(super) fn is_over(&mut self, period: Period) -> bool {
        if self.waiter.as_ref().is_some_and(JoinHandle::is_finished) {
            self.join();
        }
        self.over >= period.0
    }

    /// Returns when a period is over.
    pub(super) fn wait(&mut self, period: Period) {
        self.join();
        if self.over < period.0 {
            self.begun = self.begun.saturating_add(1);
            wait_for_programs();
            self.over = self.begun;
        }
    }

    fn join(&mut self) {
        if self.waiter.take().is_some_and(|waiter| waiter.join().is_ok()) {
            self.over = self.begun;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_that_has_begun_is_too_early_for_what_is_removed_later() {
        let mut grace = Grace::default();
        let first = grace.next();
        assert!(!grace.is_over(first));
        grace.begin(first);
        let second = grace.next();
        assert!(first < second);
        grace.wait(first);
        assert!(grace.is_over(first) && !grace.is_over(second));
        grace.wait(second);
        assert!(grace.is_over(second));
        assert!(!grace.is_over(grace.next()));
    }

    #[test]
    fn periods_end_without_anybody_waiting() {
        let mut grace = Grace::default();
        let period = grace.next();
        grace.begin(period);
        while !grace.is_over(period) {
            thread::yield_now();
        }
    }
}
