//! Rules about HTTP requests.

use super::*;
use crate::flow::Payload;
use crate::model::{HttpMatch, HttpPathMatch, HttpRequest, L4Match};

/// Returns a rule about requests with this method and a path below this one.
fn rule(index: usize, action: Action, method: &str, prefix: &str) -> Rule {
    let paths = [HttpPathMatch::Prefix(prefix.parse().unwrap())].into();
    let http = Some(HttpMatch { methods: [method.into()].into(), paths });
    let l4 = L4Match::Is(Protocol::TCP);
    Rule::new(index, action, RuleMatch { l4, http, ..RuleMatch::default() })
}

/// Returns policy `p` with this list for ingress.
fn only(rules: Vec<Rule>) -> Inputs {
    let mut p = policy("p", "", "-");
    p.ingress = Some(rules);
    policies(vec![p])
}

/// Returns what the judge says of ingress at the database.
fn judged(
    inputs: &Inputs,
    capabilities: &Capabilities,
    flow: Flow,
    request: Option<&str>,
) -> String {
    let judge = Judge::new(inputs, capabilities);
    let evaluation = match request.and_then(|it| it.split_once(' ')) {
        Some((method, path)) => {
            judge.evaluate_request(&flow, &HttpRequest::new(method, path).unwrap())
        }
        None => judge.evaluate(&flow),
    };
    evaluation.enforced.ingress.to_string().replace("GlobalNetworkPolicy ", "")
}

const ALLOWED: &str = "allow: rule p ingress[0]";
const DENIED: &str = "deny: no rule matched in tier `default`; asked: p";

#[test]
fn requests_are_judged_where_somebody_judges_them() {
    let inputs = only(vec![rule(0, Action::Allow, "GET", "/shop")]);
    for (request, want) in [
        ("GET /shop", ALLOWED),
        ("GET /shop/x?q", ALLOWED),
        ("PUT /shop", DENIED),
        ("GET /shopping", DENIED),
        ("GET /shop/../admin", DENIED),
        ("GET /shop/%252e%252e/admin", DENIED),
    ] {
        let said = judged(&inputs, &Capabilities::all(), tcp(OUTSIDE, DB, 80), Some(request));
        assert_eq!(said, want, "{request}");
    }
}

#[test]
fn a_connection_passes_that_may_carry_a_request() {
    let inputs = only(vec![rule(0, Action::Allow, "GET", "/shop")]);
    assert_eq!(
        judged(&inputs, &Capabilities::all(), tcp(OUTSIDE, DB, 80), None),
        [
            "p ingress[0] lets the connection pass; its HTTP requests are judged one by one; ",
            ALLOWED
        ]
        .concat(),
    );
    let udp = Flow::to_port(address(OUTSIDE), address(DB), Udp, 80);
    assert_eq!(judged(&inputs, &Capabilities::all(), udp, None), DENIED);
    let odd = Flow { payload: Payload::Other(Protocol::new(47)), ..udp };
    assert_eq!(judged(&inputs, &Capabilities::all(), odd, None), DENIED);
}

/// Without anybody who judges requests, no request and no connection passes.
#[test]
fn where_nobody_judges_requests_the_rule_is_left_out() {
    let inputs = only(vec![rule(0, Action::Allow, "GET", "/shop")]);
    let left_out =
        "p ingress[0] is left out: it is about HTTP requests, and nothing here judges them; ";
    let mut capabilities = Capabilities::all();
    capabilities.http = false;
    for request in [None, Some("GET /shop")] {
        let said = judged(&inputs, &capabilities, tcp(OUTSIDE, DB, 80), request);
        assert_eq!(said, [left_out, DENIED].concat());
    }
    assert_eq!(judged(&inputs, &capabilities, tcp(OUTSIDE, DB, 80), Some("PUT /shop")), DENIED);
}

/// No API has such rules: nobody says what they mean, so they never widen what passes.
#[test]
fn only_an_allow_of_tcp_can_be_about_requests() {
    let left_out =
        "p ingress[0] is left out: it is about HTTP requests, and nothing here judges them; ";
    let tightened = "p ingress[0] denies whatever it may mean: it is about HTTP requests, and nothing here judges them; ";
    for (action, said, then) in [
        (Action::Log, left_out, DENIED),
        (Action::Deny, tightened, "deny: rule p ingress[0]"),
        (Action::Pass, tightened, "deny: rule p ingress[0]"),
    ] {
        let inputs = only(vec![rule(0, action, "GET", "/shop")]);
        let got = judged(&inputs, &Capabilities::all(), tcp(OUTSIDE, DB, 80), Some("GET /shop"));
        assert_eq!(got, [said, then].concat(), "{action:?}");
    }
    for l4 in [L4Match::Any, L4Match::Is(Protocol::UDP), L4Match::IsNot([Protocol::UDP].into())] {
        let mut rule = rule(0, Action::Allow, "GET", "/shop");
        rule.matches.l4 = l4.clone();
        let flow = match &l4 {
            L4Match::Is(_) => Flow::to_port(address(OUTSIDE), address(DB), Udp, 80),
            _ => tcp(OUTSIDE, DB, 80),
        };
        let got = judged(&only(vec![rule]), &Capabilities::all(), flow, Some("GET /shop"));
        assert_eq!(got, [left_out, DENIED].concat(), "{l4:?}");
    }
}

#[test]
fn other_rules_do_not_ask_about_requests() {
    let inputs = only(vec![
        rule(0, Action::Allow, "GET", "/shop"),
        Rule::new(
            1,
            Action::Allow,
            RuleMatch { l4: L4Match::Is(Protocol::TCP), ..RuleMatch::default() },
        ),
    ]);
    let request = Some("PUT /admin");
    let said = judged(&inputs, &Capabilities::all(), tcp(OUTSIDE, DB, 80), request);
    assert_eq!(said, "allow: rule p ingress[1]");
}
