//! `unread watch`.

use std::sync::Arc;

use clap::Args;

use super::args::{RedisArgs, app_id, user_id};
use super::connect::readable;
use super::exit::{self, Failure};
use super::findings::check_known;
use super::output::print;
use super::process::{Signals, on_runtime};
use crate::audit::{Audit, Scope};
use crate::config::Config;
use crate::engine::{Shown, Watcher};
use crate::http::totals_stamp;
use crate::names::{AppId, UserId};
use crate::telemetry::metrics::Metrics;

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    redis: RedisArgs,
    /// The app's id
    #[arg(long)]
    app: String,
    /// The user; can be given several times
    #[arg(long, required = true)]
    user: Vec<String>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

impl WatchArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let app = app_id(self.app)?;
        let users = self.user.into_iter().map(user_id);
        let users: Vec<UserId> = users.collect::<Result<_, _>>()?;
        let config = self.redis.config()?;
        let line = if self.json { as_json } else { as_text };
        on_runtime(watch(&config, &app, &users, line))
    }
}

/// Prints until a signal ends it.
async fn watch(
    config: &Config,
    app: &AppId,
    users: &[UserId],
    line: fn(&UserId, &Shown) -> String,
) -> Result<u8, Failure> {
    let (engine, config) = readable(config).await?;
    // A user may come later. Of an app that is misspelt all counts would be 0 for ever.
    let scope = Scope {
        app: Some(app.clone()),
        user: None,
    };
    check_known(&Audit::new(&engine), &config, &scope).await?;
    let mut signals = Signals::listen()?;
    let live = engine.live(
        &config.live,
        usize::MAX,
        vec![app.clone()],
        Arc::new(Metrics::new()),
    );
    let refused = |why: &str| Failure::Failed(format!("no more can be watched: {why}"));
    let mut watcher = live
        .open(app, false)
        .map_err(|_| refused("live.max_streams is 0"))?;
    for user in users {
        let watched = watcher.watch(user, false);
        watched.map_err(|_| refused("live.max_users is lower"))?;
    }
    loop {
        tokio::select! {
            _ = signals.next() => return Ok(exit::WELL),
            (user, shown) = changed(&mut watcher) => {
                if let Some(user) = user {
                    print(&line(&user, &shown));
                }
            }
        }
    }
}

async fn changed(watcher: &mut Watcher) -> (Option<UserId>, Arc<Shown>) {
    let (name, shown) = std::future::poll_fn(|cx| watcher.poll_changed(cx)).await;
    (watcher.user(name).cloned(), shown)
}

/// The families of a user's counts.
fn families(shown: &Shown) -> [(&'static str, [u64; 4]); 4] {
    let totals = &shown.totals;
    [
        ("messages", &totals.messages),
        ("mentions", &totals.mentions),
        ("invitations", &totals.invitations),
        ("unread_rooms", &totals.unread_rooms),
    ]
    .map(|(name, of)| (name, [of.total(), of.direct, of.group, of.supergroup]))
}

/// `alice: messages 3 (direct 1, group 2), mentions 1 (group 1), invitations 0, unread_rooms 2 (direct 1, group 1)`
fn as_text(user: &UserId, shown: &Shown) -> String {
    let families = families(shown).map(|(name, [total, direct, group, supergroup])| {
        let kinds = [
            ("direct", direct),
            ("group", group),
            ("supergroup", supergroup),
        ];
        let kinds = kinds.iter().filter(|(_, n)| *n > 0);
        let kinds: Vec<String> = kinds.map(|(kind, n)| format!("{kind} {n}")).collect();
        match kinds.is_empty() {
            true => format!("{name} {total}"),
            false => format!("{name} {total} ({})", kinds.join(", ")),
        }
    });
    format!("{}: {}\n", user.as_str(), families.join(", "))
}

fn as_json(user: &UserId, shown: &Shown) -> String {
    let stamp = totals_stamp(&shown.totals);
    let mut line = serde_json::json!({ "user": user.as_str(), "stamp": stamp });
    for (name, [total, direct, group, supergroup]) in families(shown) {
        let counts = serde_json::json!({
            "total": total, "direct": direct, "group": group, "supergroup": supergroup,
        });
        if let Some(line) = line.as_object_mut() {
            line.insert(name.to_owned(), counts);
        }
    }
    format!("{line}\n")
}
