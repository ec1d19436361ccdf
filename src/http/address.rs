//! The address that a call comes from, and how many calls from there were refused for their credentials.
//!
//! Every credential is verified, even if many from its address were refused before. A lookup or an HMAC costs no more than the
//! request that brings the credential, and callers behind one NAT, or behind a proxy that nobody has declared, must not lock each
//! other out. So this limit counts refusals only. Beyond it, a refused call gets another answer: the dialect's "too many" with
//! the time to wait, in place of its "bad credential". That tells a client that keeps sending a bad credential to slow down, and
//! it shows in the metrics. It does not keep anybody from guessing secrets: a pod that starts logs which secrets are short enough
//! to be guessed.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderMap, HeaderName};
use governor::clock::{Clock, QuantaClock};
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use ipnet::IpNet;
use quick_cache::sync::Cache;

use crate::config::ServerConfig;

/// How many addresses a pod remembers, some 100 bytes each. Beyond that it forgets those seen longest ago.
const ADDRESSES: usize = 64 * 1024;
/// The most proxies in a row that are looked through.
const MAX_HOPS: usize = 32;

/// Counts refused credentials by the address that they came from.
pub(crate) struct Refusals {
    proxies: Proxies,
    /// None: refusals are not counted.
    limiter: Option<RateLimiter<IpAddr, Recent, QuantaClock>>,
}

impl Refusals {
    /// With the limit and the proxies of the configuration.
    pub(crate) fn new(server: &ServerConfig) -> Self {
        let limit = server.refused_credentials;
        let burst = NonZeroU32::new(limit.burst).unwrap_or(NonZeroU32::MIN);
        let limiter = NonZeroU32::new(limit.per_second).map(|per_second| {
            let quota = Quota::per_second(per_second).allow_burst(burst);
            RateLimiter::new(quota, Recent::default(), QuantaClock::default())
        });
        Self {
            proxies: Proxies {
                trusted: server.trusted_proxies.clone(),
                header: HeaderName::from_bytes(server.client_address_header.as_bytes()).ok(),
            },
            limiter,
        }
    }

    /// Counts a call whose credentials were refused. If there were too many from its address, answers how long its caller should
    /// wait.
    pub(crate) fn count(&self, request: &HttpRequest) -> Option<Duration> {
        let limiter = self.limiter.as_ref()?;
        let peer = request.peer_addr().map(|peer: SocketAddr| peer.ip());
        let address = self.proxies.caller(peer, request.headers());
        let refused = limiter.check_key(&network(address)).err()?;
        Some(refused.wait_time_from(limiter.clock().now()))
    }
}

/// The limiter's states of the addresses seen last. The store that comes with the limiter never shrinks.
struct Recent(Cache<IpAddr, Arc<InMemoryState>>);

impl Default for Recent {
    fn default() -> Self {
        Self(Cache::new(ADDRESSES))
    }
}

impl StateStore for Recent {
    type Key = IpAddr;

    fn measure_and_replace<T, F, E>(&self, address: &IpAddr, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let state = self.0.get(address).unwrap_or_else(|| {
            let state = Arc::new(InMemoryState::default());
            self.0.insert(*address, Arc::clone(&state));
            state
        });
        state.measure_and_replace(&NotKeyed::NonKey, f)
    }
}

/// Whether an address is in one of the networks.
pub(crate) fn is_among(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// What counts as one caller: an IPv4 address, or the /64 network of an IPv6 address, since one host may use all of a /64.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let host = u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !host))
        }
    }
}

/// The proxies that are trusted to say where a call comes from, and the header in which they say it.
struct Proxies {
    trusted: Vec<IpNet>,
    header: Option<HeaderName>,
}

impl Proxies {
    fn trust(&self, address: IpAddr) -> bool {
        is_among(&self.trusted, address)
    }

    /// The nearest address that is no trusted proxy's. Each proxy adds the address of its own peer to the end of the header. So
    /// the header is read from its end, as long as a trusted proxy has written what is read. Everything before that can be made
    /// up.
    fn caller(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> IpAddr {
        // A connection without an address comes from this machine.
        let mut nearest = peer.unwrap_or(IpAddr::V6(Ipv6Addr::LOCALHOST));
        let Some(header) = self.header.as_ref().filter(|_| self.trust(nearest)) else {
            return nearest;
        };
        // A line that is not text becomes an empty hop, at which the reading ends.
        let lines: Vec<&str> = headers
            .get_all(header)
            .map(|line| line.to_str().unwrap_or_default())
            .collect();
        let hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
        for hop in hops.take(MAX_HOPS) {
            let named = match header.as_str() {
                "forwarded" => forwarded_for(hop),
                _ => Some(hop),
            };
            match named.and_then(address) {
                Some(before) => nearest = before,
                // `unknown`, a made-up name, or nothing: the nearest known address is that of the proxy that wrote it.
                None => break,
            }
            if !self.trust(nearest) {
                break;
            }
        }
        nearest
    }
}

/// The value of `for` in one element of the header `Forwarded` (RFC 7239).
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    })
}

/// An address as proxies write it: bare or with a port, IPv6 in brackets or not, in quotes or not.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some(socket.ip());
    }
    let bare = text.strip_prefix('[')?.strip_suffix(']')?;
    bare.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, load_text};
    use actix_web::http::header::HeaderValue;
    use actix_web::test::TestRequest;

    fn refusals(settings: &str) -> Refusals {
        let text = format!("[server]\n{settings}\n");
        let config = load_text(&text, &Flags::default(), &[]).unwrap();
        Refusals::new(&config.server)
    }

    fn caller(refusals: &Refusals, peer: &str, headers: &[(&str, &str)]) -> String {
        let mut request = TestRequest::default();
        for header in headers {
            request = request.append_header(*header);
        }
        let request = request.to_http_request();
        let peer = peer.parse().ok();
        refusals.proxies.caller(peer, request.headers()).to_string()
    }

    const PROXIES: &str = r#"trusted_proxies = ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]"#;

    #[test]
    fn a_header_is_read_from_its_end_past_trusted_proxies_only() {
        let refusals = refusals(PROXIES);
        let forwarded =
            |peer: &str, value: &str| caller(&refusals, peer, &[("x-forwarded-for", value)]);
        for (peer, value, expected) in [
            // What a peer says that is not trusted does not matter.
            ("203.0.113.9", "1.1.1.1", "203.0.113.9"),
            ("10.0.0.1", "1.1.1.1", "1.1.1.1"),
            ("::ffff:10.0.0.1", "1.1.1.1", "1.1.1.1"),
            ("2001:db8::5", "1.1.1.1", "1.1.1.1"),
            ("192.0.2.2", "1.1.1.1", "192.0.2.2"),
            // Two proxies in a row; what the caller itself made up stands before.
            ("10.0.0.1", "6.6.6.6, 1.1.1.1, 10.9.9.9", "1.1.1.1"),
            ("10.0.0.1", "6.6.6.6,1.1.1.1:4711 ,192.0.2.1", "1.1.1.1"),
            ("10.0.0.1", "[2001:dead::1]:443", "2001:dead::1"),
            ("10.0.0.1", "2001:dead::1", "2001:dead::1"),
            ("10.0.0.1", "[2001:dead::1]", "2001:dead::1"),
            // Nothing but proxies: the first of them.
            ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
            // What can't be read ends the reading.
            ("10.0.0.1", "1.1.1.1, unknown, 10.0.0.2", "10.0.0.2"),
            ("10.0.0.1", "unknown", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "1.1.1.1,", "10.0.0.1"),
        ] {
            assert_eq!(forwarded(peer, value), expected, "{peer}: {value}");
        }
        assert_eq!(caller(&refusals, "10.0.0.1", &[]), "10.0.0.1");
        let lines = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "1.1.1.1, 10.0.0.2"),
        ];
        assert_eq!(caller(&refusals, "10.0.0.1", &lines), "1.1.1.1");
        // The same for a line that is not text.
        let garbled = TestRequest::default()
            .append_header(("x-forwarded-for", "6.6.6.6"))
            .append_header((
                "x-forwarded-for",
                HeaderValue::from_bytes(b"\xff, 1.1.1.1").unwrap(),
            ))
            .to_http_request();
        let peer = "10.0.0.1".parse().ok();
        let found = refusals.proxies.caller(peer, garbled.headers());
        assert_eq!(found.to_string(), "10.0.0.1");
        let many = vec!["10.0.0.7"; 1_000].join(",");
        assert_eq!(
            forwarded("10.0.0.1", &format!("1.1.1.1,{many}")),
            "10.0.0.7"
        );
    }

    #[test]
    fn other_headers_can_be_named() {
        let rfc = refusals(&format!("{PROXIES}\nclient_address_header = \"Forwarded\""));
        let forwarded = |value: &str| caller(&rfc, "10.0.0.1", &[("forwarded", value)]);
        assert_eq!(forwarded("for=1.1.1.1;proto=https;by=10.0.0.1"), "1.1.1.1");
        assert_eq!(
            forwarded("for=6.6.6.6, proto=https;For=\"[2001:dead::1]:4711\", for=10.0.0.2"),
            "2001:dead::1"
        );
        for unreadable in ["for=_hidden", "proto=https", "for=unknown", "x", "for=\""] {
            assert_eq!(forwarded(unreadable), "10.0.0.1", "{unreadable}");
        }
        let own = refusals(&format!("{PROXIES}\nclient_address_header = \"X-Real-IP\""));
        let headers = [("x-forwarded-for", "6.6.6.6"), ("x-real-ip", "1.1.1.1")];
        assert_eq!(caller(&own, "10.0.0.1", &headers), "1.1.1.1");
    }

    fn from(peer: &str) -> HttpRequest {
        let peer = SocketAddr::new(peer.parse().unwrap(), 4711);
        TestRequest::default().peer_addr(peer).to_http_request()
    }

    #[test]
    fn each_address_is_counted_by_itself_and_ipv6_by_64_bits() {
        let refusals = refusals("refused_credentials = { per_second = 1, burst = 3 }");
        let free = |peer: &str| {
            (0..10)
                .filter(|_| refusals.count(&from(peer)).is_none())
                .count()
        };
        assert_eq!((free("1.1.1.1"), free("1.1.1.2")), (3, 3));
        assert_eq!((free("1.1.1.1"), free("::ffff:1.1.1.1")), (0, 0));
        assert_eq!((free("2001:db8::1"), free("2001:db8::ffff:1")), (3, 0));
        assert_eq!(free("2001:db8:0:1::1"), 3);
        let wait = refusals.count(&from("1.1.1.1")).unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1));
    }

    #[test]
    fn addresses_by_the_million_take_no_more_memory() {
        let refusals = refusals("");
        for n in 0..4 * ADDRESSES as u32 {
            let peer = IpAddr::from(n.to_be_bytes()).to_string();
            assert_eq!(refusals.count(&from(&peer)), None);
        }
        let limiter = refusals.limiter.unwrap();
        assert!(limiter.into_state_store().0.len() <= ADDRESSES);
    }

    #[test]
    fn the_limit_can_be_turned_off() {
        let refusals = refusals("refused_credentials = { per_second = 0 }");
        assert!((0..10_000).all(|_| refusals.count(&from("1.1.1.1")).is_none()));
    }
}
