//! Who owns an address, and what owning nothing means.

use super::*;
use crate::model::{EntityMatch, Lifecycle, Peers, Timestamp};

const SHARED: &str = "10.0.0.77";

fn claimant(name: &str, uid: &str, created: i64, lifecycle: Lifecycle) -> Endpoint {
    let mut endpoint = pod("shop", name, name, &[SHARED]);
    endpoint.id = endpoint.id.with_uid(uid);
    endpoint.created = Timestamp(created);
    endpoint.lifecycle = lifecycle;
    endpoint
}

#[test]
fn an_address_belongs_to_the_newest_running_endpoint() {
    use Lifecycle::{Finished, Running};
    for (case, claims, owner) in [
        ("the newer", [("old", "9", 1, Running), ("new", "1", 2, Running)], Some("new")),
        ("the running one", [("old", "1", 1, Running), ("new", "2", 2, Finished)], Some("old")),
        ("the greater UID", [("a", "2", 1, Running), ("b", "1", 1, Running)], Some("a")),
        ("the greater id", [("a", "1", 1, Running), ("b", "1", 1, Running)], Some("b")),
        ("nobody", [("a", "1", 1, Finished), ("b", "1", 2, Finished)], None),
    ] {
        let claims = claims
            .map(|(name, uid, created, lifecycle)| claimant(name, uid, created, lifecycle).into());
        let inputs = cluster(claims);
        let capabilities = Capabilities::all();
        let judgement =
            Judge::new(&inputs, &capabilities).evaluate(&tcp(SHARED, SHARED, 1)).enforced;
        let owner = owner.map(str::to_string);
        assert_eq!(judgement.source.map(|id| id.name), owner, "{case}");
        assert_eq!(judgement.destination.map(|id| id.name), owner, "{case}");
    }
}

#[test]
fn only_the_owner_is_subject_and_peer() {
    let mut from_old = policy("from-old", "A", "-").subject("app == 'db'");
    from_old.ingress.as_mut().unwrap()[0].matches.source = EntityMatch {
        peers: Some(Peers::Endpoints(selector("app == 'old'"))),
        ..Default::default()
    };
    let for_old = policy("for-old", "-", "").subject("app == 'old'");
    let denied = "deny: no rule matched in tier `default`; asked: from-old";
    let for_old_denied = "deny: no rule matched in tier `default`; asked: for-old";
    let from_old_allowed = "allow: rule from-old ingress[0]";
    let old = |lifecycle| Object::from(claimant("old", "", 1, lifecycle));
    let new = || Object::from(claimant("new", "", 2, Lifecycle::Running));

    for (case, endpoints, egress, ingress) in [
        ("the old one runs", vec![old(Lifecycle::Running)], for_old_denied, from_old_allowed),
        ("the old one has finished", vec![old(Lifecycle::Finished)], NO_ENDPOINT, denied),
        ("the address is used again", vec![old(Lifecycle::Finished), new()], DEFAULT_ALLOW, denied),
        ("the old one is still there", vec![old(Lifecycle::Running), new()], DEFAULT_ALLOW, denied),
    ] {
        let more = endpoints.into_iter().chain([from_old.clone().into(), for_old.clone().into()]);
        check(case, &cluster(more), tcp(SHARED, DB, 1), egress, ingress);
    }
}

#[test]
fn an_endpoint_that_lost_one_address_keeps_its_others() {
    let mut old = claimant("old", "", 1, Lifecycle::Running);
    old.addresses.push(address("10.0.0.78"));
    let new = claimant("new", "", 2, Lifecycle::Running);
    let inputs =
        cluster([old.into(), new.into(), policy("p", "", "-").subject("app == 'old'").into()]);
    let denied = "deny: no rule matched in tier `default`; asked: p";
    check("lost", &inputs, tcp(OUTSIDE, SHARED, 1), NO_ENDPOINT, DEFAULT_ALLOW);
    check("kept", &inputs, tcp(OUTSIDE, "10.0.0.78", 1), NO_ENDPOINT, denied);
}

#[test]
fn an_endpoint_without_addresses_is_nobody() {
    let inputs =
        cluster([pod("shop", "starting", "starting", &[]).into(), policy("p", "", "").into()]);
    check("its future address", &inputs, tcp(SHARED, OUTSIDE, 1), NO_ENDPOINT, NO_ENDPOINT);
}
