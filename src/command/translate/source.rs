//! What `translate` reads: a recording, or a stream.

use std::io;
use std::path::{Path, PathBuf};

use reports::schema::translate::SourceInfo;
use translate::describe;
use translate::source::{Batch, Source, SourceError};
use translate::stream::{Stream, StreamSpec};
use translate::trace::{self, Recording, Repeated};

use crate::cli::{RecordingArgs, StreamArgs, TranslateArgs, Wish};
use crate::failure::{Failure, reason};
use crate::input;

/// Says that a source is a stream even if there is a file of its name.
const STREAM: &str = "stream:";

/// Seed of a stream unless told.
const DEFAULT_SEED: u64 = 1;

/// What a word on the command line names.
#[derive(Debug)]
enum Named {
    Stream(StreamSpec),
    Recording(PathBuf),
}

/// A source under way.
pub(super) enum Opened {
    /// A stream of so many references.
    Stream {
        spec: StreamSpec,
        stream: Box<Stream>,
        seed: u64,
        length: u64,
    },
    /// A recording.
    Recording {
        path: PathBuf,
        recording: Box<Repeated<Opener>>,
        rounds: u64,
    },
}

/// Opens a recording, again and again.
type Opener = Box<dyn FnMut() -> Result<Box<dyn Recording>, SourceError>>;

/// Finds out what is meant and opens it.
pub(super) fn open(args: &TranslateArgs) -> Result<Opened, Failure> {
    match named(&args.source, &args.stream)? {
        Named::Stream(spec) => {
            refuse(args.recording.given(), &args.source, "a stream", "recordings")?;
            open_stream(spec, args)
        }
        Named::Recording(path) => {
            refuse(args.stream.given(), &args.source, "a recording", "streams")?;
            open_recording(path, &args.recording)
        }
    }
}

fn refuse(flag: Option<&str>, source: &str, is: &str, of: &str) -> Result<(), Failure> {
    let Some(flag) = flag else { return Ok(()) };
    let instead = match flag {
        "--limit" => "; to make fewer references use --count",
        "--count" => "; to use fewer references use --limit",
        _ => "",
    };
    Err(Failure::new(format!(
        "{source} is {is}, and {flag} is for {of}{instead}"
    )))
}

fn named(text: &str, wishes: &StreamArgs) -> Result<Named, Failure> {
    if let Some(spec) = text.strip_prefix(STREAM) {
        return stream(spec, wishes).map(Named::Stream);
    }
    let path = Path::new(text);
    if input::is_stdin(path) || path.exists() {
        return Ok(Named::Recording(path.to_owned()));
    }
    // A name like `trace.gz` or `a/b` was meant as a file, one like `unifrom:4g` as a stream.
    let name = text.split([':', '=', ',']).next().unwrap_or_default();
    if name.contains(['/', '.']) {
        let why = "there is no such file; a stream is written like uniform:4g, see `mmusim list streams`";
        return Err(Failure::file(path, why));
    }
    stream(text, wishes).map(Named::Stream)
}

/// The stream described, with the options given as flags.
fn stream(text: &str, wishes: &StreamArgs) -> Result<StreamSpec, Failure> {
    let mut text = text.to_owned();
    if let Some(threads) = wishes.threads {
        text += &format!(",threads={threads}");
    }
    if wishes.private() == Wish::Asked {
        text += ",regions=private";
    }
    if let Some(writes) = &wishes.writes {
        text += &format!(",writes={writes}");
    }
    text.parse()
        .map_err(|error: translate::stream::SpecError| Failure::new(error.to_string()))
}

fn open_stream(spec: StreamSpec, args: &TranslateArgs) -> Result<Opened, Failure> {
    let seed = args.stream.seed.unwrap_or(DEFAULT_SEED);
    let length = args.warmup.saturating_add(args.stream.count());
    let stream = spec.open(seed, length);
    let stream = stream.map_err(|error| Failure::new(error.to_string()))?;
    Ok(Opened::Stream {
        spec,
        stream: Box::new(stream),
        seed,
        length,
    })
}

fn open_recording(path: PathBuf, args: &RecordingArgs) -> Result<Opened, Failure> {
    if path.is_dir() {
        return Err(Failure::file(&path, "is a directory, not a recording"));
    }
    let rounds = args.repeat.unwrap_or(1);
    let recording = Repeated::new(opener(path.clone(), args), rounds).map_err(failure)?;
    Ok(Opened::Recording {
        path,
        recording: Box::new(recording),
        rounds,
    })
}

fn opener(path: PathBuf, args: &RecordingArgs) -> Opener {
    let format = args.trace_format;
    if !input::is_stdin(&path) {
        return Box::new(move || match format {
            Some(format) => trace::open_as(&path, format),
            None => trace::open(&path),
        });
    }
    let mut first = Some(io::stdin());
    Box::new(move || match first.take() {
        Some(stdin) => trace::read(Path::new(input::STDIN), stdin, format),
        None => Err(SourceError::Io(io::Error::other(
            "stdin is too long to be kept in memory and cannot be read twice: use a file, or leave out --repeat",
        ))),
    })
}

/// A source's error in words.
pub(crate) fn failure(error: SourceError) -> Failure {
    match error {
        SourceError::File { action, path, error } => {
            Failure::file(&path, format!("cannot {action} it: {}", reason(&error)))
        }
        other => Failure::new(other.to_string()),
    }
}

impl Opened {
    /// References to come, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Opened::Stream { length, .. } => Some(*length),
            Opened::Recording { .. } => None,
        }
    }

    /// The seed; recordings draw nothing.
    pub(super) fn seed(&self) -> u64 {
        match self {
            Opened::Stream { seed, .. } => *seed,
            Opened::Recording { .. } => DEFAULT_SEED,
        }
    }

    /// What was read.
    pub(super) fn describe(&self) -> SourceInfo {
        match self {
            Opened::Stream { spec, .. } => describe::stream(spec),
            Opened::Recording {
                path,
                recording,
                rounds,
            } => {
                let format = recording.recording().format();
                let name = input::base_name(path);
                describe::recording(Path::new(&name), format, recording.summary(), *rounds)
            }
        }
    }
}

impl Source for Opened {
    fn next_batch(&mut self, batch: &mut Batch) -> Result<(), SourceError> {
        match self {
            Opened::Stream { stream, .. } => stream.next_batch(batch),
            Opened::Recording { recording, .. } => recording.next_batch(batch),
        }
    }
}
