//! What Calico's objects may be called.
//!
//! Source: V22 of Calico's validator, `libcalico-go/lib/validator/v3`.

use super::super::manifest::NameSyntax;
use super::super::names::{DNS_LABEL, is_dns_label, is_dns_subdomain};

/// What stands before the names of Calico's own copies of Kubernetes and OpenStack policies.
const COPIES: [&str; 2] = ["knp.default.", "ossg.default."];

/// The names of tiers.
pub(super) const TIER: NameSyntax = NameSyntax { is_valid: is_dns_label, expected: DNS_LABEL };

/// The names of policies of the whole cluster.
pub(super) const GLOBAL_POLICY: NameSyntax = NameSyntax {
    is_valid: is_policy_name,
    expected: "one or two parts with a `.` between them, each at most 63 lower-case letters, digits and `-`, beginning \
     and ending with a letter or digit",
};

/// The names of policies of a namespace.
pub(super) const POLICY: NameSyntax =
    NameSyntax { is_valid: is_namespaced_policy_name, expected: GLOBAL_POLICY.expected };

fn is_policy_name(name: &str) -> bool {
    match name.split_once('.') {
        Some((tier, name)) => is_dns_label(tier) && is_dns_label(name),
        None => is_dns_label(name),
    }
}

fn is_namespaced_policy_name(name: &str) -> bool {
    let original = COPIES.iter().find_map(|prefix| name.strip_prefix(prefix));
    is_policy_name(name) || (name.len() <= 253 && original.is_some_and(is_dns_subdomain))
}
