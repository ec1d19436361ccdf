//! The golden records of `lua/records.txt`, read and written by the scripts on a real redis-server.
//!
//! The unit tests of the two readers in Rust read the same file, so a script that reads a part of a record in another way than
//! the program fails here. `jobs` does the same for the golden jobs.

mod jobs;

use std::collections::{BTreeMap, HashMap};

use redis::{Connection, FromRedisValue};

use crate::support::{RedisServer, scripts};

const ROOM: &str = "room";
/// The keys of a user's slot that `deliver` takes.
const SLOT: [&str; 7] = [
    "counts", "rooms", "supers", "refs", "marks", "left", "prefs",
];

/// What a record means, by the names that the file uses.
type Meaning = BTreeMap<&'static str, String>;

/// A line of the file, and the indented lines below it.
struct Golden {
    sort: &'static str,
    record: &'static str,
    meaning: Meaning,
}

fn all(sort: &str) -> Vec<Golden> {
    let file = include_str!("../../lua/records.txt");
    let mut found: Vec<Golden> = Vec::new();
    for line in file.lines().filter(|line| !line.starts_with('#')) {
        if let Some(pairs) = line.strip_prefix("  ") {
            for pair in pairs.split(' ') {
                let (name, value) = pair.split_once('=').unwrap();
                let last = found.last_mut().unwrap();
                last.meaning.insert(name, value.to_owned());
            }
        } else if !line.is_empty() {
            let (sort, record) = line.split_once(' ').unwrap_or((line, ""));
            found.push(Golden {
                sort,
                record,
                meaning: Meaning::new(),
            });
        }
    }
    found.retain(|golden| golden.sort == sort);
    assert!(!found.is_empty(), "no golden {sort}");
    found
}

fn number(meaning: &Meaning, name: &str) -> u64 {
    meaning[name].parse().unwrap()
}

/// A position, which may be below 0.
fn position(meaning: &Meaning, name: &str) -> i64 {
    meaning[name].parse().unwrap()
}

/// Moves one number of a meaning.
fn add(meaning: &mut Meaning, name: &'static str, by: u64) {
    let moved = number(meaning, name) + by;
    meaning.insert(name, moved.to_string());
}

/// The last reset as it stands in a record; an empty text if there is none.
fn reset(meaning: &Meaning) -> String {
    match meaning["reset"].split_once(',') {
        None if meaning["reset"].is_empty() => String::new(),
        None => base36(number(meaning, "reset") - number(meaning, "epoch")),
        Some((stamp, unknown)) => {
            let after = stamp.parse::<u64>().unwrap() - number(meaning, "epoch");
            format!("{},{unknown}", base36(after))
        }
    }
}

/// What stands at the end of a record: flags, and the last reset.
fn ending(meaning: &Meaning) -> String {
    match (meaning["flags"].as_str(), reset(meaning).as_str()) {
        ("", "") => String::new(),
        (flags, "") => format!("|{flags}"),
        (flags, reset) => format!("|{flags}|{reset}"),
    }
}

/// A stamp as it stands in a record.
fn base36(mut stamp: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit((stamp % 36) as u32, 36).unwrap());
        stamp /= 36;
        if stamp == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

/// The last message as it stands in a record; an empty text if there is none.
fn last_message(meaning: &Meaning) -> String {
    if meaning["accepted"].is_empty() {
        return String::new();
    }
    let [accepted, newest] = ["accepted", "newest"].map(|name| number(meaning, name));
    let time: i64 = meaning["time"].parse().unwrap();
    let back = number(meaning, "revision") - accepted;
    let after = time - (accepted / 1_000) as i64;
    match newest - accepted {
        0 => format!("{back},{after}"),
        later => format!("{back},{after},{later}"),
    }
}

/// `state|epoch|revision|read` of either form.
fn start(meaning: &Meaning) -> String {
    let [epoch, revision] = ["epoch", "revision"].map(|name| number(meaning, name));
    let [epoch, after] = [epoch, revision - epoch].map(base36);
    format!("{}|{epoch}|{after}|{}", meaning["state"], meaning["read"])
}

/// The record of a direct room or group that means this.
fn room_record(meaning: &Meaning) -> String {
    let created: i64 = meaning["created"].parse().unwrap();
    let made = created - (number(meaning, "epoch") / 1_000) as i64;
    let ends = ending(meaning);
    format!(
        "{}|{}|{}|{}|{}|{}|{}|{}|{}|{made}|{}{ends}",
        start(meaning),
        meaning["head"],
        meaning["holes"],
        meaning["mentions"],
        &meaning["kind"][..1],
        meaning["active"],
        meaning["type"],
        meaning["tags"],
        meaning["peer"],
        last_message(meaning)
    )
}

/// The record of a supergroup that means this.
fn supergroup_record(meaning: &Meaning) -> String {
    let (holes, mentions) = (&meaning["holes"], &meaning["mentions"]);
    format!("{}|{holes}|{mentions}{}", start(meaning), ending(meaning))
}

/// The positions that the record counts as holes and as mentions: the first ones above the read position.
fn marked(meaning: &Meaning) -> (Vec<i64>, Vec<i64>) {
    let [read, holes, mentions] = ["read", "holes", "mentions"].map(|name| position(meaning, name));
    let first_mention = read + holes + 1;
    let holes = (read + 1..first_mention).collect();
    let mentions = (first_mention..first_mention + mentions).collect();
    (holes, mentions)
}

/// A position as it stands in a mark.
fn in_mark(position: i64) -> String {
    match position {
        0.. => format!("{position:016}"),
        _ => format!("-{:015}", 1_000_000_000_000_000 + position),
    }
}

fn comma_list<T: ToString>(positions: &[T]) -> String {
    let texts: Vec<String> = positions.iter().map(T::to_string).collect();
    texts.join(",")
}

/// One user's slot, which holds one record.
struct Slot {
    _redis: RedisServer,
    connection: Connection,
}

impl Slot {
    fn new() -> Self {
        let redis = RedisServer::start();
        let client = redis::Client::open(redis.url()).unwrap();
        Self {
            connection: client.get_connection().unwrap(),
            _redis: redis,
        }
    }

    /// Makes the record all that the slot holds: the marks and settings that it tells of, and the record itself.
    fn fill(&mut self, hash: &str, record: &str, meaning: &Meaning) {
        self.raw::<()>(&["FLUSHALL"]);
        self.raw::<()>(&["HSET", &key(hash), ROOM, record]);
        if hash == "supers" {
            self.raw::<()>(&["HSET", &key("counts"), "supers", "1"]);
        }
        if meaning.contains_key("holes") {
            let (holes, mentions) = marked(meaning);
            for (letter, positions) in [("h", holes), ("m", mentions)] {
                for position in positions {
                    let mark = format!("{ROOM}|{letter}|{}", in_mark(position));
                    self.raw::<()>(&["ZADD", &key("marks"), "0", &mark]);
                }
            }
        }
        let flags = meaning.get("flags").map_or("", String::as_str);
        if flags.contains('e') {
            // Of the first message that mentions the user.
            let position = in_mark(marked(meaning).1[0]);
            let mark = format!("{ROOM}|e|{position}|7|1");
            self.raw::<()>(&["ZADD", &key("marks"), "0", &mark]);
        }
        for (letter, setting) in [('h', "hidden"), ('s', "sticky"), ('m', "muted")] {
            let value = format!("7|{}", flags.contains(letter));
            self.raw::<()>(&["HSET", &key("prefs"), &format!("{ROOM}|{setting}"), &value]);
        }
        for (digit, count) in [('1', "messages"), ('2', "mentions"), ('3', "none")] {
            if flags.ends_with(digit) {
                let value = format!("7|\"{count}\"");
                self.raw::<()>(&["HSET", &key("prefs"), &format!("{ROOM}|count"), &value]);
            }
        }
    }

    fn raw<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        command.query(&mut self.connection).unwrap()
    }

    fn run<T: FromRedisValue>(
        &mut self,
        name: &str,
        keys: &[&str],
        arguments: &[&str],
    ) -> redis::RedisResult<T> {
        let script = redis::Script::new(&scripts::text(name));
        let mut call = script.prepare_invoke();
        keys.iter().for_each(|what| {
            call.key(key(what));
        });
        arguments.iter().for_each(|argument| {
            call.arg(*argument);
        });
        call.invoke(&mut self.connection)
    }

    fn record(&mut self, hash: &str) -> Option<String> {
        self.raw(&["HGET", &key(hash), ROOM])
    }

    /// The plain count of the room; absent is 0.
    fn count(&mut self) -> u64 {
        let count: Option<u64> = self.raw(&["HGET", &key("counts"), "room:room"]);
        count.unwrap_or_default()
    }

    /// Recomputes the slot from its positions; answers what changed, four texts for each change.
    fn rebuild(&mut self) -> Vec<[String; 4]> {
        let keys = [
            "counts", "rooms", "supers", "refs", "marks", "profile", "prefs",
        ];
        let flat: Vec<String> = self.run("user_rebuild", &keys, &[""]).unwrap();
        let (changes, rest) = flat.as_chunks();
        assert!(rest.is_empty());
        changes.to_vec()
    }

    /// Delivers this meaning's snapshot of its room to the user: with two keys, or with all seven and a hole.
    fn deliver(&mut self, meaning: &Meaning, hole: Option<u64>) -> Vec<String> {
        let keys = match hole {
            None => &SLOT[..2],
            Some(_) => &SLOT[..],
        };
        let of = |name: &str| meaning.get(name).cloned().unwrap_or_default();
        let [epoch, revision] = ["epoch", "revision"].map(|name| number(meaning, name));
        let last = match meaning.contains_key("accepted") {
            true => last_message(meaning),
            false => String::new(),
        };
        let mut membership = format!("{}|{}", meaning["state"], base36(epoch));
        // Marks come with the last reset that the room knows.
        let reset = reset(meaning);
        if hole.is_some() && !reset.is_empty() {
            let (reset, _) = reset.split_once(',').unwrap_or((&reset, ""));
            membership = format!("{membership}||{reset}");
        }
        let marks = format!("{}\n\n\n{}\n\n", of("peer"), comma_list(hole.as_slice()));
        let arguments = [
            ROOM,
            &revision.to_string(),
            &of("head"),
            &of("kind"),
            &of("active"),
            &of("type"),
            &of("tags"),
            &of("created"),
            &last,
            "",
            "",
            &membership,
            &base36(revision - epoch),
            "0",
            &marks,
        ];
        self.run("deliver", keys, &arguments).unwrap()
    }
}

fn key(what: &str) -> String {
    format!("unread:v1:{{app-0:u:user}}:{what}")
}

#[test]
fn the_scripts_read_room_records_as_the_file_says() {
    let mut slot = Slot::new();
    for golden in all("room") {
        let Golden {
            record,
            mut meaning,
            ..
        } = golden;
        assert_eq!(room_record(&meaning), record);
        slot.fill("rooms", record, &meaning);

        // The repair finds nothing to repair but the plain counts, which were not there.
        let changes = slot.rebuild();
        let repaired = |what: &str| what == "counts" || what == "refs";
        let others: Vec<_> = changes.iter().filter(|c| !repaired(&c[0])).collect();
        assert!(others.is_empty(), "{record}: {others:?}");
        let counts: HashMap<&str, &str> = changes
            .iter()
            .filter(|change| change[0] == "counts")
            .map(|change| (change[1].as_str(), change[3].as_str()))
            .collect();
        let invited = meaning["state"] == "i" && meaning["active"] == "1";
        let joined = meaning["state"] == "j" && meaning["active"] == "1";
        let kind = &meaning["kind"];
        let preference = meaning["flags"].trim_start_matches(['h', 's', 'm', 'e']);
        let (with_messages, with_mentions) = match preference {
            "1" => (1, 0),
            "2" => (0, 1),
            "3" => (0, 0),
            _ => (1, 1),
        };
        let summed = number(&meaning, "unread") * with_messages;
        let texts = |number: u64| (number > 0).then(|| number.to_string());
        for (field, expected) in [
            ("room:room".to_owned(), texts(number(&meaning, "unread"))),
            (format!("unread_rooms:{kind}"), texts(u64::from(summed > 0))),
            (format!("messages:{kind}"), texts(summed)),
            (
                format!("mentions:{kind}"),
                texts(number(&meaning, "mentions") * u64::from(joined) * with_mentions),
            ),
            (format!("invitations:{kind}"), texts(u64::from(invited))),
            ("known".to_owned(), Some(meaning["epoch"].clone())),
        ] {
            let got = counts.get(field.as_str()).copied();
            assert_eq!(got, expected.as_deref(), "{record}: {field}");
        }

        // A message, by the short way: the head moves, and the plain counts with it.
        add(&mut meaning, "head", 1);
        add(&mut meaning, "revision", 3);
        for name in ["accepted", "newest"] {
            meaning.insert(name, meaning["revision"].clone());
        }
        meaning.insert("time", "1795350735089".to_owned());
        if joined {
            add(&mut meaning, "unread", 1);
        }
        assert_eq!(slot.deliver(&meaning, None), ["K"], "{record}");
        let expected = room_record(&meaning);
        assert_eq!(slot.record("rooms").as_ref(), Some(&expected), "{record}");
        assert_eq!(slot.count(), number(&meaning, "unread"), "{record}");

        // The user's own message, by the long way: the head moves, and the message is a hole of a member.
        add(&mut meaning, "head", 1);
        add(&mut meaning, "revision", 3);
        let head = number(&meaning, "head");
        if meaning["state"] == "j" {
            add(&mut meaning, "holes", 1);
        }
        assert_eq!(slot.deliver(&meaning, Some(head)), ["K"], "{record}");
        let expected = room_record(&meaning);
        assert_eq!(slot.record("rooms").as_ref(), Some(&expected), "{record}");
        assert_eq!(slot.count(), number(&meaning, "unread"), "{record}");
        let counted: [u64; 1] = slot
            .run("user_room", &["counts", "supers", "marks"], &[ROOM])
            .unwrap();
        assert_eq!(counted, [number(&meaning, "unread")], "{record}");

        // Everything that the deliveries wrote is what follows from the positions.
        let changes = slot.rebuild();
        assert!(changes.is_empty(), "{record}: {changes:?}");
    }
}

#[test]
fn the_scripts_read_supergroup_records_as_the_file_says() {
    let mut slot = Slot::new();
    for golden in all("supergroup") {
        let Golden {
            record,
            mut meaning,
            ..
        } = golden;
        assert_eq!(supergroup_record(&meaning), record);
        slot.fill("supers", record, &meaning);

        let changes = slot.rebuild();
        let since = ["counts", "known", "", &meaning["epoch"]].map(str::to_owned);
        assert_eq!(changes, [since], "{record}");

        let (holes, mentions) = marked(&meaning);
        let positions = [comma_list(&holes), comma_list(&mentions)];
        // The edit that `Slot::fill` writes.
        let edits = match record.contains("|e") {
            true => format!("{}:7", mentions[0]),
            false => String::new(),
        };
        type Answer = (
            i64,
            String,
            String,
            String,
            String,
            String,
            String,
            String,
            String,
        );
        let read: Answer = slot
            .run("user_room", &["counts", "supers", "marks"], &[ROOM])
            .unwrap();
        let expected = (
            -1,
            meaning["state"].clone(),
            base36(number(&meaning, "epoch")),
            meaning["read"].clone(),
            positions[0].clone(),
            positions[1].clone(),
            reset(&meaning),
            String::new(),
            edits.clone(),
        );
        assert_eq!(read, expected, "{record}");

        let keys = ["counts", "refs", "rooms", "supers", "marks"];
        type Pairs = Vec<String>;
        let overview: (String, Pairs, Pairs, Pairs, Pairs) =
            slot.run("user_overview", &keys, &["cro"]).unwrap();
        let listed = format!("{record}|{}||{edits}", positions.join("|"));
        assert_eq!(overview.4, [ROOM.to_owned(), listed], "{record}");

        // The user's own message: a hole of a member, and a later revision of the room.
        add(&mut meaning, "revision", 3);
        let above = (holes.len() + mentions.len()) as i64;
        let own = position(&meaning, "read").max(0) + above + 1;
        let own = u64::try_from(own).unwrap();
        if meaning["state"] == "j" {
            add(&mut meaning, "holes", 1);
        }
        let mut told = meaning.clone();
        told.extend([("kind", "supergroup"), ("active", "1")].map(|(k, v)| (k, v.to_owned())));
        told.extend([("head", own.to_string()), ("created", "0".to_owned())]);
        assert_eq!(slot.deliver(&told, Some(own)), ["K"], "{record}");
        let expected = supergroup_record(&meaning);
        assert_eq!(slot.record("supers").as_ref(), Some(&expected), "{record}");
        let changes = slot.rebuild();
        assert!(changes.is_empty(), "{record}: {changes:?}");
    }
}

#[test]
fn the_scripts_refuse_what_is_no_record() {
    let mut slot = Slot::new();
    let refused = |sort: &str| {
        let mut lines = all(sort);
        lines.retain(|golden| golden.meaning["scripts"] == "refuse");
        assert!(!lines.is_empty());
        lines
    };
    for golden in refused("no-room") {
        slot.fill("rooms", golden.record, &golden.meaning);
        let removed = ["rooms", ROOM, golden.record, ""].map(str::to_owned);
        assert_eq!(slot.rebuild(), [removed], "{}", golden.record);
        assert_eq!(slot.record("rooms"), None, "{}", golden.record);
    }
    for golden in refused("no-supergroup") {
        slot.fill("supers", golden.record, &golden.meaning);
        let keys = ["counts", "supers", "marks"];
        let read = slot.run::<redis::Value>("user_room", &keys, &[ROOM]);
        let code = read.unwrap_err().code().map(str::to_owned);
        assert_eq!(code.as_deref(), Some("UNREADABLE"), "{}", golden.record);
        let removed = ["supers", ROOM, golden.record, ""].map(str::to_owned);
        assert!(slot.rebuild().contains(&removed), "{}", golden.record);
    }
}
