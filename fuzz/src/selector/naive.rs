//! The selector language, read in the way of its specification: tokens first, then one function for each line of the
//! grammar. Shares nothing with the reader that it judges.

use std::collections::BTreeMap;

/// Whether the limits hold that users' texts have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Within {
    /// At most 1024 characters, parentheses 64 deep, keys of 512 bytes.
    Limits,
    /// None of them.
    Anything,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Token {
    Key(String),
    Literal(String),
    /// Punctuation, a word operator in its usual spelling, or a function with its parenthesis.
    Fixed(&'static str),
}

/// What a selector says.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    All,
    Global,
    Has(String),
    Compare(String, &'static str, String),
    Member(String, bool, Vec<String>),
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

/// Returns what `text` says, `None` if it is no selector.
pub(super) fn read(text: &str, within: Within) -> Option<Tree> {
    if within == Within::Limits && text.chars().count() > 1024 {
        return None;
    }
    let tokens = tokens(text.as_bytes(), within)?;
    if tokens.is_empty() {
        return Some(Tree::All);
    }
    let mut reader = Reader { tokens: &tokens, depth: 0, within };
    let tree = reader.or()?;
    reader.tokens.is_empty().then_some(tree)
}

fn is_key_byte(byte: u8) -> bool {
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./-".contains(&byte)
}

fn tokens(mut rest: &[u8], within: Within) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    loop {
        rest = without_space(rest);
        let Some(&first) = rest.first() else {
            return Some(tokens);
        };
        let (token, len) = if first == b'\'' || first == b'"' {
            let len = rest[1..].iter().position(|&byte| byte == first)?;
            (Token::Literal(String::from_utf8(rest[1..=len].to_vec()).ok()?), len + 2)
        } else if let Some(fixed) = ["(", ")", "{", "}", ",", "==", "!=", "!", "&&", "||"]
            .iter()
            .find(|it| starts(rest, it))
        {
            (Token::Fixed(fixed), fixed.len())
        } else if matches!(tokens.last(), Some(Token::Key(_))) {
            word_operator(rest)?
        } else if let Some(function) =
            ["has(", "all(", "global("].iter().find(|it| starts(rest, it))
        {
            (Token::Fixed(function), function.len())
        } else {
            let len = rest.iter().take_while(|&&byte| is_key_byte(byte)).count();
            if len == 0 || within == Within::Limits && len > 512 {
                return None;
            }
            (Token::Key(String::from_utf8(rest[..len].to_vec()).ok()?), len)
        };
        tokens.push(token);
        rest = &rest[len..];
    }
}

/// Returns the operator that the text behind a key begins with, and its length.
fn word_operator(rest: &[u8]) -> Option<(Token, usize)> {
    for (operator, words) in [
        ("contains", &["contains"][..]),
        ("starts with", &["starts", "with"]),
        ("ends with", &["ends", "with"]),
        ("not in", &["not", "in"]),
        ("in", &["in"]),
    ] {
        let mut behind = Some(rest);
        for word in words {
            behind =
                behind.map(without_space).filter(|it| starts(it, word)).map(|it| &it[word.len()..]);
        }
        if let Some(behind) = behind
            && !behind.first().is_some_and(|&byte| is_key_byte(byte))
        {
            return Some((Token::Fixed(operator), rest.len() - behind.len()));
        }
    }
    None
}

fn starts(text: &[u8], with: &str) -> bool {
    text.starts_with(with.as_bytes())
}

fn without_space(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|&&byte| byte == b' ' || byte == b'\t').count();
    &text[spaces..]
}

struct Reader<'a> {
    tokens: &'a [Token],
    depth: usize,
    within: Within,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first.clone())
    }

    fn eat(&mut self, fixed: &'static str) -> bool {
        let is_next = self.tokens.first() == Some(&Token::Fixed(fixed));
        if is_next {
            self.tokens = &self.tokens[1..];
        }
        is_next
    }

    fn or(&mut self) -> Option<Tree> {
        let mut operands = vec![self.and()?];
        while self.eat("||") {
            operands.push(self.and()?);
        }
        Some(Tree::Or(operands))
    }

    fn and(&mut self) -> Option<Tree> {
        let mut operands = vec![self.unary()?];
        while self.eat("&&") {
            operands.push(self.unary()?);
        }
        Some(Tree::And(operands))
    }

    fn unary(&mut self) -> Option<Tree> {
        let mut negations = 0;
        while self.eat("!") {
            negations += 1;
        }
        let primary = self.primary()?;
        Some(if negations % 2 == 1 { Tree::Not(Box::new(primary)) } else { primary })
    }

    fn primary(&mut self) -> Option<Tree> {
        match self.next()? {
            Token::Fixed("(") => {
                self.depth += 1;
                if self.within == Within::Limits && self.depth > 64 {
                    return None;
                }
                let inner = self.or()?;
                self.depth -= 1;
                self.eat(")").then_some(inner)
            }
            Token::Fixed("all(") => self.eat(")").then_some(Tree::All),
            Token::Fixed("global(") => self.eat(")").then_some(Tree::Global),
            Token::Fixed("has(") => {
                let Token::Key(key) = self.next()? else { return None };
                self.eat(")").then_some(Tree::Has(key))
            }
            Token::Key(key) => self.operation(key),
            _ => None,
        }
    }

    fn operation(&mut self, key: String) -> Option<Tree> {
        let Token::Fixed(operator) = self.next()? else { return None };
        match operator {
            "==" | "!=" | "contains" | "starts with" | "ends with" => {
                let Token::Literal(value) = self.next()? else { return None };
                Some(Tree::Compare(key, operator, value))
            }
            "in" | "not in" => Some(Tree::Member(key, operator == "in", self.set()?)),
            _ => None,
        }
    }

    fn set(&mut self) -> Option<Vec<String>> {
        let mut values = Vec::new();
        if !self.eat("{") {
            return None;
        }
        while !self.eat("}") {
            let Token::Literal(value) = self.next()? else { return None };
            values.push(value);
            if !self.eat(",") {
                return self.eat("}").then_some(values);
            }
        }
        Some(values)
    }
}

impl Tree {
    /// Returns whether the selector holds for these labels.
    pub(super) fn holds(&self, labels: &BTreeMap<&str, String>) -> bool {
        let value = |key: &String| labels.get(key.as_str());
        match self {
            Self::All | Self::Global => true,
            Self::Has(key) => value(key).is_some(),
            Self::Compare(key, "!=", operand) => value(key) != Some(operand),
            Self::Compare(key, operator, operand) => value(key).is_some_and(|value| {
                let (value, operand) = (value.as_bytes(), operand.as_bytes());
                let mut places = (0..=value.len()).filter(|&at| {
                    value.len() - at >= operand.len() && &value[at..at + operand.len()] == operand
                });
                match *operator {
                    "==" => value == operand,
                    "contains" => places.next().is_some(),
                    "starts with" => places.next() == Some(0),
                    _ => places.any(|at| at + operand.len() == value.len()),
                }
            }),
            Self::Member(key, wanted, values) => {
                value(key).is_some_and(|value| values.contains(value)) == *wanted
            }
            Self::Not(tree) => !tree.holds(labels),
            Self::And(trees) => !trees.iter().any(|it| !it.holds(labels)),
            Self::Or(trees) => trees.iter().any(|it| it.holds(labels)),
        }
    }

    /// Adds the keys that are mentioned, each with the values.
    pub(super) fn mentioned<'a>(&'a self, keys: &mut BTreeMap<&'a str, Vec<&'a str>>) {
        match self {
            Self::All | Self::Global => {}
            Self::Has(key) => {
                keys.entry(key).or_default();
            }
            Self::Compare(key, _, value) => keys.entry(key).or_default().push(value),
            Self::Member(key, _, values) => {
                keys.entry(key).or_default().extend(values.iter().map(String::as_str));
            }
            Self::Not(tree) => tree.mentioned(keys),
            Self::And(trees) | Self::Or(trees) => trees.iter().for_each(|it| it.mentioned(keys)),
        }
    }

    /// Returns whether `global()` is mentioned, which rewriting gives another meaning.
    pub(super) fn mentions_global(&self) -> bool {
        match self {
            Self::Global => true,
            Self::All | Self::Has(_) | Self::Compare(..) | Self::Member(..) => false,
            Self::Not(tree) => tree.mentions_global(),
            Self::And(trees) | Self::Or(trees) => trees.iter().any(Self::mentions_global),
        }
    }
}
