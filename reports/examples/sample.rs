//! Writes a sample result to the path given:
//! `sample FILE [run|compare|translate|run-text|compare-text|translate-text] [WIDTH]`.

#[path = "../tests/common/sample.rs"]
mod sample;
#[path = "../tests/common/translation.rs"]
mod translation;

use reports::text::{Color, Detail, TextOptions};

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "report.html".to_owned());
    let form = args.next();
    let width = args.next().and_then(|w| w.parse().ok()).unwrap_or(80);
    let options = TextOptions {
        width,
        color: Color::Never,
        detail: Detail::Headline,
    };
    let out = match form.as_deref() {
        Some("run") => reports::html::run_html(&sample::run(2, 1)),
        Some("run-text") => reports::text::run_text(&sample::run(2, 1), &options),
        Some("compare-text") => reports::text::compare_text(&sample::comparison(), &options),
        Some("translate") => reports::html::translate_html(&translation::translation()),
        Some("translate-text") => reports::text::translate_text(&translation::translation(), &options),
        _ => reports::html::compare_html(&sample::comparison()),
    };
    std::fs::write(path, out)
}
