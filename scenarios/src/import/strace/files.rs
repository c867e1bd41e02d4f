//! Files, and the descriptors through which the log names them.

use std::collections::{BTreeMap, BTreeSet};

/// A file of the scenario.
#[derive(Debug)]
pub(super) struct FileEntry {
    /// Name in the scenario.
    pub(super) name: String,
    /// Size at the start, in pages.
    pub(super) initial: u64,
    /// Size now, in pages.
    pub(super) current: u64,
    /// Mapped or truncated: part of the scenario.
    pub(super) used: bool,
    sized: bool,
}

/// All files.
#[derive(Debug, Default)]
pub(super) struct Files {
    entries: Vec<FileEntry>,
    newest: BTreeMap<String, usize>,
    names: BTreeSet<String>,
}

impl Files {
    /// The file that a path names now.
    pub(super) fn path(&mut self, path: &str) -> usize {
        match self.newest.get(path) {
            Some(&file) => file,
            None => self.fresh(path),
        }
    }

    /// A file that did not exist before, under a name that may have been used.
    pub(super) fn fresh(&mut self, path: &str) -> usize {
        let name = unique(&mut self.names, path, '#');
        self.entries.push(FileEntry {
            name,
            initial: 0,
            current: 0,
            used: false,
            sized: false,
        });
        let file = self.entries.len() - 1;
        self.newest.insert(path.to_owned(), file);
        file
    }

    pub(super) fn get(&self, file: usize) -> Option<&FileEntry> {
        self.entries.get(file)
    }

    pub(super) fn name(&self, file: usize) -> String {
        self.get(file)
            .map_or_else(String::new, |entry| entry.name.clone())
    }

    /// A mapping reaches up to `pages`. Returns the size the file must have grown to since its
    /// last known size, if it must have.
    pub(super) fn mapped(&mut self, file: usize, pages: u64) -> Option<u64> {
        let entry = self.entries.get_mut(file)?;
        entry.used = true;
        let grown = pages > entry.current;
        entry.current = entry.current.max(pages);
        if !entry.sized {
            entry.initial = entry.initial.max(pages);
            return None;
        }
        grown.then_some(pages)
    }

    /// The size becomes `pages`.
    pub(super) fn resized(&mut self, file: usize, pages: u64) {
        if let Some(entry) = self.entries.get_mut(file) {
            (entry.used, entry.sized, entry.current) = (true, true, pages);
        }
    }

    /// Files of the scenario.
    pub(super) fn used(&self) -> impl Iterator<Item = &FileEntry> {
        self.entries.iter().filter(|entry| entry.used)
    }
}

/// A name not used before: the wish, or the wish with a number.
pub(super) fn unique(names: &mut BTreeSet<String>, wish: &str, mark: char) -> String {
    let mut name = wish.to_owned();
    let mut n = 2_u64;
    while !names.insert(name.clone()) {
        name = format!("{wish}{mark}{n}");
        n += 1;
    }
    name
}

/// What happens to a descriptor at execve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnExec {
    /// It stays open.
    Keep,
    /// It is closed.
    Close,
}

/// A table of descriptors.
#[derive(Debug, Clone, Default)]
pub(super) struct Fds(BTreeMap<u64, (usize, OnExec)>);

impl Fds {
    pub(super) fn get(&self, fd: u64) -> Option<usize> {
        self.0.get(&fd).map(|&(file, _)| file)
    }

    pub(super) fn set(&mut self, fd: u64, file: usize, on_exec: OnExec) {
        self.0.insert(fd, (file, on_exec));
    }

    /// The new descriptor becomes what the old one is (perhaps unknown).
    pub(super) fn copy(&mut self, old: u64, new: u64, on_exec: OnExec) {
        match self.get(old) {
            Some(file) => self.set(new, file, on_exec),
            None => drop(self.0.remove(&new)),
        }
    }

    pub(super) fn close(&mut self, first: u64, last: u64) -> usize {
        let before = self.0.len();
        self.0.retain(|&fd, _| fd < first || fd > last);
        before - self.0.len()
    }

    pub(super) fn mark(&mut self, first: u64, last: u64, on_exec: OnExec) {
        self.0
            .iter_mut()
            .filter(|(fd, _)| (first..=last).contains(*fd))
            .for_each(|(_, entry)| entry.1 = on_exec);
    }

    pub(super) fn exec(&mut self) {
        self.0.retain(|_, (_, on_exec)| *on_exec == OnExec::Keep);
    }
}
