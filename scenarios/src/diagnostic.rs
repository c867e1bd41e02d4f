//! What is wrong with a scenario file, where, and what would be right.
//!
//! A [`Diagnostic`] is plain data: the command line renders it for a terminal
//! ([`Diagnostic::render`]) or hands it on as JSON ([`Diagnostics::to_json`]). Codes are stable:
//! a code keeps its number and meaning, and a retired number is never used again.

mod render;
pub(crate) mod suggest;

use serde::{Deserialize, Serialize, Serializer};

pub use render::Color;

/// Number of diagnostics kept of one file; the rest is only counted.
pub const MAX_DIAGNOSTICS: usize = 20;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal;)+) => {
        /// Stable code of a diagnostic: `E` for errors, `W` for warnings.
        ///
        /// `E00xx` reading and parsing, `E01xx` shape, `E02xx` meaning, `W03xx` warnings.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code { $($(#[doc = $doc])+ $name,)+ }

        impl Code {
            /// All codes, in the order of their numbers.
            pub const ALL: &'static [Code] = &[$(Code::$name,)+];

            /// The code as printed, for example `E0104`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $code,)+ }
            }

            /// One sentence on what the code stands for.
            #[must_use]
            pub fn explain(self) -> &'static str {
                match self { $(Code::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

codes! {
    /// The file cannot be read.
    Unreadable = "E0001";
    /// A directory was named where a file is needed.
    Directory = "E0002";
    /// The file is larger than a scenario may be.
    TooLarge = "E0003";
    /// The file is not UTF-8 text.
    NotUtf8 = "E0004";
    /// The file holds no value.
    Empty = "E0005";
    /// The text is not JSON with comments.
    Syntax = "E0006";
    /// Objects and arrays are nested too deeply.
    TooDeep = "E0007";
    /// A key occurs twice in one object.
    DuplicateKey = "E0008";
    /// A chain of `extends` comes back to itself.
    ExtendsCycle = "E0009";
    /// A chain of `extends` is too long.
    ExtendsDepth = "E0010";
    /// The target of `extends` cannot be used.
    ExtendsTarget = "E0011";

    /// An object has a key that the language does not know.
    UnknownKey = "E0101";
    /// A value has the wrong type.
    WrongType = "E0102";
    /// An object lacks a key that it needs.
    MissingKey = "E0103";
    /// A name is none of those allowed here.
    UnknownVariant = "E0104";
    /// A number is not one that the field can hold.
    BadNumber = "E0105";
    /// A choice between alternatives is written wrongly: none, several, or without its argument.
    BadChoice = "E0106";
    /// The value passed the schema but was refused nevertheless.
    Refused = "E0107";

    /// The title is empty.
    EmptyTitle = "E0201";
    /// No machine preset has this name.
    UnknownMachine = "E0202";
    /// No kernel profile has this name.
    UnknownKernel = "E0203";
    /// No notifier design has this name.
    UnknownDesign = "E0204";
    /// The number of CPUs is impossible.
    CpuCount = "E0205";
    /// A thread is bound to a CPU that does not exist.
    CpuRange = "E0206";
    /// The machine has no nested paging.
    NoNestedPaging = "E0207";
    /// The scenario needs more memory than there is.
    Memory = "E0208";
    /// Two mappings overlap.
    Overlap = "E0209";
    /// An address is malformed, unaligned or outside the user half of the address space.
    BadAddress = "E0210";
    /// A length, a count or a stride is zero.
    Zero = "E0211";
    /// A mapping has no size.
    NoSize = "E0212";
    /// A mapping reaches beyond its file.
    BeyondFile = "E0213";
    /// No file has this name.
    UnknownFile = "E0214";
    /// No mapping has this name.
    UnknownMap = "E0215";
    /// No process has this name.
    UnknownProcess = "E0216";
    /// No secondary MMU has this name.
    UnknownMmu = "E0217";
    /// A region is not named exactly once.
    BadRegion = "E0218";
    /// A region reaches beyond its mapping.
    BeyondMap = "E0219";
    /// Forking and the declaration of forked processes do not fit.
    BadFork = "E0220";
    /// An access pattern has an impossible parameter.
    BadPattern = "E0221";
    /// A share exceeds 100 percent.
    BadPercent = "E0222";
    /// An expectation cannot be checked.
    BadExpect = "E0223";
    /// An XPMEM export is imported by its own partition.
    OwnImporter = "E0224";
    /// A driver release is not a version of Linux.
    BadVersion = "E0225";
    /// A script does more than a run can.
    TooManyOps = "E0226";
    /// The scenario has no process.
    NoProcess = "E0227";
    /// A thread is to be born at its first barrier, but begins with something else.
    BirthWithoutBarrier = "E0228";
    /// A thread that imports memory of its process changes the address space of that process.
    RankOperation = "E0229";
    /// A forked process declares mappings of its own.
    ForkedMaps = "E0230";
    /// A duration is too long.
    TooLong = "E0231";
    /// A size is larger than can be simulated.
    TooMuch = "E0232";
    /// The machine file cannot be read, or says what cannot be.
    BadMachineFile = "E0233";
    /// A size, offset or address of huge pages is not a multiple of a huge page.
    HugeAlignment = "E0240";
    /// A file of huge pages, but no huge page in memory.
    NoHugePages = "E0241";

    /// Only one thread takes part in a barrier.
    LonelyBarrier = "W0301";
    /// A process has no thread.
    NoThreads = "W0302";
    /// A secondary MMU shadows nothing.
    ShadowsNothing = "W0303";
    /// A secondary MMU is never registered.
    NeverRegistered = "W0304";
}

impl Code {
    /// Severity that comes with the code.
    #[must_use]
    pub fn severity(self) -> Severity {
        if self.as_str().starts_with('W') {
            Severity::Warning
        } else {
            Severity::Error
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Code::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == text)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown diagnostic code `{text}`")))
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The scenario cannot be run.
    Error,
    /// The scenario can be run but probably does not say what was meant.
    Warning,
}

impl Severity {
    /// The word printed before the code.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// A place in a file. Byte offsets do not count a byte order mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset after the last byte.
    pub end: usize,
    /// Line of the first byte, from 1.
    pub line: usize,
    /// Column of the first byte in characters, from 1.
    pub column: usize,
}

/// The source line of a span; a very long line is cut to the neighbourhood of the span.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// The text, without line end.
    pub text: String,
    /// Column of the first character of `text`; 1 unless the line was cut.
    pub column: usize,
}

/// A second place that explains the first, for example the earlier of two equal keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// File of the place.
    pub file: String,
    /// The place.
    pub span: Span,
    /// Its source line.
    pub source_line: Excerpt,
    /// What it has to do with the matter.
    pub message: String,
}

/// One finding about a scenario file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Stable code.
    pub code: Code,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// File, as it was named.
    pub file: String,
    /// Where in the file; absent when the file as a whole is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// Source line of the span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_line: Option<Excerpt>,
    /// Other places that matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
    /// What would be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic about a file as a whole.
    pub fn new(code: Code, file: impl Into<String>, message: impl Into<String>) -> Self {
        Diagnostic {
            code,
            severity: code.severity(),
            message: message.into(),
            file: file.into(),
            span: None,
            source_line: None,
            labels: Vec::new(),
            help: None,
        }
    }

    /// The same with a word on what would be right.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The finding in the style of rustc: place, source line, caret, help.
    #[must_use]
    pub fn render(&self, color: Color) -> String {
        render::render(self, color)
    }

    /// The finding as a JSON value.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or(serde_json::Value::Null)
    }
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render(Color::Never))
    }
}

/// The findings about a scenario, errors and warnings, in the order of discovery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostics {
    /// The first [`MAX_DIAGNOSTICS`] findings.
    pub items: Vec<Diagnostic>,
    /// Number of errors found beyond those in `items`.
    #[serde(default)]
    pub more_errors: usize,
    /// Number of warnings found beyond those in `items`.
    #[serde(default)]
    pub more_warnings: usize,
}

impl Diagnostics {
    /// No findings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a finding. Beyond [`MAX_DIAGNOSTICS`] it is counted only, except that an error takes
    /// the place of a warning.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.items.len() < MAX_DIAGNOSTICS {
            self.items.push(diagnostic);
            return;
        }
        if diagnostic.severity == Severity::Warning {
            self.more_warnings += 1;
            return;
        }
        let warning = self
            .items
            .iter()
            .rposition(|item| item.severity == Severity::Warning);
        match warning {
            Some(index) => {
                self.items.remove(index);
                self.items.push(diagnostic);
                self.more_warnings += 1;
            }
            None => self.more_errors += 1,
        }
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Number of findings kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether the scenario must not be run.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors().next().is_some()
    }

    /// The errors among the findings.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.items.iter().filter(|item| item.severity == Severity::Error)
    }

    /// The warnings among the findings.
    pub fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.items
            .iter()
            .filter(|item| item.severity == Severity::Warning)
    }

    /// All findings rendered one after the other, with a count of those left out.
    #[must_use]
    pub fn render(&self, color: Color) -> String {
        let mut out: String = self.items.iter().map(|item| item.render(color) + "\n").collect();
        if self.more_errors + self.more_warnings > 0 {
            out.push_str(&format!(
                "note: {} more errors and {} more warnings were left out\n",
                self.more_errors, self.more_warnings
            ));
        }
        out
    }

    /// The findings as a JSON value.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or(serde_json::Value::Null)
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Diagnostics {
            items: vec![diagnostic],
            more_errors: 0,
            more_warnings: 0,
        }
    }
}

impl std::fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.render(Color::Never).trim_end())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_ordered() {
        let texts: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(texts.windows(2).all(|pair| pair[0] < pair[1]), "{texts:?}");
    }

    #[test]
    fn an_error_displaces_a_warning_when_the_list_is_full() {
        let mut list = Diagnostics::new();
        for _ in 0..MAX_DIAGNOSTICS {
            list.push(Diagnostic::new(Code::NoThreads, "a", "process without threads"));
        }
        list.push(Diagnostic::new(Code::Zero, "a", "count is 0"));
        assert_eq!(list.len(), MAX_DIAGNOSTICS);
        assert!(list.has_errors());
        assert_eq!(list.more_warnings, 1);
    }

    #[test]
    fn json_form_round_trips() {
        let list = Diagnostics::from(Diagnostic::new(Code::Zero, "a", "count is 0").with_help("1"));
        let json = list.to_json();
        assert_eq!(json["items"][0]["code"], "E0211");
        assert_eq!(json["items"][0]["severity"], "error");
        assert_eq!(
            serde_json::from_value::<Diagnostics>(json).expect("reads back"),
            list
        );
    }
}
