//! Checks of the expectations.

use super::Checker;
use super::path::At;
use crate::ast::Expect;
use crate::diagnostic::Code;
use crate::diagnostic::suggest::{self, quote};

/// Subjects whose value is a text.
const TEXTS: [&str; 2] = ["end", "violation"];

/// How a run may end.
const ENDS: [&str; 6] = [
    "completed",
    "violation",
    "expectation-failed",
    "deadlock",
    "livelock",
    "budget-exhausted",
];

/// First parts of the names of metrics, for suggestions.
const FAMILIES: [&str; 28] = [
    "end",
    "violation",
    "notifier",
    "tlb",
    "kvm",
    "gru",
    "xpmem",
    "pages",
    "faults",
    "io",
    "walk",
    "zap",
    "truncate",
    "i_mmap",
    "page_tables",
    "rmap",
    "reclaim",
    "swap",
    "lru",
    "memory",
    "preempt",
    "breakdown",
    "secondary",
    "lock",
    "op",
    "sim",
    "frames",
    "ipi",
];

impl Checker<'_> {
    pub(super) fn expectations(&mut self) {
        let root = At::ROOT;
        let list = root.key("expect");
        for (index, expect) in self.scenario.expect.iter().enumerate() {
            self.expectation(expect, &list.index(index));
        }
    }

    fn expectation(&mut self, expect: &Expect, at: &At<'_>) {
        if let Some(design) = &expect.under {
            self.design_name(design, &at.key("under"));
        }
        let numeric = expect.equals.or(expect.at_least).or(expect.at_most).is_some();
        let subject = &expect.subject;
        if TEXTS.contains(&subject.as_str()) {
            if numeric {
                let message = format!("`{subject}` is a text and cannot be compared with a number");
                self.error(Code::BadExpect, at, message, "write `\"is\": ...`");
            }
        } else if !is_metric(subject) {
            let message = format!("{} is neither a metric nor `end` nor `violation`", quote(subject));
            let help = match suggest::nearest(subject, FAMILIES) {
                Some(near) => {
                    format!("did you mean `{near}`? metrics have dotted names such as `tlb.shootdown.ipis`")
                }
                None => "metrics have dotted names such as `tlb.shootdown.ipis`".to_owned(),
            };
            self.error(Code::BadExpect, &at.key("subject"), message, help);
        } else if expect.is.is_some() {
            let message = format!("metric `{subject}` is a number and cannot be compared with a text");
            self.error(
                Code::BadExpect,
                &at.key("is"),
                message,
                "write `equals`, `at_least` or `at_most`",
            );
        }
        if !numeric && expect.is.is_none() {
            let message = format!("expectation on {} has no condition", quote(subject));
            let help = if TEXTS.contains(&subject.as_str()) {
                "add `\"is\": ...`"
            } else {
                "add `equals`, `at_least` or `at_most`"
            };
            self.error(Code::BadExpect, at, message, help);
        }
        self.conditions(expect, at);
    }

    fn conditions(&mut self, expect: &Expect, at: &At<'_>) {
        let low = expect.at_least.max(expect.equals);
        let high = match (expect.at_most, expect.equals) {
            (Some(most), Some(exact)) => Some(most.min(exact)),
            (most, exact) => most.or(exact),
        };
        if let (Some(low), Some(high)) = (low, high)
            && low > high
        {
            let message = format!("no number is at least {low} and at most {high}");
            self.error(Code::BadExpect, at, message, "correct one of the conditions");
        }
        if let (Some(end), "end") = (&expect.is, expect.subject.as_str())
            && !ENDS.contains(&end.as_str())
        {
            let message = format!("no run ends with {}", quote(end));
            self.error(
                Code::BadExpect,
                &at.key("is"),
                message,
                suggest::help("ends", end, &ENDS),
            );
        }
    }
}

/// Two or more parts of letters, digits, `_`, `-` and `>`, joined with dots.
fn is_metric(subject: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_->".contains(&b))
    };
    subject.contains('.') && subject.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::FAMILIES;

    #[test]
    fn every_metric_belongs_to_a_family_that_can_be_suggested() {
        let devices = kvm::KvmMetrics::DEFS
            .iter()
            .chain(gru::GruMetrics::DEFS)
            .chain(xpmem::XpmemMetrics::DEFS);
        for def in mm::MmMetrics::DEFS.iter().chain(devices) {
            let family = def.name.split('.').next().expect("a first part");
            assert!(FAMILIES.contains(&family), "{}", def.name);
        }
    }
}
