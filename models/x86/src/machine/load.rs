//! Finding machines: presets by name, files by path, and what either extends.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::document::{Fault, Node, Place, SourceText, Value};
use super::error::{ContentError, MachineError, UnknownMachine};
use super::{Machine, file, preset};

/// Largest machine file, in bytes; a preset has some 12,000.
const MAX_BYTES: u64 = 1 << 20;

/// Name of a text that came without one.
const NAMELESS: &str = "machine file";

/// Where a machine is described.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Preset(&'static str),
    File(PathBuf),
}

/// A machine that comes with the simulator.
pub(super) fn from_preset(name: &str) -> Result<Machine, MachineError> {
    from_target(Target::named(name, None)?)
}

/// A preset by name or a file by path, seen from `folder`.
pub(super) fn find(name: &str, folder: &Path) -> Result<Machine, MachineError> {
    from_target(Target::named(name, Some(folder))?)
}

/// A file.
pub(super) fn from_file(path: &Path) -> Result<Machine, MachineError> {
    from_target(Target::File(path.to_owned()))
}

/// A text; it can extend presets only.
pub(super) fn from_text(text: &str) -> Result<Machine, MachineError> {
    let mut chain = Chain::default();
    chain.push(NAMELESS, text.to_owned());
    chain.complete(None)
}

/// Whether a name must be the path of a file.
pub(super) fn is_path(name: &str) -> bool {
    name.ends_with(".json") || name.ends_with(".jsonc")
}

fn from_target(target: Target) -> Result<Machine, MachineError> {
    let mut chain = Chain::default();
    chain.open(&target)?;
    let is_file = matches!(target, Target::File(_));
    let machine = chain.complete(Some(target))?;
    if is_file && preset::text(&machine.name).is_some() {
        let what = format!(
            "`{}` is the name of a preset; give the machine another",
            machine.name
        );
        return Err(chain.error(Fault {
            what,
            path: "name".to_owned(),
            place: chain.trees.first().map(|tree| tree.locate("name")),
        }));
    }
    Ok(machine)
}

impl Target {
    /// What a name means in a file of `folder`; without a folder only presets can be meant.
    fn named(name: &str, folder: Option<&Path>) -> Result<Target, UnknownMachine> {
        if let Some((known, _)) = preset::PRESETS.iter().find(|(known, _)| *known == name) {
            return Ok(Target::Preset(known));
        }
        match folder {
            Some(folder) if is_path(name) => Ok(Target::File(folder.join(name))),
            _ => Err(UnknownMachine::new(name, preset::NAMES)),
        }
    }

    /// What paths in it are relative to.
    fn folder(&self) -> Option<&Path> {
        match self {
            Target::Preset(_) => None,
            Target::File(path) => path.parent(),
        }
    }

    fn show(&self) -> String {
        match self {
            Target::Preset(name) => (*name).to_owned(),
            Target::File(path) => path.display().to_string(),
        }
    }

    /// Whether both are one file, however they are spelt.
    fn is(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::File(a), Target::File(b)) => {
                let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
                real(a) == real(b)
            }
            _ => self == other,
        }
    }
}

/// A file and what it extends, nearest first.
#[derive(Default)]
struct Chain {
    sources: Vec<SourceText>,
    trees: Vec<Node>,
}

impl Chain {
    fn push(&mut self, name: &str, text: String) {
        self.sources.push(SourceText {
            name: name.to_owned(),
            text,
        });
    }

    fn open(&mut self, target: &Target) -> Result<(), MachineError> {
        let text = match target {
            Target::Preset(name) => preset::text(name).unwrap_or_default().to_owned(),
            Target::File(path) => read(path)?,
        };
        self.push(&target.show(), text);
        Ok(())
    }

    /// Reads what the first file extends, lays the files over one another, and reads the machine.
    fn complete(&mut self, first: Option<Target>) -> Result<Machine, MachineError> {
        let mut targets: Vec<Option<Target>> = vec![first];
        while let Some((name, place)) = self.parse_last()? {
            let folder = targets.last().and_then(Option::as_ref).and_then(Target::folder);
            let target = Target::named(&name, folder).map_err(|unknown| {
                self.error(Fault {
                    what: format!("{unknown}, or the path of a file that ends in .json or .jsonc"),
                    path: "extends".to_owned(),
                    place: Some(place),
                })
            })?;
            if let Some(start) = targets
                .iter()
                .position(|t| t.as_ref().is_some_and(|t| t.is(&target)))
            {
                let round: Vec<&str> = self.sources[start..].iter().map(|s| s.name.as_str()).collect();
                return Err(self.error(Fault {
                    what: format!("comes back to itself: {} -> {}", round.join(" -> "), round[0]),
                    path: "extends".to_owned(),
                    place: Some(place),
                }));
            }
            self.open(&target)?;
            targets.push(Some(target));
        }
        let merged = self.trees.iter().rev().cloned().reduce(Node::overlaid);
        let merged = merged.expect("the first file was parsed");
        file::machine(&merged).map_err(|fault| self.error(fault))
    }

    /// Parses the last file read; what it extends, and where it says so.
    fn parse_last(&mut self) -> Result<Option<(String, Place)>, MachineError> {
        let number = self.sources.len() - 1;
        let parsed = Node::parse(number, &self.sources[number].text);
        let mut tree = parsed.map_err(|fault| self.error(fault))?;
        let extends = tree.take("extends");
        let named = tree.member("name").is_some();
        let root = tree.place;
        self.trees.push(tree);
        let Some(extends) = extends else {
            return Ok(None);
        };
        let place = extends.value.place;
        let fault = match extends.value.value {
            Value::Text(_) if !named => Fault {
                what: "key `name` is missing: a machine that extends another has a name of its own"
                    .to_owned(),
                path: String::new(),
                place: Some(root),
            },
            Value::Text(target) => return Ok(Some((target, place))),
            _ => Fault {
                what: "give the name of a preset or the path of a machine file, in quotes".to_owned(),
                path: "extends".to_owned(),
                place: Some(place),
            },
        };
        Err(self.error(fault))
    }

    fn error(&self, fault: Fault) -> MachineError {
        let place = fault
            .place
            .and_then(|place| Some((place, self.sources.get(place.file)?)));
        let (file, line_column) = match place {
            Some((place, source)) => (source.name.clone(), Some(place.line_column(&source.text))),
            None => (
                self.sources
                    .first()
                    .map_or(NAMELESS, |source| &source.name)
                    .to_owned(),
                None,
            ),
        };
        MachineError::Content(ContentError {
            file,
            line_column,
            path: fault.path,
            what: fault.what,
        })
    }
}

fn read(path: &Path) -> Result<String, MachineError> {
    let unreadable = |why: String| MachineError::Unreadable {
        file: path.display().to_string(),
        why,
    };
    let refused = |error: std::io::Error| {
        unreadable(match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => error.to_string(),
        })
    };
    if path.is_dir() {
        return Err(unreadable("it is a directory".to_owned()));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(refused)?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(refused)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(unreadable(format!("it is larger than {} KiB", MAX_BYTES >> 10)));
    }
    String::from_utf8(bytes).map_err(|_| unreadable("it is not text in UTF-8".to_owned()))
}
