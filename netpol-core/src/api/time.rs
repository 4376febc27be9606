//! Points in time as API servers write them.

use crate::model::Timestamp;

/// Returns the point in time that `text` stands for, `None` if it is none.
///
/// Takes what API servers write: RFC 3339 in UTC to the second, `2026-01-31T08:00:00Z`.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    // The last second of a minute may be a leap second.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let hours = days_since_1970(year, month, day)?.checked_mul(24)?.checked_add(hour)?;
    let minutes = hours.checked_mul(60)?.checked_add(minute)?;
    Some(Timestamp(minutes.checked_mul(60)?.checked_add(second)?))
}

/// Splits `text` into numbers of these many digits.
fn numbers(text: &str, separator: char, digits: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; 3];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Counts days in the Gregorian calendar, `None` if there is no such date.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    /// Days from 0000-03-01 to 1970-01-01.
    const TO_1970: i64 = 719_468;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) {
        return None;
    }
    // Years begin in March, so that the leap day is the last of its year. `year` has four digits: nothing overflows.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - TO_1970)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, want) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59Z", Some(-1)),
            ("2000-02-29T12:00:00Z", Some(951_825_600)),
            ("2000-03-01T00:00:00Z", Some(951_868_800)),
            ("2026-11-21T02:02:26Z", Some(1_795_226_546)),
            ("2038-01-19T03:14:08Z", Some(2_147_483_648)),
            ("0000-01-01T00:00:00Z", Some(-62_167_219_200)),
            ("9999-12-31T23:59:60Z", Some(253_402_300_800)),
            ("2023-02-29T00:00:00Z", None),
            ("1900-02-29T00:00:00Z", None),
            ("2023-13-01T00:00:00Z", None),
            ("2023-00-01T00:00:00Z", None),
            ("2023-04-31T00:00:00Z", None),
            ("2023-01-00T00:00:00Z", None),
            ("2023-01-01T24:00:00Z", None),
            ("2023-01-01T00:00:00", None),
            ("2023-01-01T00:00:00+01:00", None),
            ("2023-01-01 00:00:00Z", None),
            ("2023-1-1T00:00:00Z", None),
            ("2023-01-01-01T00:00:00Z", None),
            ("+023-01-01T00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(parse_time(text), want.map(Timestamp), "{text}");
        }
    }
}
