//! A translation.

use crate::schema::translate::TranslateResult;

/// A translation as a self-contained HTML file.
#[must_use]
pub fn translate_html(_: &TranslateResult) -> String {
    String::new()
}
