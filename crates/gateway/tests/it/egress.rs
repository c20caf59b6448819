//! The egress client: which addresses it reaches, and what it does on redirects.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gateway::egress::{EgressConfig, Resolver, next_chunk, read_capped};
use gateway::{Allow, Egress, EgressError};
use http::HeaderMap;
use testkit::provider::{Answer, FakeProvider, Fault};
use url::Url;

const SOON: Duration = Duration::from_secs(5);

fn resolver(answers: &'static [&'static [&'static str]], asked: Arc<AtomicUsize>) -> Resolver {
    Arc::new(move |_host| {
        let turn = asked.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        let addresses: Vec<IpAddr> = answers[turn]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        Box::pin(async move { Ok(addresses) })
    })
}

async fn get(egress: &Egress, url: &str, allow: Allow) -> Result<u16, EgressError> {
    let url = Url::parse(url).unwrap();
    egress
        .get(&url, HeaderMap::new(), allow, SOON)
        .await
        .map(|response| response.status().as_u16())
}

#[tokio::test]
async fn addresses_that_are_not_public_are_refused_however_they_are_written() {
    let egress = Egress::new(EgressConfig::default());
    for url in [
        "http://127.0.0.1:9/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/",
        "http://[fe80::1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://0.0.0.0/",
        "https://192.168.0.1/",
        "http://localhost/",
        "http://100.64.0.1/",
        "http://localhost:80/",
    ] {
        let refused = get(&egress, url, Allow::Public).await;
        assert!(
            matches!(refused, Err(EgressError::Refused { .. })),
            "{url}: {refused:?}"
        );
    }
    for url in [
        "http://user:pass@example.com/",
        "file:///etc/passwd",
        "ftp://example.com/",
    ] {
        assert!(
            matches!(
                get(&egress, url, Allow::Private).await,
                Err(EgressError::BadTarget(_))
            ),
            "{url}"
        );
    }
}

#[tokio::test]
async fn one_private_address_among_public_ones_refuses_the_host() {
    let asked = Arc::new(AtomicUsize::new(0));
    let answers: &[&[&str]] = &[&["1.1.1.1", "10.0.0.1"]];
    let config = EgressConfig {
        resolver: Some(resolver(answers, asked)),
        ..EgressConfig::default()
    };
    let refused = get(&Egress::new(config), "http://half.example/", Allow::Public).await;
    assert_eq!(
        refused,
        Err(EgressError::Refused {
            host: "half.example".to_owned(),
            address: "10.0.0.1".parse().unwrap()
        })
    );
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_checked_at_every_connection() {
    let provider = FakeProvider::start();
    let port = provider.url().rsplit(':').next().unwrap().to_owned();
    let asked = Arc::new(AtomicUsize::new(0));
    // Public when it is saved, private when it is called.
    let answers: &[&[&str]] = &[&["203.0.114.1"], &["127.0.0.1"]];
    let config = EgressConfig {
        resolver: Some(resolver(answers, asked.clone())),
        connect_timeout: Duration::from_millis(200),
        ..EgressConfig::default()
    };
    let egress = Egress::new(config);
    let url = format!("http://rebind.example:{port}/v1/models");
    let first = get(&egress, &url, Allow::Public).await;
    assert!(
        !matches!(first, Err(EgressError::Refused { .. }) | Ok(_)),
        "a public address is tried: {first:?}"
    );
    let second = get(&egress, &url, Allow::Public).await;
    assert!(
        matches!(second, Err(EgressError::Refused { .. })),
        "{second:?}"
    );
    assert!(provider.seen().is_empty());
    // One lookup per connection: the address that was checked is the one that is used.
    assert_eq!(asked.load(Ordering::SeqCst), 2);

    // A connection that was opened with permission does not serve who has none.
    assert_eq!(get(&egress, &url, Allow::Private).await, Ok(200));
    assert!(matches!(
        get(&egress, &url, Allow::Public).await,
        Err(EgressError::Refused { .. })
    ));
    assert_eq!(provider.seen().len(), 1);
}

#[tokio::test]
async fn redirects_are_checked_and_lose_credentials() {
    let (first, second) = (FakeProvider::start(), FakeProvider::start());
    let egress = Egress::new(EgressConfig::default());
    let redirect =
        |to: String| Answer::faulty(Fault::Status(302, vec![("location", to)], String::new()));
    let target = Url::parse(&format!("{}/file", first.url())).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer x".parse().unwrap());
    headers.insert("range", "bytes=5-".parse().unwrap());
    let fetch = || egress.get(&target, headers.clone(), Allow::Private, SOON);

    // On the same origin everything is kept.
    first.next(redirect("/other".to_owned()));
    assert_eq!(fetch().await.unwrap().status(), 200);
    assert_eq!(first.seen()[1].headers["authorization"], "Bearer x");
    assert_eq!(first.seen()[1].path, "/other");
    assert_eq!(first.seen()[1].headers["range"], "bytes=5-");

    // Another origin must be public, whatever was allowed for the first.
    first.next(redirect(format!("{}/file", second.url())));
    assert!(matches!(fetch().await, Err(EgressError::Refused { .. })));
    first.next(redirect("http://169.254.169.254/".to_owned()));
    assert!(matches!(fetch().await, Err(EgressError::Refused { .. })));
    first.next(redirect("file:///etc/passwd".to_owned()));
    assert!(matches!(fetch().await, Err(EgressError::Redirect(_))));
    assert!(second.seen().is_empty());

    first.always(redirect("/again".to_owned()));
    assert!(
        matches!(fetch().await, Err(EgressError::Redirect(_))),
        "no endless chains"
    );
}

#[tokio::test]
async fn bodies_are_capped_and_watched() {
    let provider = FakeProvider::start();
    let egress = Egress::new(EgressConfig::default());
    let url = Url::parse(&provider.url()).unwrap();
    let open = || async {
        egress
            .get(&url, HeaderMap::new(), Allow::Private, SOON)
            .await
            .unwrap()
            .into_body()
    };
    let chunks = vec![Bytes::from(vec![b'x'; 600]); 3];
    provider.always(Answer::faulty(Fault::Raw(
        "application/octet-stream",
        chunks,
    )));
    assert_eq!(
        read_capped(&mut open().await, 1800, SOON)
            .await
            .unwrap()
            .len(),
        1800
    );
    assert_eq!(
        read_capped(&mut open().await, 1799, SOON).await,
        Err(EgressError::TooLarge(1799))
    );
    let mut body = open().await;
    let mut total = 0;
    while let Some(chunk) = next_chunk(&mut body, SOON).await.unwrap() {
        total += chunk.len();
    }
    assert_eq!(total, 1800);
    provider.always(Answer::faulty(Fault::StallAfter(0)));
    assert_eq!(
        read_capped(&mut open().await, 1000, Duration::from_millis(50)).await,
        Err(EgressError::IdleTimeout)
    );
}
