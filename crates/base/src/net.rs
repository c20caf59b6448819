//! Which network addresses the product may connect to.
//!
//! Pure rules; the one egress client applies them to the address that it really
//! connects to. Everything that is not plainly public is refused unless the
//! operator's configuration allows private addresses for that purpose.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address belongs to the public internet: not loopback, private,
/// link-local (cloud metadata), carrier NAT, multicast, documentation,
/// benchmarking, reserved, or an IPv6 form that carries such an IPv4 address.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let refused = address.is_unspecified()
        || a == 0
        || a == 10
        || a == 127
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113)
        || a >= 224;
    !refused
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(v4) = carried_v4(address) {
        return is_public_v4(v4);
    }
    let [first, second, ..] = address.segments();
    let global_unicast = first & 0xe000 == 0x2000;
    let documentation = first == 0x2001 && second == 0x0db8 || first == 0x3fff;
    let teredo_or_special = first == 0x2001 && second < 0x0200;
    global_unicast && !documentation && !teredo_or_special
}

/// The IPv4 address inside a mapped, compatible, NAT64 or 6to4 address.
fn carried_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let low = Ipv4Addr::from((u32::from(s[6]) << 16) | u32::from(s[7]));
    match s {
        [0, 0, 0, 0, 0, 0xffff, ..] => Some(low),
        [0, 0, 0, 0, 0xffff, 0, ..] => Some(low),
        [0x0064, 0xff9b, ..] => Some(low),
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => Some(low),
        [0x2002, a, b, ..] => Some(Ipv4Addr::from((u32::from(a) << 16) | u32::from(b))),
        _ => None,
    }
}

/// Why a URL may not be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// It does not parse, or has no host.
    #[error("{0:?} is not a URL with a host")]
    Unparsable(String),
    /// Neither `http` nor `https`.
    #[error("only http and https URLs can be called, not {0:?}")]
    Scheme(String),
    /// Credentials in the URL: they end up in logs.
    #[error("write the credential into its own field, not into the URL")]
    Credentials,
}

/// Parses a base URL that a person typed: http(s), a host, no user info; query
/// and fragment are dropped and the path loses its trailing slash.
///
/// # Errors
/// [`BadUrl`] says what is wrong in words for that person.
pub fn parse_base_url(text: &str) -> Result<url::Url, BadUrl> {
    let trimmed = text.trim();
    let mut url = url::Url::parse(trimmed).map_err(|_| BadUrl::Unparsable(trimmed.to_owned()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(BadUrl::Scheme(url.scheme().to_owned()));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(BadUrl::Unparsable(trimmed.to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(BadUrl::Credentials);
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for refused in [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "::7f00:1",
        ] {
            assert!(!is_public(refused.parse().unwrap()), "{refused}");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn odd_spellings_become_plain_before_they_are_checked() {
        for spelled in ["http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/"] {
            assert_eq!(
                parse_base_url(spelled).unwrap().host_str(),
                Some("127.0.0.1"),
                "{spelled}"
            );
        }
        assert_eq!(
            parse_base_url("http://u:p@example.com"),
            Err(BadUrl::Credentials)
        );
        assert!(matches!(
            parse_base_url("file:///etc/passwd"),
            Err(BadUrl::Scheme(_))
        ));
        assert_eq!(
            parse_base_url(" https://api.example.com/v1/ ")
                .unwrap()
                .as_str(),
            "https://api.example.com/v1"
        );
    }
}
