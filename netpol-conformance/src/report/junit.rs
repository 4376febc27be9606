//! Reports for continuous integration.

use quick_junit::{
    NonSuccessKind, Report as Junit, SerializeError, TestCase, TestCaseStatus, TestSuite,
};

use super::{Report, Row, Status};

/// Returns the report in JUnit's XML: one suite per scenario and backend, one case per probe.
///
/// # Errors
///
/// If the XML cannot be written.
pub fn junit(report: &Report) -> Result<String, SerializeError> {
    let mut document = Junit::new("netpol-conformance");
    for rows in report.results.chunk_by(|a, b| (&a.file, &a.backend) == (&b.file, &b.backend)) {
        if let Some(Row { scenario, backend, .. }) = rows.first() {
            let mut suite = TestSuite::new(printable(&format!("{scenario} on {backend}")));
            suite.add_test_cases(rows.iter().map(case));
            document.add_test_suite(suite);
        }
    }
    document.to_string()
}

fn case(row: &Row) -> TestCase {
    let mut status = match row.status {
        Status::Pass => TestCaseStatus::success(),
        Status::Fail => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Status::Skip => TestCaseStatus::skipped(),
    };
    if row.status != Status::Pass {
        status.set_message(printable(&row.reason));
    }
    let name = match &row.step {
        Some(step) => format!("{step}: {}", row.probe()),
        None => row.scenario.clone(),
    };
    let mut case = TestCase::new(printable(&name), status);
    case.set_classname(printable(&format!("{}.{}", row.backend, row.scenario)));
    case
}

/// Leaves out the noncharacters that XML 1.0 forbids (section 2.2); the writer leaves out control characters.
fn printable(text: &str) -> String {
    text.replace(['\u{fffe}', '\u{ffff}'], "")
}
