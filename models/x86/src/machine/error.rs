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

/// A machine file that cannot be used, or a primitive that does not exist.
#[derive(Debug)]
pub enum MachineError {
    /// Not JSON of the shape of a machine file.
    Json(serde_json::Error),
    /// A figure makes no sense.
    Invalid {
        /// The machine.
        machine: String,
        /// What is wrong.
        what: String,
    },
    /// No primitive of that name.
    UnknownCost {
        /// The name asked for.
        name: String,
        /// The nearest primitive, if one is near.
        suggestion: Option<&'static str>,
    },
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MachineError::Json(error) => write!(f, "machine file: {error}"),
            MachineError::Invalid { machine, what } => write!(f, "machine `{machine}`: {what}"),
            MachineError::UnknownCost { name, suggestion } => {
                write!(f, "unknown cost `{name}`")?;
                did_you_mean(f, *suggestion)
            }
        }
    }
}

impl Error for MachineError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            MachineError::Json(error) => Some(error),
            MachineError::Invalid { .. } | MachineError::UnknownCost { .. } => None,
        }
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
