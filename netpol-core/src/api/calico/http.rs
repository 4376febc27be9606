//! Conditions on HTTP requests.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;

use serde::Deserialize;

use super::super::field::{Extra, Field, List};
use super::super::manifest::optional_text;
use super::super::report::{Path, Report};
use crate::model::{self, HttpMatch, HttpPathMatch};

/// Most methods, and most paths, of a rule.
///
/// Source: `HTTPMatch` in Calico's `api/pkg/apis/projectcalico/v3`.
const MAX_ENTRIES: usize = 20;

/// `http` of a rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
pub(super) struct Http {
    methods: List<String>,
    paths: List<HttpPath>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct HttpPath {
    exact: Field<String>,
    prefix: Field<String>,
    #[serde(flatten)]
    extra: Extra,
}

impl Http {
    pub(super) fn read(&self, at: &Path<'_>, report: &mut Report) -> HttpMatch {
        let Self { methods, paths, extra } = self;
        report.unknown_fields(Some(at), extra);
        let mut read = HttpMatch::default();
        let methods_at = at.field("methods");
        report.each_item_up_to(MAX_ENTRIES, &methods_at, methods, "a method", |report, at, it| {
            if !read.methods.insert(it.clone()) {
                report.refuse(at, format!("`{it}` is listed before, expected each method once"));
            }
        });
        let mut conditions = BTreeSet::new();
        let paths_at = at.field("paths");
        report.each_item_up_to(MAX_ENTRIES, &paths_at, paths, "an object", |report, at, path| {
            conditions.extend(path.read(at, report));
        });
        read.paths = conditions;
        read
    }
}

impl HttpPath {
    fn read(&self, at: &Path<'_>, report: &mut Report) -> Option<HttpPathMatch> {
        let Self { exact, prefix, extra } = self;
        report.unknown_fields(Some(at), extra);
        let (exact_at, prefix_at) = (at.field("exact"), at.field("prefix"));
        let exact = report.complete(|report| optional_text(report, &exact_at, exact));
        let prefix = report.complete(|report| optional_text(report, &prefix_at, prefix));
        match (exact?, prefix?) {
            (Some(path), None) => checked_path(&exact_at, path, report).map(HttpPathMatch::Exact),
            (None, Some(path)) => checked_path(&prefix_at, path, report).map(HttpPathMatch::Prefix),
            (Some(_), Some(_)) => {
                report.refuse(at, "both `exact` and `prefix`, expected one of them");
                None
            }
            (None, None) => {
                report.refuse(at, "empty, expected `exact` or `prefix`");
                None
            }
        }
    }
}

fn checked_path(at: &Path<'_>, path: &str, report: &mut Report) -> Option<model::HttpPath> {
    if !path.starts_with('/') || path.contains(['?', '#', ' ']) {
        report.refuse(
            at,
            format!("`{path}` is not a path, expected one that begins with `/`, without `?`, `#` and spaces"),
        );
        return None;
    }
    match path.parse() {
        Ok(path) => Some(path),
        // Calico accepts it, and then no request meets it.
        Err(error) => {
            report.refuse(at, format!("`{path}` has {error}"));
            None
        }
    }
}
