//! Tables of bad scenarios with the place of the finding marked in the text.

use scenarios::diagnostic::{Code, Color};

use super::findings;

/// Marks the place of the finding; taken out before the text is loaded.
const MARK: &str = "§";

/// A bad scenario and what must be said about it.
pub(crate) struct Case {
    code: Code,
    text: String,
    fragment: &'static str,
}

pub(crate) fn case(code: Code, text: &str, fragment: &'static str) -> Case {
    Case {
        code,
        text: text.to_owned(),
        fragment,
    }
}

/// A case inside a process `p` with a mapping `ram` of 16 pages.
pub(crate) fn process(code: Code, members: &str, fragment: &'static str) -> Case {
    let text = format!(
        "{{\n  \"title\": \"t\",\n  \"files\": {{ \"heap\": {{ \"pages\": 64 }} }},\n  \
         \"processes\": {{ \"p\": {{\n{members}\n  }} }}\n}}"
    );
    Case { code, text, fragment }
}

/// A case with one operation.
pub(crate) fn op(code: Code, op: &str, fragment: &'static str) -> Case {
    let members = format!(
        "    \"maps\": {{ \"ram\": {{ \"pages\": 16 }} }},\n    \
         \"threads\": {{ \"main\": {{ \"script\": [\n      {op}\n    ] }} }}"
    );
    process(code, &members, fragment)
}

/// A case at the top of the file.
pub(crate) fn head(code: Code, member: &str, fragment: &'static str) -> Case {
    let text = format!(
        "{{\n  {member},\n  \"processes\": {{ \"p\": {{ \"threads\": \
         {{ \"t\": {{ \"script\": [] }} }} }} }}\n}}"
    );
    Case { code, text, fragment }
}

/// Holds each case against what is found: one finding, at the mark, with its text and help.
pub(crate) fn run(cases: &[Case]) {
    for Case { code, text, fragment } in cases {
        let at = text.find(MARK).unwrap_or_else(|| panic!("no mark in {text}"));
        let line = text[..at].matches('\n').count() + 1;
        let column = text[..at].rsplit('\n').next().unwrap_or("").chars().count() + 1;
        let plain = text.replacen(MARK, "", 1);
        let found = findings(plain.as_bytes());
        let shown = found.render(Color::Never);
        let hit = found.items.iter().find(|item| {
            item.code == *code
                && item
                    .span
                    .is_some_and(|span| (span.line, span.column) == (line, column))
        });
        let Some(hit) = hit else {
            panic!("expected {code} at {line}:{column} in\n{plain}\ngot\n{shown}")
        };
        let text = hit.render(Color::Never);
        assert!(text.contains(fragment), "expected `{fragment}` in\n{text}");
        assert!(text.contains(&format!("bad.jsonc:{line}:{column}")), "{text}");
        assert!(hit.help.is_some(), "no help in\n{text}");
        assert_eq!(found.len(), 1, "more than one finding:\n{shown}");
    }
}

impl Case {
    /// Marks the object of thread `t`.
    pub(crate) fn object_marked(mut self) -> Self {
        self.text = self.text.replacen("\"t\": { \"cpu", "\"t\": §{ \"cpu", 1);
        self
    }
}
