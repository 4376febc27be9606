//! What Log rules write, and how often.

use std::fmt;
use std::str::FromStr;

use netpol_core::Direction;
use netpol_core::model::PolicyKind;
use netpol_core::program::{Digest, Rule};

/// How Log rules record packets: to an NFLOG group, with a prefix, and never more often than a rate.
///
/// What a rule is called stays out of it, because tenants choose that. Who reads the log finds the policy by the rule's
/// id: [`Program::rule`](netpol_core::Program::rule).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "where, what and how often")]
pub struct Logging {
    /// The NFLOG group.
    pub group: u16,
    /// What each message begins with.
    pub prefix: LogPrefix,
    /// How often one rule logs. Verdicts do not depend on it.
    pub rate: LogRate,
}

impl Logging {
    /// Group 100, the prefix `np1:%d:%i`, 10 packets a second.
    pub const DEFAULT: Self =
        Self { group: 100, prefix: LogPrefix::DEFAULT, rate: LogRate::DEFAULT };
}

impl Default for Logging {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The template of a log prefix.
///
/// | code | stands for | bytes |
/// |---|---|---|
/// | `%i` | the id of the rule | 24 |
/// | `%d` | the direction: `in` or `eg` | 2 |
/// | `%k` | the kind of the policy: `knp`, `kcnp`, `kanp`, `kbanp`, `np` or `gnp` | up to 5 |
///
/// There is none for names of policies, namespaces and tiers: tenants choose those.
///
/// Invariants: 1 to [`MAX_BYTES`](Self::MAX_BYTES) bytes: letters, digits, spaces, `-_.:/=,[]()` and the codes, which no
/// tool takes for something else.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct LogPrefix {
    /// Padded with NULs.
    bytes: [u8; Self::MAX_BYTES],
}

/// Why a text is no template of a log prefix.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LogPrefixError {
    /// The text is empty or too long.
    #[error("log prefix `{text}` has {} bytes, expected 1 to {max}", text.len(), max = LogPrefix::MAX_BYTES)]
    Length {
        /// The text as given.
        text: String,
    },
    /// The text has a character that tools could take for something else.
    #[error(
        "log prefix `{text}` has the character {found:?}, expected letters, digits, spaces and `-_.:/=,[]()`"
    )]
    Character {
        /// The text as given.
        text: String,
        /// The character.
        found: char,
    },
    /// The text has a code that there is not.
    #[error(
        "log prefix `{text}` has the code `%{found}`, expected `%i` (rule id), `%d` (direction) or `%k` (kind); names are chosen by tenants and cannot be logged"
    )]
    Code {
        /// The text as given.
        text: String,
        /// What follows the percent sign.
        found: String,
    },
}

impl LogPrefix {
    /// The longest template, in bytes. What a kernel takes is another matter: see [`longest`](Self::longest).
    pub const MAX_BYTES: usize = 63;

    const DEFAULT: Self = {
        let text = b"np1:%d:%i";
        let mut bytes = [0; Self::MAX_BYTES];
        bytes.split_at_mut(text.len()).0.copy_from_slice(text);
        Self { bytes }
    };

    /// Returns the prefix of a rule's messages.
    #[must_use]
    pub fn of(&self, rule: &Rule, direction: Direction) -> String {
        let id = rule.id.to_string();
        let direction = match direction {
            Direction::Ingress => "in",
            Direction::Egress => "eg",
        };
        self.with(&id, direction, short(rule.origin.policy.kind))
    }

    /// Returns how many bytes the longest prefix has that the template stands for.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.with(&"0".repeat(Digest::LEN * 2), "in", LONGEST_KIND).len()
    }

    fn with(&self, id: &str, direction: &str, kind: &str) -> String {
        self.as_str().replace("%i", id).replace("%d", direction).replace("%k", kind)
    }

    fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|&byte| byte == 0).unwrap_or(self.bytes.len());
        self.bytes.get(..end).and_then(|it| std::str::from_utf8(it).ok()).unwrap_or_default()
    }
}

const LONGEST_KIND: &str = "kbanp";

/// Returns the short word for a kind. Staged policies are never enforced.
fn short(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::KubernetesNetworkPolicy => "knp",
        PolicyKind::KubernetesClusterNetworkPolicy => "kcnp",
        PolicyKind::KubernetesAdminNetworkPolicy => "kanp",
        PolicyKind::KubernetesBaselineAdminNetworkPolicy => LONGEST_KIND,
        PolicyKind::NetworkPolicy => "np",
        PolicyKind::GlobalNetworkPolicy => "gnp",
        _ => "?",
    }
}

impl FromStr for LogPrefix {
    type Err = LogPrefixError;

    fn from_str(text: &str) -> Result<Self, LogPrefixError> {
        let mut bytes = [0; Self::MAX_BYTES];
        match bytes.get_mut(..text.len()) {
            Some(place) if !text.is_empty() => place.copy_from_slice(text.as_bytes()),
            _ => return Err(LogPrefixError::Length { text: text.to_owned() }),
        }
        let known = |it: &char| it.is_ascii_alphanumeric() || "%-_.:/=,[]() ".contains(*it);
        if let Some(found) = text.chars().find(|it| !known(it)) {
            return Err(LogPrefixError::Character { text: text.to_owned(), found });
        }
        let mut codes = text.split('%').skip(1).map(|after| after.get(..1).unwrap_or_default());
        match codes.find(|code| !matches!(*code, "i" | "d" | "k")) {
            Some(found) => {
                Err(LogPrefixError::Code { text: text.to_owned(), found: found.to_owned() })
            }
            None => Ok(Self { bytes }),
        }
    }
}

impl fmt::Display for LogPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for LogPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// How often a rule logs: so many packets in a period, after a burst.
///
/// There is no "always": tenants choose what is logged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogRate {
    packets: u16,
    period: Period,
    burst: u16,
}

/// The unit of a [`LogRate`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the units that both tools have")]
pub enum Period {
    /// A second.
    Second,
    /// 60 seconds.
    Minute,
    /// 3600 seconds.
    Hour,
    /// 86 400 seconds.
    Day,
}

/// A number of packets that is none of a rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{packets} packets are no rate or burst, expected 1 to {max}", max = LogRate::MAX)]
#[non_exhaustive]
pub struct LogRateError {
    /// The number as given.
    pub packets: u16,
}

impl LogRate {
    /// The most packets of a period, and of a burst. Source: `LogActionRateLimit` of Calico's FelixConfiguration.
    pub const MAX: u16 = 9_999;
    /// The burst if none is given: that of `nft` and `iptables`.
    pub const BURST: u16 = 5;

    const DEFAULT: Self = Self { packets: 10, period: Period::Second, burst: Self::BURST };

    /// Returns the rate of so many packets in a period, with a burst of [`BURST`](Self::BURST).
    ///
    /// # Errors
    ///
    /// [`LogRateError`] unless there are 1 to [`MAX`](Self::MAX).
    pub const fn new(packets: u16, period: Period) -> Result<Self, LogRateError> {
        match packets {
            1..=Self::MAX => Ok(Self { packets, period, burst: Self::BURST }),
            _ => Err(LogRateError { packets }),
        }
    }

    /// Returns the rate with another burst.
    ///
    /// # Errors
    ///
    /// [`LogRateError`] unless it has 1 to [`MAX`](Self::MAX) packets.
    pub const fn with_burst(self, burst: u16) -> Result<Self, LogRateError> {
        match burst {
            1..=Self::MAX => Ok(Self { burst, ..self }),
            _ => Err(LogRateError { packets: burst }),
        }
    }

    /// Returns how many packets of a period are logged.
    #[must_use]
    pub const fn packets(self) -> u16 {
        self.packets
    }

    /// Returns the period.
    #[must_use]
    pub const fn period(self) -> Period {
        self.period
    }

    /// Returns how many packets are logged at once, after a silence.
    #[must_use]
    pub const fn burst(self) -> u16 {
        self.burst
    }
}

impl fmt::Display for LogRate {
    /// Writes what `nft` and `iptables` call the rate, without the burst: `10/second`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.period {
            Period::Second => "second",
            Period::Minute => "minute",
            Period::Hour => "hour",
            Period::Day => "day",
        };
        write!(f, "{}/{unit}", self.packets)
    }
}

impl Period {
    /// Every period.
    pub const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    /// Returns its length, in seconds.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }
}

#[cfg(test)]
mod tests {
    use netpol_core::RuleRef;
    use netpol_core::model::{Action, PolicyKey};
    use netpol_core::program::RuleId;

    use super::*;

    fn expanded(template: &str) -> Result<String, String> {
        let prefix: LogPrefix =
            template.parse().map_err(|error: LogPrefixError| error.to_string())?;
        assert_eq!(prefix.to_string(), template);
        let policy = PolicyKey::kubernetes("secret-namespace", "secret-name");
        let direction = Direction::Egress;
        let origin = RuleRef { policy, direction, index: 0, name: Some("secret-rule".to_owned()) };
        let id = RuleId::new(Digest::from_bytes([0xab; Digest::LEN]));
        let text = prefix.of(&Rule::matching_all(id, origin, Action::Log), direction);
        assert!(text.len() <= prefix.longest(), "{text}");
        assert!(!text.contains("secret"), "{text}");
        Ok(text)
    }

    #[test]
    fn templates_stand_for_what_tenants_do_not_choose() {
        let id = "ab".repeat(12);
        for (template, want) in [
            (LogPrefix::DEFAULT.as_str(), format!("np1:eg:{id}")),
            ("%i%i", format!("{id}{id}")),
            ("[netpol] %k %d: ", "[netpol] knp eg: ".to_owned()),
            ("a-b_c.d/e=(f),", "a-b_c.d/e=(f),".to_owned()),
        ] {
            assert_eq!(expanded(template), Ok(want));
        }
        assert_eq!(LogPrefix::DEFAULT.longest(), 31);
        let kinds = "%k".parse().map(|it: LogPrefix| it.longest());
        assert_eq!(kinds, Ok(5));
    }

    #[test]
    fn nothing_else_is_a_template() {
        let long = "x".repeat(LogPrefix::MAX_BYTES + 1);
        for (template, want) in [
            ("", "log prefix `` has 0 bytes, expected 1 to 63".to_owned()),
            (long.as_str(), format!("log prefix `{long}` has 64 bytes, expected 1 to 63")),
            (
                "a\"b",
                "log prefix `a\"b` has the character '\"', expected letters, digits, spaces and `-_.:/=,[]()`"
                    .to_owned(),
            ),
            (
                "a\n",
                "log prefix `a\n` has the character '\\n', expected letters, digits, spaces and `-_.:/=,[]()`"
                    .to_owned(),
            ),
            (
                "é",
                "log prefix `é` has the character 'é', expected letters, digits, spaces and `-_.:/=,[]()`"
                    .to_owned(),
            ),
            (
                "%n",
                "log prefix `%n` has the code `%n`, expected `%i` (rule id), `%d` (direction) or `%k` (kind); names are chosen by tenants and cannot be logged"
                    .to_owned(),
            ),
            (
                "5%",
                "log prefix `5%` has the code `%`, expected `%i` (rule id), `%d` (direction) or `%k` (kind); names are chosen by tenants and cannot be logged"
                    .to_owned(),
            ),
        ] {
            assert_eq!(expanded(template), Err(want));
        }
        for text in ["$", "`", "\\", "'", "*", "{", ";", "\0", "!"] {
            assert!(expanded(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_have_bounds() {
        for packets in [0, 10_000, u16::MAX] {
            assert_eq!(LogRate::new(packets, Period::Day), Err(LogRateError { packets }));
            assert_eq!(LogRate::DEFAULT.with_burst(packets), Err(LogRateError { packets }));
        }
        let text =
            |rate: Result<LogRate, LogRateError>| rate.map(|it| (it.to_string(), it.burst()));
        assert_eq!(text(LogRate::new(9_999, Period::Minute)), Ok(("9999/minute".to_owned(), 5)));
        assert_eq!(text(LogRate::DEFAULT.with_burst(1)), Ok(("10/second".to_owned(), 1)));
    }
}
