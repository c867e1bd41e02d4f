//! The program from outside: what it prints where, what it writes, how it exits.

mod bad_input;
mod compare;
mod outputs;
mod translate;
mod usage;
mod verdicts;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use assert_cmd::Command;
use tempfile::TempDir;

/// Two threads, a guest, random accesses, a munmap.
const SMALL: &str = r#"{
  "title": "munmap under a guest",
  "processes": { "p": {
    "maps": { "ram": { "pages": 64, "populate": "write" } },
    "attach": { "vm": { "kvm": { "maps": ["ram"] } } },
    "threads": {
      "main": { "cpu": 0, "script": [
        { "access": { "map": "ram", "pattern": "uniform", "count": 200, "write_percent": 50 } },
        { "barrier": { "name": "done" } },
        { "munmap": { "map": "ram", "first": 32 } } ] },
      "vcpu": { "cpu": 1, "as": "vm", "script": [
        { "access": { "pattern": "uniform", "count": 500 } },
        { "barrier": { "name": "done" } } ] } } } }
}"#;

/// A folder of one test, with the program to run in it.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().expect("a temporary folder"));
        place.put("small.jsonc", SMALL);
        place
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        let folder = self.path(name).parent().map(std::path::Path::to_owned);
        fs::create_dir_all(folder.expect("a file is in a folder")).expect("a folder can be made");
        fs::write(self.path(name), content).expect("a file can be written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("the file was written")
    }

    /// Names of the files in the folder.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("the folder can be read");
        let mut names: Vec<String> = entries
            .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmusim"));
        command
            .current_dir(self.0.path())
            .args(args)
            .timeout(Duration::from_secs(120));
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        Done::new(args, self.command(args).output().expect("the program starts"))
    }

    /// Runs a command that must end well and returns its stdout.
    fn good(&self, args: &[&str]) -> String {
        self.run(args).exits(0).stdout
    }
}

/// A finished command.
struct Done {
    args: String,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Done {
    fn new(args: &[&str], output: Output) -> Done {
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        Done {
            args: args.join(" "),
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    #[track_caller]
    fn exits(self, code: i32) -> Done {
        assert_eq!(self.code, Some(code), "mmusim {}\n{}", self.args, self.stderr);
        self
    }

    #[track_caller]
    fn says(self, text: &str) -> Done {
        assert!(
            self.stderr.contains(text),
            "mmusim {}: no `{text}` in\n{}",
            self.args,
            self.stderr
        );
        self
    }
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text}"))
}

/// A file of the repository.
fn repository(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    path.to_str().expect("the path is UTF-8").to_owned()
}
