//! "Did you mean": the nearest name by edit distance, and quoting of what the user wrote.

/// Longest piece of user text repeated in a message, in characters.
const QUOTED: usize = 60;

/// Longest list of allowed names printed in full.
const LISTED: usize = 24;

/// The text in backquotes, control characters escaped and cut when long.
pub(crate) fn quote(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTED).flat_map(escape).collect();
    if text.chars().nth(QUOTED).is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}

fn escape(c: char) -> impl Iterator<Item = char> {
    let text = if c.is_control() {
        c.escape_default().to_string()
    } else {
        c.to_string()
    };
    text.chars().collect::<Vec<_>>().into_iter()
}

/// The candidate that is nearest to `word`, when near enough to be a slip of the hand.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = fold(word);
    let length = word.chars().count();
    if length > QUOTED {
        return None;
    }
    let limit = (length / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Help text for an unknown name: a suggestion if there is one, then what is allowed.
pub(crate) fn help(what: &str, word: &str, candidates: &[&str]) -> String {
    let allowed = list(candidates);
    match nearest(word, candidates.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? {what}: {allowed}"),
        None => format!("{what}: {allowed}"),
    }
}

/// Names joined with commas, or `none`.
pub(crate) fn list(names: &[&str]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let mut text = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    if names.len() > LISTED {
        text.push_str(&format!(" and {} more", names.len() - LISTED));
    }
    text
}

fn fold(text: &str) -> String {
    text.chars()
        .map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() })
        .collect()
}

/// Optimal string alignment distance: insertion, deletion, substitution and transposition of
/// neighbours cost one each.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().take(QUOTED * 2).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substituted = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substituted.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "ab", 2),
            ("pagse", "pages", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn far_names_are_not_suggested() {
        assert_eq!(nearest("kernle", ["kernel", "machine"]), Some("kernel"));
        assert_eq!(nearest("zebra", ["kernel", "machine"]), None);
        assert_eq!(nearest("x", ["a", "b"]), None);
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(quote("a\u{1b}[31m"), "`a\\u{1b}[31m`");
        assert!(quote(&"x".repeat(100)).len() < 70);
    }
}
