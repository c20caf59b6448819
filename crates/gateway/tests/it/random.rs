//! Hundreds of calls that end in every way at every moment; each is settled once.

use std::sync::atomic::Ordering;
use std::time::Duration;

use gateway::CallStatus;
use http_body_util::BodyExt as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use testkit::provider::{Answer, Fault};

use crate::rig::{Rig, request, stream_request};

const CALLS: u64 = 400;

pub(crate) fn fault(random: &mut StdRng) -> Fault {
    let after = random.random_range(0..8);
    match random.random_range(0..12) {
        0 => Fault::StallBeforeHeaders,
        1 => Fault::StallAfter(after),
        2 => Fault::DieAfter(after),
        3 => Fault::EndAfter(after),
        4 => Fault::HalfAfter(after),
        5 => Fault::GarbageAfter(after),
        6 => Fault::ErrorAfter(after),
        7 => Fault::Status(random.random_range(400..600), vec![], "{}".to_owned()),
        8 => Fault::NeverReal,
        _ => Fault::None,
    }
}

/// Reads an answer until its end or until this many frames; tells what it read.
pub(crate) async fn consume(rig: &Rig, body: String, frames: usize) -> Option<String> {
    let response = rig.chat(body).await;
    let mut answer = response.into_body();
    let mut text = String::new();
    for _ in 0..frames {
        match answer.frame().await {
            Some(frame) => {
                text.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap())
            }
            None => return Some(text),
        }
    }
    None
}

#[tokio::test]
async fn every_call_is_settled_exactly_once() {
    let rig = Rig::with(|provider| {
        provider.timeouts.headers = Duration::from_millis(40);
        provider.timeouts.first_token = Duration::from_millis(40);
        provider.timeouts.idle = Duration::from_millis(40);
    });
    let mut ends = std::collections::BTreeMap::<&str, u32>::new();
    for seed in 0..CALLS {
        let mut random = StdRng::seed_from_u64(seed);
        let fault = fault(&mut random);
        let pace = Duration::from_micros(random.random_range(0..2000));
        rig.provider.always(Answer {
            pace,
            fault: fault.clone(),
            ..Answer::default()
        });
        let model = ["open/fake-large", "claude/fake-large"][random.random_range(0..2)];
        let body = if random.random_bool(0.8) {
            stream_request(model)
        } else {
            request(model)
        };
        let frames = if random.random_bool(0.3) {
            random.random_range(0..6)
        } else {
            usize::MAX
        };
        let patience = Duration::from_micros(if random.random_bool(0.3) {
            random.random_range(0..8000)
        } else {
            10_000_000
        });

        let read = tokio::time::timeout(patience, consume(&rig, body, frames))
            .await
            .ok()
            .flatten();

        let about = format!("seed {seed}, {model}, {fault:?}");
        let records = rig.sink.records.lock().unwrap();
        let admitted = rig.sink.admitted.load(Ordering::SeqCst);
        assert_eq!(records.len(), admitted, "{about}");
        let Some(record) = records.last().filter(|_| admitted > 0) else {
            continue;
        };
        if let Some(text) = read {
            let good = text.ends_with("[DONE]\n\n")
                || (text.contains("chat.completion") && !text.contains("\"error\""));
            assert_eq!(record.status == CallStatus::Ok, good, "{about}: {text}");
            assert_ne!(record.status, CallStatus::Cancelled, "{about}");
            assert!(
                !(text.contains("\"error\"") && text.contains("[DONE]")),
                "{about}: {text}"
            );
        }
        assert!(
            record.delivered_chunks <= record.generated_chunks,
            "{about}"
        );
        if record.status == CallStatus::Ok {
            assert!(
                !record.usage.unwrap().estimated && record.cost.is_some(),
                "{about}: {record:?}"
            );
        }
        *ends.entry(record.status.as_str()).or_default() += 1;
    }
    rig.provider_is_idle().await;
    assert!(
        ends.len() == 3 && ends.values().all(|count| *count > 20),
        "every kind of end must happen: {ends:?}"
    );
}
