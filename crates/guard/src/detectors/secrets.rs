//! Keys and secrets: by the beginnings that issuers give them, by their frames (PEM, JWT), by
//! the place of a password in a URL, and by what stands before a random value (`api_key = …`).
//!
//! A value that is plainly an example (`sk-...`, `your-key-here`, `${TOKEN}`) is left alone: it
//! is what documentation is full of.

use super::text::{has_word, is_word, last_chars};
use super::{Candidate, Detector, Verdict, View};

/// A key with a beginning of its issuer.
const fn issued(
    name: &'static str,
    patterns: &'static [&'static str],
    max_chars: usize,
    validate: fn(&Candidate<'_>) -> Option<Verdict>,
) -> Detector {
    Detector {
        name,
        label: "SECRET",
        view: View::Raw,
        patterns,
        max_chars,
        at_word: true,
        validate,
    }
}

pub(super) static OPENAI: Detector = issued(
    "openai_key",
    &[r"sk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,200}"],
    220,
    random,
);
pub(super) static ANTHROPIC: Detector = issued(
    "anthropic_key",
    &[r"sk-ant-[A-Za-z0-9_-]{20,200}"],
    220,
    random,
);
pub(super) static GITHUB: Detector = issued(
    "github_token",
    &[
        r"gh[pousr]_[A-Za-z0-9]{30,255}",
        r"github_pat_[A-Za-z0-9_]{22,255}",
    ],
    270,
    random,
);
pub(super) static GITLAB: Detector = issued(
    "gitlab_token",
    &[r"gl(?:pat|rt|dt|ptt|soat)-[A-Za-z0-9_.-]{20,64}"],
    80,
    random,
);
pub(super) static AWS: Detector = issued(
    "aws_access_key",
    &[r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}"],
    20,
    fixed,
);
pub(super) static SLACK: Detector = issued(
    "slack_token",
    &[
        r"xox[abeoprs]-[A-Za-z0-9-]{10,250}",
        r"xapp-[0-9]-[A-Za-z0-9-]{10,250}",
        r"https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_-]{20,120}",
    ],
    260,
    fixed,
);
pub(super) static GOOGLE: Detector = issued(
    "google_key",
    &[
        r"AIza[A-Za-z0-9_-]{35}",
        r"ya29\.[A-Za-z0-9_-]{20,500}",
        r"GOCSPX-[A-Za-z0-9_-]{20,40}",
    ],
    505,
    random,
);
pub(super) static STRIPE: Detector = issued(
    "stripe_key",
    &[
        r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,250}",
        r"whsec_[A-Za-z0-9]{20,80}",
    ],
    260,
    random,
);
pub(super) static HUGGING_FACE: Detector = issued(
    "hugging_face_token",
    &[r"hf_[A-Za-z0-9]{30,60}"],
    63,
    random,
);
pub(super) static MEGURI: Detector = issued(
    "meguri_key",
    &[r"mgr_[a-z][a-z0-9-]{0,30}_[A-Za-z0-9_-]{20,80}"],
    120,
    random,
);
pub(super) static OTHER_ISSUERS: Detector = issued(
    "issued_key",
    &[
        r"npm_[A-Za-z0-9]{36}",
        r"pypi-AgE[A-Za-z0-9_-]{40,250}",
        r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
        r"dop_v1_[a-f0-9]{64}",
        r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
        r"dapi[a-f0-9]{32}",
        r"hvs\.[A-Za-z0-9_-]{24,200}",
        r"gsk_[A-Za-z0-9]{40,80}",
        r"xai-[A-Za-z0-9]{40,100}",
        r"r8_[A-Za-z0-9]{37}",
        r"pplx-[A-Za-z0-9]{40,80}",
        r"lin_api_[A-Za-z0-9]{32,64}",
        r"ntn_[A-Za-z0-9]{40,60}",
        r"AGE-SECRET-KEY-1[A-Z0-9]{50,60}",
        r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}",
        r"LTAI[A-Za-z0-9]{16,24}",
    ],
    260,
    random,
);
pub(super) static JWT: Detector = issued(
    "jwt",
    &[r"eyJ[A-Za-z0-9_-]{8,512}\.eyJ[A-Za-z0-9_-]{8,1500}\.[A-Za-z0-9_-]{16,700}"],
    2_720,
    fixed,
);
pub(super) static PRIVATE_KEY: Detector = Detector {
    at_word: false,
    ..issued(
        "private_key",
        // The end may be missing: half a key is a leak as well. Newlines may be escaped.
        &[
            r"-----BEGIN (?:[A-Z0-9]{1,10} ){0,3}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/= \t\r\n\\:,.()-]{16,4000}",
        ],
        4_080,
        pem,
    )
};
pub(super) static URL_PASSWORD: Detector = issued(
    "url_password",
    &[r#"[a-z][a-z0-9+.-]{1,20}://[!$-.0-9;=A-\[\]-~]{0,64}:[!#-&(-.0-;=?A-~]{3,128}@"#],
    220,
    in_url,
);
pub(super) static PASSWORD: Detector = Detector {
    label: "SECRET",
    ..issued(
        "labelled_secret",
        &[r"[A-Za-z0-9_+/=.~!@#$%^&*-]{6,256}"],
        256,
        labelled,
    )
};

/// What issued keys must not go on with.
fn is_cut(found: &Candidate<'_>) -> bool {
    found.previous().is_some_and(|c| is_word(c) || c == '-')
}

/// Whether a value is written to be replaced.
fn is_example(value: &str) -> bool {
    let lower = value.to_lowercase();
    let words = [
        "example",
        "your",
        "placeholder",
        "changeme",
        "change-me",
        "redacted",
        "xxxx",
        "....",
        "****",
        "insert",
        "dummy",
        "sample",
        "replace",
        "todo",
        "abcdefghij",
        "123456789",
        "my-",
        "my_",
        "secret-key",
        "fake",
        "goes-here",
        "goeshere",
    ];
    words.iter().any(|word| lower.contains(word))
}

fn random(found: &Candidate<'_>) -> Option<Verdict> {
    let value = found.text.trim_end_matches(['-', '_', '.']);
    let body = value
        .rsplit_once(['_', '-'])
        .map_or(value, |(_, body)| body);
    let body = if body.len() < 16 { value } else { body };
    if is_cut(found) || is_example(value) || entropy(body) < 3.0 {
        return None;
    }
    // A name of many words with hyphens has no digit: `sk-learn-compatible-estimators`.
    let has_digit = value.bytes().any(|b| b.is_ascii_digit());
    let has_upper = value.bytes().any(|b| b.is_ascii_uppercase());
    (has_digit || has_upper).then_some(found.part(value.len(), 0.97)?)
}

fn fixed(found: &Candidate<'_>) -> Option<Verdict> {
    let glued = found.after.is_some_and(|c| c.is_ascii_alphanumeric());
    if is_cut(found)
        || glued
        || is_example(found.text)
        || !found.text.bytes().any(|b| b.is_ascii_digit())
    {
        return None;
    }
    found.whole(0.97)
}

fn pem(found: &Candidate<'_>) -> Option<Verdict> {
    let begin = found.text.find("KEY")?;
    let header = begin + found.text[begin..].find("-----")? + 5;
    let body = &found.text[header..];
    // The first line that ends a key ends it; without one all that can be of it goes.
    let end = match body.find("-----END") {
        Some(at) => match body[at + 8..].find("-----") {
            Some(more) => header + at + 8 + more + 5,
            None => found.text.len(),
        },
        None => found.text.trim_end().len(),
    };
    let letters = body.bytes().filter(u8::is_ascii_alphanumeric).count();
    let dense = body
        .split_whitespace()
        .next()
        .is_some_and(|word| word.len() >= 16 || word.starts_with(['\\', 'P', 'V']));
    (letters >= 32 && dense).then_some(found.part(end, 0.99)?)
}

fn in_url(found: &Candidate<'_>) -> Option<Verdict> {
    let (_, rest) = found.text.split_once("://")?;
    let (_, password) = rest.strip_suffix('@')?.split_once(':')?;
    let variable = password.starts_with(['$', '{', '<', '%', '['])
        || password.bytes().all(|b| b == b'*' || b == b'x');
    let lower = password.to_lowercase();
    let usual = [
        "password", "pass", "passwd", "pwd", "secret", "postgres", "root", "user", "guest",
        "example",
    ];
    if is_cut(found) || variable || usual.contains(&lower.as_str()) || is_example(password) {
        return None;
    }
    found.whole(0.9)
}

/// What a secret is called before its value.
const LABELS: &[&str] = &[
    "api_key",
    "apikey",
    "api-key",
    "api key",
    "x-api-key",
    "secret",
    "secret_key",
    "secretkey",
    "secret key",
    "client_secret",
    "client-secret",
    "clientsecret",
    "access_key",
    "access-key",
    "accesskey",
    "secret_access_key",
    "secretaccesskey",
    "access_token",
    "accesstoken",
    "auth_token",
    "authtoken",
    "refresh_token",
    "token",
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "private_key",
    "privatekey",
    "encryption_key",
    "signing_key",
    "credentials",
    "bearer",
    "accountkey",
    "sharedaccesskey",
    "connection_key",
    "webhook_secret",
    "パスワード",
    "暗証番号",
    "秘密鍵",
    "apiキー",
    "トークン",
    "シークレット",
    "パスフレーズ",
    "パスワードは",
    "apiキーは",
    "トークンは",
    "password is",
    "token is",
    "key is",
    "api key is",
    "passcode",
];

fn labelled(found: &Candidate<'_>) -> Option<Verdict> {
    let label = secret_label(found.before)?;
    let value = found.text.trim_end_matches(['.', ',', ';']);
    // `password=` and a comparison: `token == x`, `secret => y`.
    let starts = value.starts_with(['=', '.', '$', '%', '*', '#', '/']) || value.starts_with("--");
    let call = matches!(found.next(value.len()), Some('(' | '[' | '{' | '<' | ':'));
    if value.len() < 6 || starts || call || is_example(value) || is_name(value) {
        return None;
    }
    let is_password = ["pass", "pwd", "パス", "暗証"]
        .iter()
        .any(|word| label.contains(word));
    let bits = entropy(value);
    let kinds = kinds_of(value);
    let good = match is_password {
        // People choose passwords; what sets them apart from words is that kinds of signs mix.
        true => {
            value.len() >= 8 && kinds >= 3 || (kinds >= 2 && has_digit_inside(value) && bits >= 2.5)
        }
        false => {
            value.len() >= 16
                && bits >= 3.2
                && kinds >= 2
                && value.bytes().any(|b| b.is_ascii_digit())
        }
    };
    good.then_some(found.part(value.len(), 0.85)?)
}

/// The label before a value, if a secret is assigned there: the label, marks, and the value.
fn secret_label(before: &str) -> Option<String> {
    let near = last_chars(before, 48);
    let unquoted = near.trim_end_matches(['"', '\'', '`', '「', '『']);
    let bare = unquoted.trim_end_matches(char::is_whitespace);
    let ends = |word: &str| {
        let start = bare
            .len()
            .checked_sub(word.len())
            .and_then(|at| bare.get(at..));
        start.is_some_and(|end| end.eq_ignore_ascii_case(word))
    };
    let assigned = bare.ends_with([':', '=', '：', '＝', '>', 'は']);
    if !assigned && !ends(" is") && !ends("bearer") {
        return None;
    }
    let label = bare
        .trim_end_matches([':', '=', '：', '＝', '>', ' ', '"', '\'', '`', ']', ')'])
        .to_lowercase();
    // `--password=`, `X-Api-Key: `, `db_password = `, `"token": ` all end in the word.
    let found = LABELS.iter().any(|word| label.ends_with(word));
    found.then_some(label)
}

/// Whether a value is a name in a program, a path, a URL, a version or a literal.
fn is_name(value: &str) -> bool {
    let lower = value.to_lowercase();
    let literals = [
        "true",
        "false",
        "null",
        "none",
        "undefined",
        "string",
        "required",
        "optional",
        "password",
        "secret",
    ];
    let dotted = value.split('.').count() > 1
        && value.split('.').all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        });
    let constant = value.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let words = value
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'-');
    let camel = value.bytes().all(|b| b.is_ascii_alphabetic())
        && value.starts_with(|c: char| c.is_ascii_lowercase());
    let is_path = value.matches('/').count() >= 2 && !value.ends_with('=');
    let reads = [
        "process.env",
        "os.environ",
        "getenv",
        "env.",
        "config.",
        "self.",
        "settings.",
        "secrets.",
    ];
    literals.iter().any(|word| lower == *word)
        || dotted
        || constant
        || words
        || camel
        || is_path
        || reads.iter().any(|word| has_word(&lower, word))
}

fn kinds_of(value: &str) -> usize {
    let has = |test: fn(&u8) -> bool| usize::from(value.bytes().any(|b| test(&b)));
    has(u8::is_ascii_lowercase)
        + has(u8::is_ascii_uppercase)
        + has(u8::is_ascii_digit)
        + has(u8::is_ascii_punctuation)
}

fn has_digit_inside(value: &str) -> bool {
    value.bytes().any(|b| b.is_ascii_digit()) && value.bytes().any(|b| b.is_ascii_alphabetic())
}

/// Shannon's entropy of a text's characters, in bits for each.
pub(super) fn entropy(text: &str) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in text.bytes() {
        counts[usize::from(byte)] += 1;
    }
    let total = text.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / total)
        .map(|share| -share * share.log2())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::*;

    #[test]
    fn issued_keys() {
        for (detector, marked) in [
            (&OPENAI, "key ⟦sk·-proj-A1b2C3d4E5f6G7h8I9j0K1l2⟧."),
            (
                &OPENAI,
                "sk-your-key-here-0000000000 sk-learn-compatible-estimators sk-XXXXXXXXXXXXXXXXXXXXXXXX",
            ),
            (&ANTHROPIC, "⟦sk·-ant-api03-Zx9Yw8Vu7Ts6Rq5Po4Nm3Lk2⟧"),
            (&GITHUB, "⟦gh·p_k3J9sLx0PqW8eRt7YuI6oP5aS4dF3gH2jK1l⟧"),
            (&GITHUB, "⟦gi·thub_pat_11ABCDEFG0q8w7e6r5t4y3_u2i1o0⟧"),
            (&GITLAB, "⟦gl·pat-k3J9sLx0PqW8eRt7YuI6⟧"),
            (
                &AWS,
                "⟦AK·IA2E7QX4LM5N3PWR6T⟧ AKIAIOSFODNN7EXAMPLE AKIATHISISNOTONEATALL",
            ),
            (&SLACK, "⟦xo·xb-2083-481516-k3J9sLx0PqW8⟧"),
            (&GOOGLE, "⟦AI·zaSyD3k9Lx0PqW8eRt7YuI6oP5aS4dF3gH2jK⟧"),
            (
                &STRIPE,
                "⟦sk·_live_k3J9sLx0PqW8eRt7YuI6⟧ pk·_live_k3J9sLx0PqW8eRt7YuI6",
            ),
            (&HUGGING_FACE, "⟦hf·_kJsLxPqWeRtYuIoPaSdFgHjKlZxCvBnMqW⟧"),
            (
                &JWT,
                "⟦eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P⟧",
            ),
            (
                &URL_PASSWORD,
                "⟦postgres://app:k3J9sLx0@⟧db/x postgres://u:password@db http://h:8080/@x",
            ),
            (&URL_PASSWORD, "redis://:${PASS}@cache"),
        ] {
            // The dots keep scanners of repositories from taking these for real.
            check(detector, &marked.replace('·', ""));
        }
    }

    #[test]
    fn private_keys() {
        check(
            &PRIVATE_KEY,
            "x ⟦-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAvk3J9sLx0PqW8eRt7YuI6oP5\naS4dF3==\n-----END RSA PRIVATE KEY-----⟧ y",
        );
        check(
            &PRIVATE_KEY,
            r#""⟦-----BEGIN PRIVATE KEY-----\nMIIEowIBAAKCAQEAvk3J9sLx0PqW8eRt7YuI6oP5\n-----END PRIVATE KEY-----⟧\n""#,
        );
        check(
            &PRIVATE_KEY,
            "the line -----BEGIN PRIVATE KEY----- starts a key in PEM and so on it goes",
        );
        check(
            &PRIVATE_KEY,
            "-----BEGIN PUBLIC KEY-----\nMIIEowIBAAKCAQEAvk3J9sLx0PqW8eRt7YuI6oP5\n",
        );
    }

    #[test]
    fn labelled_values() {
        for marked in [
            r#"api_key = "⟦k3J9sLx0PqW8eRt7YuI6⟧""#,
            "X-Api-Key: ⟦k3J9sLx0PqW8eRt7YuI6⟧",
            "Authorization: Bearer ⟦k3J9sLx0PqW8eRt7YuI6⟧",
            "DB_PASSWORD=⟦hunter2Rocks!⟧",
            "パスワードは「⟦Tanuki#2291⟧」です",
            "my password is ⟦correct7Horse⟧.",
            "password = os.environ['DB_PASSWORD']",
            "token: string, password: required, secret = config.secret",
            r#"api_key = "your-api-key-here-1234567""#,
            "API_KEY=${MY_API_KEY}",
            "the token = next_token(stream)",
            "password: at least 8 characters",
            "commit 4f2a9c81d3e5b7a9c0d1e2f3a4b5c6d7e8f90123",
        ] {
            check(&PASSWORD, marked);
        }
    }
}
