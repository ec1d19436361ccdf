//! The golden jobs of `lua/records.txt`, and what the scripts that write, read and deliver jobs make of edits.

use std::collections::BTreeSet;

use super::{Meaning, ROOM, SLOT, Slot, all, key, number};
use crate::support::scripts;

/// The keys of a room's slot that `message_update` takes.
const MESSAGE: [&str; 10] = [
    "meta",
    "members",
    "ids",
    "allmentions",
    "pending",
    "keys0",
    "keys1",
    "timed",
    "bounds",
    "arrived",
];

/// The audiences (words) and acts (letters) that a line of a script writes into the record of a job. An audience stands between
/// line feeds or quotes, an act between one of these and a bar.
fn written(line: &str) -> (Vec<&str>, Vec<&str>) {
    let is_word =
        |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let parts = || line.split("\\n").flat_map(|part| part.split('\''));
    let acts = parts().filter_map(|part| part.split_once('|'));
    let acts = acts.map(|(letter, _)| letter).filter(is_word);
    (parts().filter(is_word).collect(), acts.collect())
}

#[test]
fn the_scripts_know_the_audiences_and_acts_of_the_golden_jobs_and_no_others() {
    let jobs = all("job");
    let audiences: BTreeSet<&str> = jobs
        .iter()
        .map(|job| job.meaning["audience"].as_str())
        .collect();
    let acts: BTreeSet<&str> = jobs
        .iter()
        .filter_map(|job| job.record.rsplit("\\n").find(|line| line.contains('|')))
        .filter_map(|act| act.split_once('|'))
        .map(|(letter, _)| letter)
        .collect();

    let files = std::fs::read_dir("lua").unwrap();
    let texts: Vec<String> = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "lua"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    let (wrote_audiences, wrote_acts): (Vec<_>, Vec<_>) = lines
        .filter_map(|line| line.split_once("int(now + lease)"))
        .map(|(_, rest)| written(rest))
        .unzip();
    let wrote_audiences = BTreeSet::from_iter(wrote_audiences.into_iter().flatten());
    let wrote_acts = BTreeSet::from_iter(wrote_acts.into_iter().flatten());
    assert_eq!((wrote_audiences, wrote_acts), (audiences, acts.clone()));

    let reader = scripts::text("room_unread");
    let mut read = BTreeSet::new();
    for pattern in reader.split("(act, '^").skip(1) {
        let (letter, _) = pattern.split_once('|').unwrap();
        read.insert(letter);
    }
    // These patterns are of whole records.
    for names in ["\\n[^\\n]*\\n", "\\n\\n"] {
        for pattern in reader.split(names).skip(1) {
            let (letter, _) = pattern.split_once('|').unwrap();
            read.extend(Some(letter).filter(|letter| letter.len() == 1));
        }
    }
    assert_eq!(read, BTreeSet::from(["e", "m", "r"]));
    for letter in read {
        assert!(acts.contains(letter), "no golden job for {letter}");
    }
}

/// The pairs of a line such as `marks=4 reset=6`.
fn meaning_of(line: &'static str) -> Meaning {
    let pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, is)| (name, is.to_owned())).collect()
}

/// What `room_unread` counts for `al` with these pending jobs, in a supergroup with head 9: unread messages and mentions.
/// `everybody`: a position that mentions everybody; `reset` to `unset`: as in the golden jobs; `edits`: that have been delivered.
fn unread_with(slot: &mut Slot, jobs: &[(&str, &str)], state: &Meaning) -> [u64; 2] {
    slot.raw::<()>(&["FLUSHALL"]);
    let fields = "born 5 head 9 kind supergroup status 1 created 1";
    let meta = key("meta");
    let mut room = vec!["HSET", &meta];
    room.extend(fields.split(' '));
    room.extend(["type", "", "tags", ""]);
    slot.raw::<()>(&room);
    for (stamp, record) in jobs {
        let record = record.replace("\\n", "\n");
        slot.raw::<()>(&["HSET", &key("pending"), stamp, &record]);
    }
    let given = |name| state.get(name).map(String::as_str).unwrap_or_default();
    if let Some(position) = state.get("everybody") {
        slot.raw::<()>(&["ZADD", &key("allmentions"), position, position]);
    }
    let unknown = match (given("reset"), given("unknown")) {
        ("", _) => "",
        (_, "") => "0",
        (_, unknown) => unknown,
    };
    let arguments = [
        "j",
        "5",
        "1",
        "",
        given("marks"),
        "al",
        given("reset"),
        unknown,
        given("unset"),
        given("edits"),
    ];
    let keys = ["meta", "recalled", "allmentions", "pending", "arrived"];
    let reply: Vec<String> = slot.run("room_unread", &keys, &arguments).unwrap();
    [8, 9].map(|place| reply[place].parse().unwrap())
}

#[test]
fn room_unread_counts_golden_jobs_as_the_file_says() {
    let mut slot = Slot::new();
    for job in all("job") {
        let unread = unread_with(&mut slot, &[("7", job.record)], &job.meaning);
        let counted = ["unread", "mentions"].map(|name| number(&job.meaning, name));
        assert_eq!(unread, counted, "{} {:?}", job.record, job.meaning);
    }
}

/// The message at 4. The stamps are in another order as texts.
#[test]
fn room_unread_takes_pending_edits_of_one_message_in_the_order_of_their_stamps() {
    const TO_BO: &str = "99\\nreset\\n\\ne|4|+bo|*";
    const BO_TO_ALL: &str = "99\\nreset\\n\\ne|4|*|+bo";
    const TO_AL: &str = "99\\nreset\\n\\ne|4|+al|*";
    const AL_TO_ALL: &str = "99\\nreset\\n\\ne|4|*|+al";
    const AL_TO_BO: &str = "99\\nsome\\nbo,al\\ne|4|bo|al";
    const BO_TO_AL: &str = "99\\nsome\\nal,bo\\ne|4|al|bo";
    let mut slot = Slot::new();
    for (state, jobs, mentions) in [
        // What a reset had made of the mention is forgotten where al is among the others of an edit, and stays where al is named.
        ("unset=4 everybody=4", [TO_BO, BO_TO_ALL].as_slice(), 1),
        ("unset=4 everybody=4", &[TO_AL, AL_TO_ALL], 0),
        ("everybody=4", &[TO_AL, AL_TO_ALL], 1),
        ("marks=4", &[BO_TO_ALL, TO_BO], 0),
        ("", &[BO_TO_ALL, TO_AL], 1),
        ("unset=4", &[TO_BO, BO_TO_AL], 1),
        ("unset=4", &[TO_AL, AL_TO_BO], 0),
        ("unset=4 everybody=4", &[TO_AL, AL_TO_BO, BO_TO_ALL], 1),
        ("marks=4", &[AL_TO_BO, BO_TO_AL], 1),
        ("marks=4 everybody=4", &[AL_TO_BO, BO_TO_ALL], 1),
        ("marks=4", &[AL_TO_ALL, TO_AL], 1),
        ("", &[AL_TO_ALL, TO_AL], 0),
    ] {
        let mut meaning = meaning_of(state);
        meaning.insert("reset", "6".to_owned());
        let mut jobs: Vec<_> = ["9", "10", "11"]
            .into_iter()
            .zip(jobs.iter().copied())
            .collect();
        for _ in 0..2 {
            let unread = unread_with(&mut slot, &jobs, &meaning);
            assert_eq!(unread, [8, mentions], "{state} {jobs:?}");
            jobs.reverse();
        }
    }
}

/// The message at 4. The stamps are in another order as texts.
#[test]
fn room_unread_leaves_out_what_is_pending_from_before_a_delivered_edit() {
    const MESSAGE: &str = "99\\nsome\\n\\nm|4|h|bo|al";
    const JOINED: &str = "99\\nall\\n\\nj|al::4";
    const TO_AL: &str = "99\\nsome\\nal\\ne|4|al|";
    const TO_NOBODY: &str = "99\\nsome\\nal\\ne|4||al";
    const TO_ALL: &str = "99\\nreset\\n\\ne|4|*|+al";
    let mut slot = Slot::new();
    for (state, job, mentions) in [
        ("", MESSAGE, 1),
        ("edits=4:10", MESSAGE, 0),
        ("edits=3:10,14:10", MESSAGE, 1),
        ("marks=4 edits=4:10", MESSAGE, 1),
        ("", JOINED, 1),
        ("edits=4:10", JOINED, 0),
        ("", TO_AL, 1),
        ("edits=4:10", TO_AL, 0),
        ("edits=3:10,14:10", TO_AL, 1),
        // An earlier one, and this one itself.
        ("edits=4:8", TO_AL, 1),
        ("edits=4:9", TO_AL, 0),
        ("marks=4", TO_NOBODY, 0),
        ("marks=4 edits=4:10", TO_NOBODY, 1),
        ("everybody=4 reset=6", TO_ALL, 0),
        ("everybody=4 reset=6 edits=4:10", TO_ALL, 1),
    ] {
        let [_, counted] = unread_with(&mut slot, &[("9", job)], &meaning_of(state));
        assert_eq!(counted, mentions, "{state} {job}");
    }
}

/// By a message at 4, for a member who has been reset.
#[test]
fn a_delivered_edit_leaves_in_a_supergroup_what_a_reset_has_said_where_the_room_counts_no_mention()
{
    let mut slot = Slot::new();
    let [mark, not_one] = ["m", "x"].map(|letter| format!("{ROOM}|{letter}|{:016}", 4));
    let (is, is_not) = (mark.as_str(), not_one.as_str());
    // Of each case: up to where the reset has said what is a mention, the mark, what the edit says, and the mark after it.
    for (unknown, before, says, after) in [
        ("", is, "2", is),
        ("", "", "2", is_not),
        ("", is_not, "2", is_not),
        ("", is, "3", is),
        ("", "", "3", is),
        ("", is_not, "3", is_not),
        ("", is, "4", ""),
        ("", "", "4", ""),
        ("", is_not, "4", ""),
        (",5", is, "2", is),
        (",5", "", "2", ""),
        (",5", is, "3", is),
        (",5", "", "3", ""),
        (",5", is, "4", is),
        (",5", "", "4", is),
    ] {
        slot.raw::<()>(&["FLUSHALL"]);
        slot.raw::<()>(&["HSET", &key("counts"), "known", "5", "supers", "1"]);
        let mentions = u64::from(before == is);
        let record = format!("j|5|3|1|0|{mentions}||1{unknown}");
        slot.raw::<()>(&["HSET", &key("supers"), ROOM, &record]);
        if !before.is_empty() {
            slot.raw::<()>(&["ZADD", &key("marks"), "0", before]);
        }
        let edit = format!("\n\n\n\n\n@4\n9\n{says}\n");
        let snapshot = [ROOM, "20", "9", "supergroup", "1", "", "", "0", "", "", ""];
        let arguments = [&snapshot[..], &["j|5||1", "f", "0", &edit]].concat();
        let answer: Vec<String> = slot.run("deliver", &SLOT, &arguments).unwrap();
        assert_eq!(answer, ["K"]);
        let case = format!("{unknown} {before} {says}");
        let marks: Vec<String> = slot.raw(&["ZRANGE", &key("marks"), "0", "-1"]);
        let marks = marks.iter().filter(|mark| !mark.contains("|e|"));
        assert_eq!(
            marks.map(String::as_str).collect::<String>(),
            after,
            "{case}"
        );
        let mentions = u64::from(after == is);
        let record = format!("j|5|f|1|0|{mentions}|e|1{unknown}");
        assert_eq!(slot.record("supers"), Some(record), "{case}");
        assert!(slot.rebuild().is_empty(), "{case}");
    }
}

/// Who has had a reset is not named one by one: in a large supergroup this may be everybody.
#[test]
fn the_job_of_an_edit_names_only_whom_the_message_mentions() {
    let mut slot = Slot::new();
    for (kind, named, edits) in [
        (
            "supergroup",
            "",
            [("*", "reset", "*|"), ("", "reset", "|*")],
        ),
        (
            "supergroup",
            "a,b",
            [("*", "reset", "*|+a,+b"), ("b", "reset", "+b|*")],
        ),
        ("group", "", [("*", "all", "*|"), ("", "all", "|*")]),
        (
            "group",
            "a,b",
            [("*", "all", "*|!a,!b"), ("b", "all", "!b|*")],
        ),
    ] {
        slot.raw::<()>(&["FLUSHALL"]);
        let meta = format!(
            "born 5 head 4 kind {kind} status 1 created 1 rev 9 accepted 4 mrev 5 resets 1 last_at 9 last_time 1 last_id z"
        );
        let meta_key = key("meta");
        let mut set = vec!["HSET", &meta_key];
        set.extend(meta.split(' '));
        set.extend(["type", "", "tags", ""]);
        slot.raw::<()>(&set);
        for user in ["a", "b", "c", "d"] {
            slot.raw::<()>(&["HSET", &key("members"), user, "j|5|0|||6"]);
        }
        let now: (u64, u64) = slot.raw(&["TIME"]);
        let message = format!("{}000000|4|1|0|4||{named}", now.0);
        slot.raw::<()>(&["HSET", &key("ids"), "m", &message]);
        for (mentions, audience, lists) in edits {
            let mentions = format!("={mentions}");
            let arguments = [
                "0",
                "5000000",
                "",
                "1000",
                "86400000000",
                "m",
                "",
                "",
                "",
                "",
                "",
                &mentions,
                "0",
                "",
            ];
            let reply: redis::Value = slot.run("message_update", &MESSAGE, &arguments).unwrap();
            let redis::Value::Array(reply) = reply else {
                panic!("{reply:?}")
            };
            let text =
                |place: usize| redis::from_redis_value::<String>(reply[place].clone()).unwrap();
            assert_eq!(text(0), "OK");
            let record = text(2);
            let (_, job) = record.split_once('\n').unwrap();
            assert_eq!(job, format!("{audience}\n\ne|4|{lists}"), "{kind}");
        }
    }
}
