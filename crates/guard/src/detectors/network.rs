//! Addresses of machines. Loopback and "any" are left alone: they are everybody's.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::text::is_word;
use super::{Candidate, Detector, Verdict, View};

pub(super) static IP_ADDRESS: Detector = Detector {
    name: "ip_address",
    label: "IP_ADDRESS",
    view: View::Digits,
    patterns: &[
        // More parts than an address has, so that a longer row of numbers is seen as one.
        r"[0-9]{1,3}(?:\.[0-9]{1,3}){3,5}",
        r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?:\.[0-9]{1,3}){0,3}",
    ],
    max_chars: 60,
    at_word: true,
    validate,
};

/// Words after which four numbers are a version or the number of a section.
const VERSIONS: &[&str] = &[
    "version",
    "ver.",
    "ver ",
    "バージョン",
    "build",
    "ビルド",
    "release",
    "リリース",
    "section",
    "chapter",
    "clause",
    "figure",
    "table",
    "§",
    "第",
    "節",
    "章",
    "項",
    "rfc",
    "driver",
    "firmware",
    "oid",
    "v.",
    "assembly",
    "update to",
    "upgrade",
];

fn validate(found: &Candidate<'_>) -> Option<Verdict> {
    let six = found.text.contains(':');
    let glued = |c: char| is_word(c) || c == '.' || c == '-' || (six && c == ':');
    let after_url = found.before.ends_with("//");
    let labelled = found.label_says_address();
    if !after_url && !labelled && found.previous().is_some_and(glued) {
        return None;
    }
    match six {
        true => version_6(found),
        false => version_4(found, labelled),
    }
}

impl Candidate<'_> {
    fn label_says_address(&self) -> bool {
        self.tail().label_ends(&[
            "ip",
            "address",
            "アドレス",
            "host",
            "ホスト",
            "from",
            "addr",
        ])
    }
}

fn version_4(found: &Candidate<'_>, labelled: bool) -> Option<Verdict> {
    let address: Ipv4Addr = found.text.parse().ok()?;
    if found.after.is_some_and(|c| is_word(c) || c == '-') {
        return None;
    }
    let everybodys = address.is_loopback();
    // Nothing is reached at 0.x.y.z nor 255.x.y.z: a version or a mask.
    let is_mask = matches!(address.octets()[0], 0 | 255);
    if everybodys || is_mask || (!labelled && found.tail().has(16, VERSIONS)) {
        return None;
    }
    found.whole(if labelled { 0.98 } else { 0.85 })
}

fn version_6(found: &Candidate<'_>) -> Option<Verdict> {
    // The colon of "2001:db8::1: no route" is not part of it.
    let text = match found.text.strip_suffix(':') {
        Some(rest) if !rest.ends_with(':') => rest,
        _ => found.text,
    };
    let address: Ipv6Addr = text.parse().ok()?;
    if found.next(text.len()).is_some_and(is_word) || address.is_loopback() {
        return None;
    }
    // `abc::def` is a path in a program; what is assigned begins with one of these.
    let first = address.segments()[0];
    let assigned = matches!(first, 0x2000..=0x3fff | 0xfc00..=0xfdff | 0xfe80..=0xfebf);
    let shows_digits = text.bytes().any(|b| b.is_ascii_digit());
    let whole = !text.contains("::");
    ((assigned || whole) && shows_digits).then_some(found.part(text.len(), 0.9)?)
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::IP_ADDRESS;

    #[test]
    fn addresses() {
        for marked in [
            "from ⟦203.0.113.7⟧ port 22",
            "http://⟦10.1.2.3⟧:8080/x",
            "アクセス元：⟦１９２．１６８．１．２０⟧。",
            "⟦2001:db8::8a2e:370:7334⟧",
            "ping ⟦fe80::1ff:fe23:4567:890a⟧: no route",
            "⟦2001:0db8:85a3:0000:0000:8a2e:0370:7334⟧",
            "127.0.0.1, 0.0.0.0, ::1, 255.255.255.0",
            "version 1.2.3.4, v1.2.3.4 and driver 31.0.15.3623",
            "第1.2.3.4項 1.2.3.4.5 999.1.1.1 10.0.19041.1",
            "std::fmt abc::def dead::beef 12:30:45 a::b",
        ] {
            check(&IP_ADDRESS, marked);
        }
    }
}
