//! Looks through the code of an archive, as text.
//!
//! TorchScript has no strings that become code but one: `getattr` with a literal. It needs
//! a namespace to look in, and a namespace that is used as a value is refused, so every
//! operator that can run is written out as a path. That makes lists of names meaningful.
//!
//! libtorch's parser and compiler recurse, so whatever makes their tree deep is limited:
//! brackets, blocks, branches, and the operators, calls and subscripts of one expression.

mod names;
mod tokens;

pub(crate) use names::judge;

use self::tokens::{Token, Tokens};
use crate::Limits;

const KEYWORDS: &[&str] = &["and", "or", "not", "if", "else", "in", "is", "lambda"];

/// Checks one file of code.
///
/// # Errors
/// In words, with the line.
pub(crate) fn scan(text: &str, limits: &Limits) -> Result<(), String> {
    let mut tokens = Tokens::of(text);
    let mut scanner = Scanner::new(limits);
    loop {
        let result = match tokens.next() {
            Ok(Some(token)) => scanner.token(token),
            Ok(None) => return scanner.end_path().map_err(|what| format!("line {}: {what}", tokens.line())),
            Err(what) => Err(what),
        };
        result.map_err(|what| format!("line {}: {what}", tokens.line()))?;
    }
}

struct Scanner<'a> {
    limits: &'a Limits,
    /// Operators since the last comma, for every bracket that is open and for none.
    chains: Vec<usize>,
    /// How far the open blocks are indented.
    blocks: Vec<usize>,
    branches: usize,
    /// Names with dots between them, as far as read.
    path: Vec<&'a str>,
    /// Whether a bracket here would be a call or a subscript.
    after_value: bool,
    after_dot: bool,
    /// Old archives import modules by name, which gives them no other one.
    importing: bool,
}

impl<'a> Scanner<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            chains: vec![0],
            blocks: vec![0],
            branches: 0,
            path: vec![],
            after_value: false,
            after_dot: false,
            importing: false,
        }
    }

    fn token(&mut self, token: Token<'a>) -> Result<(), String> {
        // Inside brackets a line may end anywhere, also in the middle of a path.
        if let Token::Newline(indent) = token {
            return if self.chains.len() > 1 { Ok(()) } else { self.line(indent) };
        }
        let dot = token == Token::Symbol(b'.');
        let dotted = std::mem::replace(&mut self.after_dot, dot);
        match token {
            Token::Name(name) if dotted => {
                if !self.path.is_empty() {
                    self.path.push(name);
                }
            }
            _ if dot => {}
            _ => self.end_path()?,
        }
        match token {
            Token::Name("elif") => {
                self.branches += 1;
                if self.branches > self.limits.nesting {
                    return Err(format!("more than {} branches by `elif`", self.limits.nesting));
                }
            }
            Token::Name(name) if !dotted && KEYWORDS.contains(&name) => self.count()?,
            Token::Name(name) if !dotted => self.path.push(name),
            Token::Symbol(symbol) => self.symbol(symbol)?,
            _ => {}
        }
        self.after_value = match token {
            Token::Name(name) => dotted || !KEYWORDS.contains(&name),
            Token::Literal => true,
            Token::Symbol(symbol) => matches!(symbol, b')' | b']' | b'}'),
            Token::Newline(_) => false,
        };
        Ok(())
    }

    fn symbol(&mut self, symbol: u8) -> Result<(), String> {
        match symbol {
            b'(' | b'[' | b'{' => {
                if self.after_value {
                    self.count()?;
                }
                self.chains.push(0);
                if self.chains.len() - 1 > self.limits.nesting {
                    return Err(format!("brackets nest deeper than {}", self.limits.nesting));
                }
            }
            b')' | b']' | b'}' => {
                self.chains.pop();
                if self.chains.is_empty() {
                    return Err("a bracket closes that was not open".into());
                }
            }
            b',' => *self.chain() = 0,
            _ => self.count()?,
        }
        Ok(())
    }

    /// A new statement, or an empty line; both begin all over.
    fn line(&mut self, indent: usize) -> Result<(), String> {
        self.end_path()?;
        (self.after_value, self.after_dot, self.importing) = (false, false, false);
        *self.chain() = 0;
        while self.blocks.last().is_some_and(|open| *open > indent) {
            self.blocks.pop();
        }
        if self.blocks.last().is_none_or(|open| *open < indent) {
            self.blocks.push(indent);
        }
        if self.blocks.len() > self.limits.nesting {
            return Err(format!("blocks nest deeper than {}", self.limits.nesting));
        }
        Ok(())
    }

    /// Everything that makes the parser's tree deeper counts.
    fn count(&mut self) -> Result<(), String> {
        let limit = self.limits.operators;
        *self.chain() += 1;
        if *self.chain() > limit {
            return Err(format!("an expression has more than {limit} operators"));
        }
        Ok(())
    }

    fn chain(&mut self) -> &mut usize {
        if self.chains.is_empty() {
            self.chains.push(0);
        }
        let last = self.chains.len() - 1;
        &mut self.chains[last]
    }

    fn end_path(&mut self) -> Result<(), String> {
        if self.path.is_empty() {
            return Ok(());
        }
        let path = std::mem::take(&mut self.path);
        let imported = std::mem::replace(&mut self.importing, path == ["import"]);
        if imported { Ok(()) } else { judge(&path) }
    }
}

#[cfg(test)]
mod tests;
