//! One line of a log: who, and what.

/// What a call returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ret {
    /// A number or an address.
    Value(u64),
    /// Minus one, with the name of the error, or a restart.
    Failed,
    /// `?`: the call did not return.
    Never,
}

/// A call that returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// Name of the call.
    pub(super) name: String,
    /// Its arguments, as the log writes them.
    pub(super) args: Vec<String>,
    /// Its result.
    pub(super) ret: Ret,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// A whole call: name and the text after the opening parenthesis.
    Call(&'a str, &'a str),
    /// The beginning of a call: name and the text after the opening parenthesis.
    Unfinished(&'a str, &'a str),
    /// The rest of a call: its name and the text that continues the arguments.
    Resumed(&'a str, &'a str),
    /// `+++ exited with` and `+++ killed by`.
    Ended,
    /// `+++ superseded by execve in pid N +++`.
    Superseded(u32),
    /// A signal.
    Signal,
    /// A remark of strace itself.
    Remark,
}

/// Splits a line into the task (0 when the log names none) and the body.
pub(super) fn parse(text: &str) -> Option<(u32, Body<'_>)> {
    let (tid, rest) = task(text.trim());
    if rest.is_empty() || rest.starts_with("strace: ") || rest.starts_with("> ") {
        return Some((tid, Body::Remark));
    }
    Some((tid, body(stamps(rest))?))
}

fn task(text: &str) -> (u32, &str) {
    if let Some(inner) = text.strip_prefix("[pid")
        && let Some((number, rest)) = inner.split_once(']')
        && let Ok(tid) = number.trim().parse()
    {
        return (tid, rest.trim_start());
    }
    match text.split_once(char::is_whitespace) {
        Some((first, rest)) if first.bytes().all(|b| b.is_ascii_digit()) => {
            first.parse().map_or((0, text), |tid| (tid, rest.trim_start()))
        }
        _ => (0, text),
    }
}

/// Drops `-t`, `-tt`, `-ttt` and `-r` time stamps.
fn stamps(mut text: &str) -> &str {
    while let Some((first, rest)) = text.split_once(char::is_whitespace) {
        let numeric = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b':' | b')');
        if first != "(+" && !(first.starts_with(|c: char| c.is_ascii_digit()) && first.bytes().all(numeric)) {
            break;
        }
        text = rest.trim_start();
    }
    text
}

fn body(text: &str) -> Option<Body<'_>> {
    if text.starts_with("--- ") {
        return Some(Body::Signal);
    }
    if let Some(end) = text.strip_prefix("+++ ") {
        if let Some(rest) = end.strip_prefix("superseded by execve in pid ") {
            return rest.split_whitespace().next()?.parse().ok().map(Body::Superseded);
        }
        return (end.starts_with("exited") || end.starts_with("killed")).then_some(Body::Ended);
    }
    if let Some(rest) = text.strip_prefix("<... ") {
        let (name, rest) = rest.split_once(" resumed>")?;
        return is_name(name).then_some(Body::Resumed(name, rest));
    }
    let (name, rest) = text.split_once('(')?;
    if !is_name(name) {
        return None;
    }
    match rest.rfind("<unfinished ...>") {
        Some(at) if unfinished_tail(&rest[at..]) => Some(Body::Unfinished(name, &rest[..at])),
        _ => Some(Body::Call(name, rest)),
    }
}

/// `<unfinished ...>` ends the line, or is followed by `) = ?`.
fn unfinished_tail(tail: &str) -> bool {
    let rest = tail.trim_start_matches("<unfinished ...>").trim_start();
    rest.is_empty() || rest.starts_with(')')
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Reads arguments and result out of the text after the opening parenthesis.
pub(super) fn call(name: &str, text: &str) -> Option<Call> {
    let (args, close) = super::args::split(text)?;
    let rest = text
        .get(close + 1..)?
        .trim_start()
        .strip_prefix('=')?
        .trim_start();
    let word = rest.split(|c: char| c.is_whitespace() || c == '<').next()?;
    let ret = match word {
        "?" if rest.starts_with("? E") => Ret::Failed,
        "?" => Ret::Never,
        _ if word.starts_with('-') => Ret::Failed,
        _ => Ret::Value(super::args::number(word)?),
    };
    Some(Call {
        name: name.to_owned(),
        args,
        ret,
    })
}
