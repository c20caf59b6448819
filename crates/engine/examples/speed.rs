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
        let cpu = cpu_seconds();
        let (_, seconds) = run(&model, sequences, PROMPT_TOKENS, 1)?;
        report(
            "prefill",
            sequences,
            sequences * PROMPT_TOKENS,
            seconds,
            cpu,
        );
        let cpu = cpu_seconds();
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
        report("decode", sequences, decoded, slowest as f64 / 1e6, cpu);
    }
    Ok(())
}

/// One line: tokens per second, and per second of processor time since `cpu_before`, which
/// other programs on the machine hardly change. Waiting threads spin, so take the second figure
/// with one thread.
fn report(what: &str, sequences: usize, tokens: usize, seconds: f64, cpu_before: Option<f64>) {
    let tokens = tokens as f64;
    let per_cpu_second = cpu_seconds()
        .zip(cpu_before)
        .map(|(after, before)| tokens / (after - before).max(0.01));
    println!(
        "{what}\t{sequences} sequences\t{:.1} tokens/s\t{} tokens per processor second",
        tokens / seconds,
        per_cpu_second.map_or("?".to_owned(), |rate| format!("{rate:.1}")),
    );
}

/// Processor time of this process in seconds, where Linux tells it.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Fields 14 and 15 count hundredths of a second; the name before them may hold spaces.
    let after_name = stat.rsplit_once(')')?.1;
    let mut ticks = after_name.split_whitespace().skip(11).take(2);
    let user: f64 = ticks.next()?.parse().ok()?;
    let system: f64 = ticks.next()?.parse().ok()?;
    Some((user + system) / 100.0)
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
    // All at once: a reader that falls behind would pause its sequence.
    let readers: Vec<_> = generations?
        .into_iter()
        .map(|generation| std::thread::spawn(move || generation.blocking_complete()))
        .collect();
    let mut answers = Vec::new();
    for reader in readers {
        answers.push(reader.join().map_err(|_| "a reader panicked")??);
    }
    Ok((answers, started.elapsed().as_secs_f64()))
}
