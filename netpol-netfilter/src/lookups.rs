//! When sets may change in place.

/// What the rules of one policy do with one set, of which packets look up the fields `F`.
///
/// The kernel chooses a packet's rules once, but looks keys up in what is in a set at that moment: a packet that is on its way
/// while several sets change may make some lookups before a change and some after it. It must be judged as by all sets of
/// before, or by all of after. That is so where
///
/// * it makes one lookup at most in sets that change, or
/// * all that changes pulls the same way: whatever the packet sees of it then allows no more than the one state and no less
///   than the other. So it is with rules that allow members of sets, as most do, when a pod comes or goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lookups<F> {
    count: usize,
    /// What more members do to what passes; `None` if lookups differ in that, or if it cannot be told.
    effect: Option<Effect>,
    /// What is looked up, `None` if lookups differ in that.
    fields: Option<F>,
}

/// What more members of a set do to what passes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "more passes or less")]
pub enum Effect {
    /// More passes.
    Widens,
    /// Less passes.
    Narrows,
}

/// How the members of a set change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "members come, go, or both")]
pub enum Way {
    /// Some come.
    Grows,
    /// Some go.
    Shrinks,
    /// Some come and some go; of each packet's key at most one of both is true.
    Both,
}

impl Effect {
    /// Returns the opposite effect, as that of a rule for what is not in the set.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::Widens => Self::Narrows,
            Self::Narrows => Self::Widens,
        }
    }
}

impl Way {
    /// Returns how a set changes of which some members come or not, and some go or not.
    #[must_use]
    pub fn of<T>(come: &[T], go: &[T]) -> Self {
        match (come, go) {
            ([_, ..], []) => Self::Grows,
            ([], [_, ..]) => Self::Shrinks,
            _ => Self::Both,
        }
    }
}

impl<F: Copy + PartialEq> Lookups<F> {
    /// Returns one lookup.
    pub const fn once(fields: F, effect: Option<Effect>) -> Self {
        Self { count: 1, effect, fields: Some(fields) }
    }

    /// Adds other lookups in the same set.
    pub fn join(&mut self, other: Self) {
        self.count += other.count;
        self.effect = self.effect.filter(|_| self.effect == other.effect);
        self.fields = self.fields.filter(|_| self.fields == other.fields);
    }

    /// Returns whether a packet could be judged by neither state while these sets change under a policy that stays.
    pub fn are_torn(changed: &[(Self, Way)]) -> bool {
        match changed {
            [] => false,
            [(one, _)] if one.count <= 1 => false,
            // All lookups are of one key, which comes or goes.
            [(one, Way::Both)] => one.effect.is_none() || one.fields.is_none(),
            [(first, way), rest @ ..] => {
                let pull = first.pull(*way);
                pull.is_none() || rest.iter().any(|(it, way)| it.pull(*way) != pull)
            }
        }
    }

    /// Returns what a change does to what passes.
    fn pull(self, way: Way) -> Option<Effect> {
        match way {
            Way::Grows => self.effect,
            Way::Shrinks => self.effect.map(Effect::reversed),
            Way::Both => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Effect::{Narrows, Widens};
    use super::Way::{Both, Grows, Shrinks};
    use super::*;

    /// Lookups in one set: what they look up, and what members do.
    type Rules<'a> = &'a [(char, Option<Effect>)];

    #[test]
    fn what_pulls_one_way_may_change_in_place() {
        let (allow, deny, pass) = (Some(Widens), Some(Narrows), None);
        let cases: &[(&[(Rules<'_>, Way)], bool)] = &[
            (&[], false),
            (&[(&[('s', pass)], Both)], false),
            (&[(&[('s', pass), ('s', deny)], Shrinks)], true),
            (&[(&[('s', allow), ('s', deny)], Shrinks)], true),
            (&[(&[('s', allow), ('s', allow)], Both)], false),
            (&[(&[('s', allow), ('d', allow)], Both)], true),
            (&[(&[('s', allow), ('d', allow)], Grows)], false),
            (&[(&[('s', allow)], Grows), (&[('s', allow)], Grows)], false),
            (&[(&[('s', allow)], Grows), (&[('s', allow)], Shrinks)], true),
            (&[(&[('s', allow)], Grows), (&[('s', deny)], Shrinks)], false),
            (&[(&[('s', allow)], Both), (&[('s', allow)], Both)], true),
            (&[(&[('s', pass)], Grows), (&[('s', pass)], Grows)], true),
        ];
        for (sets, want) in cases {
            let changed = sets.iter().filter_map(|(rules, way)| {
                let each = rules.iter().map(|(fields, effect)| Lookups::once(*fields, *effect));
                let joined = each.reduce(|mut all, it| {
                    all.join(it);
                    all
                });
                Some((joined?, *way))
            });
            assert_eq!(Lookups::are_torn(&changed.collect::<Vec<_>>()), *want, "{sets:?}");
        }
    }
}
