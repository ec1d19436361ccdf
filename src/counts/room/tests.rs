use std::collections::BTreeSet;

use super::*;
use crate::counts::golden;

#[test]
fn a_last_message_is_small_in_a_record() {
    let last = Last {
        time: 1_795_350_735_079,
        at: 1_795_350_735_089_094,
        newest: 1_795_350_735_089_094,
    };
    let late = Last {
        newest: last.at + 70,
        ..last
    };
    for (last, rev, text) in [
        (last, last.at, "0,-10"),
        (last, last.at + 3_000_000, "3000000,-10"),
        (late, last.at + 70, "70,-10,70"),
    ] {
        assert_eq!(last.record(rev), text);
        assert_eq!(Last::recorded(text, rev).unwrap(), Some(last));
        let stored = Last::stored(&last.accepted(), "1795350735079");
        assert_eq!(stored.unwrap(), Some(last));
    }
    assert_eq!(late.accepted(), "1795350735089094,1795350735089164");
    assert_eq!(Last::recorded("", 5).unwrap(), None);
    assert_eq!(Last::stored("", "").unwrap(), None);
    for bad in ["1", "-1,0", "x,0", "0,", "0,0,", "0,0,-1", "0,0,0,0"] {
        assert!(Last::recorded(bad, 5).is_err(), "{bad}");
    }
    for bad in ["x", "5,6,7", "-5", "5,x"] {
        assert!(Last::stored(bad, "1").is_err(), "{bad}");
    }
}

#[test]
fn a_short_entry_means_what_the_long_one_does() {
    for (short, long) in [
        ("hoebfz46s0", "j|hoebfz46s0|0"),
        ("hoebfz46s0|7", "j|hoebfz46s0|7"),
    ] {
        let parse = |text| Membership::parse(text).unwrap();
        assert_eq!(parse(short), parse(long));
    }
}

#[test]
fn a_clearing_is_for_those_who_were_members_before() {
    for (list, epoch, up_to) in [
        ("", 1, None),
        ("9|0", 8, Some(0)),
        ("9|5", 8, Some(5)),
        ("9|5", 9, None),
        ("9|5,12|3", 8, Some(5)),
        ("9|5,12|3", 11, Some(3)),
        ("9|5,12|3", 12, None),
        ("9|5;4;2,12|1", 8, Some(2)),
        ("9|3;5", 8, Some(3)),
        ("9|-7:5;4", 8, Some(4)),
        ("x", 1, None),
    ] {
        assert_eq!(cleared_up_to(list, epoch, ""), up_to, "{list} {epoch}");
    }
    // A clearing that is too old for the member.
    for (resets, up_to) in [
        ("a|7|7|8|", Some(5)),
        ("a|7|7|8|9", Some(3)),
        ("a|7||8|10,9", Some(3)),
        ("a|7|7|8|9,12", None),
    ] {
        assert_eq!(
            cleared_up_to("9|5,12|3", 8, exempt_from(resets)),
            up_to,
            "{resets}"
        );
    }
}

#[test]
fn records_of_the_scripts_can_be_read() {
    let job = Job::parse("17", "99\nsome\n\nm|4|h|bob|a,c").unwrap();
    assert_eq!(job.audience, Audience::Some(vec![]));
    assert_eq!(
        job.act,
        Act::Message {
            at: 4,
            own: 'h',
            sender: Some(Enc::stored("bob")),
            everybody: false,
            mentions: vec![Enc::stored("a"), Enc::stored("c")],
            brings: None,
            except: vec![],
        }
    );
    let job = Job::parse("17", "99\nall\n\nm|4|r|bob||al,bob|3").unwrap();
    assert!(matches!(job.act, Act::Message { brings: Some((two, 3)), .. } if two.len() == 2));
    for (extra, pair) in [("||", false), ("al,bob|3|", true)] {
        let job = Job::parse("17", &format!("99\nall\n\nm|4|r|bob||{extra}x,y")).unwrap();
        let Act::Message { except, brings, .. } = job.act else {
            panic!("{extra}")
        };
        assert_eq!(except, [Enc::stored("x"), Enc::stored("y")], "{extra}");
        assert_eq!(brings.is_some(), pair, "{extra}");
    }
    assert_eq!(
        Job::parse("17", "99\nleave\na:7,b").unwrap().audience,
        Audience::Leave(vec![(Enc::stored("a"), Some(7)), (Enc::stored("b"), None)])
    );
    assert_eq!(Job::parse("17", "99\nall").unwrap().act, Act::Nothing);
    assert_eq!(
        Job::parse("17", "99\nsome\nbob\np|hidden\ntrue")
            .unwrap()
            .act,
        Act::Prefs("hidden\ntrue".into())
    );
    let user = |name, before| edit::NamedUser {
        user: Enc::stored(name),
        before,
    };
    let edit = |record| match Job::parse("17", record).unwrap().act {
        Act::Edit { at: 4, on, off } => (on, off),
        _ => panic!("{record}"),
    };
    let everybody = |users| Named {
        everybody: true,
        users,
    };
    assert_eq!(
        edit("99\nreset\n\ne|4|*|a,+b"),
        (
            everybody(vec![]),
            Named {
                everybody: false,
                users: vec![user("a", Before::Other), user("b", Before::Mentioned)],
            }
        )
    );
    assert_eq!(
        edit("99\nall\n\ne|4||!a,*"),
        (Named::default(), everybody(vec![user("a", Before::Same)]))
    );
    // An id may have this character.
    let (on, _) = edit("99\nsome\n=a\ne|4|=a|");
    assert_eq!(on.users, [user("=a", Before::Other)]);
    assert!(Job::parse("17", "99\nall\n\ne|4|a").is_err());
    assert!(Job::parse("17", "99\nnobody").is_err());
    assert!(Job::parse("x", "99\nall").is_err());
}

/// `tests/it/records/jobs.rs` holds the scripts to the same lines, so no side can know an audience or an act alone.
#[test]
fn golden_jobs_mean_what_the_file_says_and_hold_every_audience_and_act() {
    let (mut audiences, mut letters) = (BTreeSet::new(), BTreeSet::new());
    for golden in golden::all("job") {
        let record = golden.record.replace("\\n", "\n");
        let job = Job::parse("17", &record).unwrap();
        // Who adds a variant adds its word here, to the golden jobs, and to the set below.
        let audience = match job.audience {
            Audience::All => "all",
            Audience::Some(_) => "some",
            Audience::Gone => "gone",
            Audience::Reset => "reset",
            Audience::Leave(_) => "leave",
        };
        let act = match job.act {
            Act::Nothing => "nothing",
            Act::Message { .. } => "message",
            Act::Edit { .. } => "edit",
            Act::Recall(_) => "recall",
            Act::Read(..) => "read",
            Act::Placed(_) => "placed",
            Act::AsOf(_) => "as-of",
            Act::Prefs(_) => "preferences",
            Act::Reset(_) => "reset",
        };
        assert_eq!(golden.meaning["audience"], audience, "{record}");
        assert_eq!(golden.meaning["act"], act, "{record}");
        audiences.insert(audience);
        let act = record.splitn(4, '\n').nth(3).unwrap_or_default();
        letters.extend(act.chars().next());
    }
    assert_eq!(
        audiences,
        BTreeSet::from(["all", "gone", "leave", "reset", "some"])
    );
    let is_read = |letter: &char| {
        let forms = ["4", "4|al|", "4|h|al|", "al:4:", "u|4|9|||||||"]
            .map(|rest| format!("99\nall\n\n{letter}|{rest}"));
        forms.iter().any(|record| Job::parse("17", record).is_ok())
    };
    assert_eq!(letters, ('a'..='z').filter(is_read).collect());
}
