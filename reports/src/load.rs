//! Reading results back from JSON.
use crate::schema::translate::{TRANSLATE_SCHEMA, TranslateResult};
use crate::schema::{COMPARE_SCHEMA, CompareResult, RUN_SCHEMA, RunResult};
use std::fmt;

/// A result of whatever kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Loaded {
    /// One run.
    Run(Box<RunResult>),
    /// A comparison.
    Compare(Box<CompareResult>),
    /// A translation.
    Translate(Box<TranslateResult>),
}

/// Why a text is not a result this version can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadError {
    /// Not JSON at all, with line and column of the first error.
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1 (0 at the end of the text).
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// JSON, but without a `schema` string at the top.
    NoSchema,
    /// A schema this version does not read.
    UnknownSchema(String),
    /// The schema is known but the content does not follow it.
    Shape {
        /// Schema the text claims.
        schema: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What does not fit.
        message: String,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax {
                line,
                column,
                message,
            } => {
                write!(f, "not JSON: {message} at line {line} column {column}")
            }
            Self::NoSchema => write!(
                f,
                "no `schema` field: a result starts with \"schema\": \"{RUN_SCHEMA}\", \"{COMPARE_SCHEMA}\" or \
                 \"{TRANSLATE_SCHEMA}\""
            ),
            Self::UnknownSchema(found) => write!(
                f,
                "schema `{found}` is not known: this version reads `{RUN_SCHEMA}`, `{COMPARE_SCHEMA}` and \
                 `{TRANSLATE_SCHEMA}`"
            ),
            Self::Shape {
                schema,
                line,
                column,
                message,
            } => {
                write!(
                    f,
                    "does not follow schema `{schema}`: {message} at line {line} column {column}"
                )
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// Only the field that tells what the rest is.
#[derive(serde::Deserialize)]
struct Head {
    schema: Option<serde_json::Value>,
}

/// Reads a result as written by `--json`, after looking at its `schema` field.
///
/// # Errors
/// When the text is not JSON, has no known `schema`, or does not follow the schema it names.
pub fn load(text: &str) -> Result<Loaded, LoadError> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| LoadError::Syntax {
        line: e.line(),
        column: e.column(),
        message: plain(&e),
    })?;
    let head: Head = serde_json::from_value(value).map_err(|_| LoadError::NoSchema)?;
    match head.schema.as_ref().and_then(serde_json::Value::as_str) {
        Some(RUN_SCHEMA) => shaped(text, RUN_SCHEMA).map(Loaded::Run),
        Some(COMPARE_SCHEMA) => shaped(text, COMPARE_SCHEMA).map(Loaded::Compare),
        Some(TRANSLATE_SCHEMA) => shaped(text, TRANSLATE_SCHEMA).map(Loaded::Translate),
        Some(other) => Err(LoadError::UnknownSchema(other.to_owned())),
        None => Err(LoadError::NoSchema),
    }
}

fn shaped<T: serde::de::DeserializeOwned>(text: &str, schema: &str) -> Result<T, LoadError> {
    serde_json::from_str(text).map_err(|e| LoadError::Shape {
        schema: schema.to_owned(),
        line: e.line(),
        column: e.column(),
        message: plain(&e),
    })
}

/// serde_json's message without the position, which we carry as numbers.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn every_kind_comes_back_unchanged() {
        let compared = sample::comparison();
        let text = serde_json::to_string_pretty(&compared).unwrap();
        assert_eq!(load(&text), Ok(Loaded::Compare(Box::new(compared.clone()))));
        let run = compared.runs[1].clone();
        let text = serde_json::to_string(&run).unwrap();
        assert_eq!(load(&text), Ok(Loaded::Run(Box::new(run))));
        let translated = crate::translation::translation();
        let text = serde_json::to_string(&translated).unwrap();
        assert_eq!(load(&text), Ok(Loaded::Translate(Box::new(translated))));
    }

    #[test]
    fn errors_say_what_is_wrong_and_where() {
        assert!(matches!(
            load("{\n  \"schema\": oops"),
            Err(LoadError::Syntax { line: 2, .. })
        ));
        assert_eq!(load("{}"), Err(LoadError::NoSchema));
        assert_eq!(load("[1]"), Err(LoadError::NoSchema));
        assert_eq!(load("{\"schema\": 1}"), Err(LoadError::NoSchema));
        let unknown = load("{\"schema\": \"mmusim.run/9\"}").unwrap_err();
        assert_eq!(unknown, LoadError::UnknownSchema("mmusim.run/9".into()));
        assert!(unknown.to_string().contains("mmusim.run/1"));
        let shape = load("{\"schema\": \"mmusim.run/1\"}").unwrap_err().to_string();
        assert!(shape.contains("missing field `tool`"), "{shape}");
    }
}
