//! Prints prefill and decode tokens per second of a model, at one and at eight
//! sequences: `cargo run -p engine --release --example speed -- MODEL [THREADS]`.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use std::path::Path;
use std::time::Instant;

use engine::{ChatModel, Completion, GenerateRequest, LoadOptions, Prompt, Sampling};

const PROMPT_TOKENS: usize = 512;
const DECODED_TOKENS: usize = 128;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: speed MODEL [THREADS]")?;
    let threads = arguments
        .next()
        .map(|threads| threads.parse())
        .transpose()?;
    let started = Instant::now();
    let model = ChatModel::load(
        Path::new(&path),
        LoadOptions {
            threads,
            ..LoadOptions::default()
        },
    )?;
    println!("load\t{:.2} s", started.elapsed().as_secs_f64());
    run(&model, 1, 32, 8)?;
    for sequences in [1, 8] {
        let (_, seconds) = run(&model, sequences, PROMPT_TOKENS, 1)?;
        println!(
            "prefill\t{sequences} sequences\t{:.1} tokens/s",
            (sequences * PROMPT_TOKENS) as f64 / seconds
        );
        let (answers, _) = run(&model, sequences, 8, DECODED_TOKENS)?;
        let slowest = answers
            .iter()
            .map(|a| a.done.timings.decode_us)
            .max()
            .unwrap_or(1);
        let decoded: usize = answers
            .iter()
            .map(|a| a.done.usage.completion_tokens - 1)
            .sum();
        println!(
            "decode\t{sequences} sequences\t{:.1} tokens/s",
            decoded as f64 * 1e6 / slowest as f64
        );
    }
    Ok(())
}

/// Runs equal requests at once; the answers and the seconds until the last one ended.
fn run(
    model: &ChatModel,
    sequences: usize,
    prompt_tokens: usize,
    max_tokens: usize,
) -> Result<(Vec<Completion>, f64), Box<dyn std::error::Error>> {
    let started = Instant::now();
    let generations: Result<Vec<_>, _> = (0..sequences)
        .map(|sequence| {
            let tokens = (0..prompt_tokens)
                .map(|i| 1000 + ((i * 37 + sequence) % 5000) as u32)
                .collect();
            let mut request = GenerateRequest::new(Prompt::Tokens(tokens));
            request.sampling = Sampling::greedy();
            request.max_tokens = Some(max_tokens);
            model.generate(request)
        })
        .collect();
    let answers: Result<Vec<_>, _> = generations?
        .into_iter()
        .map(|g| g.blocking_complete())
        .collect();
    Ok((answers?, started.elapsed().as_secs_f64()))
}
