//! Loading: both file kinds, both precisions, all families, and broken files.

use engine::{
    ChatModel, GenerateRequest, LoadErrorKind, LoadOptions, Precision, Prompt, Sampling, inspect,
};
use proptest::prelude::*;

use crate::support::Tiny;

fn full() -> LoadOptions {
    LoadOptions {
        precision: Precision::Full,
        ..LoadOptions::default()
    }
}

/// Greedy tokens with the log-probability of each.
fn answer(model: &ChatModel) -> Vec<(u32, f32)> {
    let mut request = GenerateRequest::new(Prompt::Text("the inner thing on another".to_owned()));
    request.sampling = Sampling::greedy();
    request.max_tokens = Some(24);
    request.logprobs = Some(0);
    let answer = model
        .generate(request)
        .unwrap()
        .blocking_complete()
        .unwrap();
    answer
        .logprobs
        .iter()
        .map(|l| (l.chosen.token_id, l.chosen.logprob))
        .collect()
}

#[test]
fn gguf_shards_and_one_file_hold_the_same_model() {
    for family in ["llama", "qwen2", "qwen3"] {
        let tiny = Tiny {
            family,
            ..Tiny::default()
        };
        let directory = tempfile::tempdir().unwrap();
        let (one, three) = (directory.path().join("one"), directory.path().join("three"));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&three).unwrap();
        tiny.write_directory(&one, 5, 1);
        tiny.write_directory(&three, 5, 3);
        let gguf = directory.path().join("model.gguf");
        tiny.write_gguf(&gguf, 5);
        let expected = answer(&ChatModel::load(&one, full()).unwrap());
        assert!(
            expected.len() > 1,
            "{family} ends at once, which proves nothing"
        );
        for path in [&three, &gguf] {
            let actual = answer(&ChatModel::load(path, full()).unwrap());
            for ((token, logprob), (expected_token, expected_logprob)) in
                actual.iter().zip(&expected)
            {
                assert_eq!(token, expected_token, "{family} {}", path.display());
                assert!(
                    (logprob - expected_logprob).abs() < 1e-3,
                    "{family}: {logprob} {expected_logprob}"
                );
            }
        }
        let facts = (inspect(&one).unwrap(), inspect(&gguf).unwrap());
        assert_eq!(facts.0, facts.1);
        assert_eq!(
            (facts.0.architecture.as_str(), facts.0.quantisation.as_str()),
            (family, "F32")
        );
    }
}

#[test]
fn quantised_and_full_precision_agree_closely() {
    let directory = tempfile::tempdir().unwrap();
    Tiny::default().write_directory(directory.path(), 5, 1);
    let exact = answer(&ChatModel::load(directory.path(), full()).unwrap());
    let rounded = answer(&ChatModel::load(directory.path(), LoadOptions::default()).unwrap());
    // 8-bit rounding moves a log-probability of this model by a few hundredths.
    assert_eq!(exact[0].0, rounded[0].0);
    assert!(
        (exact[0].1 - rounded[0].1).abs() < 0.2,
        "{exact:?} {rounded:?}"
    );
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let load = |path: &std::path::Path| ChatModel::load(path, LoadOptions::default()).unwrap_err();
    assert_eq!(
        load(&path.join("nothing.gguf")).kind,
        LoadErrorKind::NotFound
    );
    assert_eq!(load(path).kind, LoadErrorKind::NotFound);
    Tiny::default().write_directory(path, 1, 1);
    let change = |file: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(path.join(file)).unwrap();
        std::fs::write(path.join(file), text.replace(from, to)).unwrap();
    };
    change("config.json", "\"llama\"", "\"gemma3\"");
    let error = load(path);
    assert_eq!(error.kind, LoadErrorKind::Unsupported);
    assert!(error.to_string().contains("gemma3"), "{error}");
    change("config.json", "\"gemma3\"", "\"llama\"");
    change("config.json", "\"hidden_size\":64", "\"hidden_size\":32");
    let error = load(path);
    assert!(error.message.contains("shape"), "{error}");
    change("config.json", "\"hidden_size\":32", "\"hidden_size\":64");
    std::fs::write(path.join("tokenizer.json"), "{}").unwrap();
    assert_eq!(load(path).kind, LoadErrorKind::Unsupported);
}

#[test]
fn truncated_files_are_refused_without_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = Tiny::default().gguf_bytes(1);
    let path = directory.path().join("cut.gguf");
    for length in [0, 3, 8, 100, 2_000, 9_000, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = ChatModel::load(&path, LoadOptions::default()).unwrap_err();
        assert_eq!(error.kind, LoadErrorKind::Broken, "{length}: {error}");
    }
    Tiny::default().write_directory(directory.path(), 1, 1);
    let weights = directory.path().join("model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &whole[..whole.len() - 4]).unwrap();
    let error = ChatModel::load(directory.path(), LoadOptions::default()).unwrap_err();
    assert_eq!(error.kind, LoadErrorKind::Broken, "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Damage anywhere in the header gives an error or a model that still answers.
    #[test]
    fn damaged_headers_never_panic(edits in prop::collection::vec((0usize..9_000, any::<u8>()), 1..6)) {
        let tiny = Tiny { layers: 1, context: 64, ..Tiny::default() };
        let mut bytes = tiny.gguf_bytes(1);
        for (at, value) in edits {
            bytes[at] = value;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("damaged.gguf");
        std::fs::write(&path, bytes).unwrap();
        let options = LoadOptions { max_context: Some(64), ..LoadOptions::default() };
        if let Ok(model) = ChatModel::load(&path, options) {
            let mut request = GenerateRequest::new(Prompt::Tokens(vec![1, 2, 3]));
            request.max_tokens = Some(2);
            prop_assert!(model.generate(request).unwrap().blocking_complete().is_ok());
        }
    }
}
