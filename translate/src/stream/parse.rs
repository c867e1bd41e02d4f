//! Descriptions of streams as one writes them on a command line.
//!
//! `PATTERN:SIZE[,OPTION=VALUE]...`, for example `uniform:4g` or `zipf=0.99:1g,writes=0.25,threads=4`.

use std::fmt;
use std::str::FromStr;

use x86::Va;

use super::{
    Bytes, DEFAULT_PHASE, DEFAULT_START, DEFAULT_WINDOW, Pattern, Regions, SpecError, StreamSpec, WriteShare,
};

/// How the patterns are written.
const PATTERNS: &str =
    "patterns are sequential:64m, stride=4096:1g, uniform:4g, zipf=0.99:1g, chase:16m, phases:256m";
const PATTERN_NAMES: [&str; 6] = ["sequential", "stride", "uniform", "zipf", "chase", "phases"];

/// How the options are written.
const OPTIONS: &str = "options are writes=0.25, grain=8, start=0x100000000000, threads=4, \
                       regions=shared or private, and for phases window=4m, every=100000";
const OPTION_NAMES: [&str; 7] = [
    "writes", "grain", "start", "threads", "regions", "window", "every",
];

/// A pattern or an option, for those who look for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// How it is written, with a value.
    pub example: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn form(example: &'static str, meaning: &'static str) -> Form {
    Form { example, meaning }
}

/// All patterns.
pub const PATTERN_FORMS: [Form; PATTERN_NAMES.len()] = [
    form(
        "sequential:64m",
        "one word after the other, from the start again at the end",
    ),
    form("stride=4096:1g", "words so far apart, modulo the footprint"),
    form("uniform:4g", "any word, all with the same chance"),
    form(
        "zipf=0.99:1g",
        "any word of a page; the k-th page in popularity with a chance like 1/k^0.99",
    ),
    form(
        "chase:16m",
        "one random cycle through all pages, each access depending on the one before",
    ),
    form(
        "phases:256m",
        "any word of a window that moves to a random place now and then",
    ),
];

/// All options, written after the size and a comma.
pub const OPTION_FORMS: [Form; OPTION_NAMES.len()] = [
    form("writes=0.25", "share of stores"),
    form("grain=8", "size of a word in bytes"),
    form("start=0x100000000000", "where the region begins"),
    form("threads=4", "threads, which take turns"),
    form(
        "regions=private",
        "each thread has a region of its own; else shared",
    ),
    form("window=4m", "size of the window of phases"),
    form("every=100000", "accesses of phases between moves"),
];

/// What is wrong, and a way out.
type Wrong = (String, String);

impl FromStr for StreamSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let spec = parse(text).map_err(|(problem, remedy)| SpecError {
            spec: text.to_owned(),
            problem,
            remedy,
        })?;
        spec.check()?;
        Ok(spec)
    }
}

fn parse(text: &str) -> Result<StreamSpec, Wrong> {
    let mut parts = text.split(',');
    let head = parts.next().unwrap_or_default();
    let (pattern, size) = head
        .split_once(':')
        .ok_or_else(|| wrong("there is no size", PATTERNS))?;
    let mut spec = StreamSpec::new(parse_pattern(pattern)?, parse_size(size)?);
    if let Pattern::Phases { window, .. } = &mut spec.pattern {
        // A default that does not fit is no mistake of the writer.
        *window = spec.footprint.min(DEFAULT_WINDOW);
    }
    for option in parts {
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| wrong(format!("the option `{option}` has no value"), OPTIONS))?;
        set(&mut spec, name, value)?;
    }
    Ok(spec)
}

fn wrong(problem: impl Into<String>, remedy: impl Into<String>) -> Wrong {
    (problem.into(), remedy.into())
}

fn parse_pattern(text: &str) -> Result<Pattern, Wrong> {
    let (name, parameter) = match text.split_once('=') {
        Some((name, parameter)) => (name, Some(parameter)),
        None => (text, None),
    };
    match (name, parameter) {
        ("sequential", None) => Ok(Pattern::Sequential),
        ("uniform", None) => Ok(Pattern::Uniform),
        ("chase", None) => Ok(Pattern::Chase),
        ("phases", None) => Ok(Pattern::Phases {
            window: DEFAULT_WINDOW,
            every: DEFAULT_PHASE,
        }),
        ("stride", Some(step)) => parse_size(step).map(Pattern::Stride),
        ("zipf", Some(exponent)) => exponent.parse().map(Pattern::Zipf).map_err(|_| {
            wrong(
                format!("`{exponent}` is no exponent"),
                "write a number such as zipf=0.99:1g",
            )
        }),
        ("stride", None) => Err(wrong("the stride is missing", "write stride=4096:1g")),
        ("zipf", None) => Err(wrong("the exponent is missing", "write zipf=0.99:1g")),
        (known, Some(_)) if PATTERN_NAMES.contains(&known) => Err(wrong(
            format!("the pattern `{known}` takes no number"),
            format!("write {known}:64m"),
        )),
        (unknown, _) => Err(unknown_name("pattern", unknown, &PATTERN_NAMES, PATTERNS)),
    }
}

fn parse_size(text: &str) -> Result<Bytes, Wrong> {
    text.parse().map_err(|_| {
        wrong(
            format!("`{text}` is no size"),
            "a size is a whole number with k, m, g, t, or p for pages of 4k, such as 64m",
        )
    })
}

fn set(spec: &mut StreamSpec, name: &str, value: &str) -> Result<(), Wrong> {
    match (name, &mut spec.pattern) {
        ("writes", _) => spec.writes = parse_share(value)?,
        ("grain", _) => spec.grain = parse_size(value)?,
        ("start", _) => spec.start = parse_address(value)?,
        ("threads", _) => spec.threads = parse_count(value)?,
        ("regions", _) => spec.regions = parse_regions(value)?,
        ("window", Pattern::Phases { window, .. }) => *window = parse_size(value)?,
        ("every", Pattern::Phases { every, .. }) => *every = parse_count(value)?,
        ("window" | "every", _) => {
            return Err(wrong(
                format!("the option `{name}` belongs to another pattern"),
                "use it with phases:256m",
            ));
        }
        (unknown, _) => return Err(unknown_name("option", unknown, &OPTION_NAMES, OPTIONS)),
    }
    Ok(())
}

fn parse_count<T: FromStr>(text: &str) -> Result<T, Wrong> {
    text.parse().map_err(|_| {
        wrong(
            format!("`{text}` is no count"),
            "write a whole number in digits, such as 4",
        )
    })
}

/// Thousandths are kept exactly, so a share is read as decimals and not as a binary fraction.
fn parse_share(text: &str) -> Result<WriteShare, Wrong> {
    const DECIMALS: usize = 3;
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths = (digits(whole) && digits(decimals) && decimals.len() <= DECIMALS)
        .then(|| format!("{whole}{decimals:0<DECIMALS$}").parse().ok())
        .flatten();
    thousandths.and_then(WriteShare::per_thousand).ok_or_else(|| {
        wrong(
            format!("`{text}` is no share of writes"),
            "a share lies between 0 and 1, in thousandths, such as writes=0.25",
        )
    })
}

fn parse_address(text: &str) -> Result<Va, Wrong> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let address = u64::from_str_radix(digits, 16);
    address.map(Va::new).map_err(|_| {
        wrong(
            format!("`{text}` is no address"),
            "an address is hexadecimal, such as start=0x100000000000",
        )
    })
}

fn parse_regions(text: &str) -> Result<Regions, Wrong> {
    match text {
        "shared" => Ok(Regions::Shared),
        "private" => Ok(Regions::Private),
        other => Err(unknown_name(
            "kind of regions",
            other,
            &["shared", "private"],
            "regions are shared or private",
        )),
    }
}

fn unknown_name(what: &str, name: &str, known: &[&str], list: &str) -> Wrong {
    /// Slips of the hand that still leave the name recognisable.
    const SLIPS: usize = 2;
    let near = known
        .iter()
        .map(|known| (strsim::osa_distance(name, known), known))
        .filter(|(slips, known)| *slips <= SLIPS || known.starts_with(name) && !name.is_empty())
        .min();
    let remedy = match near {
        Some((_, near)) => format!("did you mean `{near}`? {list}"),
        None => list.to_owned(),
    };
    wrong(format!("there is no {what} `{name}`"), remedy)
}

impl fmt::Display for StreamSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pattern {
            Pattern::Sequential => f.write_str("sequential")?,
            Pattern::Stride(step) => write!(f, "stride={step}")?,
            Pattern::Uniform => f.write_str("uniform")?,
            Pattern::Zipf(exponent) => write!(f, "zipf={exponent}")?,
            Pattern::Chase => f.write_str("chase")?,
            Pattern::Phases { .. } => f.write_str("phases")?,
        }
        write!(f, ":{}", self.footprint)?;
        let plain = StreamSpec::new(self.pattern, self.footprint);
        if let Pattern::Phases { window, every } = self.pattern {
            write!(f, ",window={window},every={every}")?;
        }
        if self.writes != plain.writes {
            write!(f, ",writes={}", f64::from(self.writes.thousandths()) / 1000.0)?;
        }
        if self.grain != plain.grain {
            write!(f, ",grain={}", self.grain)?;
        }
        if self.start != DEFAULT_START {
            write!(f, ",start={:#x}", self.start.get())?;
        }
        if self.threads != plain.threads {
            write!(f, ",threads={}", self.threads)?;
        }
        match self.regions {
            Regions::Shared => Ok(()),
            Regions::Private => f.write_str(",regions=private"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        text.parse::<StreamSpec>().unwrap_err().to_string()
    }

    #[test]
    fn a_description_is_written_as_it_was_read() {
        for text in [
            "sequential:64m",
            "stride=4k:1g",
            "uniform:4g",
            "zipf=0.99:1g,writes=0.25",
            "chase:16m,start=0x200000000000",
            "phases:256m,window=1m,every=5000,grain=64",
            "uniform:8m,threads=4,regions=private",
        ] {
            assert_eq!(text.parse::<StreamSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_forms_that_are_listed_can_be_read() {
        for (form, name) in PATTERN_FORMS.iter().zip(PATTERN_NAMES) {
            assert!(form.example.starts_with(name) && form.example.parse::<StreamSpec>().is_ok());
        }
        for (form, name) in OPTION_FORMS.iter().zip(OPTION_NAMES) {
            let text = format!("phases:256m,{}", form.example);
            assert!(form.example.starts_with(name) && text.parse::<StreamSpec>().is_ok());
        }
    }

    #[test]
    fn options_default_to_loads_of_one_thread() {
        let spec: StreamSpec = "uniform:4g".parse().unwrap();
        assert_eq!(spec, StreamSpec::new(Pattern::Uniform, Bytes(4 << 30)));
    }

    #[test]
    fn the_window_of_a_small_region_is_the_region() {
        let spec: StreamSpec = "phases:1m".parse().unwrap();
        assert!(matches!(spec.pattern, Pattern::Phases { window, .. } if window == Bytes(1 << 20)));
    }

    #[test]
    fn an_unknown_pattern_is_answered_with_the_nearest_and_the_list() {
        let text = message("unifrom:4g");
        assert!(
            text.starts_with(
                "stream `unifrom:4g`: there is no pattern `unifrom`; did you mean `uniform`? patterns are \
                 sequential:64m, stride=4096:1g"
            ),
            "{text}"
        );
        assert!(!message("bogus:4g").contains("did you mean"));
    }

    #[test]
    fn each_mistake_is_named_with_its_way_out() {
        for (text, problem, remedy) in [
            ("uniform", "there is no size", "patterns are"),
            ("uniform:4x", "`4x` is no size", "such as 64m"),
            ("uniform:5000", "a footprint of 5000", "whole pages"),
            ("uniform=2:1g", "takes no number", "write uniform:64m"),
            ("stride:1g", "the stride is missing", "stride=4096:1g"),
            ("stride=12:1g", "a stride of 12", "a multiple of the grain"),
            ("stride=2g:1g", "a stride of 2g", "no larger than the region"),
            ("zipf:1g", "the exponent is missing", "zipf=0.99:1g"),
            ("zipf=a:1g", "`a` is no exponent", "zipf=0.99:1g"),
            ("zipf=NaN:1g", "an exponent of NaN", "between 0"),
            ("chase:2t", "a pointer chase through 2t", "up to 1t"),
            (
                "phases:1m,window=2m",
                "a window of 2m",
                "no larger than the region",
            ),
            (
                "phases:1m,every=0",
                "a phase of no accesses",
                "one access or more",
            ),
            ("uniform:1m,every=5", "belongs to another pattern", "phases:256m"),
            (
                "uniform:1m,writes",
                "the option `writes` has no value",
                "writes=0.25",
            ),
            (
                "uniform:1m,wirtes=1",
                "there is no option `wirtes`",
                "did you mean `writes`?",
            ),
            (
                "uniform:1m,writes=1.001",
                "`1.001` is no share",
                "between 0 and 1",
            ),
            ("uniform:1m,writes=-1", "`-1` is no share", "between 0 and 1"),
            ("uniform:1m,grain=3", "a grain of 3", "a power of two"),
            ("uniform:1m,start=zz", "`zz` is no address", "hexadecimal"),
            ("uniform:1m,start=0x10", "1m from 0x10 on", "begin on a page"),
            (
                "uniform:200t",
                "200t from 0x100000000000 on",
                "below 0x800000000000",
            ),
            ("uniform:1m,threads=0", "0 threads", "1 to 65536"),
            ("uniform:1m,threads=x", "`x` is no count", "such as 4"),
            ("uniform:1m,regions=privat", "`privat`", "did you mean `private`?"),
        ] {
            let message = message(text);
            assert!(message.starts_with("stream `"), "{message}");
            assert!(message.contains(problem) && message.contains(remedy), "{message}");
        }
    }
}
