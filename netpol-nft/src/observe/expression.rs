//! Expressions of listed rules.

use netpol_core::net::Family;
use netpol_netfilter::{LogRate, Period};

use crate::attribute::{attributes, find, find_text, find_u32, find_u64};
use crate::encode::{LOG_SNAPLEN, direction_number, reject_numbers};
use crate::expression::{Expression, Field, LookupResult, Register, Test};
use crate::name::Name;
use crate::ruleset::{Answer, FlowDirection, Sense};

/// `NFTA_DATA_VALUE` and `NFTA_DATA_VERDICT`
const VALUE: u16 = 1;
const VERDICT: u16 = 2;

/// Reads the value of an `NFTA_RULE_EXPRESSIONS`. Returns the expressions, and the packets of the rule's counter if it
/// has one.
pub(crate) fn read(list: &[u8]) -> (Vec<Expression>, Option<u64>) {
    let mut packets = None;
    let expressions = attributes(list)
        .map(|(_, item)| {
            // `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`
            let data = find(item, 2).unwrap_or_default();
            let name = find_text(item, 1).unwrap_or_default();
            if name == "counter" {
                packets = Some(super::counted(data));
            }
            expression(name, data).unwrap_or(Expression::Unknown)
        })
        .collect();
    (expressions, packets)
}

fn expression(name: &str, data: &[u8]) -> Option<Expression> {
    match name {
        // `NFTA_META_SREG`, `NFTA_META_KEY` (`NFT_META_MARK`)
        "meta" if find(data, 3).is_some() => {
            first_register(data, 3)?;
            (find_u32(data, 2)? == 3).then_some(Expression::StoreMark)
        }
        "meta" => load(data, 1, meta_field(find_u32(data, 2)?)?),
        "notrack" => Some(Expression::Untrack),
        "ct" => load(data, 1, flow_field(data)?),
        "payload" => load(data, 1, payload_field(data)?),
        "cmp" => compare(data),
        "range" => outside_range(data),
        "bitwise" => bitwise(data),
        "lookup" => lookup(data),
        "counter" => Some(Expression::Counter),
        "limit" => limit(data),
        "log" => log(data),
        "reject" => reject(data),
        "immediate" => verdict(data),
        _ => None,
    }
}

fn load(data: &[u8], register: u16, field: Field) -> Option<Expression> {
    Some(Expression::Load { field, register: Register::from_number(find_u32(data, register)?)? })
}

/// Source: `enum nft_meta_keys`.
fn meta_field(key: u32) -> Option<Field> {
    match key {
        3 => Some(Field::Mark),
        6 => Some(Field::InputInterface),
        7 => Some(Field::OutputInterface),
        15 => Some(Field::Family),
        16 => Some(Field::Protocol),
        _ => None,
    }
}

/// `NFTA_CT_KEY` (`NFT_CT_STATE`, `NFT_CT_SRC_IP`, `NFT_CT_SRC_IP6`) and `NFTA_CT_DIRECTION`.
fn flow_field(data: &[u8]) -> Option<Field> {
    let family = match find_u32(data, 2)? {
        0 if find(data, 3).is_none() => return Some(Field::FlowState),
        19 => Family::V4,
        21 => Family::V6,
        _ => return None,
    };
    let number = find(data, 3)?;
    let direction = FlowDirection::BOTH.into_iter().find(|it| [direction_number(*it)] == number)?;
    Some(Field::FlowSource(family, direction))
}

/// `NFTA_PAYLOAD_BASE`, `NFTA_PAYLOAD_OFFSET`, `NFTA_PAYLOAD_LEN`.
fn payload_field(data: &[u8]) -> Option<Field> {
    let [base, offset, len] = [2, 3, 4].map(|kind| find_u32(data, kind));
    let (offset, len) = (offset?, len?);
    match base? {
        1 => Some(Field::Network { offset, len }),
        2 => Some(Field::Transport { offset, len }),
        _ => None,
    }
}

/// `NFTA_CMP_SREG`, `NFTA_CMP_OP`, `NFTA_CMP_DATA`; `enum nft_cmp_ops`.
fn compare(data: &[u8]) -> Option<Expression> {
    let test = match find_u32(data, 2)? {
        0 => Test::Equal,
        1 => Test::NotEqual,
        3 => Test::AtMost,
        5 => Test::AtLeast,
        _ => return None,
    };
    first_register(data, 1)?;
    Some(Expression::Compare { test, value: value(data, 3)? })
}

/// `NFTA_RANGE_SREG`, `NFTA_RANGE_OP` (`NFT_RANGE_NEQ`), `NFTA_RANGE_FROM_DATA`, `NFTA_RANGE_TO_DATA`.
fn outside_range(data: &[u8]) -> Option<Expression> {
    first_register(data, 1)?;
    (find_u32(data, 2)? == 1).then_some(())?;
    Some(Expression::OutsideRange { first: value(data, 3)?, last: value(data, 4)? })
}

/// `NFTA_BITWISE_SREG`, `NFTA_BITWISE_DREG`, `NFTA_BITWISE_MASK`, `NFTA_BITWISE_XOR`, `NFTA_BITWISE_OP` (a mask).
fn bitwise(data: &[u8]) -> Option<Expression> {
    first_register(data, 1)?;
    first_register(data, 2)?;
    let masks = find_u32(data, 6).unwrap_or_default() == 0;
    let (mask, flips) = (value(data, 4)?, value(data, 5).unwrap_or_default());
    if !masks {
        None
    } else if flips.iter().all(|&byte| byte == 0) {
        Some(Expression::Mask { mask })
    } else {
        let sets =
            mask.len() == flips.len() && mask.iter().zip(&flips).all(|(mask, bits)| *mask == !bits);
        sets.then_some(Expression::SetBits { bits: flips })
    }
}

/// `NFTA_LOOKUP_SET`, `NFTA_LOOKUP_SREG`, `NFTA_LOOKUP_DREG`, `NFTA_LOOKUP_FLAGS` (`NFT_LOOKUP_F_INV`).
fn lookup(data: &[u8]) -> Option<Expression> {
    first_register(data, 2)?;
    let set = Name::new(find_text(data, 1)?);
    let result = match (find_u32(data, 3), find_u32(data, 5).unwrap_or_default()) {
        (None, 0) => LookupResult::Member(Sense::In),
        (None, 1) => LookupResult::Member(Sense::NotIn),
        (Some(0), 0) => LookupResult::Verdict,
        _ => return None,
    };
    Some(Expression::Lookup { set, result })
}

/// `NFTA_LIMIT_RATE`, `NFTA_LIMIT_UNIT` (seconds), `NFTA_LIMIT_BURST`, `NFTA_LIMIT_TYPE` (packets), `NFTA_LIMIT_FLAGS`.
fn limit(data: &[u8]) -> Option<Expression> {
    let [kind, flags] = [4, 5].map(|kind| find_u32(data, kind).unwrap_or_default());
    (kind == 0 && flags == 0).then_some(())?;
    let unit = find_u64(data, 2)?;
    let period = Period::ALL.into_iter().find(|it| u64::from(it.seconds()) == unit)?;
    let rate = LogRate::new(find_u64(data, 1)?.try_into().ok()?, period).ok()?;
    Some(Expression::Limit(rate.with_burst(find_u32(data, 3)?.try_into().ok()?).ok()?))
}

/// `NFTA_LOG_GROUP` (16 bits), `NFTA_LOG_PREFIX`, `NFTA_LOG_SNAPLEN`.
fn log(data: &[u8]) -> Option<Expression> {
    let group = u16::from_be_bytes(find(data, 1)?.try_into().ok()?);
    (find_u32(data, 3)? == LOG_SNAPLEN).then_some(())?;
    Some(Expression::Log { group, prefix: find_text(data, 2)?.to_owned() })
}

/// `NFTA_REJECT_TYPE`, `NFTA_REJECT_ICMP_CODE`, which a reset does not have.
fn reject(data: &[u8]) -> Option<Expression> {
    let kind = find_u32(data, 1)?;
    let code = find(data, 2).and_then(|it| it.first().copied()).unwrap_or_default();
    let answer = [Answer::Reset, Answer::Prohibited]
        .into_iter()
        .find(|it| reject_numbers(*it) == (kind, code))?;
    Some(Expression::Reject(answer))
}

/// `NFTA_IMMEDIATE_DREG` (`NFT_REG_VERDICT`), `NFTA_IMMEDIATE_DATA`.
fn verdict(data: &[u8]) -> Option<Expression> {
    (find_u32(data, 1)? == 0).then_some(())?;
    Some(Expression::Verdict(super::verdict(find(find(data, 2)?, VERDICT)?)?))
}

/// Returns nothing unless the attribute names the first register, the only one that we test.
fn first_register(data: &[u8], kind: u16) -> Option<()> {
    (Register::from_number(find_u32(data, kind)?)? == Register(0)).then_some(())
}

fn value(data: &[u8], kind: u16) -> Option<Vec<u8>> {
    Some(find(find(data, kind)?, VALUE)?.to_vec())
}
