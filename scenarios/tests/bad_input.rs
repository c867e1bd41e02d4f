//! Bad scenario files, syntax and shape: each finding has its code, its exact place and a helpful
//! text.

mod common;

use common::cases::{case, head, op, process, run};
use common::findings;
use scenarios::diagnostic::Code;

#[test]
fn syntax() {
    run(&[
        case(
            Code::Syntax,
            "{ \"title\": \"t\"§ \"machine\": 1 }",
            "comma is missing",
        ),
        case(Code::Syntax, "{ §title: 1 }", "double quotes"),
        case(Code::Syntax, "{ \"title\": §'t' }", "single quotes"),
        case(Code::Syntax, "{ \"title\": \"t\" } §{}", "text after the end"),
        case(Code::Syntax, "{ \"title\" §}", "key without a value"),
        case(Code::Syntax, "§{ \"title\": \"t\", ", "object is not closed"),
        case(Code::Syntax, "{ \"notes\": §[ \"a\",", "array is not closed"),
        case(Code::Syntax, "{ \"seed\": §+1 }", "plus sign"),
        case(Code::Syntax, "{ \"seed\": §bogus }", "neither a value nor a key"),
        case(Code::Syntax, "{}\n§/* never", "comment is not closed"),
        case(Code::Syntax, "[1, §, 2]", "`,` where a value"),
        case(Code::Syntax, "\u{feff}\n  §]", "without a matching `[`"),
    ]);
}

#[test]
fn shape() {
    run(&[
        case(Code::WrongType, "§[]", "scenario must be an object, not an array"),
        case(
            Code::MissingKey,
            "§{ \"title\": \"t\" }",
            "scenario lacks the key `processes`",
        ),
        case(
            Code::DuplicateKey,
            "{ \"title\": \"a\",\n  §\"title\": \"b\", \"processes\": {} }",
            "first here",
        ),
        head(
            Code::UnknownKey,
            "\"title\": \"t\", §\"kernal\": \"x\"",
            "did you mean `kernel`?",
        ),
        head(
            Code::WrongType,
            "\"title\": §1",
            "`title` must be a string, not a number",
        ),
        head(
            Code::WrongType,
            "\"title\": \"t\", \"kernel\": §true",
            "a string or an object",
        ),
        head(
            Code::BadNumber,
            "\"title\": \"t\", \"seed\": §-1",
            "must not be negative",
        ),
        head(
            Code::BadNumber,
            "\"title\": \"t\", \"seed\": §1.5",
            "whole number, not 1.5",
        ),
        head(Code::BadNumber, "\"title\": \"t\", \"seed\": §1e3", "write 1000"),
        head(
            Code::BadNumber,
            "\"title\": \"t\", \"seed\": §18446744073709551616",
            "18446744073709551615",
        ),
        head(
            Code::BadNumber,
            "\"title\": \"t\", \"cpus\": §4294967296",
            "at most 4294967295",
        ),
        head(
            Code::WrongType,
            "\"title\": \"t\", \"seed\": §\"12\"",
            "without quotes: 12",
        ),
        head(
            Code::UnknownVariant,
            "\"title\": \"t\", \"unsupported\": §\"braek\"",
            "did you mean `break`?",
        ),
        head(
            Code::UnknownKey,
            "\"title\": \"t\", \"notifier\": { \"base\": \"v8\", §\"traversl\": \"rcu\" }",
            "`traversal`",
        ),
        head(
            Code::UnknownVariant,
            "\"title\": \"t\", \"notifier\": { \"base\": \"v8\", \"traversal\": §\"rcuu\" }",
            "srcu",
        ),
    ]);
}

#[test]
fn shape_of_operations() {
    run(&[
        op(
            Code::UnknownVariant,
            "{ §\"munmpa\": { \"map\": \"ram\" } }",
            "did you mean `munmap`?",
        ),
        op(
            Code::UnknownVariant,
            "{ §\"dance\": {} }",
            "allowed: touch, access, mmap",
        ),
        op(
            Code::BadChoice,
            "§\"exit\"",
            "write it as an object: {\"exit\": ...}",
        ),
        op(Code::WrongType, "§\"dance\"", "operation must be an object"),
        op(Code::WrongType, "§7", "operation must be an object"),
        op(Code::BadChoice, "§{}", "write one of: "),
        op(
            Code::BadChoice,
            "{ \"touch\": { \"map\": \"ram\" }, §\"write\": true }",
            "arguments go inside",
        ),
        op(
            Code::BadChoice,
            "{ \"touch\": { \"map\": \"ram\" }, §\"exit\": {} }",
            "write two objects",
        ),
        op(
            Code::UnknownKey,
            "{ \"touch\": { \"map\": \"ram\", §\"wirte\": true } }",
            "`write`",
        ),
        op(
            Code::MissingKey,
            "{ \"truncate\": §{ \"file\": \"heap\" } }",
            "New size in pages",
        ),
        op(
            Code::UnknownVariant,
            "{ \"access\": { \"map\": \"ram\", \"count\": 1, \"pattern\": §\"unifrom\" } }",
            "did you mean `uniform`?",
        ),
        op(
            Code::BadChoice,
            "{ \"access\": { \"map\": \"ram\", \"count\": 1, \"pattern\": §\"zipf\" } }",
            "{\"zipf\": ...}",
        ),
        op(
            Code::BadChoice,
            "{ \"access\": { \"map\": \"ram\", \"count\": 1, \"pattern\": { §\"uniform\": 1 } } }",
            "takes no argument",
        ),
        op(
            Code::BadNumber,
            "{ \"access\": { \"map\": \"ram\", \"count\": 1, \"write_percent\": §256 } }",
            "at most 255",
        ),
        op(
            Code::WrongType,
            "{ \"munmap\": { \"at\": §[], \"pages\": 1 } }",
            "whole number or a",
        ),
        op(
            Code::BadNumber,
            "{ \"munmap\": { \"at\": §-4096, \"pages\": 1 } }",
            "negative",
        ),
        process(
            Code::UnknownVariant,
            "\"attach\": { \"x\": { §\"kvn\": {} } }, \"threads\": {}",
            "unknown secondary MMU `kvn`",
        ),
    ]);
}

#[test]
fn place_in_numbers() {
    let found = findings(b"{\n  \"title\": \"t\",\r\n\t\"\xc3\xa9\": 1, \"processes\": { } }");
    let item = &found.items[0];
    let span = item.span.expect("a place");
    assert_eq!((item.code, span.line, span.column), (Code::UnknownKey, 3, 2));
    assert_eq!((span.start, span.end), (20, 24));
}

#[test]
fn all_errors_in_one_pass() {
    let found = findings(
        b"{ \"title\": 1, \"machne\": 2, \"files\": { \"f\": {} }, \"processes\": { \"p\": \
          { \"threads\": { \"t\": { \"script\": [ { \"tuch\": {} }, { \"touch\": 3 } ] } } } } }",
    );
    let codes: Vec<&str> = found.items.iter().map(|item| item.code.as_str()).collect();
    assert_eq!(codes, ["E0102", "E0101", "E0103", "E0104", "E0102"], "{found}");
}

#[test]
fn a_flood_is_capped_and_counted() {
    let ops = "{ \"tuch\": {} },".repeat(100);
    let text = format!(
        "{{ \"title\": \"t\", \"processes\": {{ \"p\": {{ \"threads\": {{ \"t\": {{ \
         \"script\": [{ops}] }} }} }} }} }}"
    );
    let found = findings(text.as_bytes());
    assert_eq!((found.len(), found.more_errors), (20, 80));
    assert!(found.to_string().contains("80 more errors"));
}
