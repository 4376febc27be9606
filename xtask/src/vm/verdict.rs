//! What a run of the conformance binary in the machine has shown.

use crate::Result;

/// Returns how many probes passed on `backend`, which are some, while none failed and the run came to its end.
///
/// `output` is that of `init.sh`: a line with the kernel, the report for people, and a line with the exit status. Both
/// the status and the numbers in the report have to be good.
///
/// # Errors
///
/// If anything else was shown.
pub(super) fn passed(output: &str, release: &str, backend: &str) -> Result<u64> {
    let (lines, status) = complete(output, release)?;
    match (status, lines.iter().find_map(|line| counts(line, backend))) {
        ("0", Some([pass, 0, _])) if pass > 0 => Ok(pass),
        (_, Some([pass, fail, _])) => {
            Err(format!("{pass} passed, {fail} failed, exit status {status}").into())
        }
        (_, None) => Err(format!("no results, exit status {status}").into()),
    }
}

/// Returns how many tests passed, which are some, while none failed and the run came to its end.
///
/// # Errors
///
/// If anything else was shown.
pub(super) fn tests_passed(output: &str, release: &str) -> Result<u64> {
    let (lines, status) = complete(output, release)?;
    let result = lines.iter().find_map(|line| line.strip_prefix("test result: "));
    let result = result.ok_or_else(|| format!("no results, exit status {status}"))?;
    let passed = result.strip_prefix("ok. ").and_then(|rest| rest.split_once(" passed; 0 failed;"));
    match passed.map(|(passed, _)| passed.parse()) {
        Some(Ok(passed)) if passed > 0 && status == "0" => Ok(passed),
        _ => Err(format!("{result}, exit status {status}").into()),
    }
}

/// Returns the lines of a run of the right kernel, and its exit status.
fn complete<'a>(output: &'a str, release: &str) -> Result<(Vec<&'a str>, &'a str)> {
    let lines: Vec<_> = output.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let kernel = lines.first().and_then(|line| line.strip_prefix("kernel "));
    if kernel != Some(release) {
        return Err(format!("another kernel ran: `{}`", kernel.unwrap_or_default()).into());
    }
    let status = lines.last().and_then(|line| line.strip_prefix("status "));
    let status = status.ok_or("the run did not come to its end")?;
    Ok((lines, status))
}

/// Reads a line of the table at the end of the report: the backend, and how many passed, failed and were skipped.
fn counts(line: &str, backend: &str) -> Option<[u64; 3]> {
    let mut words = line.split_whitespace();
    if words.next() != Some(backend) {
        return None;
    }
    let numbers: Vec<u64> = words.map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "kernel 6.1.0-1\nbackend     pass     fail     skip\n\
                        nft         1664        0        2\nstatus 0\n";

    fn judged(output: &str) -> std::result::Result<u64, String> {
        passed(output, "6.1.0-1", "nft").map_err(|error| error.to_string())
    }

    #[test]
    fn a_run_with_passed_probes_and_no_failure_is_good() {
        assert_eq!(judged(GOOD), Ok(1664));
        assert_eq!(judged(&GOOD.replace('\n', "\r\n")), Ok(1664));
    }

    #[test]
    fn everything_else_is_not() {
        for (from, to, error) in [
            ("1664        0", "1663        1", "1663 passed, 1 failed, exit status 0"),
            ("1664", "0", "0 passed, 0 failed, exit status 0"),
            ("status 0", "status 1", "1664 passed, 0 failed, exit status 1"),
            ("status 0", "", "the run did not come to its end"),
            ("nft ", "ebpf ", "no results, exit status 0"),
            ("6.1.0-1", "6.18", "another kernel ran: `6.18`"),
        ] {
            assert_eq!(judged(&GOOD.replace(from, to)), Err(error.to_owned()), "{to}");
        }
        assert!(judged("").is_err());
    }

    #[test]
    fn tests_have_to_pass_and_to_be_some() {
        let judged = |result: &str, status: u8| {
            let output = format!(
                "kernel 6.1.0-1\ntest a ... ok\n\ntest result: {result}; 0 ignored\nstatus {status}\n"
            );
            tests_passed(&output, "6.1.0-1").map_err(|error| error.to_string())
        };
        assert_eq!(judged("ok. 12 passed; 0 failed", 0), Ok(12));
        assert!(judged("ok. 0 passed; 0 failed", 0).is_err());
        assert!(judged("ok. 12 passed; 0 failed", 101).is_err());
        assert!(judged("FAILED. 12 passed; 1 failed", 101).is_err());
        assert!(tests_passed("kernel 6.1.0-1\nstatus 0\n", "6.1.0-1").is_err());
    }
}
