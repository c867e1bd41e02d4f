//! Where results go. A file is written whole or not at all: to a temporary file beside it first,
//! renamed when everything has been written.

use std::convert::Infallible;
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tempfile::NamedTempFile;

use crate::cli::{Format, OutputArgs, TimelineArgs};
use crate::console::Console;
use crate::failure::{Failure, reason};

/// Columns of text where there is no terminal to ask.
const WIDTH: usize = 100;

/// A file, or stdout written `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
}

impl FromStr for Destination {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "-" => Destination::Stdout,
            path => Destination::File(PathBuf::from(path)),
        })
    }
}

/// A form a result can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rendering {
    /// Tables for people.
    Text,
    /// The whole result.
    Json,
    /// One JSON object a number.
    Ndjson,
    /// One line a number.
    Csv,
    /// Self-contained report.
    Html,
    /// Perfetto trace.
    Trace,
    /// Events in ftrace's columns.
    Events,
    /// A scenario file.
    Scenario,
}

impl From<Format> for Rendering {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => Rendering::Text,
            Format::Json => Rendering::Json,
            Format::Ndjson => Rendering::Ndjson,
            Format::Csv => Rendering::Csv,
        }
    }
}

/// Writes a result in one form.
pub(crate) type Render<'a> = dyn Fn(Rendering, &mut dyn Write) -> io::Result<()> + 'a;

/// What will be written where, checked before anything is simulated.
#[derive(Debug)]
pub(crate) struct Plan {
    stdout: Option<Rendering>,
    files: Vec<(Rendering, PathBuf)>,
}

impl Plan {
    /// Of a command that has a result.
    pub(crate) fn new(output: &OutputArgs, timeline: Option<&TimelineArgs>) -> Result<Plan, Failure> {
        let wished = [
            (Rendering::Json, output.json.as_ref()),
            (Rendering::Html, output.html.as_ref()),
            (Rendering::Trace, timeline.and_then(|t| t.trace.as_ref())),
            (Rendering::Events, timeline.and_then(|t| t.events.as_ref())),
        ];
        let wished = wished
            .into_iter()
            .filter_map(|(what, to)| Some((what, to?.clone())));
        Plan::of(wished, output.format.map(Rendering::from), Some(Rendering::Text))
    }

    /// One rendering to one place.
    pub(crate) fn single(what: Rendering, to: &Destination) -> Result<Plan, Failure> {
        Plan::of([(what, to.clone())], None, None)
    }

    /// `asked` goes to stdout too; without it and without anything else there, `default` does.
    fn of(
        wished: impl IntoIterator<Item = (Rendering, Destination)>,
        asked: Option<Rendering>,
        default: Option<Rendering>,
    ) -> Result<Plan, Failure> {
        let mut plan = Plan {
            stdout: asked,
            files: Vec::new(),
        };
        for (what, to) in wished {
            match to {
                Destination::File(path) => plan.add(what, path)?,
                Destination::Stdout if plan.stdout.is_some() => {
                    return Err(Failure::new(
                        "two results for stdout: leave out --format, or name a file instead of `-`",
                    ));
                }
                Destination::Stdout => plan.stdout = Some(what),
            }
        }
        plan.stdout = plan.stdout.or(default);
        Ok(plan)
    }

    fn add(&mut self, what: Rendering, path: PathBuf) -> Result<(), Failure> {
        if path.is_dir() {
            return Err(Failure::file(&path, "is a directory: name a file to write to"));
        }
        let folder = folder_of(&path);
        if !folder.is_dir() {
            let why = format!("cannot be written: there is no directory {}", folder.display());
            return Err(Failure::file(&path, why));
        }
        let own = identity(&path);
        let same = |(_, other): &(Rendering, PathBuf)| identity(other) == own;
        if self.files.iter().any(same) {
            return Err(Failure::file(&path, "is named for two outputs: name two files"));
        }
        self.files.push((what, path));
        Ok(())
    }

    /// Whether a rendering is among them.
    pub(crate) fn wants(&self, what: Rendering) -> bool {
        self.stdout == Some(what) || self.files.iter().any(|(w, _)| *w == what)
    }

    /// Writes everything: files first, each under its own name only when all of them are complete.
    pub(crate) fn write(&self, console: &Console, render: &Render<'_>) -> Result<(), Failure> {
        let mut staged = Vec::with_capacity(self.files.len());
        for (what, path) in &self.files {
            let file = Staged::create(path).and_then(|file| file.fill(|out| render(*what, out)));
            staged.push((path, file.map_err(|e| cannot_write(path, &e))?));
        }
        for (path, file) in staged {
            let bytes = file.finish().map_err(|e| cannot_write(path, &e))?;
            console.note(&format!(
                "wrote {} ({} KiB)",
                path.display(),
                bytes.div_ceil(1024)
            ));
        }
        match self.stdout {
            Some(what) => to_stdout(|out| render(what, out)),
            None => Ok(()),
        }
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::file(path, format!("cannot be written: {}", reason(error)))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Writes to stdout. Nobody reading any more is not an error.
pub(crate) fn to_stdout(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(format!(
            "stdout cannot be written: {}",
            reason(&error)
        ))),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A file that does not exist under its name yet.
enum Staged {
    /// Becomes the file by a rename; removed if dropped before.
    Beside {
        temporary: NamedTempFile,
        target: PathBuf,
    },
    /// A device or a pipe, which cannot be replaced.
    Direct(File),
}

impl Staged {
    fn create(path: &Path) -> io::Result<Staged> {
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let existing = fs::metadata(&target).ok();
        if existing.as_ref().is_some_and(|data| !data.is_file()) {
            return Ok(Staged::Direct(File::options().write(true).open(&target)?));
        }
        // The process's umask applies to the mode of a new file, as it would to any other.
        let mode = existing.map_or(0o666, |data| data.permissions().mode());
        let temporary = tempfile::Builder::new()
            .prefix(".mmusim-")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder_of(&target))?;
        Ok(Staged::Beside { temporary, target })
    }

    fn fill(mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<Staged> {
        let file = match &mut self {
            Staged::Beside { temporary, .. } => temporary.as_file_mut(),
            Staged::Direct(file) => file,
        };
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        out.flush()?;
        drop(out);
        Ok(self)
    }

    /// The file under its own name, and its size.
    fn finish(self) -> io::Result<u64> {
        match self {
            Staged::Beside { temporary, target } => Ok(temporary.persist(target)?.metadata()?.len()),
            Staged::Direct(file) => Ok(file.metadata()?.len()),
        }
    }
}

/// One spelling of all that name the same file, which need not exist.
fn identity(path: &Path) -> PathBuf {
    let beside = || {
        let folder = fs::canonicalize(folder_of(path)).ok()?;
        Some(folder.join(path.file_name()?))
    };
    fs::canonicalize(path)
        .ok()
        .or_else(beside)
        .unwrap_or_else(|| path.to_owned())
}

/// Columns that text may take.
pub(crate) fn width(asked: Option<u16>) -> usize {
    asked.map(usize::from).unwrap_or_else(|| {
        terminal_size::terminal_size_of(io::stdout()).map_or(WIDTH, |(width, _)| usize::from(width.0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("the folder can be read");
        let name = |e: io::Result<fs::DirEntry>| e.expect("an entry").file_name();
        entries.map(|e| name(e).to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("out");
        let failed = Staged::create(&path).and_then(|file| {
            file.fill(|out| {
                out.write_all(b"half")?;
                Err(io::Error::other("the pen broke"))
            })
        });
        assert!(failed.is_err());
        assert!(names(folder.path()).is_empty(), "nothing is left behind");
        let whole = Staged::create(&path).and_then(|file| file.fill(|out| out.write_all(b"whole")));
        assert_eq!(whole.and_then(Staged::finish).expect("written"), 5);
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn a_link_is_followed_and_a_mode_kept() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "old").expect("written");
        fs::set_permissions(&real, Permissions::from_mode(0o600)).expect("set");
        std::os::unix::fs::symlink(&real, &link).expect("linked");
        let new = Staged::create(&link).and_then(|file| file.fill(|out| out.write_all(b"new")));
        new.and_then(Staged::finish).expect("written");
        assert_eq!(fs::read_to_string(&real).expect("read"), "new");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(
            fs::metadata(&real).expect("there").permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_device_is_not_replaced() {
        let null = Staged::create(Path::new("/dev/null")).expect("opened");
        assert!(matches!(null, Staged::Direct(_)));
    }

    #[test]
    fn two_spellings_of_one_file_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let there = |name: &str| Destination::File(folder.path().join(name));
        let both = [(Rendering::Json, there("out")), (Rendering::Html, there("./out"))];
        assert!(Plan::of(both, None, None).is_err());
        std::os::unix::fs::symlink(folder.path().join("real"), folder.path().join("link")).expect("linked");
        fs::write(folder.path().join("real"), "").expect("written");
        let both = [(Rendering::Json, there("real")), (Rendering::Html, there("link"))];
        assert!(Plan::of(both, None, None).is_err());
    }

    #[test]
    fn stdout_takes_one_result() {
        let both = [
            (Rendering::Json, Destination::Stdout),
            (Rendering::Html, Destination::Stdout),
        ];
        assert!(Plan::of(both, None, None).is_err());
        let one = Plan::of(
            [(Rendering::Json, Destination::Stdout)],
            None,
            Some(Rendering::Text),
        );
        assert_eq!(one.expect("a plan").stdout, Some(Rendering::Json));
        let none = Plan::of([], None, Some(Rendering::Text));
        assert_eq!(none.expect("a plan").stdout, Some(Rendering::Text));
    }
}
