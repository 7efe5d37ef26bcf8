//! Cuts the code of an archive into tokens, where libtorch's own lexer cuts it.
//!
//! What that lexer might read differently is refused instead of guessed at: text that is
//! not ASCII outside strings, and the old type comments, which it parses as code.

/// A token, and the line it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Name(&'a str),
    /// A number or a string.
    Literal,
    Symbol(u8),
    /// The end of a line, and how far the next one is indented.
    Newline(usize),
}

pub(super) struct Tokens<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self { text, at: 0, line: 1 }
    }

    /// The line of the token that came last.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The next token; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Token<'a>>, String> {
        let bytes = self.text.as_bytes();
        loop {
            let Some(&byte) = bytes.get(self.at) else { return Ok(None) };
            match byte {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\\' if bytes.get(self.at + 1) == Some(&b'\n') => {
                    self.at += 2;
                    self.line += 1;
                }
                b'#' => self.comment()?,
                b'\n' => {
                    self.at += 1;
                    self.line += 1;
                    let blanks = bytes[self.at..].iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
                    return Ok(Some(Token::Newline(blanks)));
                }
                b'"' | b'\'' => return self.string().map(Some),
                b'0'..=b'9' => {
                    self.at = self.end_of(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_');
                    return Ok(Some(Token::Literal));
                }
                _ if byte.is_ascii_alphabetic() || byte == b'_' => {
                    let from = self.at;
                    self.at = self.end_of(|b| b.is_ascii_alphanumeric() || b == b'_');
                    return Ok(Some(Token::Name(&self.text[from..self.at])));
                }
                _ if byte.is_ascii_graphic() => {
                    self.at += 1;
                    return Ok(Some(Token::Symbol(byte)));
                }
                _ => return Err(format!("byte {byte:#04x} is no part of TorchScript")),
            }
        }
    }

    fn comment(&mut self) -> Result<(), String> {
        let end = self.end_of(|b| b != b'\n');
        let said = self.text[self.at..end].trim_start_matches('#').trim_start();
        if said.starts_with("type:") {
            return Err("a type comment is code to libtorch, and `torch.jit.save` writes none".into());
        }
        self.at = end;
        Ok(())
    }

    fn string(&mut self) -> Result<Token<'a>, String> {
        let bytes = self.text.as_bytes();
        let quote = bytes[self.at];
        let triple = bytes[self.at..].starts_with(&[quote; 3]);
        let width = if triple { 3 } else { 1 };
        let mut next = self.at + width;
        while let Some(&byte) = bytes.get(next) {
            match byte {
                b'\\' => next += 1,
                b'\n' if !triple => break,
                _ if byte == quote && (!triple || bytes[next..].starts_with(&[quote; 3])) => {
                    self.line += bytes[self.at..next].iter().filter(|b| **b == b'\n').count();
                    self.at = next + width;
                    return Ok(Token::Literal);
                }
                _ => {}
            }
            next += 1;
        }
        Err("a string does not end".into())
    }

    fn end_of(&self, belongs: impl Fn(u8) -> bool) -> usize {
        let rest = &self.text.as_bytes()[self.at..];
        self.at + rest.iter().position(|byte| !belongs(*byte)).unwrap_or(rest.len())
    }
}
