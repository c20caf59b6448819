//! The way in: the setup link, passwords, sessions, invitations, members.

use serde_json::json;

use crate::harness::{Live, NO_ID, Place, Reply, SESSION_COOKIE, on_both_databases};

const EMAIL: &str = "ada@example.test";
const PASSWORD: &str = "a long enough password";

on_both_databases!(
    the_setup_link_works_once,
    a_restart_gives_a_fresh_link,
    signing_out_ends_the_session,
    an_invitation_makes_a_member,
    a_changed_role_ends_sessions,
    a_project_keeps_an_administrator,
    sessions_end_by_themselves,
);

/// Where a form sent the browser.
fn went_to(reply: &Reply) -> (u16, String) {
    (reply.status, reply.header("location").unwrap_or_default())
}

fn sign_in(live: &Live, email: &str, password: &str) -> (crate::harness::Client, Reply) {
    let browser = live.browser();
    let reply = browser.form("/sign-in", &[("email", email), ("password", password)]);
    (browser, reply)
}

fn the_setup_link_works_once(place: Place) {
    let live = place.start();
    let link = place.setup_link();
    // Looking at it, as a link preview does, does not use it up.
    for _ in 0..2 {
        assert_eq!(live.browser().get(&link).status, 200);
    }
    // A wrong form does not either.
    let token = link.split_once('=').unwrap().1;
    let browser = live.browser();
    let wrong = browser.form(
        "/setup",
        &[
            ("token", token),
            ("name", "Ada"),
            ("email", EMAIL),
            ("password", "short"),
        ],
    );
    assert_eq!(wrong.status, 422, "{wrong:?}");
    assert!(
        wrong.text().contains(EMAIL) && !wrong.text().contains("short\""),
        "{wrong:?}"
    );

    let browser = live.set_up(&place, EMAIL, PASSWORD);
    assert_eq!(went_to(&browser.get("/")), (303, "/default/".to_owned()));
    assert_eq!(browser.get("/default/").status, 200);
    let members = browser.get("/api/v1/members").json();
    assert_eq!(
        (&members["items"][0]["email"], &members["items"][0]["role"]),
        (&json!(EMAIL), &json!("admin"))
    );

    assert_eq!(live.browser().get(&link).status, 410);
    let again = [
        ("token", token),
        ("name", "Eve"),
        ("email", "eve@example.test"),
        ("password", PASSWORD),
    ];
    assert_eq!(live.browser().form("/setup", &again).status, 403);
    assert_eq!(sign_in(&live, "eve@example.test", PASSWORD).1.status, 422);
    assert_eq!(
        browser.get("/api/v1/members").json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

fn a_restart_gives_a_fresh_link(place: Place) {
    let first = {
        let _live = place.start();
        place.setup_link()
    };
    let live = place.start();
    let second = place.setup_link();
    assert_ne!(first, second);
    assert_eq!(live.browser().get(&first).status, 403);
    assert_eq!(live.browser().get(&second).status, 200);
    drop(live.set_up(&place, EMAIL, PASSWORD));
    drop(live);
    // With an account there is no link any more.
    let before = place.log().matches("/setup?token=").count();
    let _live = place.start();
    assert_eq!(place.log().matches("/setup?token=").count(), before);
}

#[test]
fn argilla_no_defaults() {
    let place = Place::on(crate::harness::Database::Sqlite);
    let live = place.start();
    // Before there is an account nothing but the link leads in.
    let page = live.browser().get("/sign-in");
    assert_eq!(page.status, 200);
    assert!(
        !page.text().contains("type=\"password\""),
        "{}",
        page.text()
    );
    for (email, password) in [
        ("admin", "admin"),
        ("admin@localhost", "admin"),
        ("admin@localhost", "password"),
        ("root@localhost", ""),
    ] {
        let (browser, reply) = sign_in(&live, email, password);
        assert_eq!(
            (reply.status, browser.cookie(SESSION_COOKIE)),
            (422, None),
            "{email} {password}"
        );
    }
    for key in ["admin", "mgr_dev_", "owner.apikey", ""] {
        assert_eq!(live.with_key(key).get("/v1/models").status, 401, "{key:?}");
    }
    assert_eq!(live.browser().get("/setup").status, 403);
    assert_eq!(live.browser().get("/setup?token=").status, 403);
    assert_eq!(live.browser().get("/invite?token=").status, 410);
}

fn signing_out_ends_the_session(place: Place) {
    let live = place.start();
    drop(live.set_up(&place, EMAIL, PASSWORD));
    let (browser, reply) = sign_in(&live, &EMAIL.to_uppercase(), PASSWORD);
    assert_eq!(went_to(&reply), (303, "/".to_owned()));
    let line = reply
        .headers("set-cookie")
        .into_iter()
        .find(|line| line.starts_with(SESSION_COOKIE))
        .unwrap();
    for attribute in ["; HttpOnly", "; SameSite=Lax", "; Path=/"] {
        assert!(line.contains(attribute), "{line}");
    }
    let cookie = browser.cookie(SESSION_COOKIE).unwrap();
    // A new id at every sign-in: one that was planted before stays worthless.
    let planted = live.browser();
    planted.set_cookie(SESSION_COOKIE, "planted");
    planted.form("/sign-in", &[("email", EMAIL), ("password", PASSWORD)]);
    assert!(
        ![Some("planted".to_owned()), Some(cookie.clone())]
            .contains(&planted.cookie(SESSION_COOKIE))
    );

    assert_eq!(
        went_to(&browser.form("/sign-out", &[])),
        (303, "/sign-in".to_owned())
    );
    assert_eq!(browser.cookie(SESSION_COOKIE), None);
    let thief = live.browser();
    thief.set_cookie(SESSION_COOKIE, &cookie);
    assert_eq!(thief.get("/api/v1/members").status, 401);
    assert_eq!(
        went_to(&thief.get("/default/keys")),
        (303, "/sign-in?return_to=%2Fdefault%2Fkeys".to_owned())
    );
    // The other session of the same person goes on.
    assert_eq!(planted.get("/api/v1/members").status, 200);
}

#[test]
fn guessing_passwords_is_limited() {
    let place = Place::on(crate::harness::Database::Sqlite);
    let live = place.start();
    drop(live.set_up(&place, EMAIL, PASSWORD));
    // A wrong password and an unknown account look the same.
    let body = |reply: &Reply| reply.without_request_id().1;
    let known = sign_in(&live, EMAIL, "wrong").1;
    let unknown = sign_in(&live, "eva@example.test", "wrong").1;
    assert_eq!((known.status, unknown.status), (422, 422));
    assert_eq!(
        body(&known).replace(EMAIL, "EMAIL"),
        body(&unknown).replace("eva@example.test", "EMAIL")
    );
    let mut refused = 0;
    for _ in 0..12 {
        let (browser, reply) = sign_in(&live, EMAIL, "wrong");
        assert!([422, 429].contains(&reply.status), "{reply:?}");
        assert_eq!(browser.cookie(SESSION_COOKIE), None);
        refused += u32::from(reply.status == 429);
    }
    assert!(refused >= 2, "{refused} of 12 guesses were refused");
    // The right password does not get through a flood of guesses either.
    assert_eq!(sign_in(&live, EMAIL, PASSWORD).1.status, 429);
}

#[test]
fn sign_in_returns_only_to_this_server() {
    let place = Place::on(crate::harness::Database::Sqlite);
    let live = place.start();
    drop(live.set_up(&place, EMAIL, PASSWORD));
    for (wanted, given) in [
        ("/default/traces?q=a", "/default/traces?q=a"),
        ("https://evil.test/", "/"),
        ("//evil.test/", "/"),
        ("/\\evil.test", "/"),
        ("/\t/evil.test", "/"),
        ("javascript:alert(1)", "/"),
    ] {
        let form = [
            ("email", EMAIL),
            ("password", PASSWORD),
            ("return_to", wanted),
        ];
        assert_eq!(
            went_to(&live.browser().form("/sign-in", &form)),
            (303, given.to_owned()),
            "{wanted}"
        );
    }
}

fn an_invitation_makes_a_member(place: Place) {
    let live = place.start();
    let admin = live.set_up(&place, EMAIL, PASSWORD);
    let invited = admin.post(
        "/api/v1/invites",
        &json!({"email": "Bob@Example.test", "role": "editor"}),
    );
    assert_eq!(invited.status, 201, "{invited:?}");
    let link = invited.json()["link"].as_str().unwrap().to_owned();
    let path = link.strip_prefix(&admin.origin()).unwrap().to_owned();
    let token = path.split_once('=').unwrap().1.to_owned();
    let listed = admin.get("/api/v1/members").json();
    assert_eq!(listed["invites"][0]["email"], "bob@example.test");
    assert!(!listed.to_string().contains(&token), "{listed}");

    let bob = live.browser();
    let page = bob.get(&path);
    assert_eq!(page.status, 200);
    assert!(page.text().contains("bob@example.test"));
    let accepted = bob.form(
        "/invite",
        &[("token", &token), ("name", "Bob"), ("password", PASSWORD)],
    );
    assert_eq!(went_to(&accepted), (303, "/".to_owned()), "{accepted:?}");
    assert_eq!(bob.get("/api/v1/prompts").status, 200);
    assert_eq!(
        bob.post(
            "/api/v1/invites",
            &json!({"email": "c@example.test", "role": "viewer"})
        )
        .status,
        403
    );
    let members = admin.get("/api/v1/members").json();
    let role = |email: &str| {
        let items = members["items"].as_array().unwrap();
        items
            .iter()
            .find(|item| item["email"] == email)
            .map(|item| item["role"].clone())
    };
    assert_eq!(
        (role("bob@example.test"), role(EMAIL)),
        (Some(json!("editor")), Some(json!("admin")))
    );

    // Once, and not after it was taken back.
    assert_eq!(live.browser().get(&path).status, 410);
    let again = [
        ("token", token.as_str()),
        ("name", "Eve"),
        ("password", PASSWORD),
    ];
    assert_eq!(live.browser().form("/invite", &again).status, 410);
    let second = admin
        .post(
            "/api/v1/invites",
            &json!({"email": "eve@example.test", "role": "admin"}),
        )
        .json();
    let id = second["invite"]["id"].as_str().unwrap();
    assert_eq!(admin.delete(&format!("/api/v1/invites/{id}")).status, 204);
    let path = second["link"]
        .as_str()
        .unwrap()
        .strip_prefix(&admin.origin())
        .unwrap()
        .to_owned();
    assert_eq!(live.browser().get(&path).status, 410);
    assert_eq!(admin.delete(&format!("/api/v1/invites/{id}")).status, 404);

    // Only roles that people have, and only addresses.
    for (body, at) in [
        (json!({"email": "x@example.test", "role": "caller"}), "role"),
        (json!({"email": "nobody", "role": "viewer"}), "email"),
        (
            json!({"email": "a b@example.test", "role": "viewer"}),
            "email",
        ),
    ] {
        let reply = admin.post("/api/v1/invites", &body);
        assert_eq!(
            (reply.status, &reply.json()["error"]["at"]),
            (400, &json!(at)),
            "{reply:?}"
        );
    }
}

/// Somebody who was removed can come back, with the account that they have.
#[test]
fn a_removed_member_can_be_invited_again() {
    let place = Place::on(crate::harness::Database::Sqlite);
    let live = place.start();
    let admin = live.set_up(&place, EMAIL, PASSWORD);
    let invite = || {
        let made = admin
            .post(
                "/api/v1/invites",
                &json!({"email": "bob@example.test", "role": "viewer"}),
            )
            .json();
        made["link"]
            .as_str()
            .unwrap()
            .split_once('=')
            .unwrap()
            .1
            .to_owned()
    };
    let bob = live.browser();
    let accept = |browser: &crate::harness::Client, token: &str, password: &str| {
        browser.form(
            "/invite",
            &[("token", token), ("name", "Bob"), ("password", password)],
        )
    };
    assert_eq!(accept(&bob, &invite(), "the password of Bob").status, 303);
    let members = admin.get("/api/v1/members").json();
    let item = members["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["email"] == "bob@example.test")
        .unwrap();
    let path = format!("/api/v1/members/{}", item["user_id"].as_str().unwrap());
    assert_eq!(admin.delete(&path).status, 204);
    assert_eq!(bob.get("/api/v1/prompts").status, 401);

    let token = invite();
    // The link alone does not open an account that has a password.
    let stranger = live.browser();
    assert_eq!(accept(&stranger, &token, "another password").status, 422);
    assert_eq!(stranger.cookie(SESSION_COOKIE), None);
    assert_eq!(accept(&bob, &token, "the password of Bob").status, 303);
    assert_eq!(bob.get("/api/v1/prompts").status, 200);
}

fn a_changed_role_ends_sessions(place: Place) {
    let live = place.start();
    let admin = live.browser_of(&place.add_person("default", "admin"));
    let person = place.add_person("default", "editor");
    let editor = live.browser_of(&person);
    assert_eq!(editor.get("/api/v1/prompts").status, 200);
    let changed = admin.put(
        &format!("/api/v1/members/{}", person.id),
        &json!({"role": "viewer"}),
    );
    assert_eq!(changed.status, 204, "{changed:?}");
    assert_eq!(editor.get("/api/v1/prompts").status, 401);

    let person = place.add_person("default", "editor");
    let editor = live.browser_of(&person);
    assert_eq!(editor.get("/default/").status, 200);
    let removed = admin.form(
        &format!("/default/members/remove?user_id={}", person.id),
        &[],
    );
    assert_eq!(
        went_to(&removed),
        (303, "/default/members".to_owned()),
        "{removed:?}"
    );
    assert_eq!(editor.get("/default/").status, 303);
    assert_eq!(
        admin
            .delete(&format!("/api/v1/members/{}", person.id))
            .status,
        404
    );
    assert_eq!(
        admin
            .put(
                &format!("/api/v1/members/{NO_ID}"),
                &json!({"role": "viewer"})
            )
            .status,
        404
    );
}

fn a_project_keeps_an_administrator(place: Place) {
    let live = place.start();
    let first = place.add_person("default", "admin");
    let admin = live.browser_of(&first);
    let path = format!("/api/v1/members/{}", first.id);
    let last = (409, "last_admin".to_owned());
    assert_eq!(admin.put(&path, &json!({"role": "viewer"})).refusal(), last);
    assert_eq!(admin.delete(&path).refusal(), last);
    assert_eq!(admin.get("/api/v1/members").status, 200);
    // Two administrators who demote each other at the same moment leave one.
    let second = place.add_person("default", "admin");
    let other = live.browser_of(&second);
    let other_path = format!("/api/v1/members/{}", second.id);
    let statuses = std::thread::scope(|scope| {
        let one = scope.spawn(|| admin.put(&other_path, &json!({"role": "viewer"})).status);
        let two = scope.spawn(|| other.put(&path, &json!({"role": "viewer"})).status);
        [one.join().unwrap(), two.join().unwrap()]
    });
    let roles = place.database(async |db| {
        let rows = db::sqlx::query("SELECT role FROM members ORDER BY role")
            .fetch_all(db.read())
            .await
            .unwrap();
        rows.iter()
            .map(|row| db::sqlx::Row::get::<String, _>(row, 0))
            .collect::<Vec<_>>()
    });
    assert_eq!(roles, ["admin", "viewer"], "{statuses:?}");
}

fn sessions_end_by_themselves(place: Place) {
    let live = place.start();
    let day = 86_400_000_000_i64;
    // Neither the last use nor the whole age may be too long ago.
    for (idle, age, wanted) in [
        (6 * day, 29 * day, 200),
        (8 * day, 9 * day, 401),
        (0, 31 * day, 401),
    ] {
        let person = place.add_person("default", "viewer");
        let browser = live.browser_of(&person);
        place.database(async |db| {
            let now = db.now_us();
            let mut tx = db.begin_write().await.unwrap();
            let update = "UPDATE sessions SET last_seen_at = $2, created_at = $3, expires_at = $4 WHERE user_id = $1";
            let query = db::sqlx::query(update).bind(&person.id).bind(now - idle).bind(now - age).bind(now - age + 30 * day);
            query.execute(tx.conn()).await.unwrap();
            tx.commit().await.unwrap();
        });
        assert_eq!(
            browser.get("/api/v1/prompts").status,
            wanted,
            "{idle} {age}"
        );
    }
    // An account that was disabled is out at once.
    let person = place.add_person("default", "viewer");
    let browser = live.browser_of(&person);
    assert_eq!(browser.get("/api/v1/prompts").status, 200);
    place.database(async |db| {
        let mut tx = db.begin_write().await.unwrap();
        let update = "UPDATE users SET disabled = 1 WHERE id = $1";
        db::sqlx::query(update)
            .bind(&person.id)
            .execute(tx.conn())
            .await
            .unwrap();
        tx.commit().await.unwrap();
    });
    assert_eq!(browser.get("/api/v1/prompts").status, 401);
}
