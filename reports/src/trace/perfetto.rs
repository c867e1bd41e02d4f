//! The native Perfetto form: protobuf messages, written by hand since only a dozen fields are
//! needed.
//!
//! Field numbers are those of Perfetto's `trace_packet.proto`, `track_descriptor.proto`,
//! `track_event.proto` and `debug_annotation.proto`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::rc::Rc;

use super::{TraceEvent, TraceKind, balanced};

const TRACE_PACKET: u32 = 1;
mod packet {
    pub(super) const TIMESTAMP: u32 = 8;
    pub(super) const SEQUENCE_ID: u32 = 10;
    pub(super) const TRACK_EVENT: u32 = 11;
    pub(super) const TRACK_DESCRIPTOR: u32 = 60;
}
mod track {
    pub(super) const UUID: u32 = 1;
    pub(super) const NAME: u32 = 2;
    pub(super) const PARENT_UUID: u32 = 5;
    pub(super) const COUNTER: u32 = 8;
}
mod event {
    pub(super) const DEBUG_ANNOTATIONS: u32 = 4;
    pub(super) const TYPE: u32 = 9;
    pub(super) const TRACK_UUID: u32 = 11;
    pub(super) const CATEGORIES: u32 = 22;
    pub(super) const NAME: u32 = 23;
    pub(super) const COUNTER_VALUE: u32 = 30;
    pub(super) const SLICE_BEGIN: u64 = 1;
    pub(super) const SLICE_END: u64 = 2;
    pub(super) const INSTANT: u64 = 3;
    pub(super) const COUNTER: u64 = 4;
}
mod annotation {
    pub(super) const STRING_VALUE: u32 = 6;
    pub(super) const NAME: u32 = 10;
}

/// All packets come from one writer.
const SEQUENCE: u64 = 1;
/// Tracks that only hold others.
const TASKS: u64 = 1;
const CPUS: u64 = 2;
const COUNTERS: u64 = 3;
/// Where the numbering of tracks of each kind starts; numbers of tasks and CPUs are 32 bits wide.
const FIRST_TASK: u64 = 1 << 40;
const FIRST_CPU: u64 = 2 << 40;
const FIRST_COUNTER: u64 = 3 << 40;

/// Writes a trace for the Perfetto viewer: a track for each task with its slices, a track for each
/// CPU with the instants, a track for each counter.
///
/// A `Begin` without its `End` is closed with the enclosing slice or at the end of the trace, an
/// `End` without its `Begin` is dropped.
///
/// # Errors
/// When `out` cannot be written.
pub fn perfetto(events: &[TraceEvent], cycle_ps: u64, out: &mut dyn Write) -> io::Result<()> {
    let counters = descriptors(events, out)?;
    for e in balanced(events) {
        let time = u128::from(e.time_cycles) * u128::from(cycle_ps) / 1000;
        let body = match &e.kind {
            TraceKind::Begin(name) => slice(event::SLICE_BEGIN, FIRST_TASK + u64::from(e.task), Some(name)),
            TraceKind::End(_) => slice(event::SLICE_END, FIRST_TASK + u64::from(e.task), None),
            TraceKind::Instant { name, args } => {
                let mut m = slice(event::INSTANT, FIRST_CPU + u64::from(e.cpu), Some(name));
                annotate(&mut m, "task", &e.task_name);
                if !args.is_empty() {
                    annotate(&mut m, "args", args);
                }
                m
            }
            TraceKind::Counter { name, value } => {
                let mut m = slice(
                    event::COUNTER,
                    counters.get(name).copied().unwrap_or(FIRST_COUNTER),
                    None,
                );
                m.varint(event::COUNTER_VALUE, value.cast_unsigned());
                m
            }
        };
        let mut p = Message::default();
        p.varint(packet::TIMESTAMP, u64::try_from(time).unwrap_or(u64::MAX));
        p.varint(packet::SEQUENCE_ID, SEQUENCE);
        p.bytes(packet::TRACK_EVENT, &body.0);
        p.write(out)?;
    }
    Ok(())
}

/// Declares the tracks, in numeric order, and returns the tracks of the counters.
fn descriptors(events: &[TraceEvent], out: &mut dyn Write) -> io::Result<BTreeMap<Rc<str>, u64>> {
    let mut tasks: BTreeMap<u32, &Rc<str>> = BTreeMap::new();
    let mut cpus = BTreeSet::new();
    let mut counters: BTreeMap<Rc<str>, u64> = BTreeMap::new();
    for e in events {
        tasks.entry(e.task).or_insert(&e.task_name);
        cpus.insert(e.cpu);
        if let TraceKind::Counter { name, .. } = &e.kind {
            counters.entry(Rc::clone(name)).or_insert(0);
        }
    }
    for (group, name) in [(TASKS, "tasks"), (CPUS, "CPUs"), (COUNTERS, "counters")] {
        descriptor(group, name, None).write(out)?;
    }
    for (id, name) in tasks {
        descriptor(FIRST_TASK + u64::from(id), &format!("{name}-{id}"), Some(TASKS)).write(out)?;
    }
    for cpu in cpus {
        descriptor(FIRST_CPU + u64::from(cpu), &format!("CPU {cpu}"), Some(CPUS)).write(out)?;
    }
    for (i, (name, uuid)) in counters.iter_mut().enumerate() {
        *uuid = FIRST_COUNTER + i as u64;
        descriptor(*uuid, name, Some(COUNTERS)).write(out)?;
    }
    Ok(counters)
}

fn descriptor(uuid: u64, name: &str, parent: Option<u64>) -> Message {
    let mut d = Message::default();
    d.varint(track::UUID, uuid);
    d.bytes(track::NAME, name.as_bytes());
    if let Some(parent) = parent {
        d.varint(track::PARENT_UUID, parent);
    }
    if uuid >= FIRST_COUNTER {
        d.bytes(track::COUNTER, &[]);
    }
    let mut p = Message::default();
    p.varint(packet::SEQUENCE_ID, SEQUENCE);
    p.bytes(packet::TRACK_DESCRIPTOR, &d.0);
    p
}

fn slice(kind: u64, track: u64, name: Option<&str>) -> Message {
    let mut m = Message::default();
    m.varint(event::TYPE, kind);
    m.varint(event::TRACK_UUID, track);
    if let Some(name) = name {
        m.bytes(event::CATEGORIES, b"mmusim");
        m.bytes(event::NAME, name.as_bytes());
    }
    m
}

fn annotate(message: &mut Message, name: &str, value: &str) {
    let mut a = Message::default();
    a.bytes(annotation::NAME, name.as_bytes());
    a.bytes(annotation::STRING_VALUE, value.as_bytes());
    message.bytes(event::DEBUG_ANNOTATIONS, &a.0);
}

/// A protobuf message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn raw(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u32, value: u64) {
        self.raw(u64::from(field) << 3);
        self.raw(value);
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.raw(u64::from(field) << 3 | 2);
        self.raw(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// As a packet of the trace.
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut framed = Self::default();
        framed.bytes(TRACE_PACKET, &self.0);
        out.write_all(&framed.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::story;
    use super::*;

    /// Fields of a message: number, and either a number or bytes.
    fn fields(mut data: &[u8]) -> Vec<(u32, u64, Vec<u8>)> {
        fn number(data: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = data[0];
                *data = &data[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    return value;
                }
                shift += 7;
            }
        }
        let mut out = Vec::new();
        while !data.is_empty() {
            let key = number(&mut data);
            match key & 7 {
                0 => out.push(((key >> 3) as u32, number(&mut data), Vec::new())),
                2 => {
                    let n = number(&mut data) as usize;
                    out.push(((key >> 3) as u32, 0, data[..n].to_vec()));
                    data = &data[n..];
                }
                wire => panic!("wire type {wire}"),
            }
        }
        out
    }

    fn get(fields: &[(u32, u64, Vec<u8>)], number: u32) -> Option<(u64, Vec<u8>)> {
        fields.iter().find(|f| f.0 == number).map(|f| (f.1, f.2.clone()))
    }

    /// Time, type, track and name.
    type Decoded = (u64, u64, u64, String);

    /// The events, and the declared tracks.
    fn decode(data: &[u8]) -> (Vec<Decoded>, BTreeMap<u64, String>) {
        let (mut events, mut tracks) = (Vec::new(), BTreeMap::new());
        for (number, _, bytes) in fields(data) {
            assert_eq!(number, TRACE_PACKET);
            let p = fields(&bytes);
            assert_eq!(get(&p, packet::SEQUENCE_ID).unwrap().0, SEQUENCE);
            if let Some((_, d)) = get(&p, packet::TRACK_DESCRIPTOR) {
                let d = fields(&d);
                let name = String::from_utf8(get(&d, track::NAME).unwrap().1).unwrap();
                assert!(tracks.insert(get(&d, track::UUID).unwrap().0, name).is_none());
            } else {
                let e = fields(&get(&p, packet::TRACK_EVENT).unwrap().1);
                events.push((
                    get(&p, packet::TIMESTAMP).unwrap().0,
                    get(&e, event::TYPE).unwrap().0,
                    get(&e, event::TRACK_UUID).unwrap().0,
                    get(&e, event::NAME).map_or(String::new(), |n| String::from_utf8(n.1).unwrap()),
                ));
            }
        }
        (events, tracks)
    }

    #[test]
    fn slices_nest_and_do_not_overlap_on_each_track() {
        let mut data = Vec::new();
        perfetto(&story(), 1000, &mut data).unwrap();
        let (events, tracks) = decode(&data);
        let mut open: BTreeMap<u64, Vec<(u64, String)>> = BTreeMap::new();
        let mut last = 0;
        for (time, kind, track, name) in &events {
            assert!(*time >= last, "packets in order of time");
            last = *time;
            assert!(tracks.contains_key(track), "track {track} is declared");
            match *kind {
                event::SLICE_BEGIN => open.entry(*track).or_default().push((*time, name.clone())),
                event::SLICE_END => {
                    let (begun, _) = open
                        .get_mut(track)
                        .and_then(Vec::pop)
                        .expect("end of an open slice");
                    assert!(begun <= *time);
                }
                _ => {}
            }
        }
        assert!(open.values().all(Vec::is_empty), "every slice is closed");
        let begins = events.iter().filter(|e| e.1 == event::SLICE_BEGIN).count();
        assert_eq!(begins, 4);
    }

    #[test]
    fn tasks_cpus_and_counters_have_their_tracks() {
        let mut data = Vec::new();
        perfetto(&story(), 1000, &mut data).unwrap();
        let (events, tracks) = decode(&data);
        let names: Vec<&str> = tracks.values().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "tasks",
                "CPUs",
                "counters",
                "main-3",
                "vcpu0-4",
                "CPU 0",
                "CPU 1",
                "pages.pinned"
            ]
        );
        let instant = events.iter().find(|e| e.1 == event::INSTANT).unwrap();
        assert_eq!((instant.2, instant.3.as_str()), (FIRST_CPU, "tlb_flush"));
        assert!(
            events
                .iter()
                .any(|e| e.1 == event::COUNTER && e.2 == FIRST_COUNTER)
        );
    }

    #[test]
    fn times_are_nanoseconds() {
        let mut data = Vec::new();
        perfetto(&story()[..1], 435, &mut data).unwrap();
        assert_eq!(decode(&data).0[0].0, 100 * 435 / 1000);
    }
}
