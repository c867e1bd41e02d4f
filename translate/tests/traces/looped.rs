//! References replayed from memory.

use super::*;

#[test]
fn rounds_repeat_with_their_threads() {
    let lines: String = (0..3000).map(|n| format!("I  {n:x},1\n")).collect();
    let mut looped = Looped::read(open(lines.into()).unwrap(), 3).unwrap();
    let round = looped.references().to_vec();
    let all = drain(&mut looped).unwrap();
    assert_eq!(all.len(), 9000);
    let addresses = all.iter().map(|seen| seen.2);
    assert!(addresses.eq(round.iter().cycle().take(9000).map(|r| r.va().get())));
    looped.rewind(1);
    assert_eq!(drain(&mut looped).unwrap().len(), 3000);
}

#[test]
fn nothing_repeated_is_nothing() {
    assert_eq!(drain(&mut Looped::new(Vec::new(), 5)).unwrap(), []);
    let one = Reference::truncating(Read, Va::new(8));
    assert_eq!(drain(&mut Looped::new(vec![one], 0)).unwrap(), []);
}

#[test]
fn threads_keep_their_runs() {
    let stream: translate::stream::StreamSpec = "uniform:1m,threads=3".parse().unwrap();
    let expected = drain(&mut stream.open(1, 10_000).unwrap()).unwrap();
    let mut looped = Looped::read(stream.open(1, 10_000).unwrap(), 2).unwrap();
    assert_eq!(drain(&mut looped).unwrap(), [&expected[..], &expected].concat());
}
