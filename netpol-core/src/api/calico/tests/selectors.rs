//! How the selectors of policies and rules are rewritten, and who is selected with which of them.
//!
//! Source: `libcalico-go/lib/backend/syncersv1/updateprocessors/rules.go` of Calico.

use alloc::string::ToString;

use serde_json::{Value, json};

use super::{convert, manifest, policy, shown_rules};
use crate::api::Kind;
use crate::model::Object;

/// Checks the subject of a policy; `NS` stands for the key of the namespace, `SA` for that of the service account.
#[track_caller]
fn check_subject(kind: Kind, spec: Value, want: &str) {
    let subject = policy(kind, &spec).subject.to_string();
    assert_eq!(short(&subject), want, "{spec}");
}

/// Checks what one side of a rule asks for.
#[track_caller]
fn check_entity(kind: Kind, entity: Value, want: &str) {
    for (side, word) in [("source", "from"), ("destination", "to")] {
        for direction in ["ingress", "egress"] {
            let rules = shown_rules(kind, direction, &json!({"action": "Deny", side: &entity}));
            let (_, shown) = rules.split_once("everything").unwrap();
            let shown = shown.trim_start();
            let shown = shown.strip_prefix(word).unwrap_or(shown).trim_start();
            assert_eq!(short(shown), want, "{entity}");
        }
    }
}

fn short(text: &str) -> alloc::string::String {
    text.replace("projectcalico.org/namespace", "NS")
        .replace("projectcalico.org/serviceaccount", "SA")
}

#[test]
fn subjects_of_policies_of_a_namespace() {
    let check = |spec, want| {
        check_subject(Kind::NetworkPolicy, spec, want);
    };
    check(json!({}), r#"NS == "ns""#);
    check(json!({"selector": ""}), r#"NS == "ns""#);
    check(json!({"selector": "all()"}), r#"(all() && NS == "ns")"#);
    check(json!({"selector": "a == 'b' || has(c)"}), r#"(NS == "ns" && (a == "b" || has(c)))"#);
    check(
        json!({"selector": "a == 'b'", "serviceAccountSelector": "x == 'y' && has(z)"}),
        r#"(a == "b" && pcsa.x == "y" && has(pcsa.z) && NS == "ns")"#,
    );
    check(json!({"serviceAccountSelector": "all()"}), r#"(NS == "ns" && has(SA))"#);
}

#[test]
fn subjects_of_policies_of_the_cluster() {
    let check = |spec, want| {
        check_subject(Kind::GlobalNetworkPolicy, spec, want);
    };
    check(json!({}), "all()");
    check(json!({"selector": "all()"}), "all()");
    check(json!({"namespaceSelector": "all()"}), "has(NS)");
    check(json!({"namespaceSelector": "!has(x)"}), "!has(pcns.x)");
    check(
        json!({"selector": "a == 'b' || all()", "namespaceSelector": "k == 'v'"}),
        r#"(pcns.k == "v" && (all() || a == "b"))"#,
    );
    // Only the selector of namespaces is rewritten, not the policy's own.
    check(json!({"selector": "!all()", "namespaceSelector": "!all()"}), "(!all() && !has(NS))");
    check(
        json!({"serviceAccountSelector": "all()", "namespaceSelector": "all()"}),
        "(has(NS) && has(SA))",
    );
    check(
        json!({"serviceAccountSelector": "projectcalico.org/name == 'a'"}),
        r#"pcsa.projectcalico.org/name == "a""#,
    );
}

#[test]
fn sides_in_policies_of_a_namespace() {
    let check = |entity, want| {
        check_entity(Kind::NetworkPolicy, entity, want);
    };
    check(json!({}), "");
    check(json!({"nets": ["10.0.0.0/8"]}), "[10.0.0.0/8]");
    check(json!({"selector": "r=='db'"}), r#"(NS == "ns" && r == "db")"#);
    check(json!({"selector": "all()"}), r#"(all() && NS == "ns")"#);
    check(json!({"selector": " "}), r#"(all() && NS == "ns")"#);
    check(json!({"selector": ""}), "");
    check(json!({"notSelector": "r=='db'"}), r#"(NS == "ns" && !r == "db")"#);
    check(json!({"namespaceSelector": "all()"}), "has(NS)");
    check(json!({"namespaceSelector": "global()"}), "!has(NS)");
    check(
        json!({"selector": "r=='db'", "namespaceSelector": "k == 'v' && has(x)"}),
        r#"(pcns.k == "v" && has(pcns.x) && r == "db")"#,
    );
    check(
        json!({"notSelector": "r=='db'", "namespaceSelector": "x=='y'"}),
        r#"(pcns.x == "y" && !r == "db")"#,
    );
    check(json!({"serviceAccounts": {}}), "");
    check(json!({"serviceAccounts": {"names": [], "selector": ""}}), "");
    check(json!({"serviceAccounts": {"names": ["a"]}}), r#"(NS == "ns" && SA in {"a"})"#);
    check(json!({"serviceAccounts": {"selector": "all()"}}), r#"(NS == "ns" && has(SA))"#);
    check(
        json!({"serviceAccounts": {"names": ["b", "a"], "selector": "t=='x'"}}),
        r#"(pcsa.t == "x" && NS == "ns" && SA in {"a", "b"})"#,
    );
    check(
        json!({
            "selector": "a == 'b'", "notSelector": "c == 'd'", "namespaceSelector": "has(e)",
            "serviceAccounts": {"names": ["f"], "selector": "has(g)"},
        }),
        r#"(a == "b" && has(pcns.e) && has(pcsa.g) && SA in {"f"} && !c == "d")"#,
    );
}

#[test]
fn sides_in_policies_of_the_cluster() {
    let check = |entity, want| {
        check_entity(Kind::GlobalNetworkPolicy, entity, want);
    };
    check(json!({"selector": "r=='db'"}), r#"r == "db""#);
    check(json!({"selector": "all()"}), "all()");
    check(json!({"notSelector": "r=='db'"}), r#"but r == "db""#);
    check(json!({"notSelector": "r=='db'", "selector": "has(r)"}), r#"(has(r) && !r == "db")"#);
    check(json!({"namespaceSelector": "all()"}), "has(NS)");
    check(json!({"namespaceSelector": "global()"}), "!has(NS)");
    check(json!({"serviceAccounts": {"selector": "all()"}}), "has(SA)");
    check(
        json!({"serviceAccounts": {"names": ["a", "b"], "selector": "t=='x'"}}),
        r#"(pcsa.t == "x" && SA in {"a", "b"})"#,
    );
}

#[test]
fn global_stands_alone() {
    let entity = |text| json!({"namespaceSelector": text});
    let rule = |text| json!({"ingress": [{"action": "Allow", "source": entity(text)}]});
    for kind in [Kind::NetworkPolicy, Kind::GlobalNetworkPolicy] {
        for text in ["global()", "  global( ) ", "\tglobal()\t", "global(\t)"] {
            check_entity(kind, entity(text), "!has(NS)");
        }
        for text in [
            "!global()",
            "!!global()",
            "global() && all()",
            "global() || global()",
            "(global())",
            "has(a) || global()",
        ] {
            let want = "spec.ingress[0].source.namespaceSelector: `global()` with something else, expected it alone";
            assert_eq!(
                convert(&manifest(kind, &rule(text))),
                Err([want.to_string()].into()),
                "{text}"
            );
        }
    }
}

#[test]
fn global_in_a_value_is_text() {
    for field in ["selector", "notSelector", "namespaceSelector"] {
        let entity = json!({field: r#"a == "global()""#});
        let spec = json!({"selector": "a == 'global()'", "ingress": [{"action": "Allow", "source": entity}]});
        assert!(matches!(
            convert(&manifest(Kind::GlobalNetworkPolicy, &spec)),
            Ok(Some(Object::Policy(_)))
        ));
    }
}
