//! What can be wrong with a machine's name or file.

use std::error::Error;
use std::fmt;

/// No machine of that name comes with the simulator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMachine {
    /// The name asked for.
    pub name: String,
    /// The names there are.
    pub known: &'static [&'static str],
    /// The nearest of them, if one is near.
    pub suggestion: Option<&'static str>,
}

impl UnknownMachine {
    pub(super) fn new(name: &str, known: &'static [&'static str]) -> Self {
        UnknownMachine {
            name: name.to_owned(),
            known,
            suggestion: nearest(name, known),
        }
    }
}

impl fmt::Display for UnknownMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown machine `{}`", self.name)?;
        did_you_mean(f, self.suggestion)?;
        write!(f, "; known machines: {}", self.known.join(", "))
    }
}

impl Error for UnknownMachine {}

/// A machine that cannot be had, a machine file that cannot be used, or a primitive without a price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineError {
    /// Neither the name of a preset nor the path of a file.
    Unknown(UnknownMachine),
    /// A machine file cannot be read.
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
    /// A machine file says what cannot be.
    Content(ContentError),
    /// No primitive of that name.
    UnknownCost {
        /// The name asked for.
        name: String,
        /// The nearest primitive, if one is near.
        suggestion: Option<&'static str>,
    },
    /// A primitive that this machine lacks, so that it has no price.
    AbsentCost {
        /// The primitive.
        name: String,
        /// The machine.
        machine: String,
    },
}

/// What is wrong in a machine file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentError {
    /// The file: a path, or the name of a preset.
    pub file: String,
    /// Line and column of the place, both from 1.
    pub line_column: Option<(usize, usize)>,
    /// Keys and indices that lead to the value, as in `tlb.l2[0]`; empty for the whole file.
    pub path: String,
    /// What is wrong, and a way out.
    pub what: String,
}

impl fmt::Display for ContentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some((line, column)) = self.line_column {
            write!(f, ":{line}:{column}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.what)
    }
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MachineError::Unknown(unknown) => {
                write!(
                    f,
                    "{unknown}; a machine file is named by a path that ends in .json or .jsonc"
                )
            }
            MachineError::Unreadable { file, why } => write!(f, "machine file {file} cannot be read: {why}"),
            MachineError::Content(error) => error.fmt(f),
            MachineError::UnknownCost { name, suggestion } => {
                write!(f, "unknown cost `{name}`")?;
                did_you_mean(f, *suggestion)
            }
            MachineError::AbsentCost { name, machine } => {
                write!(
                    f,
                    "machine `{machine}` has no `{name}`, so it has no price to change"
                )
            }
        }
    }
}

impl Error for MachineError {}

impl From<UnknownMachine> for MachineError {
    fn from(unknown: UnknownMachine) -> Self {
        MachineError::Unknown(unknown)
    }
}

fn did_you_mean(f: &mut fmt::Formatter<'_>, suggestion: Option<&str>) -> fmt::Result {
    match suggestion {
        Some(near) => write!(f, " (did you mean `{near}`?)"),
        None => Ok(()),
    }
}

// A name is near if it shares a whole first part ("modern", "barcelona") or differs in at most a
// third of its letters.
pub(super) fn nearest(name: &str, known: &'static [&'static str]) -> Option<&'static str> {
    const FARTHEST_SHARE: usize = 3;
    let by_prefix = known.iter().find(|k| !name.is_empty() && k.starts_with(name));
    let by_distance = known
        .iter()
        .map(|k| (distance(name, k), k))
        .filter(|(d, k)| *d <= k.len() / FARTHEST_SHARE)
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k);
    by_prefix.or(by_distance).copied()
}

// Levenshtein distance over bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
