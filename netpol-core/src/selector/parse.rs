//! Reads the selector language. Nothing recurses: open parentheses wait on a stack of our own.
//!
//! ```text
//! selector  = [ or ]                         (blank = all())
//! or        = and { "||" and }
//! and       = unary { "&&" unary }
//! unary     = { "!" } ( "(" or ")" | condition )
//! condition = "has(" KEY ")" | "all(" ")" | "global(" ")"
//!           | KEY ( "==" | "!=" | "contains" | "starts" "with" | "ends" "with" ) STRING
//!           | KEY ( "in" | "not" "in" ) "{" [ STRING { "," STRING } [ "," ] ] "}"
//! ```
//!
//! Source: `libcalico-go/lib/selector` of Calico, tokenizer and parser.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use super::condition::{Condition, LabelCondition};
use super::{Selector, SelectorError, is_key_byte};

/// How large a text may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most characters of the text.
    pub(super) chars: usize,
    /// Most parentheses open at once.
    pub(super) depth: usize,
    /// Most bytes of a label key.
    pub(super) key: usize,
}

impl Limits {
    /// For text that was printed from a selector: everything is allowed that composing and rewriting can make.
    pub(super) const NONE: Self = Self { chars: usize::MAX, depth: usize::MAX, key: usize::MAX };
}

pub(super) fn parse(text: &str, limits: Limits) -> Result<Selector, SelectorError> {
    let chars = text.chars().count();
    if chars > limits.chars {
        return Err(SelectorError::TooLong { chars, limit: limits.chars });
    }
    let scanner = Scanner { text, rest: text, max_key: limits.key };
    if scanner.after_space().is_empty() {
        return Ok(Selector::all());
    }
    Parser { scanner, max_depth: limits.depth, outer: Vec::new(), group: Group::default() }
        .selector()
}

/// What was read so far inside of one pair of parentheses, or of the text as a whole.
#[derive(Default)]
struct Group {
    negated: bool,
    /// Complete operands of `||`.
    or: Vec<Selector>,
    /// Operands of the `&&` that is being read.
    and: Vec<Selector>,
}

impl Group {
    fn end_and(&mut self) {
        self.or.push(Selector::and(mem::take(&mut self.and)));
    }

    fn close(mut self) -> Selector {
        self.end_and();
        negate_if(self.negated, Selector::or(self.or))
    }
}

fn negate_if(negated: bool, selector: Selector) -> Selector {
    if negated { !selector } else { selector }
}

struct Parser<'a> {
    scanner: Scanner<'a>,
    max_depth: usize,
    /// Groups around the current one, from the outside.
    outer: Vec<Group>,
    group: Group,
}

impl Parser<'_> {
    fn selector(mut self) -> Result<Selector, SelectorError> {
        loop {
            self.operand()?;
            if self.operators()? {
                return Ok(self.group.close());
            }
        }
    }

    /// Reads `!`s, opening parentheses and the condition behind them.
    fn operand(&mut self) -> Result<(), SelectorError> {
        loop {
            let negated = self.scanner.negation();
            let position = self.scanner.position();
            if !self.scanner.eat("(") {
                let condition = self.scanner.condition()?;
                self.group.and.push(negate_if(negated, Selector::from_condition(condition)));
                return Ok(());
            }
            if self.outer.len() >= self.max_depth {
                return Err(SelectorError::TooDeep { position, limit: self.max_depth });
            }
            self.outer.push(mem::replace(&mut self.group, Group { negated, ..Group::default() }));
        }
    }

    /// Reads closing parentheses and the operator behind them. Returns whether this is the end of the text.
    fn operators(&mut self) -> Result<bool, SelectorError> {
        loop {
            self.scanner.skip_space();
            if self.scanner.eat("&&") {
                return Ok(false);
            }
            if self.scanner.eat("||") {
                self.group.end_and();
                return Ok(false);
            }
            let Some(outer) = self.outer.pop() else {
                return if self.scanner.rest.is_empty() {
                    Ok(true)
                } else {
                    Err(self.scanner.unexpected("`&&`, `||` or the end"))
                };
            };
            self.scanner.expect(")", "`&&`, `||` or `)`")?;
            let group = mem::replace(&mut self.group, outer);
            self.group.and.push(group.close());
        }
    }
}

/// The part of the text that was not read yet.
struct Scanner<'a> {
    text: &'a str,
    rest: &'a str,
    max_key: usize,
}

impl<'a> Scanner<'a> {
    fn position(&self) -> usize {
        self.text.len() - self.rest.len()
    }

    fn unexpected(&self, expected: &'static str) -> SelectorError {
        SelectorError::Unexpected {
            position: self.position(),
            expected,
            found: self.rest.chars().next(),
        }
    }

    fn after_space(&self) -> &'a str {
        trim_space(self.rest)
    }

    fn skip_space(&mut self) {
        self.rest = self.after_space();
    }

    fn eat(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else {
            return false;
        };
        self.rest = rest;
        true
    }

    fn expect(&mut self, token: &str, expected: &'static str) -> Result<(), SelectorError> {
        if self.eat(token) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    /// Reads a word operator of one or two words, unless what looks like it goes on as a longer word.
    fn eat_words(&mut self, first: &str, second: &str) -> bool {
        let rest = self
            .rest
            .strip_prefix(first)
            .map(trim_space)
            .and_then(|rest| rest.strip_prefix(second));
        match rest {
            Some(rest) if !rest.starts_with(is_key_char) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Reads any number of `!` and returns whether they negate.
    fn negation(&mut self) -> bool {
        let mut negated = false;
        self.skip_space();
        while self.eat("!") {
            negated = !negated;
            self.skip_space();
        }
        negated
    }

    fn condition(&mut self) -> Result<Condition, SelectorError> {
        let key = self.key("a label key, `has(`, `all()`, `global()`, `!` or `(`")?;
        // A keyword is one only if it touches the parenthesis.
        match key {
            "has" if self.eat("(") => return self.has(),
            "all" if self.eat("(") => return self.end_call(Condition::All),
            "global" if self.eat("(") => return self.end_call(Condition::Global),
            _ => {}
        }
        self.skip_space();
        Ok(Condition::Label { key: key.into(), condition: self.label_condition()? })
    }

    fn has(&mut self) -> Result<Condition, SelectorError> {
        self.skip_space();
        let key = self.key("a label key")?.into();
        self.end_call(Condition::Label { key, condition: LabelCondition::Has })
    }

    fn end_call(&mut self, condition: Condition) -> Result<Condition, SelectorError> {
        self.skip_space();
        self.expect(")", "`)`")?;
        Ok(condition)
    }

    fn label_condition(&mut self) -> Result<LabelCondition, SelectorError> {
        if self.eat("==") {
            self.string().map(LabelCondition::Equal)
        } else if self.eat("!=") {
            self.string().map(LabelCondition::NotEqual)
        } else if self.eat_words("contains", "") {
            self.string().map(LabelCondition::Contains)
        } else if self.eat_words("starts", "with") {
            self.string().map(LabelCondition::StartsWith)
        } else if self.eat_words("ends", "with") {
            self.string().map(LabelCondition::EndsWith)
        } else if self.eat_words("not", "in") {
            self.set().map(LabelCondition::not_in)
        } else if self.eat_words("in", "") {
            self.set().map(LabelCondition::is_in)
        } else {
            Err(self
                .unexpected("`==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with`"))
        }
    }

    fn key(&mut self, expected: &'static str) -> Result<&'a str, SelectorError> {
        let position = self.position();
        let end = self.rest.find(|char| !is_key_char(char)).unwrap_or(self.rest.len());
        let Some((key, rest)) = self.rest.split_at_checked(end).filter(|(key, _)| !key.is_empty())
        else {
            return Err(self.unexpected(expected));
        };
        if key.len() > self.max_key {
            return Err(SelectorError::KeyTooLong {
                position,
                bytes: key.len(),
                limit: self.max_key,
            });
        }
        self.rest = rest;
        Ok(key)
    }

    fn string(&mut self) -> Result<String, SelectorError> {
        self.skip_space();
        self.literal("a quoted string")
    }

    /// Reads a string literal. There are no escapes: it ends at the next quote of its kind.
    fn literal(&mut self, expected: &'static str) -> Result<String, SelectorError> {
        let position = self.position();
        let Some(quote @ ('\'' | '"')) = self.rest.chars().next() else {
            return Err(self.unexpected(expected));
        };
        let mut pieces = self.rest.splitn(3, quote).skip(1);
        match (pieces.next(), pieces.next()) {
            (Some(value), Some(rest)) => {
                self.rest = rest;
                Ok(value.into())
            }
            _ => Err(SelectorError::Unterminated { position, quote }),
        }
    }

    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        self.skip_space();
        self.expect("{", "`{`")?;
        let mut values = Vec::new();
        loop {
            self.skip_space();
            if self.eat("}") {
                return Ok(values);
            }
            values.push(self.literal("a quoted string or `}`")?);
            self.skip_space();
            if self.eat("}") {
                return Ok(values);
            }
            self.expect(",", "`,` or `}`")?;
        }
    }
}

/// Drops leading blanks. Line breaks are not blanks in this language.
fn trim_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

fn is_key_char(char: char) -> bool {
    u8::try_from(char).is_ok_and(is_key_byte)
}
