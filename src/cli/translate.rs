//! Arguments of `translate`, and of `import` for recordings of references.

use std::path::PathBuf;

use clap::Args;
use translate::mapping::PagePolicy;
use translate::trace::Format;

use super::OutputArgs;
use crate::exit;

/// References of a stream that are counted unless told: several for each page of a region of 4 GiB.
const COUNT: &str = "10m";

/// Pages and regions listed unless told.
const TOP: &str = "10";

/// Arguments of `translate`.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct TranslateArgs {
    /// Recording (lackey, drmemtrace, ChampSim or *.mmt; plain, gzip or xz), `-` for one on stdin, or a
    /// stream such as uniform:4g (see `mmusim list streams`); a file that exists comes first
    pub(crate) source: String,
    /// Machine: a preset, or a machine file
    #[arg(long, value_name = "MACHINE|FILE", default_value = "modern-2s")]
    pub(crate) machine: String,
    /// How memory is mapped: 4k, 2m, 1g, thp (2m once 64 small pages of a region were touched), or thp=N
    #[arg(long, value_name = "PAGES", default_value = "4k")]
    pub(crate) pages: PagePolicy,
    /// Levels of page tables
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(4..=5))]
    pub(crate) levels: u32,
    /// Make this many references before counting begins (k, m, g: thousands, millions, billions)
    #[arg(long, value_name = "N", default_value = "0", value_parser = count)]
    pub(crate) warmup: u64,
    /// Let data accesses compete with page tables for the caches
    #[arg(long)]
    cache_data: bool,
    /// Do not watch for stale translations
    #[arg(long)]
    no_oracle: bool,
    /// Find reuse distances: what fully associative TLBs of all sizes would miss
    #[arg(long)]
    reuse: bool,
    /// Run the same references with other pages beside, for example 2m,1g,thp
    #[arg(long, value_name = "PAGES", value_delimiter = ',')]
    pub(crate) what_if: Vec<PagePolicy>,
    /// List this many pages and regions
    #[arg(long, value_name = "N", default_value = TOP, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(crate) top: u32,
    /// Streams.
    #[command(flatten)]
    pub(crate) stream: StreamArgs,
    /// Recordings.
    #[command(flatten)]
    pub(crate) recording: RecordingArgs,
    /// Output.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Wishes for a stream.
#[derive(Debug, Args)]
#[command(next_help_heading = "Streams")]
pub(crate) struct StreamArgs {
    /// References to count (k, m, g: thousands, millions, billions) [default: 10m]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) count: Option<u64>,
    /// Threads, each on a CPU of its own as far as there are enough [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<u32>,
    /// Give each thread a region of its own
    #[arg(long)]
    private: bool,
    /// Share of stores, 0 to 1 [default: 0]
    #[arg(long, value_name = "SHARE")]
    pub(crate) writes: Option<String>,
    /// Seed of all random draws [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

/// Wishes for a recording.
#[derive(Debug, Args)]
#[command(next_help_heading = "Recordings")]
pub(crate) struct RecordingArgs {
    /// Format, if it is not recognised: lackey, memtrace, champsim or compact
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub(crate) trace_format: Option<Format>,
    /// Replay the recording this many times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) repeat: Option<u64>,
    /// Count this many references at most (k, m, g: thousands, millions, billions)
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) limit: Option<u64>,
}

/// Arguments of `import lackey`, `memtrace`, `champsim` and `auto`.
#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// Recording, plain or compressed with gzip or xz
    pub(crate) file: PathBuf,
    /// Where the compact recording goes
    #[arg(long, short, value_name = "FILE.mmt")]
    pub(crate) output: PathBuf,
}

/// Something that happens only if asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// It was asked for.
    Asked,
    /// It was not.
    Silent,
}

impl From<bool> for Wish {
    fn from(flag: bool) -> Wish {
        if flag { Wish::Asked } else { Wish::Silent }
    }
}

impl TranslateArgs {
    /// Whether data accesses go through the caches.
    pub(crate) fn cache_data(&self) -> Wish {
        Wish::from(self.cache_data)
    }

    /// Whether the oracle is to look away.
    pub(crate) fn no_oracle(&self) -> Wish {
        Wish::from(self.no_oracle)
    }

    /// Whether reuse distances are wanted.
    pub(crate) fn reuse(&self) -> Wish {
        Wish::from(self.reuse)
    }
}

impl StreamArgs {
    /// Whether each thread has a region of its own.
    pub(crate) fn private(&self) -> Wish {
        Wish::from(self.private)
    }

    /// References to count.
    pub(crate) fn count(&self) -> u64 {
        let default = || count(COUNT).expect("the default is a number");
        self.count.unwrap_or_else(default)
    }

    /// The first of these flags that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        [
            (self.count.is_some(), "--count"),
            (self.threads.is_some(), "--threads"),
            (self.private, "--private"),
            (self.writes.is_some(), "--writes"),
            (self.seed.is_some(), "--seed"),
        ]
        .into_iter()
        .find_map(|(given, flag)| given.then_some(flag))
    }
}

impl RecordingArgs {
    /// The first of these flags that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        [
            (self.trace_format.is_some(), "--trace-format"),
            (self.repeat.is_some(), "--repeat"),
            (self.limit.is_some(), "--limit"),
        ]
        .into_iter()
        .find_map(|(given, flag)| given.then_some(flag))
    }
}

/// A count with a decimal suffix.
fn count(text: &str) -> Result<u64, String> {
    let suffixes = [('k', 1_000), ('m', 1_000_000), ('g', 1_000_000_000)];
    let lower = text.to_ascii_lowercase();
    let (digits, unit) = suffixes
        .into_iter()
        .find_map(|(letter, unit)| Some((lower.strip_suffix(letter)?, unit)))
        .unwrap_or((&lower, 1));
    let number = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    number.ok_or_else(|| format!("`{text}` is not a count such as 500k, 10m or 2g"))
}

fn format(text: &str) -> Result<Format, String> {
    Format::named(text).ok_or_else(|| {
        let names = Format::ALL.map(Format::name);
        format!("there is no format `{text}`: formats are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_decimal_suffixes() {
        assert_eq!(count("12"), Ok(12));
        assert_eq!(count("5k"), Ok(5_000));
        assert_eq!(count("10M"), Ok(10_000_000));
        assert_eq!(count("2g"), Ok(2_000_000_000));
        for wrong in ["", "k", "-1", "1.5m", "10mb", "99999999999g"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
    }
}
