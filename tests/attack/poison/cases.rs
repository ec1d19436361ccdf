//! Which poisons there are: of every key its types, of every kind of a field what it can't hold.

/// What the answers have to be when all is mended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum After {
    /// What they were.
    Same,
    /// All counts are; what is only shown may be lost.
    Counts,
    /// The user begins anew in the group, where the membership began: nobody else knows how far the reading had come.
    Unread(&'static str),
    /// Something is lost that nothing else tells. Totals are sums all the same.
    Less,
}

pub(super) type Bytes = Vec<u8>;

/// One poison.
pub(super) struct Case {
    pub what: String,
    /// Words of commands; `{}` stands for `unread:v1:{app-7:`.
    pub commands: Vec<Vec<Bytes>>,
    /// The key, without what all keys of the app begin with, and the field that has to be named.
    pub named: Vec<(String, Option<String>)>,
    /// Whether the repair makes it anew without being asked.
    pub derived: bool,
    pub after: After,
}

pub(super) fn command(words: &[&[u8]]) -> Vec<Bytes> {
    words.iter().map(|word| word.to_vec()).collect()
}

/// The key becomes one of another type.
fn retyped(key: &str, to: &str) -> Vec<Vec<Bytes>> {
    let full = format!("{{}}{key}");
    let key = full.as_bytes();
    let put = match to {
        "string" => command(&[b"SET", key, b"poison"]),
        "list" => command(&[b"RPUSH", key, b"poison", b"more"]),
        "zset" => command(&[b"ZADD", key, b"1", b"poison"]),
        "hash" => command(&[b"HSET", key, b"poison", b"more"]),
        "set" => command(&[b"SADD", key, b"poison"]),
        _ => command(&[b"XADD", key, b"*", b"poison", b"more"]),
    };
    vec![command(&[b"DEL", key]), put]
}

const USER_HASHES: [&str; 8] = [
    "counts", "rooms", "supers", "refs", "left", "prefs", "profile", "pending",
];
const ROOM_HASHES: [&str; 4] = ["meta", "members", "ids", "pending"];

/// What no field holds; each is out of form for every number and every record.
const VALUES: [&[u8]; 12] = [
    b"",
    b"x",
    b"-5",
    b"+5",
    b"9007199254740993",
    b"99999999999999999999999999999999",
    b"1e999",
    b"inf",
    b"0x10",
    b"\xff\xfe",
    b"j|1|2|3|4|5|6|7|8|9|10|11|12|13|14|15|16|17|18",
    b"z|hoebfz46s0|0|0|0|0|0|g|1||||0|",
];

/// Names that no field has.
fn fields() -> Vec<Bytes> {
    let mut fields: Vec<Bytes> = [
        &b""[..],
        b"a b",
        b"\xff\xfe",
        b"a|b|c|d",
        b"*x",
        b"%zz",
        b"tag:",
    ]
    .iter()
    .map(|field| field.to_vec())
    .collect();
    fields.push("long".repeat(20_000).into_bytes());
    fields
}

pub(super) fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what: String, commands, named: Vec<(&str, Option<&str>)>, derived, after| {
        let named = named
            .into_iter()
            .map(|(key, field)| (key.to_owned(), field.map(str::to_owned)))
            .collect();
        cases.push(Case {
            what,
            commands,
            named,
            derived,
            after,
        });
    };
    // Every key of a user and of two rooms is of another type.
    for what in USER_HASHES {
        for to in ["string", "list", "zset", "set"] {
            let key = format!("u:alice}}:{what}");
            let after = match what {
                "prefs" | "profile" => After::Counts,
                _ => After::Same,
            };
            let name = format!("{key} is a {to}");
            add(name, retyped(&key, to), vec![(&key, None)], false, after);
        }
    }
    for to in ["string", "hash", "stream"] {
        let key = "u:alice}:marks";
        let name = format!("{key} is a {to}");
        add(
            name,
            retyped(key, to),
            vec![(key, None)],
            false,
            After::Less,
        );
        let key = "u:erin}:rooms";
        let name = format!("{key} is a {to}");
        let to = if to == "hash" { "list" } else { to };
        add(
            name,
            retyped(key, to),
            vec![(key, None)],
            false,
            After::Unread("erin"),
        );
    }
    for (room, what) in [
        ("group", "meta"),
        ("group", "members"),
        ("group", "ids"),
        ("group", "log"),
        ("group", "recalled"),
        ("group", "allmentions"),
        ("group", "pending"),
        ("super", "meta"),
        ("super", "members"),
        ("super", "ids"),
        ("super", "log"),
        ("super", "recalled"),
        ("super", "allmentions"),
        ("super", "pending"),
        ("dm", "meta"),
        ("dm", "members"),
    ] {
        for to in ["string", "list", "zset", "set"] {
            let own = match what {
                "log" => "list",
                "recalled" | "allmentions" => "zset",
                _ => "hash",
            };
            if to == own {
                continue;
            }
            let key = format!("r:{room}}}:{what}");
            let after = match (room, what) {
                ("super", "meta" | "allmentions") => After::Less,
                (_, "meta") => After::Counts,
                _ => After::Same,
            };
            let name = format!("{key} is a {to}");
            add(name, retyped(&key, to), vec![(&key, None)], false, after);
        }
    }
    // A field that is there holds something else.
    let mut turn = 0;
    for (key, field, derived, after) in [
        ("u:alice}:counts", "known", true, After::Same),
        ("u:alice}:counts", "supers", true, After::Same),
        ("u:alice}:counts", "messages:group", true, After::Same),
        ("u:alice}:counts", "messages:direct", true, After::Same),
        ("u:alice}:counts", "room:group", true, After::Same),
        ("u:alice}:counts", "tag:x", true, After::Same),
        ("u:alice}:refs", "tag:x", true, After::Same),
        ("u:alice}:refs", "direct:bob", true, After::Same),
        ("u:alice}:rooms", "group", false, After::Same),
        ("u:erin}:rooms", "group", false, After::Unread("erin")),
        ("u:alice}:supers", "super", false, After::Same),
        ("u:alice}:left", "left", false, After::Same),
        ("u:alice}:left", "*", false, After::Same),
        ("u:alice}:left", "#", false, After::Same),
        ("u:alice}:prefs", "group|hidden", false, After::Same),
        ("u:alice}:prefs", "group|tags", false, After::Counts),
        ("u:alice}:profile", "last_login_time", false, After::Counts),
        ("u:alice}:pending", "17", false, After::Same),
        ("r:group}:meta", "rev", false, After::Same),
        ("r:group}:meta", "born", false, After::Same),
        ("r:group}:meta", "mrev", false, After::Same),
        ("r:group}:meta", "head", false, After::Same),
        ("r:group}:meta", "kind", false, After::Same),
        ("r:group}:meta", "status", false, After::Same),
        ("r:group}:meta", "created", false, After::Same),
        ("r:group}:meta", "accepted", false, After::Same),
        ("r:group}:meta", "maxtime", false, After::Same),
        ("r:group}:meta", "last_at", false, After::Same),
        ("r:super}:meta", "head", false, After::Same),
        ("r:super}:meta", "kind", false, After::Same),
        ("r:dm}:meta", "kind", false, After::Same),
        ("r:group}:members", "alice", false, After::Same),
        ("r:super}:members", "alice", false, After::Same),
        ("r:dm}:members", "bob", false, After::Same),
        ("r:group}:ids", "g4", false, After::Same),
        ("r:group}:pending", "17", false, After::Same),
    ] {
        // Some of the values each, so that every one of them has its turn with every kind of a field.
        turn += 5;
        for value in (0..5).map(|n| VALUES[(turn + n) % VALUES.len()]) {
            let right = match field {
                // A name may be anything that can be one, and a list of one room has only that.
                "direct:bob" => {
                    matches!(value, b"x" | b"-5" | b"inf" | b"1e999" | b"0x10")
                        || value.iter().all(u8::is_ascii_digit)
                }
                "tag:x" if key.ends_with("refs") => false,
                _ => false,
            };
            if right && !value.is_empty() {
                continue;
            }
            let full = format!("{{}}{key}");
            let put = command(&[b"HSET", full.as_bytes(), field.as_bytes(), value]);
            let name = format!("{key} {field} is {}", shown(value));
            add(name, vec![put], vec![(key, Some(field))], derived, after);
        }
    }
    let always = [
        "rev", "born", "mrev", "head", "kind", "status", "type", "tags", "created",
    ];
    let of = |room: &'static str| always.map(|field| (room, field));
    for (room, field) in [of("group"), of("super")].concat() {
        let key = &format!("r:{room}}}:meta");
        // Nobody else knows what a supergroup is set to.
        let after = match (room, field) {
            ("super", "type" | "tags" | "created") => After::Less,
            _ => After::Same,
        };
        let full = format!("{{}}{key}");
        let gone = command(&[b"HDEL", full.as_bytes(), field.as_bytes()]);
        let name = format!("{key} {field} is missing");
        add(name, vec![gone], vec![(key, Some(field))], false, after);
    }
    // Fields by names that none has.
    for (key, derived) in USER_HASHES
        .map(|what| {
            (
                format!("u:alice}}:{what}"),
                matches!(what, "counts" | "refs" | "rooms" | "supers"),
            )
        })
        .into_iter()
        .chain(ROOM_HASHES.map(|what| (format!("r:group}}:{what}"), false)))
    {
        let full = format!("{{}}{key}");
        let mut commands = Vec::new();
        let mut names = Vec::new();
        for field in fields() {
            commands.push(command(&[b"HSET", full.as_bytes(), &field, b"1"]));
            names.push(shown(&field).chars().take(60).collect::<String>());
        }
        let named = names
            .iter()
            .map(|field| (key.as_str(), Some(field.as_str())))
            .collect();
        add(
            format!("{key} has other fields"),
            commands,
            named,
            derived,
            After::Same,
        );
    }
    // Sorted sets and lists.
    let bad_marks: [&[u8]; 8] = [
        b"x",
        b"group|h|3",
        b"group|h|",
        b"group|z|0000000000000003",
        b"group|h|9999999999999999",
        b"group|m|-0000000000000003",
        b"\xff|h|0000000000000003",
        b"",
    ];
    let commands = bad_marks.map(|mark| command(&[b"ZADD", b"{}u:alice}:marks", b"0", mark]));
    let names = bad_marks.map(shown);
    let named = names
        .iter()
        .map(|mark| ("u:alice}:marks", Some(mark.as_str())));
    add(
        "bad marks".into(),
        commands.to_vec(),
        named.collect(),
        true,
        After::Same,
    );
    for key in ["r:group}:recalled", "r:group}:allmentions"] {
        let full = format!("{{}}{key}");
        let bad: [(&[u8], &[u8]); 5] = [
            (b"x", b"0"),
            (b"-3", b"-3"),
            (b"inf", b"inf"),
            (b"\xff", b"0"),
            (b"9007199254740993", b"9007199254740993"),
        ];
        let commands = bad.map(|(at, score)| command(&[b"ZADD", full.as_bytes(), score, at]));
        let names = bad.map(|(at, _)| shown(at));
        let named = names.iter().map(|at| (key, Some(at.as_str())));
        add(
            format!("{key} has other members"),
            commands.to_vec(),
            named.collect(),
            false,
            After::Same,
        );
    }
    let bad: [&[u8]; 4] = [b"", b"x|y|z", b"1|2|3", b"\xff"];
    let commands = bad.map(|line| command(&[b"RPUSH", b"{}r:group}:log", line]));
    let names = bad.map(shown);
    let named = names
        .iter()
        .map(|line| ("r:group}:log", Some(line.as_str())));
    add(
        "r:group}:log has other lines".into(),
        commands.to_vec(),
        named.collect(),
        false,
        After::Same,
    );
    let commands = vec![command(&[b"LSET", b"{}r:group}:log", b"2", b"broken"])];
    let named = vec![("r:group}:log", Some("broken"))];
    add(
        "a line of r:group}:log is broken".into(),
        commands,
        named,
        false,
        After::Same,
    );
    // Keys that no version writes.
    let keys: [&[u8]; 6] = [
        b"{}u:alice}:other",
        b"{}u:a b}:counts",
        b"{}u:alice}",
        b"{}x:alice}:counts",
        b"{}u:\xff}:counts",
        b"{}limit:some:thing:more}",
    ];
    for key in keys {
        let plain = shown(key.strip_prefix(b"{}").unwrap());
        let commands = vec![command(&[b"SET", key, b"poison"])];
        add(
            format!("there is {plain}"),
            commands,
            vec![(&plain, None)],
            false,
            After::Same,
        );
    }
    let commands = retyped("limit:imkit-rooms}", "list");
    add(
        "a limit is a list".into(),
        commands,
        vec![("limit:imkit-rooms}", None)],
        false,
        After::Same,
    );
    cases
}
