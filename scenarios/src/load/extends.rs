//! `extends`: a scenario that completes or replaces the members of another one.
//!
//! Objects are merged member by member, everything else is replaced; a member that is `null` in
//! the extending file removes the member of the extended one (RFC 7396). Each value keeps the
//! place where it was written, so that a diagnostic names the right file.

use std::path::Path;

use super::parse::parse;
use super::source::{Member, Node, NodeKind, Place, SourceFile, diagnose, label};
use super::{Resolver, normalise, text_of};
use crate::diagnostic::suggest::quote;
use crate::diagnostic::{Code, Diagnostic, Diagnostics};

/// Most files in a chain of `extends`, the first not counted.
pub const MAX_EXTENDS: usize = 16;

/// Keys that belong to the file they stand in and are not inherited.
const OWN: [&str; 2] = ["$schema", "extends"];

/// Parses `files[0]` and what it extends, and merges the trees.
pub(super) fn resolve(files: &mut Vec<SourceFile>, resolver: &dyn Resolver) -> Result<Node, Diagnostics> {
    let mut trees = vec![parse(files, 0)?];
    let mut chain: Vec<Place> = Vec::new();
    while let Some((target, place)) = target(files, trees.last())? {
        chain.push(place);
        if chain.len() > MAX_EXTENDS {
            let message = format!("`extends` goes through more than {MAX_EXTENDS} files");
            return Err(diagnose(files, Code::ExtendsDepth, place, message).into());
        }
        let from = &files[files.len() - 1].name;
        let name = resolver
            .locate(from, &target)
            .map_err(|why| bad(files, place, &why))?;
        let same = |file: &SourceFile| normalise(Path::new(&file.name)) == name;
        if let Some(start) = files.iter().position(same) {
            return Err(cycle(files, &chain, start).into());
        }
        let bytes = resolver.read(&name).map_err(|why| {
            bad(
                files,
                place,
                &format!("{} cannot be read: {}", quote(&name), why.message),
            )
        })?;
        let text = text_of(&name, &bytes)?;
        files.push(SourceFile::new(name, text));
        let index = u32::try_from(files.len() - 1).unwrap_or(u32::MAX);
        trees.push(parse(files, index)?);
    }
    let extended = trees.len() > 1;
    let mut merged = trees.pop().unwrap_or(Node {
        place: Place {
            file: 0,
            start: 0,
            end: 0,
        },
        kind: NodeKind::Null,
    });
    while let Some(child) = trees.pop() {
        drop_members(&mut merged, &OWN);
        merged = merge(merged, child);
    }
    if extended {
        drop_members(&mut merged, &["extends"]);
    }
    Ok(merged)
}

/// The target of `extends` in a tree and its place.
fn target(files: &[SourceFile], tree: Option<&Node>) -> Result<Option<(String, Place)>, Diagnostics> {
    let Some(member) = tree.and_then(|tree| tree.member("extends")) else {
        return Ok(None);
    };
    match &member.value.kind {
        NodeKind::Null => Ok(None),
        NodeKind::Text(target) => Ok(Some((target.clone(), member.value.place))),
        _ => {
            let message = format!("`extends` is {}, not a string", member.value.describe());
            Err(diagnose(files, Code::WrongType, member.value.place, message)
                .with_help("name one scenario file, relative to this one")
                .into())
        }
    }
}

fn bad(files: &[SourceFile], place: Place, why: &str) -> Diagnostics {
    diagnose(files, Code::ExtendsTarget, place, why)
        .with_help("`extends` names a scenario file by a path relative to this file")
        .into()
}

fn cycle(files: &[SourceFile], chain: &[Place], start: usize) -> Diagnostic {
    let round = files[start..].iter().chain([&files[start]]);
    let names: Vec<&str> = round.map(|file| file.name.as_str()).collect();
    let message = format!("`extends` comes back to itself: {}", names.join(" -> "));
    let (last, before) = chain.split_last().expect("a cycle has a last step");
    let mut diagnostic = diagnose(files, Code::ExtendsCycle, *last, message)
        .with_help("let the common part stand in a file that extends nothing");
    for place in &before[start.min(before.len())..] {
        diagnostic.labels.push(label(files, *place, "by way of"));
    }
    diagnostic
}

fn drop_members(node: &mut Node, keys: &[&str]) {
    if let NodeKind::Object(members) = &mut node.kind {
        members.retain(|member| !keys.contains(&member.key.as_str()));
    }
}

/// The child's value over the parent's. Order of members: the parent's, then new ones.
fn merge(parent: Node, child: Node) -> Node {
    let (NodeKind::Object(mut members), NodeKind::Object(news)) = (parent.kind, child.kind.clone()) else {
        return child;
    };
    for new in news {
        let old = members.iter().position(|member| member.key == new.key);
        let removes = matches!(new.value.kind, NodeKind::Null);
        match old {
            Some(index) if removes => {
                members.remove(index);
            }
            Some(index) => {
                let Member { value, .. } = members.remove(index);
                let value = merge(value, new.value);
                members.insert(
                    index,
                    Member {
                        key: new.key,
                        key_place: new.key_place,
                        value,
                    },
                );
            }
            None if removes => {}
            None => members.push(new),
        }
    }
    Node {
        place: child.place,
        kind: NodeKind::Object(members),
    }
}
