//! Checks of a server by its INFO and settings: version, role, memory, persistence.

use super::check::{Checks, Level, NodeFields};

pub(super) fn is_cluster(info: &NodeFields) -> bool {
    info.get("cluster_enabled").is_some_and(|on| on == "1")
}

pub(super) fn millis(micros: u128) -> String {
    format!("{:.2} ms", micros as f64 / 1_000.0)
}

pub(super) fn numbers(version: &str) -> (u32, u32, u32) {
    let mut parts = version
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

/// Whether this version of the server has the fix of CVE-2025-49844 (a script can run code on the server).
pub(super) fn fixed(valkey: bool, version: &str) -> bool {
    let (major, minor, patch) = numbers(version);
    let lines: &[((u32, u32), u32)] = if valkey {
        &[((7, 2), 11), ((8, 0), 6), ((8, 1), 4)]
    } else {
        &[
            ((6, 2), 20),
            ((7, 2), 11),
            ((7, 4), 6),
            ((8, 0), 4),
            ((8, 2), 2),
        ]
    };
    let newest = lines.last().map_or((0, 0), |(line, _)| *line);
    match lines.iter().find(|(line, _)| *line == (major, minor)) {
        Some((_, first)) => patch >= *first,
        None => (major, minor) > newest,
    }
}

pub(super) fn version(info: &NodeFields, checks: &mut Checks) {
    let spoken = info
        .get("redis_version")
        .map(String::as_str)
        .unwrap_or_default();
    let (major, minor, _) = numbers(spoken);
    let valkey = info.get("valkey_version");
    let name = match valkey {
        Some(version) => format!("Valkey {version} (speaks Redis {spoken})"),
        None => format!("Redis {spoken}"),
    };
    let level = if (major, minor) >= (7, 0) {
        Level::Ok
    } else {
        Level::Fail
    };
    checks.add(level, "version", name.clone(), "use 7.0 or newer");
    let safe = fixed(valkey.is_some(), valkey.map_or(spoken, String::as_str));
    if safe {
        checks.add(Level::Ok, "CVE-2025-49844", "fixed in this version", "");
    } else {
        checks.add(
            Level::Warn,
            "CVE-2025-49844",
            format!("{name} does not have the fix by its version number"),
            format!(
                "upgrade to {} or newer; distributions backport the fix under an old number: see the package's changelog. \
                 Whoever may run EVAL could take over the server",
                match valkey {
                    Some(_) => "Valkey 7.2.11, 8.0.6, 8.1.4, 9.0",
                    None => "Redis 7.2.11, 7.4.6, 8.0.4, 8.2.2",
                }
            ),
        );
    }
}

pub(super) fn role(info: &NodeFields, settings: Option<&NodeFields>, checks: &mut Checks) {
    let get = |field: &str| info.get(field).map(String::as_str).unwrap_or_default();
    if get("loading") == "1" {
        checks.add(
            Level::Fail,
            "loading",
            "Redis is still reading its data",
            "wait until it is done",
        );
    }
    if get("role") != "master" {
        checks.add(
            Level::Fail,
            "role",
            format!("this is a {}", get("role")),
            "write the master's address into redis.url; a replica refuses events",
        );
        return;
    }
    let replicas: u32 = get("connected_slaves").parse().unwrap_or(0);
    let least = settings.and_then(|s| s.get("min-replicas-to-write"));
    let found = format!(
        "master, {replicas} {}, min-replicas-to-write {}",
        if replicas == 1 { "replica" } else { "replicas" },
        least.map_or("not to be seen", String::as_str)
    );
    let unguarded = replicas > 0 && least.is_some_and(|n| n == "0");
    checks.add(
        if unguarded { Level::Warn } else { Level::Ok },
        "replicas",
        found,
        "CONFIG SET min-replicas-to-write 1: else a master that is cut off goes on accepting events that the failover \
         throws away",
    );
}

pub(super) fn memory(info: &NodeFields, checks: &mut Checks) {
    let get = |field: &str| info.get(field).map(String::as_str).unwrap_or_default();
    let number = |field: &str| get(field).parse::<u64>().unwrap_or(0);
    let policy = get("maxmemory_policy");
    checks.add(
        if policy == "noeviction" {
            Level::Ok
        } else {
            Level::Fail
        },
        "maxmemory-policy",
        policy,
        "CONFIG SET maxmemory-policy noeviction, and write it into redis.conf: an evicted key is a wrong count",
    );
    if number("evicted_keys") > 0 {
        checks.add(
            Level::Warn,
            "evicted keys",
            format!("{} since the start", number("evicted_keys")),
            "run `unread verify`, then `unread rebuild`; if other programs share this Redis, they may have been theirs",
        );
    }
    let (used, most) = (number("used_memory"), number("maxmemory"));
    let mib = |bytes: u64| bytes / (1 << 20);
    if most > 0 {
        checks.add(
            if used / 9 > most / 10 {
                Level::Warn
            } else {
                Level::Ok
            },
            "memory",
            format!("{} MiB used of {} MiB", mib(used), mib(most)),
            "raise maxmemory or add nodes: when it is full, events are refused with 503",
        );
    }
}

pub(super) fn persistence(info: &NodeFields, settings: Option<&NodeFields>, checks: &mut Checks) {
    let get = |field: &str| info.get(field).map(String::as_str).unwrap_or_default();
    let setting = |field: &str| settings.and_then(|s| s.get(field)).map(String::as_str);
    if get("aof_enabled") == "1" {
        match setting("appendfsync") {
            Some("no") => checks.add(
                Level::Warn,
                "persistence",
                "append-only file, appendfsync no",
                "CONFIG SET appendfsync everysec: now a crash of the machine can lose half a minute",
            ),
            Some(often) => checks.add(
                Level::Ok,
                "persistence",
                format!("append-only file, appendfsync {often}"),
                "",
            ),
            None => checks.add(
                Level::Ok,
                "persistence",
                "append-only file, appendfsync not to be seen",
                "",
            ),
        }
        if get("aof_last_write_status") == "err" {
            checks.add(
                Level::Fail,
                "append-only file",
                "the last write to it failed",
                "see the server's log: the disk may be full",
            );
        }
    } else {
        let snapshots = setting("save").is_none_or(|save| !save.is_empty());
        let found = match setting("save") {
            Some("") => "none".to_owned(),
            Some(save) => format!("snapshots only (save {save})"),
            None => "no append-only file; snapshots not to be seen".to_owned(),
        };
        checks.add(
            if snapshots { Level::Warn } else { Level::Fail },
            "persistence",
            found,
            "CONFIG SET appendonly yes, and write it into redis.conf: what is not on disk is gone when Redis restarts",
        );
    }
    if get("rdb_last_bgsave_status") == "err" {
        checks.add(
            Level::Fail,
            "snapshot",
            "the last one failed",
            "see the server's log: the disk may be full, or vm.overcommit_memory 0",
        );
    }
}

pub(super) fn encoding(settings: Option<&NodeFields>, checks: &mut Checks) {
    let number = |field: &str| {
        let value = settings.and_then(|s| s.get(field));
        value.and_then(|value| value.parse::<u64>().ok())
    };
    let (entries, value) = (
        number("hash-max-listpack-entries"),
        number("hash-max-listpack-value"),
    );
    match (entries, value) {
        (Some(entries), Some(value)) => checks.add(
            if entries >= 512 && value >= 256 {
                Level::Ok
            } else {
                Level::Warn
            },
            "hash encoding",
            format!("hash-max-listpack-entries {entries}, -value {value}"),
            "CONFIG SET hash-max-listpack-entries 512 hash-max-listpack-value 256: users' records then take less memory",
        ),
        _ => checks.add(
            Level::Warn,
            "hash encoding",
            "not to be seen: CONFIG GET is refused",
            "see that hash-max-listpack-entries is 512 and hash-max-listpack-value 256, or allow +config|get",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fix_is_told_by_line_and_patch() {
        for version in [
            "6.2.20", "7.2.11", "7.4.6", "8.0.4", "8.2.2", "8.2.10", "8.4.0", "9.0.0",
        ] {
            assert!(fixed(false, version), "{version}");
        }
        for version in [
            "6.2.14", "7.0.15", "7.2.10", "7.4.5", "8.0.3", "8.2.1", "5.0.1", "",
        ] {
            assert!(!fixed(false, version), "{version}");
        }
        assert!(fixed(true, "8.1.4") && fixed(true, "9.0.0") && !fixed(true, "8.0.5"));
    }

    /// What `INFO` says on each kind of server, and what the advice then names.
    #[test]
    fn a_server_is_told_by_its_own_name_and_version() {
        let told = |fields: &[(&str, &str)]| {
            let fields = fields.iter();
            let info = fields.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let mut checks = Checks::of("");
            version(&info.collect(), &mut checks);
            let list = checks.list.into_iter();
            list.map(|check| (check.level, check.found, check.advice))
                .collect::<Vec<_>>()
        };
        let redis = |version| told(&[("redis_version", version)]);
        assert_eq!(redis("8.2.3")[0].1, "Redis 8.2.3");
        assert_eq!(redis("8.2.3")[1].0, Level::Ok);
        assert_eq!(redis("6.2.20")[0].0, Level::Fail);
        assert!(
            redis("7.0.15")[1]
                .2
                .starts_with("upgrade to Redis 7.2.11, ")
        );
        let valkey = |version| told(&[("redis_version", "7.2.4"), ("valkey_version", version)]);
        assert_eq!(valkey("9.1.2")[0].1, "Valkey 9.1.2 (speaks Redis 7.2.4)");
        assert_eq!(valkey("9.1.2")[1].0, Level::Ok);
        assert!(
            valkey("8.1.0")[1]
                .2
                .starts_with("upgrade to Valkey 7.2.11, ")
        );
    }
}
