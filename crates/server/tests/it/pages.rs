//! Every page, for everybody who may see it, in both languages: it renders, and
//! shows neither another language's text nor a name where a text should be.

use serde_json::json;

use crate::harness::{Place, on_both_databases, question};

on_both_databases!(every_page_renders);

const PAGES: &[&str] = &[
    "/default/",
    "/default/traces",
    "/default/prompts",
    "/default/models",
    "/default/providers",
    "/default/keys",
    "/default/members",
    "/default/about",
];
const FOR_EDITORS: &[&str] = &[
    "/default/playground",
    "/default/compare",
    "/default/prompts/new",
    "/default/prompts/new?start=blank",
    "/default/prompts/new?start=judge",
    "/default/prompts/generate",
];
const FOR_ADMINS: &[&str] = &["/default/providers/new", "/default/providers/fake"];

fn every_page_renders(place: Place) {
    let place = place.add_fake().with_key("admin");
    let live = place.start();
    // Empty first, then with something of everything.
    for is_filled in [false, true] {
        let mut more = Vec::new();
        if is_filled {
            let trace = live.chat(&question("how are you?"));
            live.wait_for(&format!("/api/v1/traces/{trace}"), |_| true);
            more.push(format!("/default/traces/{trace}"));
            for text in ["be brief", "be long"] {
                let body = json!({"name": "a/日本", "content": {"messages": [{"role": "system", "content": text}]}});
                assert_eq!(live.post("/api/v1/prompts", &body).status, 201);
            }
            assert_eq!(
                live.put(
                    "/api/v1/prompts/a%2F%E6%97%A5%E6%9C%AC/labels/production",
                    &json!({"version": 1})
                )
                .status,
                200
            );
            more.push("/default/prompts/show?name=a%2F%E6%97%A5%E6%9C%AC".to_owned());
            more.push(
                "/default/prompts/diff?name=a%2F%E6%97%A5%E6%9C%AC&base=1&version=2".to_owned(),
            );
            assert_eq!(
                live.post(
                    "/api/v1/invites",
                    &json!({"email": "a@example.test", "role": "viewer"})
                )
                .status,
                201
            );
        }
        for role in ["admin", "editor", "viewer"] {
            let mut paths: Vec<String> = PAGES
                .iter()
                .map(|path| (*path).to_owned())
                .chain(more.clone())
                .collect();
            if role != "viewer" {
                paths.extend(FOR_EDITORS.iter().map(|path| (*path).to_owned()));
            }
            if role == "admin" {
                paths.extend(FOR_ADMINS.iter().map(|path| (*path).to_owned()));
            }
            for lang in ["en", "ja"] {
                let person = live.browser_of(&place.add_person("default", role));
                person.form("/preferences", &[("lang", lang)]);
                for path in &paths {
                    let page = person.get(path);
                    let text = page.text();
                    assert_eq!(page.status, 200, "{path} for {role} in {lang}: {text}");
                    assert!(
                        text.contains(&format!("<html lang=\"{lang}\"")),
                        "{path}: {text}"
                    );
                    // An action that the role may not take is not offered.
                    if role == "viewer" {
                        assert!(
                            !text.contains("action=\"/default/keys\""),
                            "{path} offers a viewer to make a key"
                        );
                    }
                }
            }
        }
    }
    for lang in ["en", "ja"] {
        for path in ["/sign-in", "/setup", "/invite"] {
            let page = live
                .browser()
                .call("GET", path)
                .header("accept-language", lang)
                .send();
            assert!([200, 403, 410].contains(&page.status), "{path}: {page:?}");
            assert!(
                page.text().contains(&format!("<html lang=\"{lang}\"")),
                "{path}: {page:?}"
            );
        }
    }
    assert!(!place.log().contains("request failed"), "{}", place.log());
}
