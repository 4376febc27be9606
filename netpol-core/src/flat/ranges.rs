//! Ranges of addresses, to be searched quickly.

use alloc::vec::Vec;

use super::regions::ClassId;

/// How many numbers are compared at once: those of IPv4 fill a line of the cache.
const STEP: usize = 16;

/// The classes of ranges that follow each other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Ranges<T> {
    /// Where the ranges begin, sorted. Each level has every sixteenth number of the one before it, and the last has at most
    /// sixteen.
    levels: Vec<Vec<T>>,
    classes: Vec<ClassId>,
}

impl<T: Copy + Ord> Ranges<T> {
    /// Returns ranges by where they begin, in order. Of several that begin at one place the last one counts.
    pub(super) fn of(begins: Vec<(T, ClassId)>) -> Self {
        let (mut level, mut classes): (Vec<T>, Vec<ClassId>) = (Vec::new(), Vec::new());
        for (begin, class) in begins {
            if level.last() == Some(&begin) {
                level.pop();
                classes.pop();
            }
            // A range that goes on needs no begin.
            if classes.last() != Some(&class) {
                level.push(begin);
                classes.push(class);
            }
        }
        let mut levels = Vec::new();
        while level.len() > STEP {
            let next = level.iter().step_by(STEP).copied().collect();
            levels.push(core::mem::replace(&mut level, next));
        }
        levels.push(level);
        Self { levels, classes }
    }

    /// Returns the class of the range that an address is in, `None` before the first one.
    pub(super) fn class_of(&self, address: T) -> Option<ClassId> {
        let mut at = 0;
        for level in self.levels.iter().rev() {
            let from = at * STEP;
            let some = level.get(from..level.len().min(from + STEP))?;
            let before = some.iter().filter(|begin| **begin <= address).count();
            at = from + before.checked_sub(1)?;
        }
        self.classes.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_whatever_their_number() {
        for count in [0, 1, 2, 15, 16, 17, 255, 256, 257, 5000] {
            let begins = (0..count).map(|it| (10 * it + 5, ClassId(it))).collect();
            let ranges = Ranges::of(begins);
            for address in 0..10 * count + 20 {
                let range = address.checked_sub(5).map(|it| it / 10);
                let want = range.filter(|_| count > 0).map(|it| ClassId(it.min(count - 1)));
                assert_eq!(ranges.class_of(address), want, "{address} of {count}");
            }
        }
    }

    #[test]
    fn the_last_begin_at_a_place_counts() {
        let ranges = Ranges::of(Vec::from([(1, ClassId(1)), (2, ClassId(7)), (2, ClassId(1))]));
        assert_eq!(ranges, Ranges::of(Vec::from([(1, ClassId(1))])));
    }
}
