//! Operations as messages of libnftnl.

use std::ffi::{CStr, CString};
use std::ptr::NonNull;

use netpol_core::net::Family;
use nftnl::{Chain, ChainType, MsgType, Policy, ProtoFamily, Rule, Table};
use nftnl_sys as raw;
use nftnl_sys::libc;

use crate::expression::{Expression, Field, LookupResult, Register, Test, lower};
use crate::name::{Name, Owner, TABLE_COMMENT};
use crate::operation::{Content, Operation};
use crate::ruleset::{
    self, Answer, Base, Elements, FlowDirection, Hook, KeyType, Sense, Storage, Verdict,
};
use crate::sys::{Messages, RawElement, RawExpression, RawSet};

mod key;

pub(crate) use self::key::{key_bytes, key_from_bytes, key_len, key_type_number};

/// `NLM_F_REQUEST`, without which the kernel ignores a message.
const REQUEST: u16 = 0x1;
/// `NLM_F_EXCL`: the object must not exist.
const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`: the object may be made.
const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: the rule goes to the end of its chain.
const APPEND: u16 = 0x800;

/// `NFNL_MSG_BATCH_BEGIN`.
const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`.
const BATCH_END: u16 = 0x11;
/// `struct nfgenmsg`: family, version 0, and the subsystem nf_tables (10) in network byte order.
const BATCH_PAYLOAD: [u8; 4] = [0, 0, 0, 10];

/// `NFTA_TABLE_USERDATA`.
const TABLE_USERDATA: u16 = 6;
/// `NFTA_SET_USERDATA`.
const SET_USERDATA: u16 = 13;
/// `NFT_DATA_VERDICT`, missing in the libc crate.
const DATA_VERDICT: u32 = 0xffff_ff00;
/// `NFT_SET_INTERVAL` and `NFT_SET_MAP`.
const FLAG_INTERVAL: u32 = 0x4;
const FLAG_MAP: u32 = 0x8;
/// `NFT_SET_ELEM_INTERVAL_END`.
const ELEMENT_END: u32 = 0x1;
/// Bytes of a packet that a log message holds: the headers.
pub(crate) const LOG_SNAPLEN: u32 = 64;

/// A batch under construction: a transaction that the kernel takes whole or not at all.
pub(crate) struct Batch {
    messages: Messages,
    table: Table,
    table_name: CString,
    operations: u32,
}

impl Batch {
    /// Sequence number of the first operation; that of the batch's begin is one less.
    pub(crate) const FIRST: u32 = 1;

    /// Returns a batch that changes nothing yet.
    pub(crate) fn new(owner: &Owner) -> Self {
        let table_name = c_string(owner.as_str());
        let mut messages = Messages::new();
        messages.push_bare(BATCH_BEGIN, REQUEST, Self::FIRST - 1, BATCH_PAYLOAD);
        Self {
            messages,
            table: Table::new(table_name.as_c_str(), ProtoFamily::Inet),
            table_name,
            operations: 0,
        }
    }

    /// Appends an operation, unless the batch would have more than `limit` bytes then.
    pub(crate) fn try_push(&mut self, operation: &Operation, limit: usize) -> Fit {
        let before = self.messages.bytes().len();
        self.push(operation);
        if self.messages.bytes().len() + END_LEN > limit {
            self.messages.truncate(before);
            return Fit::Full;
        }
        self.operations = self.operations.saturating_add(1);
        Fit::Fits
    }

    /// Returns the finished batch.
    pub(crate) fn finish(&mut self) -> &[u8] {
        self.messages.push_bare(BATCH_END, REQUEST, self.sequence(), BATCH_PAYLOAD);
        self.messages.bytes()
    }

    fn sequence(&self) -> u32 {
        self.operations.saturating_add(Self::FIRST)
    }

    fn push(&mut self, operation: &Operation) {
        match operation {
            Operation::AddTable => self.push_table(MsgType::Add),
            Operation::DeleteTable => self.push_table(MsgType::Del),
            Operation::AddChain { name, base } => self.push_chain(name, *base),
            Operation::FlushChain { name } => self.push_flush(name),
            Operation::DeleteChain { name } => self.push_delete_chain(name),
            Operation::AddRule { chain, rule } => self.push_rule(chain, rule),
            Operation::AddSet { name, key, storage, content } => {
                self.push_set(name, *key, *storage, *content)
            }
            Operation::DeleteSet { name } => {
                self.push_raw_set(&self.raw_set(name), MsgType::Del, 0)
            }
            Operation::FlushSet { name } => {
                self.push_elements(&self.raw_set(name), MsgType::Del, 0)
            }
            Operation::AddElements { set, elements, .. } => {
                let set = self.filled(set, elements, MsgType::Add);
                self.push_elements(&set, MsgType::Add, CREATE);
            }
            Operation::DeleteElements { set, elements, .. } => {
                let set = self.filled(set, elements, MsgType::Del);
                self.push_elements(&set, MsgType::Del, 0);
            }
        }
    }

    fn push_table(&mut self, kind: MsgType) {
        let sequence = self.sequence();
        let flags = if kind == MsgType::Add { CREATE } else { 0 };
        self.messages.push(&self.table, kind, REQUEST | flags, sequence);
        if kind == MsgType::Add {
            self.messages.push_attribute(TABLE_USERDATA, &comment_userdata(TABLE_COMMENT));
        }
    }

    fn push_chain(&mut self, name: &Name, base: Option<Base>) {
        let sequence = self.sequence();
        let mut chain = Chain::new(c_string(name.as_str()), &self.table);
        if let Some((hook, base)) = base.and_then(|base| Some((hook(base.hook)?, base))) {
            chain.set_hook(hook, base.priority);
            chain.set_type(ChainType::Filter);
            chain.set_policy(Policy::Accept);
        }
        self.messages.push(&chain, MsgType::Add, REQUEST | CREATE | EXCLUSIVE, sequence);
    }

    fn push_delete_chain(&mut self, name: &Name) {
        let sequence = self.sequence();
        let chain = Chain::new(c_string(name.as_str()), &self.table);
        self.messages.push(&chain, MsgType::Del, REQUEST, sequence);
    }

    fn push_flush(&mut self, name: &Name) {
        let sequence = self.sequence();
        let chain = Chain::new(c_string(name.as_str()), &self.table);
        self.messages.push(&Rule::new(&chain), MsgType::Del, REQUEST, sequence);
    }

    fn push_rule(&mut self, chain: &Name, rule: &ruleset::Rule) {
        let sequence = self.sequence();
        let chain = Chain::new(c_string(chain.as_str()), &self.table);
        let mut message = Rule::new(&chain);
        lower(rule).iter().for_each(|expression| message.add_expr(&Encoded(expression)));
        let comment = message.set_comment(c_string(&rule.comment));
        debug_assert!(comment.is_ok(), "comment `{}` is too long", rule.comment);
        self.messages.push(&message, MsgType::Add, REQUEST | CREATE | APPEND, sequence);
    }

    fn push_set(&mut self, name: &Name, key: KeyType, storage: Storage, content: Content) {
        let mut set = self
            .raw_set(name)
            .u32(raw::NFTNL_SET_ID, self.sequence())
            .u32(raw::NFTNL_SET_KEY_TYPE, key_type_number(key))
            .u32(raw::NFTNL_SET_KEY_LEN, key_len(key));
        let mut flags = 0;
        match storage {
            Storage::Interval => flags |= FLAG_INTERVAL,
            Storage::Hash { size: 0 } => {}
            Storage::Hash { size } => set = set.u32(raw::NFTNL_SET_DESC_SIZE, size),
        }
        if content == Content::Verdicts {
            flags |= FLAG_MAP;
            set = set.u32(raw::NFTNL_SET_DATA_TYPE, DATA_VERDICT).u32(raw::NFTNL_SET_DATA_LEN, 0);
        }
        self.push_raw_set(&set.u32(raw::NFTNL_SET_FLAGS, flags), MsgType::Add, CREATE | EXCLUSIVE);
        self.messages.push_attribute(SET_USERDATA, &byte_order_userdata(key));
    }

    fn push_raw_set(&mut self, set: &RawSet, kind: MsgType, flags: u16) {
        let sequence = self.sequence();
        self.messages.push(set, kind, REQUEST | flags, sequence);
    }

    fn push_elements(&mut self, set: &RawSet, kind: MsgType, flags: u16) {
        let sequence = self.sequence();
        self.messages.push(&set.elements(), kind, REQUEST | flags, sequence);
    }

    fn raw_set(&self, name: &Name) -> RawSet {
        RawSet::new(&self.table_name, &c_string(name.as_str()))
    }

    /// Returns a set with these elements.
    fn filled(&self, name: &Name, elements: &Elements, kind: MsgType) -> RawSet {
        let mut set = self.raw_set(name);
        match elements {
            Elements::Keys(keys) => {
                keys.iter().for_each(|key| set.add(RawElement::new(&key_bytes(*key))))
            }
            Elements::Verdicts(entries) => {
                for (key, verdict) in entries {
                    let element = RawElement::new(&key_bytes(*key));
                    set.add(if kind == MsgType::Add {
                        with_verdict(element, verdict)
                    } else {
                        element
                    });
                }
            }
            Elements::Ranges(ranges) => {
                for (first, last) in ranges {
                    set.add(RawElement::new(&key_bytes(*first)));
                    if let Some(end) = successor(&key_bytes(*last)) {
                        set.add(RawElement::new(&end).u32(raw::NFTNL_SET_ELEM_FLAGS, ELEMENT_END));
                    }
                }
            }
        }
        set
    }
}

/// Whether an operation went into a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fit {
    Fits,
    Full,
}

/// Bytes of the message that ends a batch.
const END_LEN: usize = 20;

/// Returns the key behind `key`: where a range that ends with it ends. The kernel takes a range without an end as
/// reaching to the last key.
fn successor(key: &[u8]) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    for byte in next.iter_mut().rev() {
        let (value, overflow) = byte.overflowing_add(1);
        *byte = value;
        if !overflow {
            return Some(next);
        }
    }
    None
}

fn with_verdict(element: RawElement, verdict: &Verdict) -> RawElement {
    let element = element.u32(raw::NFTNL_SET_ELEM_VERDICT, verdict_code(verdict).cast_unsigned());
    match verdict.target() {
        Some(chain) => element.string(raw::NFTNL_SET_ELEM_CHAIN, &c_string(chain.as_str())),
        None => element,
    }
}

fn verdict_code(verdict: &Verdict) -> i32 {
    match verdict {
        Verdict::Drop => libc::NF_DROP,
        Verdict::Return => libc::NFT_RETURN,
        Verdict::Jump(_) => libc::NFT_JUMP,
        Verdict::Goto(_) => libc::NFT_GOTO,
        Verdict::Other(code) => *code,
    }
}

fn hook(hook: Hook) -> Option<nftnl::Hook> {
    match hook {
        Hook::Prerouting => Some(nftnl::Hook::PreRouting),
        Hook::Input => Some(nftnl::Hook::In),
        Hook::Forward => Some(nftnl::Hook::Forward),
        Hook::Output => Some(nftnl::Hook::Out),
        Hook::Postrouting => Some(nftnl::Hook::PostRouting),
        Hook::Other(_) => None,
    }
}

/// Returns user data that `nft` prints as a comment: type 0, length, and the text with a NUL
/// (`NFTNL_UDATA_TABLE_COMMENT` of libnftnl).
fn comment_userdata(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [0, len].into_iter().chain(text.bytes()).chain([0]).collect()
}

/// Returns user data that tells `nft` the byte order of keys, without which it lists interfaces as empty: type 0
/// (`NFTNL_UDATA_SET_KEYBYTEORDER` of libnftnl), length, and `enum byteorder` of nftables: 1 host, 2 network.
fn byte_order_userdata(key: KeyType) -> Vec<u8> {
    let order: u32 = match key {
        KeyType::Interface | KeyType::Interfaces | KeyType::Sender(_) => 1,
        KeyType::Address(_) | KeyType::Addresses(_) | KeyType::Target(_) | KeyType::Port => 2,
    };
    [0, 4].into_iter().chain(order.to_ne_bytes()).collect()
}

fn c_string(text: &str) -> CString {
    debug_assert!(!text.contains('\0'), "NUL in `{text}`");
    CString::new(text).unwrap_or_default()
}

/// An expression that writes itself as libnftnl's.
struct Encoded<'a>(&'a Expression);

impl nftnl::expr::Expression for Encoded<'_> {
    fn to_expr(&self, _: &Rule<'_>) -> NonNull<raw::nftnl_expr> {
        encode(self.0).into_raw()
    }
}

fn encode(expression: &Expression) -> RawExpression {
    match expression {
        Expression::Load { field, register } => encode_load(*field, *register),
        Expression::Compare { test, value } => RawExpression::new(c"cmp")
            .u32(raw::NFTNL_EXPR_CMP_SREG, Register(0).number())
            .u32(raw::NFTNL_EXPR_CMP_OP, test_number(*test))
            .data(raw::NFTNL_EXPR_CMP_DATA, value),
        Expression::OutsideRange { first, last } => RawExpression::new(c"range")
            .u32(raw::NFTNL_EXPR_RANGE_SREG, Register(0).number())
            .u32(raw::NFTNL_EXPR_RANGE_OP, libc::NFT_RANGE_NEQ.unsigned_abs())
            .data(raw::NFTNL_EXPR_RANGE_FROM_DATA, first)
            .data(raw::NFTNL_EXPR_RANGE_TO_DATA, last),
        Expression::Mask { mask } => encode_bitwise(mask, &vec![0; mask.len()]),
        Expression::SetBits { bits } => {
            encode_bitwise(&bits.iter().map(|byte| !byte).collect::<Vec<_>>(), bits)
        }
        Expression::StoreMark => RawExpression::new(c"meta")
            .u32(raw::NFTNL_EXPR_META_KEY, libc::NFT_META_MARK.unsigned_abs())
            .u32(raw::NFTNL_EXPR_META_SREG, Register(0).number()),
        Expression::Untrack => RawExpression::new(c"notrack"),
        Expression::Lookup { set, result } => encode_lookup(&c_string(set.as_str()), *result),
        Expression::Counter | Expression::Unknown => RawExpression::new(c"counter"),
        Expression::Limit(rate) => RawExpression::new(c"limit")
            .u64(raw::NFTNL_EXPR_LIMIT_RATE, rate.packets().into())
            .u64(raw::NFTNL_EXPR_LIMIT_UNIT, rate.period().seconds().into())
            .u32(raw::NFTNL_EXPR_LIMIT_BURST, rate.burst().into())
            .u32(raw::NFTNL_EXPR_LIMIT_TYPE, libc::NFT_LIMIT_PKTS.unsigned_abs()),
        Expression::Log { group, prefix } => RawExpression::new(c"log")
            .u16(raw::NFTNL_EXPR_LOG_GROUP, *group)
            .string(raw::NFTNL_EXPR_LOG_PREFIX, &c_string(prefix))
            .u32(raw::NFTNL_EXPR_LOG_SNAPLEN, LOG_SNAPLEN),
        Expression::Reject(answer) => {
            let (kind, code) = reject_numbers(*answer);
            RawExpression::new(c"reject")
                .u32(raw::NFTNL_EXPR_REJECT_TYPE, kind)
                .u8(raw::NFTNL_EXPR_REJECT_CODE, code)
        }
        Expression::Verdict(verdict) => encode_verdict(verdict),
    }
}

fn encode_load(field: Field, register: Register) -> RawExpression {
    let meta = |key: libc::c_int| {
        RawExpression::new(c"meta")
            .u32(raw::NFTNL_EXPR_META_KEY, key.unsigned_abs())
            .u32(raw::NFTNL_EXPR_META_DREG, register.number())
    };
    let payload = |base: libc::c_int, offset: u32, len: u32| {
        RawExpression::new(c"payload")
            .u32(raw::NFTNL_EXPR_PAYLOAD_BASE, base.unsigned_abs())
            .u32(raw::NFTNL_EXPR_PAYLOAD_OFFSET, offset)
            .u32(raw::NFTNL_EXPR_PAYLOAD_LEN, len)
            .u32(raw::NFTNL_EXPR_PAYLOAD_DREG, register.number())
    };
    let flow = |key: libc::c_int| {
        RawExpression::new(c"ct")
            .u32(raw::NFTNL_EXPR_CT_KEY, key.unsigned_abs())
            .u32(raw::NFTNL_EXPR_CT_DREG, register.number())
    };
    match field {
        Field::Family => meta(libc::NFT_META_NFPROTO),
        Field::Protocol => meta(libc::NFT_META_L4PROTO),
        Field::InputInterface => meta(libc::NFT_META_IIFNAME),
        Field::OutputInterface => meta(libc::NFT_META_OIFNAME),
        Field::Mark => meta(libc::NFT_META_MARK),
        Field::FlowState => flow(libc::NFT_CT_STATE),
        Field::FlowSource(family, direction) => flow(match family {
            Family::V4 => libc::NFT_CT_SRC_IP,
            Family::V6 => libc::NFT_CT_SRC_IP6,
        })
        .u8(raw::NFTNL_EXPR_CT_DIR, direction_number(direction)),
        Field::Network { offset, len } => payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, len),
        Field::Transport { offset, len } => {
            payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, offset, len)
        }
    }
}

/// Returns type and code of a rejection: `NFT_REJECT_TCP_RST`, and `NFT_REJECT_ICMPX_UNREACH` with
/// `NFT_REJECT_ICMPX_ADMIN_PROHIBITED`.
///
/// Source: `enum nft_reject_types` and `enum nft_reject_inet_code` in `include/uapi/linux/netfilter/nf_tables.h`.
pub(crate) fn reject_numbers(answer: Answer) -> (u32, u8) {
    match answer {
        Answer::Reset => (1, 0),
        Answer::Prohibited => (2, 3),
    }
}

/// Returns the number of a direction: `enum ip_conntrack_dir`.
pub(crate) fn direction_number(direction: FlowDirection) -> u8 {
    match direction {
        FlowDirection::Original => 0,
        FlowDirection::Reply => 1,
    }
}

fn encode_bitwise(mask: &[u8], flips: &[u8]) -> RawExpression {
    RawExpression::new(c"bitwise")
        .u32(raw::NFTNL_EXPR_BITWISE_SREG, Register(0).number())
        .u32(raw::NFTNL_EXPR_BITWISE_DREG, Register(0).number())
        .u32(raw::NFTNL_EXPR_BITWISE_LEN, u32::try_from(mask.len()).unwrap_or_default())
        .data(raw::NFTNL_EXPR_BITWISE_MASK, mask)
        .data(raw::NFTNL_EXPR_BITWISE_XOR, flips)
}

fn encode_lookup(set: &CStr, result: LookupResult) -> RawExpression {
    let lookup = RawExpression::new(c"lookup")
        .string(raw::NFTNL_EXPR_LOOKUP_SET, set)
        .u32(raw::NFTNL_EXPR_LOOKUP_SREG, Register(0).number());
    match result {
        LookupResult::Member(Sense::In) => lookup,
        LookupResult::Member(Sense::NotIn) => {
            lookup.u32(raw::NFTNL_EXPR_LOOKUP_FLAGS, libc::NFT_LOOKUP_F_INV.unsigned_abs())
        }
        LookupResult::Verdict => {
            lookup.u32(raw::NFTNL_EXPR_LOOKUP_DREG, libc::NFT_REG_VERDICT.unsigned_abs())
        }
    }
}

fn encode_verdict(verdict: &Verdict) -> RawExpression {
    let immediate = RawExpression::new(c"immediate")
        .u32(raw::NFTNL_EXPR_IMM_DREG, libc::NFT_REG_VERDICT.unsigned_abs())
        .u32(raw::NFTNL_EXPR_IMM_VERDICT, verdict_code(verdict).cast_unsigned());
    match verdict.target() {
        Some(chain) => immediate.string(raw::NFTNL_EXPR_IMM_CHAIN, &c_string(chain.as_str())),
        None => immediate,
    }
}

fn test_number(test: Test) -> u32 {
    match test {
        Test::Equal => libc::NFT_CMP_EQ,
        Test::NotEqual => libc::NFT_CMP_NEQ,
        Test::AtLeast => libc::NFT_CMP_GTE,
        Test::AtMost => libc::NFT_CMP_LTE,
    }
    .unsigned_abs()
}

impl Register {
    /// Returns the register's number in messages. Every fourth word also is one of the registers of 16 bytes, by whose
    /// number the kernel and `nft` call it.
    ///
    /// Source: `enum nft_registers` and `nft_dump_register` in `net/netfilter/nf_tables_api.c`, Linux 6.18.
    pub(crate) fn number(self) -> u32 {
        let (wide, rest) = (self.0 / 4, self.0 % 4);
        if rest == 0 {
            wide + libc::NFT_REG_1.unsigned_abs()
        } else {
            self.0 + libc::NFT_REG32_00.unsigned_abs()
        }
    }

    /// Returns the register with this number in messages.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        let [wide, narrow] = [libc::NFT_REG_1, libc::NFT_REG32_00].map(i32::unsigned_abs);
        match number.checked_sub(narrow) {
            Some(word) => Some(Self(word)),
            None => Some(Self(number.checked_sub(wide)? * 4)),
        }
    }
}
