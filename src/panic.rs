//! A panic is a bug of this program, and says so.

use std::io::Write;
use std::panic::PanicHookInfo;

use crate::exit;

/// Makes every panic, on any thread, print what to do with it and end the process with
/// [`exit::BUG`].
pub(crate) fn install() {
    std::panic::set_hook(Box::new(|info| {
        // If stderr is gone there is nobody left to tell.
        let _ = std::io::stderr().lock().write_all(message(info).as_bytes());
        std::process::exit(i32::from(exit::BUG));
    }));
}

fn message(info: &PanicHookInfo<'_>) -> String {
    let what = info.payload_as_str().unwrap_or("panic without a message");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    format!(
        "mmusim: bug: {what}\n  at {place}, version {}\n  \
         this is a mistake in mmusim, not in the scenario; please report it to its authors with\n  \
         this text, the command line and the scenario file\n",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// Set in the process that shall panic: the hook ends its process, so it needs one of its own.
    const PANIC: &str = "MMUSIM_TEST_PANIC";

    #[test]
    fn a_panic_is_reported_as_a_bug() {
        if std::env::var_os(PANIC).is_some() {
            super::install();
            panic!("the sky fell");
        }
        let own = std::env::current_exe().expect("the test knows its own path");
        let out = Command::new(own)
            .args([
                "--exact",
                "panic::tests::a_panic_is_reported_as_a_bug",
                "--nocapture",
            ])
            .env(PANIC, "1")
            .output()
            .expect("the test can run itself");
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(text.contains("mmusim: bug: the sky fell"), "{text}");
        assert!(text.contains("please report"), "{text}");
        assert_eq!(out.status.code(), Some(101));
    }
}
