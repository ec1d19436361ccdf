//! What meets what, and which of it is run.

use std::collections::HashMap;
use std::fmt;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::operations::{Family, Operation, SCENES, Scene};

/// What went wrong once: always run.
const WENT_WRONG: &[&str] = &[
    // The pair's room is another's by now, or no direct room any more, and a message by `to` is refused.
    "pair.swap.to.held",
    "pair.swap.to.killed",
    "pair.remake.from.held",
    "pair.remake.from.killed",
    "direct.to.swap.held",
    "direct.tom.remake.held",
    // A message by `to` brings a user back into a room that was left, although the two have got another.
    "direct.from.leave+to.held",
    // A user's deletion under way, and a message that names the user.
    "pair.deluser.to.held",
    "pair.deluser.to.killed",
    "pair.deluser.fromm.held",
    "pair.deluser.fromm.killed",
    "pair.to.deluser.held",
    "pair.fromm.deluser.held",
    "pair-deleting.to.read.held",
    "group-left.join+hear.deluser.held",
    // What was answered meanwhile shows late: marks behind a newer head, a recall in a room that is becoming a supergroup, a
    // reading by somebody who does not see yet that it is in the room.
    "group.hear.hear.held",
    "group.say.hear.held",
    "group-warm.super.recall.held",
    "group-new.join.read.held",
];
/// A member's resets and reads from two devices, which meet in each of these scenes.
const RESETS: &[&str] = &["unread", "unreadfrom", "set"];
const READS: &[&str] = &["read", "readid", "readtime", "clear"];
const WHERE_THEY_MEET: &[&str] = &["group", "group-read", "super", "direct"];
/// Of everything else.
const ONE_IN: u64 = 800;

/// What becomes of the operation that is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// It goes on when the others have been answered.
    Held,
    /// Its pod dies there.
    Killed,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Killed => "killed",
        }
    }
}

/// Operations that meet, wherever the first one is held.
#[derive(Clone)]
pub(crate) struct Meeting {
    pub scene: &'static Scene,
    pub first: &'static Operation,
    /// Run whole, one after the other, by another pod while the first is held.
    pub others: Vec<&'static Operation>,
    pub end: End,
}

impl fmt::Display for Meeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scene, first) = (self.scene.name, self.first.name);
        write!(f, "{scene}.{first}.{}.{}", self.others(), self.end.name())
    }
}

impl Meeting {
    pub(crate) fn others(&self) -> String {
        let names: Vec<&str> = self.others.iter().map(|operation| operation.name).collect();
        names.join(":")
    }

    /// By its name, and before which command alone the first is to be held.
    fn named(name: &str) -> Option<(Self, Option<usize>)> {
        let parts: Vec<&str> = name.split('.').collect();
        let (scene, first, others, end, at) = match parts.as_slice() {
            [scene, first, others, end] => (scene, first, others, end, None),
            [scene, first, others, end, at] => (scene, first, others, end, Some(at.parse().ok()?)),
            _ => return None,
        };
        let meeting = Self {
            scene: SCENES.iter().find(|known| known.name == *scene)?,
            first: Operation::named(first)?,
            others: others
                .split(':')
                .map(Operation::named)
                .collect::<Option<_>>()?,
            end: [End::Held, End::Killed]
                .into_iter()
                .find(|known| known.name() == *end)?,
        };
        Some((meeting, at))
    }
}

/// Every pair in every scene, held and killed.
fn all() -> Vec<Meeting> {
    let mut meetings = Vec::new();
    for scene in SCENES {
        for (first, other) in scene.pairs() {
            for end in [End::Killed, End::Held] {
                let others = vec![other];
                meetings.push(Meeting {
                    scene,
                    first,
                    others,
                    end,
                });
            }
        }
    }
    meetings
}

/// Three operations: the second and the third one after the other while the first is held.
fn triples(seed: u64, count: usize) -> Vec<Meeting> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut meetings = Vec::new();
    while meetings.len() < count {
        let scene = SCENES.choose(&mut rng).unwrap();
        let operations = scene.operations();
        let mut operation = || *operations.choose(&mut rng).unwrap();
        let (first, others) = (operation(), vec![operation(), operation()]);
        let end = if rng.random_bool(0.5) {
            End::Killed
        } else {
            End::Held
        };
        let meet = [
            (first, others[0]),
            (first, others[1]),
            (others[0], others[1]),
        ];
        if meet.iter().all(|(one, two)| scene.is_defined(one, two)) {
            meetings.push(Meeting {
                scene,
                first,
                others,
                end,
            });
        }
    }
    meetings
}

/// A number that belongs to a name, the same on every machine and with every version of the compiler.
fn lot(name: &str) -> u64 {
    // FNV-1a, whose high bits are the better ones.
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, hash) >> 24
}

/// Of `all`, what is run without being asked for: every pair of the most important operations in one scene of groups and one of
/// direct rooms, a quarter of them killed as well as held, every reset that meets a read, whatever has gone wrong before, and of all
/// else one in so many. The same every time.
fn usual(all: Vec<Meeting>) -> Vec<Meeting> {
    let pair = |meeting: &Meeting| {
        let direct = matches!(meeting.scene.family, Family::ByHand | Family::Pair);
        (direct, meeting.first.name, meeting.others())
    };
    let scene_lot = |meeting: &Meeting| lot(&format!("{}.{:?}", meeting.scene.name, pair(meeting)));
    let mut scenes = HashMap::new();
    for meeting in all
        .iter()
        .filter(|meeting| meeting.first.core && meeting.others[0].core)
    {
        let least = scenes.entry(pair(meeting)).or_insert(u64::MAX);
        *least = scene_lot(meeting).min(*least);
    }
    let mut firsts = HashMap::new();
    for meeting in &all {
        let least = firsts.entry(meeting.first.name).or_insert(u64::MAX);
        *least = lot(&meeting.to_string()).min(*least);
    }
    let are = |meeting: &Meeting, first: &[&str], others: &[&str]| {
        first.contains(&meeting.first.name) && others.contains(&meeting.others().as_str())
    };
    let is_usual = |meeting: &Meeting| {
        let name = meeting.to_string();
        if WHERE_THEY_MEET.contains(&meeting.scene.name)
            && (are(meeting, RESETS, READS) || are(meeting, READS, RESETS))
        {
            return true;
        }
        let chosen = scenes.get(&pair(meeting)) == Some(&scene_lot(meeting));
        chosen && (meeting.end == End::Held || lot(&name).is_multiple_of(4))
            || WENT_WRONG.contains(&name.as_str())
            || lot(&name).is_multiple_of(ONE_IN)
            || firsts.get(meeting.first.name) == Some(&lot(&name))
    };
    all.into_iter().filter(is_usual).collect()
}

/// A share of all of it, for one of several machines: `INTERLEAVE_PART=2/5` is the second of five.
fn part(mut meetings: Vec<Meeting>) -> Vec<Meeting> {
    let Ok(asked) = std::env::var("INTERLEAVE_PART") else {
        return meetings;
    };
    let numbers = asked
        .split_once('/')
        .and_then(|(at, of)| Some((at.parse().ok()?, of.parse().ok()?)));
    let (at, of): (usize, usize) =
        numbers.unwrap_or_else(|| panic!("INTERLEAVE_PART is no part: {asked}"));
    assert!(
        (1..=of).contains(&at),
        "INTERLEAVE_PART is no part: {asked}"
    );
    let mut n = 0;
    meetings.retain(|_| {
        n += 1;
        n % of == at % of
    });
    meetings
}

/// What is to be run.
pub(crate) struct Plan {
    pub meetings: Vec<Meeting>,
    /// Whether what each case does is shown.
    pub verbose: bool,
    /// Before which command alone the first operation is to be held.
    pub only: Option<usize>,
    /// Whether it takes so long that it is to go on where it was interrupted.
    pub long: bool,
}

/// What `INTERLEAVE` asks for.
pub(crate) fn plan() -> Plan {
    let number = |name: &str, otherwise: u64| {
        let text = std::env::var(name).ok();
        text.map_or(otherwise, |text| {
            text.parse()
                .unwrap_or_else(|_| panic!("{name} is no number: {text}"))
        })
    };
    let asked = std::env::var("INTERLEAVE").unwrap_or_default();
    let quiet = |meetings, long| Plan {
        meetings,
        verbose: false,
        only: None,
        long,
    };
    match asked.as_str() {
        "" => quiet(usual(all()), false),
        "all" => quiet(part(all()), true),
        "triples" => {
            let (seed, count) = (number("TEST_SEED", 1), number("TEST_STEPS", 1_000));
            quiet(triples(seed, count as usize), false)
        }
        name => {
            let one = Meeting::named(name);
            let only = one.as_ref().and_then(|(_, at)| *at);
            let mut meetings = match one {
                Some((meeting, _)) => vec![meeting],
                None => all(),
            };
            let begins = |meeting: &Meeting| {
                let whole = meeting.to_string();
                name.split(',')
                    .any(|name| !name.is_empty() && whole.starts_with(name))
            };
            meetings.retain(|meeting| only.is_some() || begins(meeting));
            assert!(!meetings.is_empty(), "nothing is called {name}");
            Plan {
                meetings,
                verbose: !name.contains(','),
                only,
                long: false,
            }
        }
    }
}

#[test]
fn each_meeting_has_a_name_and_the_same_are_run_every_time() {
    let everything = all();
    for meeting in triples(1, 50).iter().chain(&everything[..50]) {
        let name = meeting.to_string();
        assert_eq!(Meeting::named(&name).unwrap().0.to_string(), name);
        assert_eq!(Meeting::named(&format!("{name}.3")).unwrap().1, Some(3));
    }
    let count = everything.len();
    let usual = usual(everything);
    println!("{count} meetings, {} of them as a rule", usual.len());
    for operation in crate::operations::OPERATIONS {
        let meets = |meeting: &&Meeting| meeting.first.name == operation.name;
        assert!(
            usual.iter().any(|meeting| meets(&meeting)),
            "{}",
            operation.name
        );
    }
}
