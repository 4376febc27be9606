//! When no program reads any more what was removed.

use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use crate::sys::wait_for_programs;

/// Grace periods of RCU: what ran when a period began has ended when it is over. A period takes about 15 ms, so waiting is
/// left to a thread where nobody needs the room of what was removed.
#[derive(Default)]
pub(super) struct Grace {
    /// How many periods have begun.
    begun: u64,
    over: Arc<Over>,
    /// Tells the thread which period begins.
    orders: Option<Sender<u64>>,
}

/// A period, by its number.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Period(u64);

/// The last period that is over.
#[derive(Default)]
struct Over {
    last: Mutex<u64>,
    changed: Condvar,
}

impl Grace {
    /// Returns the period after which no program reads what is removed by now.
    pub(super) const fn next(&self) -> Period {
        Period(self.begun.saturating_add(1))
    }

    /// Returns whether a period is over.
    pub(super) fn is_over(&self, period: Period) -> bool {
        self.over.last() >= period.0
    }

    /// Has the next period begin, if none is under way.
    pub(super) fn begin(&mut self) {
        if self.over.last() < self.begun {
            return;
        }
        self.begun = self.begun.saturating_add(1);
        if self.order().is_err() {
            wait_for_programs();
            self.over.set(self.begun);
        }
    }

    /// Returns when a period is over.
    pub(super) fn wait(&mut self, period: Period) {
        while !self.is_over(period) {
            self.begin();
            self.over.wait_for(self.begun);
        }
    }

    /// Has the thread wait for the period that has begun.
    fn order(&mut self) -> io::Result<()> {
        let orders = match self.orders.take() {
            Some(orders) => orders,
            None => {
                let (orders, received) = channel();
                let over = Arc::clone(&self.over);
                thread::Builder::new()
                    .name("netpol-grace".to_owned())
                    .spawn(move || over.follow(&received))?;
                orders
            }
        };
        orders.send(self.begun).map_err(io::Error::other)?;
        self.orders = Some(orders);
        Ok(())
    }
}

impl fmt::Debug for Grace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grace").field("begun", &self.begun).finish_non_exhaustive()
    }
}

impl Over {
    fn last(&self) -> u64 {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, period: u64) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = period;
        self.changed.notify_all();
    }

    fn wait_for(&self, period: u64) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(last, |last| *last < period));
    }

    /// Waits for periods, as long as there is somebody who tells of them.
    fn follow(&self, orders: &Receiver<u64>) {
        for period in orders {
            wait_for_programs();
            self.set(period);
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
        grace.begin();
        let second = grace.next();
        assert!(first < second);
        grace.wait(first);
        assert!(grace.is_over(first) && !grace.is_over(second));
        grace.wait(second);
        assert!(grace.is_over(second) && !grace.is_over(grace.next()));
    }

    #[test]
    fn periods_end_without_anybody_waiting() {
        let mut grace = Grace::default();
        let period = grace.next();
        grace.begin();
        while !grace.is_over(period) {
            thread::yield_now();
        }
    }
}
