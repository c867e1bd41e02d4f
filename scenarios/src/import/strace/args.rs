//! Arguments as strace prints them.

/// Splits arguments at commas outside strings, brackets and comments; also returns the position
/// of the parenthesis that closes the call.
pub(super) fn split(text: &str) -> Option<(Vec<String>, usize)> {
    let bytes = text.as_bytes();
    let (mut args, mut depth, mut start, mut at) = (Vec::new(), 0_usize, 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_string(bytes, at)?,
            b'/' if bytes.get(at + 1) == Some(&b'*') => at = end_of_comment(text, at)?,
            b'(' | b'[' | b'{' => depth += 1,
            b')' if depth == 0 => {
                push(&mut args, &text[start..at]);
                return Some((args, at));
            }
            b')' | b']' | b'}' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => {
                push(&mut args, &text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn push(args: &mut Vec<String>, text: &str) {
    if !text.trim().is_empty() {
        args.push(text.trim().to_owned());
    }
}

fn end_of_string(bytes: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at),
            _ => at += 1,
        }
    }
}

fn end_of_comment(text: &str, open: usize) -> Option<usize> {
    text.get(open..)?.find("*/").map(|length| open + length + 1)
}

/// A number: decimal, `0x` hexadecimal, octal with a leading 0; `NULL` is 0. What follows the
/// number (`3</path>`, a comment) is ignored.
pub(super) fn number(text: &str) -> Option<u64> {
    if text.starts_with("NULL") {
        return Some(0);
    }
    let digits = |body: &str, radix: u32| {
        let end = body.find(|c: char| !c.is_digit(radix)).unwrap_or(body.len());
        u64::from_str_radix(&body[..end], radix).ok()
    };
    match text.strip_prefix("0x") {
        Some(hex) => digits(hex, 16),
        None if text.starts_with('0') && text.len() > 1 => digits(text, 8),
        None => digits(text, 10),
    }
}

/// Whether a `|` separated set names a flag.
pub(super) fn has(set: &str, flag: &str) -> bool {
    set.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .any(|word| word == flag)
}

/// The inside of the first quoted string, escapes left as they are.
pub(super) fn quoted(text: &str) -> Option<&str> {
    let open = text.find('"')?;
    let close = end_of_string(text.as_bytes(), open)?;
    text.get(open + 1..close)
}

/// The value of `key=` in the printed arguments of clone or clone3.
pub(super) fn field<'a>(args: &'a [String], key: &str) -> Option<&'a str> {
    args.iter().find_map(|arg| {
        let (before, after) = arg.split_once(key)?;
        let fresh = !before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let end = after.find([',', '}']).unwrap_or(after.len());
        fresh.then(|| &after[..end])
    })
}

/// The path of a decorated descriptor, `3</path>`.
pub(super) fn decoration(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('<')?;
    rest.split_once('>')
        .map(|(path, _)| path)
        .filter(|path| !path.is_empty())
}
