//! Where a URL that may be anybody's leads: to public addresses, and to none that only this machine
//! or its network reaches.
//!
//! Names are checked where a connection takes its addresses from, so that no second answer of a
//! name server's counts (DNS rebinding). An address that stands in the URL itself never gets there,
//! and is checked before.

use std::{
    error::Error,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use herald_schemas::records::Failure;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::{
    Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

use crate::{
    http::{self, Deadlines},
    not_allowed, permanent,
};

/// What of IPv4 is not public, by IANA's registry of special addresses, and one that is by it but
/// not in truth.
const NOT_PUBLIC_V4: &[Ipv4Net] = &[
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    // Shared by the customers of a provider; some clouds have their metadata there.
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    // Azure's: seen from its machines only.
    v4([168, 63, 129, 16], 32),
    // Link-local, and most clouds' metadata.
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];

/// All that is given out to be public; outside lie loopback, link-local, private, multicast, and
/// the old forms that embed an address of IPv4.
const PUBLIC_V6: Ipv6Net = v6([0x2000, 0], 3);
const NOT_PUBLIC_V6: &[Ipv6Net] = &[
    // Protocols' own, Teredo among them, which embeds addresses of IPv4.
    v6([0x2001, 0], 23),
    v6([0x2001, 0xdb8], 32),
    // 6to4, which does as well.
    v6([0x2002, 0], 16),
    v6([0x3fff, 0], 20),
];

const fn v4([a, b, c, d]: [u8; 4], length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6([a, b]: [u16; 2], length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), length)
}

/// Public addresses, and those that the operator allows besides.
#[derive(Debug, Clone)]
pub struct Guard {
    allowed: Arc<[IpNet]>,
}

impl Guard {
    /// Allows networks such as `10.1.0.0/16`, and single addresses; an error names what is neither.
    pub fn new(allowed: &[String]) -> Result<Self, String> {
        let networks = allowed.iter().map(|text| {
            let network = text.parse().ok();
            let network = network.or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)));
            network
                .ok_or_else(|| format!("{text:?} is no network: expected one such as 10.1.0.0/16"))
        });
        networks
            .collect::<Result<_, _>>()
            .map(|allowed| Self { allowed })
    }

    /// A client whose connections by name lead nowhere else. What URLs say beyond a name is for
    /// [`check`](Self::check).
    pub fn client(&self, deadlines: Deadlines) -> Result<Client, reqwest::Error> {
        self.client_with(deadlines, Arc::new(SystemNames))
    }

    fn client_with(
        &self,
        deadlines: Deadlines,
        names: Arc<dyn Resolve>,
    ) -> Result<Client, reqwest::Error> {
        let guard = self.clone();
        http::builder(deadlines)
            .dns_resolver(Arc::new(GuardedNames { guard, names }))
            .build()
    }

    /// Whether the URL itself is one that a user may give.
    pub(crate) fn check(&self, url: &Url) -> Result<(), Failure> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(not_allowed("the URL is neither http nor https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(not_allowed("the URL holds a user name or a password"));
        }
        // However it was written (2130706433, 0x7f.1), a parsed URL has it in its usual form.
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) if !self.permits(address) => Err(blocked()),
            _ => Ok(()),
        }
    }

    fn permits(&self, address: IpAddr) -> bool {
        let meant = meant(address);
        let holds = |network: &IpNet| network.contains(&address) || network.contains(&meant);
        self.allowed.iter().any(holds) || is_public(meant)
    }
}

/// The address at the other end: IPv6 has forms that stand for one of IPv4, by themselves or by a
/// translator (NAT64).
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return v4.into();
    }
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            Ipv4Addr::new(a, b, c, d).into()
        }
        _ => address,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !NOT_PUBLIC_V4.iter().any(|network| network.contains(&v4)),
        IpAddr::V6(v6) => {
            PUBLIC_V6.contains(&v6) && !NOT_PUBLIC_V6.iter().any(|network| network.contains(&v6))
        }
    }
}

/// Neither the address nor what there is at it: it is no business of whoever gave the URL.
pub(crate) fn blocked() -> Failure {
    let message = "the URL leads to an address that messages are not sent to";
    permanent("blocked_address", message)
}

/// The end of a connection that would have led to an address which is not permitted.
#[derive(Debug)]
pub(crate) struct Blocked;

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("blocked address")
    }
}

impl Error for Blocked {}

/// Leaves of each name's addresses those that are permitted.
struct GuardedNames {
    guard: Guard,
    names: Arc<dyn Resolve>,
}

impl Resolve for GuardedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let looked_up = self.names.resolve(name);
        let guard = self.guard.clone();
        Box::pin(async move {
            let addresses = looked_up.await?;
            let permitted: Vec<SocketAddr> = addresses
                .filter(|address| guard.permits(address.ip()))
                .collect();
            if permitted.is_empty() {
                return Err(Blocked.into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

/// The names that the operating system knows.
struct SystemNames;

impl Resolve for SystemNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // Of a connection's port the URL is the judge.
            let addresses: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
