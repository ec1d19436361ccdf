//! Who is let through, and what is shown of it.

use super::*;
use crate::names::AppId;

fn limiter(per_second: u32, burst: u32, scope: LimitScope) -> Limiter {
    shared(per_second, burst, scope, |_| 1.0)
}

fn shared(
    per_second: u32,
    burst: u32,
    scope: LimitScope,
    user_share: fn(&AppConfig) -> f64,
) -> Limiter {
    let app = AppConfig {
        id: AppId::parse("a").unwrap(),
        server_keys: Vec::new(),
        rate_limit: RateLimit {
            per_second,
            burst,
            scope,
        },
        users: crate::config::UsersConfig {
            allowed_origins: Vec::new(),
            token_secret: Vec::new(),
            rate_limit: UserRateLimit {
                per_second,
                burst,
                scope,
            },
        },
        dialects: crate::config::Sections::default(),
    };
    let allowance = Allowance::OfApp(user_share);
    let endpoints = ["x", "y"].map(|name| Endpoint { name, allowance });
    let own = Endpoint {
        name: "own",
        allowance: Allowance::OfEachUser(|app| app.users.rate_limit),
    };
    Limiter::new(&[app], &[&endpoints[..], &[own]].concat(), Arc::default())
}

fn user(name: &str) -> Arc<UserId> {
    Arc::new(UserId::parse(name).unwrap())
}

#[test]
fn exactly_the_burst_passes_at_once_and_endpoints_are_apart() {
    let limiter = limiter(1, 5, LimitScope::Pod);
    let passed = (0..50)
        .filter(|_| limiter.enter(0, "x").check().is_ok())
        .count();
    assert_eq!(passed, 5);
    assert!(limiter.enter(0, "y").check().is_ok());
}

#[test]
fn no_limit_where_per_second_is_zero_or_nothing_is_known() {
    let limiter = limiter(0, 1, LimitScope::Cluster);
    for _ in 0..1000 {
        let entry = limiter.enter(0, "x");
        assert!(entry.check().is_ok() && entry.charge().is_none() && entry.standing().is_none());
    }
    assert!(limiter.enter(7, "x").check().is_ok());
}

#[test]
fn headers_count_down_and_round_up() {
    let limiter = limiter(2, 2, LimitScope::Pod);
    let entry = limiter.enter(0, "x");
    let standing = entry.standing().unwrap();
    assert_eq!(standing.policy, "\"x\";q=2;w=1");
    assert_eq!(standing.rate_limit(), "\"x\";r=1;t=1");
    assert_eq!(standing.retry_after_seconds(), None);
    assert!(limiter.enter(0, "x").check().is_ok());
    let entry = limiter.enter(0, "x");
    let standing = entry.standing().unwrap();
    assert!(entry.check().is_err());
    assert_eq!(standing.rate_limit(), "\"x\";r=0;t=1");
    assert_eq!(standing.retry_after_seconds(), Some(1));
}

#[test]
fn a_refusal_by_redis_is_remembered_for_its_time_only() {
    let limiter = limiter(1_000, 1_000, LimitScope::Cluster);
    let mut entry = limiter.enter(0, "x");
    assert_eq!(entry.charge().unwrap().per_second, 1_000);
    let refused = Verdict {
        allowed: false,
        remaining: 0,
        retry_after: Duration::from_millis(60),
        reset: Duration::from_secs(1),
    };
    assert!(entry.settle(refused).is_err());
    assert!(entry.check().is_err());
    assert!(limiter.enter(0, "x").check().is_err());
    assert!(limiter.enter(0, "y").check().is_ok());
    std::thread::sleep(Duration::from_millis(80));
    assert!(limiter.enter(0, "x").check().is_ok());
}

/// Redis' clock may have stepped back by an hour: neither the pod nor the caller waits longer than one burst.
#[test]
fn nobody_waits_longer_than_one_burst() {
    let limiter = limiter(1_000, 50, LimitScope::Cluster);
    let mut entry = limiter.enter(0, "x");
    let hour = Duration::from_secs(3_600);
    let refused = Verdict {
        allowed: false,
        remaining: 0,
        retry_after: hour,
        reset: hour,
    };
    assert!(entry.settle(refused).is_err());
    let burst = Duration::from_millis(50);
    let told = entry.standing().unwrap().verdict;
    assert!(told.retry_after <= burst && told.reset <= burst, "{told:?}");
    let next = limiter.enter(0, "x");
    assert!(next.check().is_err());
    let told = next.standing().unwrap().verdict;
    assert!(told.retry_after <= burst && told.reset <= burst, "{told:?}");
    std::thread::sleep(burst);
    assert!(limiter.enter(0, "x").check().is_ok());

    let mut entry = limiter.enter(0, "y");
    let granted = Verdict {
        allowed: true,
        ..refused
    };
    assert_eq!(entry.settle(granted), Ok(()));
    assert!(entry.standing().unwrap().verdict.reset <= burst);
}

#[test]
fn one_user_gets_its_share_and_the_others_the_rest() {
    let limiter = shared(1, 10, LimitScope::Pod, |_| 0.5);
    let (alice, bob) = (user("alice"), user("bob"));
    let passed = |who: &Arc<UserId>| {
        let calls = 0..20;
        calls
            .filter(|_| limiter.enter_as(0, "x", who).check().is_ok())
            .count()
    };
    assert_eq!((passed(&alice), passed(&bob)), (5, 5));
    // The app's limit is used up now, and on the other endpoint it is not.
    assert!(limiter.enter_as(0, "x", &user("carol")).check().is_err());
    assert_eq!(passed(&alice), 0);
    assert!(limiter.enter_as(0, "y", &alice).check().is_ok());
}

#[test]
fn both_policies_are_shown_and_the_one_that_refuses_alone() {
    let limiter = shared(10, 10, LimitScope::Pod, |_| 0.2);
    let alice = user("alice");
    let shown = || {
        let entry = limiter.enter_as(0, "x", &alice);
        let standing = entry.standing().unwrap();
        assert_eq!(standing.policy, r#""x";q=10;w=1, "x-user";q=2;w=1"#);
        (standing.rate_limit(), standing.retry_after_seconds())
    };
    assert_eq!(shown().0, r#""x";r=9;t=1, "x-user";r=1;t=1"#);
    assert_eq!(shown().0, r#""x";r=8;t=1, "x-user";r=0;t=1"#);
    assert_eq!(shown(), (r#""x-user";r=0;t=1"#.to_owned(), Some(1)));
}

#[test]
fn a_share_of_all_is_no_bound_and_a_small_one_still_lets_somebody_call() {
    for (share, passes) in [
        ((|_| 1.0) as fn(&AppConfig) -> f64, 10),
        (|_| 1e-6, 1),
        (|_| 0.3, 3),
    ] {
        let limiter = shared(1, 10, LimitScope::Pod, share);
        let alice = user("alice");
        let passed = (0..20).filter(|_| limiter.enter_as(0, "x", &alice).check().is_ok());
        assert_eq!(passed.count(), passes);
    }
}

#[test]
fn redis_is_told_of_a_user_who_calls_often() {
    let limiter = shared(1_000, 200, LimitScope::Cluster, |_| 0.5);
    let alice = user("alice");
    // 100 at once: every sixth call, until somebody is at it.
    let mut tabs = (0..10).map(|_| limiter.enter_as(0, "x", &alice).report());
    let due: Vec<usize> = (0..10).filter(|_| tabs.next().unwrap().is_some()).collect();
    assert_eq!(due, [6]);
    drop(tabs);
    let known = limiter.user(
        &limiter.apps[0][0],
        limiter.apps[0][0].each_user.as_ref().unwrap(),
        &alice,
    );
    assert_eq!((known.tab.take(), known.tab.take()), (Some(10), None));
    // Pods together have let through all of it.
    known.tab.learn(Duration::from_millis(30));
    let entry = limiter.enter_as(0, "x", &alice);
    assert!(entry.check().is_err());
    assert!(entry.standing().unwrap().rate_limit().contains("x-user"));
    assert!(limiter.enter_as(0, "x", &user("bob")).check().is_ok());
    std::thread::sleep(Duration::from_millis(40));
    assert!(limiter.enter_as(0, "x", &alice).check().is_ok());
}

#[test]
fn users_that_come_and_go_take_no_more_memory() {
    let limiter = shared(1_000, 1_000, LimitScope::Cluster, |_| 0.5);
    for n in 0..3 * USERS {
        limiter.enter_as(0, "x", &user(&n.to_string()));
    }
    assert!(limiter.users.len() <= USERS);
}

#[test]
fn a_granted_call_shows_what_redis_said() {
    let limiter = limiter(10, 10, LimitScope::Cluster);
    let mut entry = limiter.enter(0, "x");
    let verdict = Verdict {
        allowed: true,
        remaining: 3,
        retry_after: Duration::ZERO,
        reset: Duration::from_millis(701),
    };
    assert_eq!(entry.settle(verdict), Ok(()));
    assert_eq!(entry.standing().unwrap().rate_limit(), "\"x\";r=3;t=1");
}

#[test]
fn a_limit_of_each_user_is_no_limit_of_the_app() {
    for scope in [LimitScope::Pod, LimitScope::Cluster] {
        let limiter = limiter(1, 3, scope);
        for name in ["alice", "bob", "carol"] {
            let who = user(name);
            let enter = || limiter.enter_as(0, "own", &who);
            let passed: Vec<bool> = (0..10).map(|_| enter().check().is_ok()).collect();
            assert_eq!(passed.iter().filter(|passed| **passed).count(), 3, "{name}");
            // The app is not charged in Redis.
            assert!(enter().charge().is_none());
            let refused = enter();
            let standing = refused.standing().unwrap();
            assert_eq!(standing.policy, "\"own\";q=1;w=1");
            assert!(standing.rate_limit().starts_with("\"own\";r=0;t="));
            assert!(standing.retry_after_seconds().is_some());
        }
        let who = user("dave");
        let mut tabs = (0..3).map(|_| limiter.enter_as(0, "own", &who).report());
        let is_reported = tabs.any(|tab| tab.is_some());
        assert_eq!(is_reported, scope == LimitScope::Cluster);
        // Of other endpoints it takes nothing.
        assert!(limiter.enter(0, "x").check().is_ok());
    }
    let none = limiter(0, 1, LimitScope::Cluster);
    let who = user("alice");
    assert!((0..100).all(|_| none.enter_as(0, "own", &who).check().is_ok()));
}
