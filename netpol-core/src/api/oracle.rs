//! What the APIs document about selectors and blocks, on JSON: it shares no code with the conversions.

#![expect(clippy::unwrap_used, reason = "test code")]

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use serde_json::Value;

/// Items of a list, where nothing and null are empty.
pub(super) fn items<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// Returns whether an address is in a block.
pub(super) fn is_in(address: Ipv4Addr, cidr: &Value) -> bool {
    let (net, len) = cidr.as_str().unwrap().split_once('/').unwrap();
    let (net, len): (Ipv4Addr, u32) = (net.parse().unwrap(), len.parse().unwrap());
    let ignored = 32 - len;
    u64::from(net.to_bits()) >> ignored == u64::from(address.to_bits()) >> ignored
}

/// Returns whether a label selector selects what has these labels.
pub(super) fn selects<'l>(selector: &Value, label: impl Fn(&str) -> Option<&'l str>) -> bool {
    let mut pairs = selector["matchLabels"].as_object().into_iter().flatten();
    let holds = |requirement: &Value| {
        let value = label(requirement["key"].as_str().unwrap());
        let is_listed =
            value.is_some_and(|it| items(requirement, "values").iter().any(|listed| listed == it));
        match requirement["operator"].as_str().unwrap() {
            "In" => is_listed,
            "NotIn" => !is_listed,
            "Exists" => value.is_some(),
            _ => value.is_none(),
        }
    };
    pairs.all(|(key, value)| label(key) == value.as_str())
        && items(selector, "matchExpressions").iter().all(holds)
}
