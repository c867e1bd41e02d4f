//! The arguments. Doc comments here are the text of `--help`.

mod translate;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use mm::KernelProfile;
use mm::notifier::Design;
use reports::text::Detail;
use scenarios::check::MAX_CPUS;
use scenarios::import::strace::{AttachSpec, Touch};

use crate::console::Talk;
use crate::exit;
use crate::output::Destination;

pub(crate) use translate::{RecordingArgs, StreamArgs, TraceArgs, TranslateArgs, Wish};

/// Simulator of a Linux host MMU and the secondary MMUs kept coherent with it by mmu notifiers.
///
/// Results go to stdout (or the files named), everything else to stderr.
#[derive(Debug, Parser)]
#[command(name = "mmusim", version, after_help = exit::HELP, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Colour the output; `auto` heeds the terminal, NO_COLOR and CLICOLOR_FORCE
    #[arg(long, global = true, value_enum, default_value_t = When::Auto, value_name = "WHEN")]
    pub(crate) color: When,
    /// Say nothing on stderr but warnings and errors
    #[arg(long, short, global = true)]
    quiet: bool,
}

impl Cli {
    /// Whether remarks are wanted.
    pub(crate) fn talk(&self) -> Talk {
        if self.quiet { Talk::Quiet } else { Talk::Normal }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one scenario and report what it cost and whether it was safe
    Run(RunArgs),
    /// Run one scenario under several notifier designs, or put saved results side by side
    Compare(CompareArgs),
    /// Run an access stream or a recording through the MMUs of a machine, and report what it cost
    Translate(TranslateArgs),
    /// Say what is wrong with scenario files, without running them
    Check(CheckArgs),
    /// Make a scenario, or a compact recording, from what other tools recorded of a real program
    Import(ImportCommand),
    /// Render a saved result again
    Report(ReportArgs),
    /// Print the JSON Schema of a file format
    Schema(SchemaArgs),
    /// List what scenarios and streams can name, and what runs are checked against
    List(ListArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Form of the result on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables for people
    Text,
    /// The whole result, one versioned JSON object
    Json,
    /// One JSON object a line, one number each
    Ndjson,
    /// One number a line
    Csv,
}

/// A kernel option on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    /// Compiled in.
    On,
    /// Compiled out.
    Off,
}

/// What to do with a secondary MMU that the design cannot carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UnsupportedRule {
    /// Fall back to page pins where the device can hold them, else leave it out
    Pin,
    /// Leave it out
    Omit,
    /// Let it run into the violation
    Break,
}

/// Changes to the scenario that both `run` and `compare` accept.
#[derive(Debug, Args)]
#[command(next_help_heading = "Overrides of the scenario")]
pub(crate) struct OverrideArgs {
    /// Compile the kernel with or without CONFIG_PREEMPT
    #[arg(long, value_enum, value_name = "STATE")]
    pub(crate) preempt: Option<OnOff>,
    /// Seed of all random draws
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// What to do with a secondary MMU that the design cannot carry
    #[arg(long, value_enum, value_name = "RULE")]
    pub(crate) unsupported: Option<UnsupportedRule>,
    /// CPUs of each simulated kernel
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CPUS)))]
    pub(crate) cpus: Option<u32>,
    /// Give a run up after this many events (exit code 4)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_events: Option<u64>,
}

/// Where the result goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output (FILE `-` is stdout)")]
pub(crate) struct OutputArgs {
    /// Form of the result on stdout [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
    /// Write the whole result as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<Destination>,
    /// Write a self-contained HTML report
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<Destination>,
    /// Width of text in columns [default: that of the terminal, else 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(40..=1000))]
    pub(crate) width: Option<u16>,
    /// Show every row in text, not only the headline ones
    #[arg(long)]
    all: bool,
}

impl OutputArgs {
    /// How many rows text shows.
    pub(crate) fn detail(&self) -> Detail {
        if self.all { Detail::All } else { Detail::Headline }
    }
}

/// How a recording becomes a scenario.
#[derive(Debug, Args)]
#[command(next_help_heading = "Import of recordings (*.strace, *.strace.gz)")]
pub(crate) struct ImportArgs {
    /// Pages the program is assumed to have touched: all, none, or fraction=0.25 [default: all]
    #[arg(long, value_name = "SHARE", value_parser = touch)]
    pub(crate) touch: Option<Touch>,
    /// Attach a secondary MMU, `kvm`, `gru` or `xpmem`, to `largest`, `heap`, `file`, `all` or
    /// `0xSTART-0xEND`, for example kvm:largest or gru:heap@redis-server; repeatable
    #[arg(long, value_name = "MMU:MEMORY")]
    pub(crate) attach: Vec<AttachSpec>,
    /// Accesses each attached secondary MMU makes [default: 20000]
    #[arg(long, value_name = "N")]
    pub(crate) accesses: Option<u64>,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct RunArgs {
    /// Scenario (.jsonc, .json), recording (*.strace, *.strace.gz), or `-` for a scenario on stdin
    pub(crate) scenario: PathBuf,
    /// Notifier design, by its long name or its short one (v8)
    #[arg(long, visible_alias = "notifier", value_name = "DESIGN", value_parser = designs(&[]))]
    pub(crate) design: Option<String>,
    /// Kernel profile
    #[arg(long, value_name = "KERNEL", value_parser = kernels())]
    pub(crate) kernel: Option<String>,
    /// Other overrides.
    #[command(flatten)]
    pub(crate) overrides: OverrideArgs,
    /// Output.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Timelines.
    #[command(flatten)]
    pub(crate) timeline: TimelineArgs,
    /// Recordings.
    #[command(flatten)]
    pub(crate) import: ImportArgs,
}

/// Timelines of a run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Timelines (FILE `-` is stdout)")]
pub(crate) struct TimelineArgs {
    /// Write a trace for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<Destination>,
    /// Write events as text in the columns of ftrace
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<Destination>,
    /// Only events of these tasks
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "events")]
    pub(crate) events_task: Vec<String>,
    /// Only events on these CPUs
    #[arg(long, value_name = "N", value_delimiter = ',', requires = "events")]
    pub(crate) events_cpu: Vec<u32>,
    /// Only events of these names or kinds (begin, end, instant, counter)
    #[arg(long, value_name = "KIND", value_delimiter = ',', requires = "events")]
    pub(crate) events_kind: Vec<String>,
}

/// Arguments of `compare`.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct CompareArgs {
    /// One scenario or recording to run, or two and more saved results (--json of `run` or `compare`)
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Designs, a column each; `all` for every one, `scenario` for the one the scenario describes
    /// [default: v0,v1,v8,v9]
    #[arg(long, value_name = "DESIGNS", value_delimiter = ',', value_parser = designs(&["all", "scenario"]))]
    pub(crate) designs: Vec<String>,
    /// Kernel profiles, a column for each design on each; default: the one each design was made for
    #[arg(long, value_name = "KERNELS", value_delimiter = ',', value_parser = kernels())]
    pub(crate) kernels: Vec<String>,
    /// Column the percentages refer to, by label [default: the first]
    #[arg(long, value_name = "LABEL")]
    pub(crate) baseline: Option<String>,
    /// Seeds to run every column with [default: 5 if the scenario draws random numbers, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) seeds: Option<u32>,
    /// Runs at a time; the result does not depend on it [default: all CPUs]
    #[arg(long, short, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Fail (exit code 1) if a cost grew by more than this over the baseline, for example 5%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) fail_above: Option<f64>,
    /// Other overrides.
    #[command(flatten)]
    pub(crate) overrides: OverrideArgs,
    /// Output.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Recordings.
    #[command(flatten)]
    pub(crate) import: ImportArgs,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Scenario files, recordings, or `-` for stdin
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Form of the findings: text on stderr, or JSON on stdout
    #[arg(long, value_enum, default_value_t = CheckFormat::Text, value_name = "FORMAT")]
    pub(crate) format: CheckFormat,
    /// Print each scenario as it is run, `extends` resolved
    #[arg(long, conflicts_with = "format")]
    pub(crate) print_resolved: bool,
}

/// Form of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Arguments of `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportCommand {
    /// Kind of recording.
    #[command(subcommand)]
    pub(crate) kind: ImportKind,
}

/// Kinds of recordings.
#[derive(Debug, Subcommand)]
pub(crate) enum ImportKind {
    /// Import a log of strace
    #[command(after_help = format!("To make a log, {}", scenarios::import::strace::RECORD_WITH))]
    Strace(StraceArgs),
    /// Make a compact recording from the text of valgrind's lackey
    #[command(after_help = "To make one: valgrind --tool=lackey --trace-mem=yes --log-file=FILE PROGRAM")]
    Lackey(TraceArgs),
    /// Make a compact recording from a final trace of DynamoRIO's drmemtrace
    Memtrace(TraceArgs),
    /// Make a compact recording from a trace of ChampSim
    Champsim(TraceArgs),
    /// Make a compact recording from a recording of references whose format is recognised
    Auto(TraceArgs),
}

/// Arguments of `import strace`.
#[derive(Debug, Args)]
pub(crate) struct StraceArgs {
    /// Log, plain or compressed with gzip
    pub(crate) file: PathBuf,
    /// Wishes.
    #[command(flatten)]
    pub(crate) import: ImportArgs,
    /// Where the scenario goes; `-` is stdout
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub(crate) output: Destination,
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Result as written by `--json`
    pub(crate) result: PathBuf,
    /// Output.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Arguments of `schema`.
#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// Which format
    #[arg(value_enum, default_value_t = SchemaKind::Scenario)]
    pub(crate) kind: SchemaKind,
}

/// File formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaKind {
    /// Scenario files
    Scenario,
    /// Results of `run`
    Result,
    /// Results of `compare`
    Compare,
    /// Results of `translate`
    Translate,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// What to list
    #[arg(value_enum)]
    pub(crate) what: ListKind,
    /// Folder to look for scenarios in
    #[arg(default_value = "scenarios", value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
    /// Machine whose costs or hardware are listed: a preset, or a machine file
    #[arg(long, value_name = "MACHINE|FILE", default_value = "harpertown-2008")]
    pub(crate) machine: String,
    /// Kernel whose locks are listed
    #[arg(long, value_name = "KERNEL", default_value = "linux-2.6.27")]
    pub(crate) kernel: String,
    /// Form of the list
    #[arg(long, value_enum, default_value_t = CheckFormat::Text, value_name = "FORMAT")]
    pub(crate) format: CheckFormat,
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListKind {
    /// Notifier designs
    Designs,
    /// Kernel profiles
    Kernels,
    /// Machine presets
    Machines,
    /// Metrics of a result
    Metrics,
    /// Costs of a machine with their origin
    Costs,
    /// Features, TLBs and caches of a machine with their origin
    Hardware,
    /// Scenario files and recordings below a folder
    Scenarios,
    /// Patterns and options of the streams of `translate`
    Streams,
    /// Lock order of a kernel: ranks, kinds, nesting
    Locks,
    /// What every run is checked against
    Checks,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Names of designs; the short forms are accepted too.
fn designs(more: &[&'static str]) -> impl TypedValueParser<Value = String> + use<> {
    let named = Design::ALL
        .into_iter()
        .map(|design| PossibleValue::new(design.id).alias(design.short));
    let more = more.iter().map(|name| PossibleValue::new(*name));
    PossibleValuesParser::new(named.chain(more))
}

fn kernels() -> impl TypedValueParser<Value = String> {
    PossibleValuesParser::new(KernelProfile::ALL.map(|kernel| kernel.name))
}

fn touch(text: &str) -> Result<Touch, String> {
    let wrong = || format!("`{text}` is not `all`, `none` or `fraction=SHARE` with a share above 0, up to 1");
    match text {
        "all" => Ok(Touch::All),
        "none" => Ok(Touch::None),
        _ => {
            let share = text.strip_prefix("fraction=").ok_or_else(wrong)?;
            let share: f64 = share.parse().map_err(|_| wrong())?;
            let thousandths = (share * 1000.0).round();
            if (1.0..=1000.0).contains(&thousandths) {
                Ok(Touch::Fraction(thousandths as u32))
            } else {
                Err(wrong())
            }
        }
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err(format!("`{text}` is not a percentage such as 5%")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn shares_and_percentages() {
        assert_eq!(touch("fraction=0.25"), Ok(Touch::Fraction(250)));
        assert_eq!(touch("all"), Ok(Touch::All));
        for wrong in ["fraction=0", "fraction=2", "fraction=nan", "some", "fraction="] {
            assert!(touch(wrong).is_err(), "{wrong}");
        }
        assert_eq!(percent("5%"), Ok(5.0));
        assert_eq!(percent("2.5"), Ok(2.5));
        assert!(percent("-1").is_err() && percent("inf").is_err() && percent("").is_err());
    }
}
