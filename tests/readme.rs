//! The README is executed: every line `$ mmusim ...` or `$ cargo run ... -- ...` in its `console`
//! blocks must end with exit code 0, or with the one its comment says (`# exit code 1`).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// The command the automatic checks run; the README must name the same.
const TEST_COMMAND: &str = "cargo test --workspace";

/// What runs a line: `cargo run` becomes the program under test, other uses of cargo nothing.
const PRELUDE: &str = r#"
set -o pipefail
cargo() {
    if [ "$1" = run ]; then
        while [ "$1" != -- ]; do shift; done
        shift
        mmusim "$@"
    fi
}
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("README.md can be read")
}

/// Commands of the `console` blocks, continuation lines joined.
fn commands(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let (mut inside, mut continued) = (false, false);
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line.trim_end() == "```console";
            continued = false;
        } else if inside {
            let part = if continued {
                Some(line.trim_start())
            } else {
                line.strip_prefix("$ ")
            };
            let Some(part) = part else { continue };
            let (part, more) = part.strip_suffix('\\').map_or((part, false), |p| (p, true));
            match out.last_mut().filter(|_| continued) {
                Some(last) => last.push_str(part),
                None => out.push(part.to_owned()),
            }
            continued = more;
        }
    }
    out
}

fn expected_code(command: &str) -> i32 {
    let code = command.split_once("# exit code ").map(|(_, code)| code.trim());
    code.map_or(0, |code| code.parse().expect("a number after `# exit code`"))
}

#[test]
fn examples_work() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for data in ["scenarios", "translate"] {
        symlink(root().join(data), folder.path().join(data)).expect("linked");
    }
    let bin = Path::new(env!("CARGO_BIN_EXE_mmusim"))
        .parent()
        .expect("the program is in a folder");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut run = 0;
    for command in commands(&readme()) {
        if !["mmusim ", "cargo run "]
            .iter()
            .any(|start| command.starts_with(start))
        {
            continue;
        }
        let out = Command::new("bash")
            .args(["-c", &format!("{PRELUDE}{command}")])
            .env("PATH", &path)
            .current_dir(folder.path())
            .output()
            .expect("bash runs");
        assert_eq!(
            out.status.code(),
            Some(expected_code(&command)),
            "$ {command}\n{}",
            String::from_utf8_lossy(&out.stderr)
        );
        run += 1;
    }
    assert!(
        run > 0,
        "README.md shows no command of the program in a `console` block"
    );
}

#[test]
fn the_test_command_is_named() {
    let text = readme();
    let named = commands(&text)
        .iter()
        .any(|command| command.trim() == TEST_COMMAND);
    assert!(named, "README.md has no `console` line `$ {TEST_COMMAND}`");
    let checks = fs::read_to_string(root().join(".ci/run")).expect(".ci/run can be read");
    assert!(
        checks.lines().any(|line| line.trim() == TEST_COMMAND),
        ".ci/run does not run `{TEST_COMMAND}`"
    );
}

#[test]
fn commands_are_found() {
    let text = "```console\n$ a \\\n    b\nout\n$ c # exit code 1\n```\n```sh\n$ d\n```\n";
    assert_eq!(commands(text), ["a b", "c # exit code 1"]);
    assert_eq!(expected_code("c # exit code 1"), 1);
    assert_eq!(expected_code("c"), 0);
}
