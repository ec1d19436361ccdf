//! The structure of the program: its modules use each other one way, without circles.
//!
//! A folder and its file (`engine/` and `engine.rs`) are one module for those outside. Inside of a folder its modules are
//! compared with each other; the folder's own file holds what they share, and may call them. So a circle is looked for on each
//! floor: among the modules of `src/`, among those of `src/engine/`, and so on. The arrows of the lowest floor are those of the
//! map in `src/lib.rs`, which has each of them and no other.
//!
//! One module uses another if it names something of it, in a `use` or in a path. What a module only hands on
//! (`pub use read::Events`) counts as used from where it is defined. Comments and unit tests may use anything.

use std::collections::{BTreeMap, BTreeSet};

use super::layering::{Sources, sources};

/// Circles that are still there: the uses that have to go, from and to. One that closes no circle any more is struck off.
#[rustfmt::skip]
const STILL_TO_GO: &[(&str, &str)] = &[
    // The table of the settings names the rules and the ways to show a value, which name the settings in turn.
    ("config/settings", "config/rules"),
    ("config/show", "config/settings"),
];

/// From a module to one that it uses; and a file and a file of them between which it is so.
type Arrows = BTreeMap<(String, String), (String, String)>;

/// A path in the source.
struct Use {
    path: Vec<String>,
    /// What a `use` calls that to which the path leads; none: it is no `use`.
    name: Option<String>,
    /// Whether it is a `pub use`.
    hands_on: bool,
}

struct File {
    /// `["store", "read"]` for `store/read.rs`.
    module: Vec<String>,
    uses: Vec<Use>,
}

/// The words of a text, `::` and single characters between them.
fn tokens(text: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        if !first.is_whitespace() {
            tokens.push(token);
        }
        rest = after;
    }
    tokens
}

/// Reads the tree of a `use`, from behind the word to its `;`.
fn tree<'a>(tokens: &mut impl Iterator<Item = &'a str>, before: &[String], found: &mut Vec<Use>) {
    let mut path = before.to_vec();
    let mut name = None;
    let mut nested = false;
    let mut end = |path: &mut Vec<String>, name: &mut Option<String>, nested: &mut bool| {
        if path.len() > before.len() && !*nested {
            if path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            let name = name.take().or_else(|| path.last().cloned());
            found.push(Use {
                path: path.clone(),
                name,
                hands_on: false,
            });
        }
        path.truncate(before.len());
        *name = None;
        *nested = false;
    };
    let mut groups = Vec::new();
    while let Some(token) = tokens.next() {
        match token {
            "::" => {}
            "," => end(&mut path, &mut name, &mut nested),
            ";" | "}" => {
                end(&mut path, &mut name, &mut nested);
                break;
            }
            "{" => {
                let mut inner = Vec::new();
                tree(tokens, &path, &mut inner);
                groups.extend(inner);
                nested = true;
            }
            "as" => name = tokens.next().map(str::to_owned),
            word => path.push(word.to_owned()),
        }
    }
    found.extend(groups);
}

/// All that a text names by a path: in a `use`, from `crate`, `super` or `self` on, or from a module that it declares.
fn uses(text: &str) -> Vec<Use> {
    let tokens = tokens(text);
    let declared: BTreeSet<&str> = tokens
        .windows(3)
        .filter(|of| of[0] == "mod" && of[2] == ";")
        .map(|of| of[1])
        .collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        if *token == "use" {
            // `pub use`, `pub(crate) use`.
            let before = at.checked_sub(2).and_then(|before| tokens.get(before));
            let hands_on = matches!(before, Some(&("pub" | ")")));
            let first = found.len();
            let length = tokens[at..].iter().position(|token| *token == ";");
            let end = length.map_or(tokens.len(), |length| at + length + 1);
            tree(&mut tokens[at..end].iter().copied(), &[], &mut found);
            for one in &mut found[first..] {
                one.hands_on = hands_on;
            }
            at = end;
        } else if tokens.get(at) == Some(&"::")
            && (["crate", "super", "self"].contains(token) || declared.contains(token))
        {
            let mut path = vec![(*token).to_owned()];
            while tokens.get(at) == Some(&"::") {
                path.extend(tokens.get(at + 1).map(|&word| word.to_owned()));
                at += 2;
            }
            found.push(Use {
                path,
                name: None,
                hands_on: false,
            });
        }
    }
    found
}

struct Program(BTreeMap<Vec<String>, File>);

impl Program {
    fn new(sources: &Sources) -> Self {
        let files = sources.iter().map(|(file, text)| {
            let path = file.strip_suffix(".rs").unwrap();
            let module: Vec<String> = match path {
                "lib" => Vec::new(),
                _ => path.split('/').map(str::to_owned).collect(),
            };
            let uses = uses(text);
            (module.clone(), File { module, uses })
        });
        Self(files.collect())
    }

    /// The module where that is defined which a path from `module` leads to. None: it is nothing of ours.
    fn defined(&self, module: &[String], path: &[String], depth: usize) -> Option<Vec<String>> {
        let mut at = module.to_vec();
        let mut rest = path.iter().peekable();
        match rest.peek().map(|word| word.as_str()) {
            Some("crate") => at.clear(),
            Some("super") => {}
            Some("self") => {}
            Some(word) => {
                let child: Vec<String> = [module, &[word.to_owned()]].concat();
                if !self.0.contains_key(&child) {
                    return None;
                }
            }
            None => return None,
        }
        for word in rest {
            match word.as_str() {
                "crate" | "self" => continue,
                "super" => {
                    at.pop();
                    continue;
                }
                _ => {}
            }
            let child: Vec<String> = [at.as_slice(), std::slice::from_ref(word)].concat();
            if self.0.contains_key(&child) {
                at = child;
                continue;
            }
            // No module: an item, which this one defines or has from elsewhere.
            let file = self.0.get(&at)?;
            let handed_on = file.uses.iter().find(|one| one.name.as_ref() == Some(word));
            let from = handed_on.filter(|_| depth < 8).and_then(|one| {
                let path = &one.path;
                self.defined(&at, path, depth + 1)
            });
            return Some(from.unwrap_or(at));
        }
        Some(at)
    }

    /// Who uses whom, on each floor.
    fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for file in self.0.values() {
            for one in &file.uses {
                let Some(to) = self.defined(&file.module, &one.path, 0) else {
                    continue;
                };
                let from = &file.module;
                let hands_on = one.hands_on && to.starts_with(from);
                if to == *from || to.is_empty() || from.is_empty() || hands_on {
                    continue;
                }
                let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                let on_floor = |module: &[String]| Some(module.get(..=shared)?.join("/"));
                // One of them is the file of the folder that the other one is in.
                let (Some(one), Some(other)) = (on_floor(from), on_floor(&to)) else {
                    continue;
                };
                let ends = (one, other);
                let files = (from.join("/"), to.join("/"));
                arrows.entry(ends).or_insert(files);
            }
        }
        arrows
    }
}

/// The modules that can be reached from each along the arrows.
fn reached(arrows: &Arrows, from: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from.to_owned()];
    while let Some(at) = next.pop() {
        for (_, to) in arrows.keys().filter(|(from, _)| *from == at) {
            if reached.insert(to.clone()) {
                next.push(to.clone());
            }
        }
    }
    reached
}

/// A line for each arrow that is part of a circle.
fn circles(arrows: &Arrows) -> Vec<String> {
    arrows
        .iter()
        .filter(|((from, to), _)| reached(arrows, to).contains(from))
        .map(|((from, to), (file, other))| {
            format!("{from} uses {to}, which uses it in turn (src/{file}.rs names something of src/{other}.rs)")
        })
        .collect()
}

fn arrows_of(sources: &Sources) -> Arrows {
    Program::new(sources).arrows()
}

fn without(arrows: &Arrows, gone: &[(&str, &str)]) -> Arrows {
    let is_gone = |(from, to): &(String, String)| gone.contains(&(from.as_str(), to.as_str()));
    let arrows = arrows.iter().filter(|(ends, _)| !is_gone(ends));
    arrows
        .map(|(ends, files)| (ends.clone(), files.clone()))
        .collect()
}

/// The map in the header of `src/lib.rs`: a line for each module, `name → those that it may use`.
fn map() -> BTreeMap<String, BTreeSet<String>> {
    let header = include_str!("../../src/lib.rs").lines();
    let lines = header.map_while(|line| line.strip_prefix("//!"));
    let line = |line: &str| {
        let (from, to) = line.split_once('→')?;
        let from = from.trim();
        let to = to.split(',').map(|name| name.trim().to_owned());
        let is_name = |name: &str| !name.is_empty() && !name.contains(' ');
        is_name(from).then(|| (from.to_owned(), to.filter(|name| is_name(name)).collect()))
    };
    lines.filter_map(line).collect()
}

/// The arrows among the modules of the crate root.
fn at_the_root(program: &Program) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in program.arrows().into_keys() {
        if !from.contains('/') && !to.contains('/') {
            all.entry(from).or_default().insert(to);
        }
    }
    all
}

/// A line for each module that does not use just what the map says.
fn off_the_map(program: &Program) -> Vec<String> {
    let (map, real) = (map(), at_the_root(program));
    let names: BTreeSet<&String> = map.keys().chain(real.keys()).collect();
    let none = BTreeSet::new();
    let of = |all: &BTreeMap<_, _>, name: &String| -> BTreeSet<String> {
        all.get(name).unwrap_or(&none).clone()
    };
    let different = names
        .into_iter()
        .map(|name| (name, of(&map, name), of(&real, name)))
        .filter(|(_, map, real)| map != real);
    let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
    different
        .map(|(name, map, real)| {
            let more = list(real.difference(&map).cloned().collect());
            let less = list(map.difference(&real).cloned().collect());
            format!("{name}: uses [{more}], which the map does not say; the map says [{less}], which it does not use")
        })
        .collect()
}

#[test]
fn the_map_has_every_arrow_and_no_other() {
    let off = off_the_map(&Program::new(&sources()));
    assert!(off.is_empty(), "\n{}", off.join("\n"));
}

/// An arrow that goes up, between any two modules of the map, is found.
#[test]
fn every_arrow_of_the_map_can_be_broken() {
    let mut program = Program::new(&sources());
    for (from, used_by_it) in map() {
        for used in &used_by_it {
            let module = vec![used.clone()];
            let planted = uses(&format!("use crate::{from}::x;"));
            program.0.get_mut(&module).unwrap().uses.extend(planted);
            let off = off_the_map(&program);
            program.0.get_mut(&module).unwrap().uses.pop();
            assert_eq!(off.len(), 1, "{used} may use {from}: {off:?}");
            assert!(
                off[0].starts_with(&format!("{used}: uses [{from}]")),
                "{off:?}"
            );
        }
    }
}

#[test]
fn modules_use_each_other_one_way() {
    let circles = circles(&without(&arrows_of(&sources()), STILL_TO_GO));
    assert!(circles.is_empty(), "\n{}", circles.join("\n"));
}

#[test]
fn no_circle_is_forgiven_that_is_open() {
    let arrows = arrows_of(&sources());
    let open: Vec<_> = (0..STILL_TO_GO.len())
        .filter(|number| {
            let mut others = STILL_TO_GO.to_vec();
            others.remove(*number);
            circles(&without(&arrows, &others)).is_empty()
        })
        .map(|number| STILL_TO_GO[number])
        .collect();
    assert_eq!(open, [], "these are in no circle any more");
}

/// Circles as they could be written, and what only looks like one.
#[test]
fn a_circle_is_told_from_its_likes() {
    let circle = |files: &[(&str, &str)]| {
        let text = |(file, text): &(&str, &str)| ((*file).to_owned(), (*text).to_owned());
        circles(&arrows_of(&files.iter().map(text).collect()))
            .iter()
            .map(|line| line.split(',').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    // By a path without a `use`, and in a group.
    assert_eq!(
        circle(&[
            (
                "a.rs",
                "use std::fmt;\nuse crate::{fmt::x, b::{self as other, X}};"
            ),
            ("b.rs", "pub struct X;\nfn f() { crate::a::g() }"),
        ]),
        ["a uses b", "b uses a"]
    );
    assert!(circle(&[("a.rs", "use crate::b::X;"), ("b.rs", "fn a() { a::f() }")]).is_empty());
    // By three, of which one has its names from the next by way of the folder's file.
    assert_eq!(
        circle(&[
            (
                "s.rs",
                "mod x; mod y; mod z;\npub use y::Y;\npub(crate) use z::{Z as Last};"
            ),
            ("s/x.rs", "use super::Y;"),
            ("s/y.rs", "fn f() -> super::Last {}"),
            ("s/z.rs", "use super::x::X;"),
        ]),
        ["s/x uses s/y", "s/y uses s/z", "s/z uses s/x"]
    );
    // By folders, where no file is in a circle.
    assert_eq!(
        circle(&[
            ("a.rs", "mod x; mod y;"),
            ("a/x.rs", "use crate::b::y::Y;"),
            ("a/y.rs", "pub struct Y;"),
            ("b.rs", "mod x; mod y;"),
            ("b/x.rs", "use crate::a::y::Y;"),
            ("b/y.rs", "pub struct Y;"),
        ]),
        ["a uses b", "b uses a"]
    );
    // A folder's file may call what is in the folder, and is called from there.
    let (face, part) = ("mod x;\nfn f() { x::g() }\npub struct F;", "use super::F;");
    assert!(circle(&[("a.rs", face), ("a/x.rs", part)]).is_empty());
}
