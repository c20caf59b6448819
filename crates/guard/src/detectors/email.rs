//! E-mail addresses, also those that are written with `[at]` and `[dot]`.

use super::text::is_word;
use super::{Candidate, Detector, Verdict, View};

pub(super) static EMAIL: Detector = Detector {
    name: "email",
    label: "EMAIL",
    view: View::Plain,
    patterns: &[
        r"[a-z0-9][a-z0-9._%+'-]{0,63}@(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24}",
        r"[a-z0-9][a-z0-9._%+'-]{0,63} ?[\[(] ?at ?[\])] ?[a-z0-9-]{1,63}(?: ?(?:\.|[\[(] ?dot ?[\])]) ?[a-z0-9-]{1,63}){1,6}",
    ],
    max_chars: 254,
    at_word: true,
    validate,
};

/// Endings of files that are written like a domain: `logo@2x.png`.
const FILES: &[&str] = &[
    "png",
    "jpg",
    "jpeg",
    "gif",
    "svg",
    "webp",
    "css",
    "scss",
    "js",
    "mjs",
    "ts",
    "tsx",
    "jsx",
    "json",
    "html",
    "htm",
    "txt",
    "yaml",
    "yml",
    "toml",
    "lock",
    "git",
    "service",
    "socket",
    "target",
    "timer",
    "gguf",
    "safetensors",
];

fn validate(found: &Candidate<'_>) -> Option<Verdict> {
    // A name within a longer one (`a.b@c.de` from `b`) was tried from its start.
    if found
        .previous()
        .is_some_and(|c| is_word(c) || ".%+'@/".contains(c) || c == '-')
    {
        return None;
    }
    let spelled = !found.text.contains('@');
    let (local, domain) = if spelled {
        let at = found.text.find(['[', '('])?;
        let rest = found.text[at..].find([']', ')'])? + at + 1;
        (found.text[..at].trim_end(), found.text[rest..].trim_start())
    } else {
        found.text.split_once('@')?
    };
    let local_is_good = !local.ends_with('.') && !local.contains("..");
    if !local_is_good || !is_domain(domain, spelled) {
        return None;
    }
    // `git@host:path` is the address of a repository.
    if !spelled && local == "git" && found.after == Some(':') {
        return None;
    }
    if found
        .after
        .is_some_and(|c| c == '@' || c.is_ascii_alphanumeric())
    {
        return None;
    }
    found.whole(if spelled { 0.8 } else { 0.95 })
}

fn is_domain(domain: &str, spelled: bool) -> bool {
    let last = domain
        .rsplit(['.', ']', ')'])
        .next()
        .unwrap_or_default()
        .trim();
    let has_top = last.len() >= 2 && last.bytes().all(|b| b.is_ascii_lowercase());
    let labels_are_good = spelled
        || domain
            .split('.')
            .all(|label| !label.starts_with('-') && !label.ends_with('-'));
    has_top && labels_are_good && !FILES.contains(&last)
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::EMAIL;

    #[test]
    fn addresses() {
        for marked in [
            "write to ⟦taro.yamada@example.co.jp⟧.",
            "⟦Taro+news@Example.COM⟧, ⟦x_y@mail.example.org⟧",
            "連絡先は⟦ｔａｒｏ＠ｅｘａｍｐｌｅ．ｊｐ⟧です",
            "mailto:⟦a@b.example⟧",
            "reach me: ⟦taro [at] example [dot] com⟧ please",
            "⟦taro (at) example.com⟧",
            "git@github.com:org/repo.git",
            "logo@2x.png and systemd getty@tty1.service",
            "npm i lodash@4.17.21 @types/node@20.1.0",
            "@dataclass class A: pass; a @ b; user@localhost",
            "a..b@example.com a.@example.com",
        ] {
            check(&EMAIL, marked);
        }
    }
}
