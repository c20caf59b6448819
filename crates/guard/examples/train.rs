//! Trains the built-in classifiers from the texts that `scripts/guard-data` gathered, measures
//! them, and prints their digests (`make guard-models`):
//! `cargo run -p guard --release --example train -- TEXTS.jsonl OUT [--task injection]
//! [--without SOURCE] [--set NAME=VALUE] [--show]`. With `--without`, a source is left out of training and
//! becomes a source that the model never saw; nothing is written then. With `--windows`, the
//! passages that are to be embedded are added to a file; with `--vectors` beside it, the network
//! over their embeddings and the classifier's logit is trained, measured and written.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use guard::bench::{Outcome, report};
use guard::classify::{
    Card, Fused, Fusion, Labelled, Linear, Mlp, MlpOptions, PROBE, Task, TrainOptions, Vector,
    clusters, threshold_at, train, train_mlp, windows, with_logit,
};
use guard::{Compiled, Context, Point, Policy, Resources, Scorer};
use serde::Deserialize;

/// Two texts with half of their character 5-grams in common are the same text to us.
const ALIKE: f64 = 0.5;
/// Which part of the benign texts for tuning may reach the threshold. Under the 1 % that we
/// promise: the texts that a model is used on are stranger than those that it is tuned on.
const FALSE_POSITIVES: [(Task, f64); 2] = [(Task::Injection, 0.0074), (Task::Toxicity, 0.007)];

type Failure = Box<dyn std::error::Error>;

#[derive(Deserialize, Clone)]
struct Row {
    task: Task,
    text: String,
    label: u8,
    source: String,
    language: String,
    licence: String,
    r#use: Use,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[serde(rename_all = "snake_case")]
enum Use {
    Train,
    Tune,
    Test,
}

struct Arguments {
    texts: String,
    out: String,
    task: Option<String>,
    without: Option<String>,
    set: Vec<(String, f64)>,
    show: bool,
    windows: Option<String>,
    vectors: Option<String>,
}

fn main() -> Result<(), Failure> {
    let arguments = arguments()?;
    let text = std::fs::read_to_string(&arguments.texts)?;
    let rows: Vec<Row> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    for task in [Task::Injection, Task::Toxicity] {
        if arguments
            .task
            .as_deref()
            .is_none_or(|name| name == task.name())
        {
            let rows = rows
                .iter()
                .filter(|row| row.task == task)
                .cloned()
                .collect();
            run(task, rows, &arguments)?;
        }
    }
    Ok(())
}

fn arguments() -> Result<Arguments, Failure> {
    let usage = "usage: train TEXTS.jsonl OUT [--task NAME] [--without SOURCE] [--set NAME=VALUE] [--show] \
         [--windows FILE [--vectors FILE]]";
    let mut all = std::env::args().skip(1);
    let mut out = Arguments {
        texts: all.next().ok_or(usage)?,
        out: all.next().ok_or(usage)?,
        task: None,
        without: None,
        set: Vec::new(),
        show: false,
        windows: None,
        vectors: None,
    };
    while let Some(flag) = all.next() {
        if flag == "--show" {
            out.show = true;
            continue;
        }
        let value = all.next().ok_or(usage)?;
        match flag.as_str() {
            "--task" => out.task = Some(value),
            "--without" => out.without = Some(value),
            "--windows" => out.windows = Some(value),
            "--vectors" => out.vectors = Some(value),
            "--set" => {
                let (name, value) = value.split_once('=').ok_or(usage)?;
                out.set.push((name.to_owned(), value.parse()?));
            }
            _ => return Err(usage.into()),
        }
    }
    Ok(out)
}

fn run(task: Task, mut rows: Vec<Row>, arguments: &Arguments) -> Result<(), Failure> {
    println!("\n## {}\n", task.name());
    if let Some(without) = &arguments.without {
        for row in &mut rows {
            if row.source == *without {
                row.r#use = Use::Test;
                row.source.push('!');
            }
        }
    }
    let rows = keep_apart(rows);
    let of = |wanted: Use| rows.iter().filter(move |row| row.r#use == wanted);
    let options = options(task, &arguments.set)?;
    let started = Instant::now();
    let texts: Vec<Labelled> = of(Use::Train).map(labelled).collect();
    let trained = train(&texts, &options);
    let benign: Vec<String> = of(Use::Tune)
        .filter(|row| row.label == 0)
        .map(|row| row.text.clone())
        .collect();
    let bytes = trained.with_threshold(&benign, share(task, &arguments.set))?;
    let seconds = started.elapsed().as_secs_f64();
    let model = Linear::read(&bytes)?;
    if let (Some(windows), Some(vectors)) = (&arguments.windows, &arguments.vectors) {
        let vectors = Embedded::read(Path::new(windows), Path::new(vectors))?;
        return by_embedding(&model, &rows, &vectors, arguments);
    }
    if let Some(path) = &arguments.windows {
        return write_windows(&model, &rows, Path::new(path));
    }
    measure(&model, of(Use::Test));
    measure_as_data(&model, of(Use::Test))?;
    let (mut found, mut all) = (0, 0);
    for row in of(Use::Tune).filter(|row| row.label == 1) {
        all += 1;
        found += usize::from(model.score(&row.text) >= model.threshold());
    }
    println!("of the tuning texts that are to be found: {found} of {all}");
    if arguments.show {
        show_worst(&model, of(Use::Tune));
    }
    println!(
        "\n{}\t{}\tthreshold {}\t{} texts, {seconds:.0} s",
        model.header().name,
        model.digest(),
        model.threshold(),
        texts.len(),
    );
    if arguments.without.is_none() {
        std::fs::write(
            Path::new(&arguments.out).join(format!("{}.bin", task.name())),
            &bytes,
        )?;
    }
    Ok(())
}

/// Adds the windows to a file that are to be embedded: of so many texts of each source and label,
/// the same ones each time. Embedding all would take hours and change little.
fn write_windows(model: &Linear, rows: &[Row], path: &Path) -> Result<(), Failure> {
    let known = std::fs::read_to_string(path).unwrap_or_default();
    let mut all: BTreeSet<String> = known
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    all.insert(PROBE.to_owned());
    for row in picked(rows) {
        all.extend(windows_of(model, row).into_iter().map(str::to_owned));
    }
    let mut all: Vec<String> = all.into_iter().collect();
    // Texts of one length are embedded together: none waits for a longer one.
    all.sort_by_key(|text| text.chars().count());
    let mut out = String::new();
    for window in &all {
        out.push_str(&serde_json::to_string(window)?);
        out.push('\n');
    }
    println!("{} windows", all.len());
    Ok(std::fs::write(path, out)?)
}

/// So many texts of each source, use and label.
fn picked(rows: &[Row]) -> Vec<&Row> {
    let mut order: Vec<(base::Digest, &Row)> = rows
        .iter()
        .map(|row| (base::Digest::of(row.text.as_bytes()), row))
        .collect();
    order.sort_by_key(|(digest, _)| *digest);
    let mut counts: HashMap<(&str, Use, u8), usize> = HashMap::new();
    let taken = order.into_iter().filter(|(_, row)| {
        let count = counts
            .entry((&row.source, row.r#use, row.label))
            .or_default();
        *count += 1;
        let most = match row.r#use {
            Use::Train => 300,
            Use::Tune => 250,
            Use::Test => 200,
        };
        *count <= most
    });
    taken.map(|(_, row)| row).collect()
}

fn of_length_one(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter().map(|x| x / length.max(1e-9)).collect()
}

/// Windows and their vectors.
struct Embedded {
    of: HashMap<String, Vec<f32>>,
}

impl Embedded {
    fn read(windows: &Path, vectors: &Path) -> Result<Self, Failure> {
        let texts = std::fs::read_to_string(windows)?;
        let texts: Vec<String> = texts
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        let bytes = std::fs::read(vectors)?;
        let length = bytes.len() / 4 / texts.len().max(1);
        let numbers: Vec<f32> = bytes
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
            .collect();
        let vectors = numbers.chunks_exact(length.max(1)).map(of_length_one);
        Ok(Self {
            of: texts.into_iter().zip(vectors).collect(),
        })
    }

    /// The score of a text: its worst window's.
    fn score(&self, fused: &Fused, linear: &Linear, row: &Row) -> f32 {
        let windows = windows_of(linear, row).into_iter();
        let scores = windows.filter_map(|window| fused.score(window, self.of.get(window)?));
        scores.fold(0.0, f32::max)
    }
}
/// Trains the network over embeddings and the linear classifier's logit, and measures both.
fn by_embedding(
    model: &Linear,
    rows: &[Row],
    embedded: &Embedded,
    arguments: &Arguments,
) -> Result<(), Failure> {
    let task = model.header().task;
    let set = |name: &str, usual: f64| {
        let given = arguments.set.iter().find(|(given, _)| given == name);
        given.map_or(usual, |(_, value)| *value)
    };
    let picked = picked(rows);
    let of = |wanted: Use| {
        let rows = picked.iter().copied();
        rows.filter(move |row| row.r#use == wanted)
    };
    let vectors = vectors(model, rows, of(Use::Train), embedded, &|name, usual| {
        set(name, usual)
    })?;
    let answer = embedded.of.get(PROBE).ok_or("the windows lack the probe")?;
    let options = MlpOptions {
        task,
        name: format!("{}-embedding-1", task.name()),
        embedder: "all-minilm-l6-v2".to_owned(),
        hidden: set("hidden", 32.0) as usize,
        passes: set("mpasses", 12.0) as usize,
        batch: 64,
        rate: set("rate", 0.002) as f32,
        decay: set("decay", 0.02) as f32,
        seed: 1,
        fusion: Some(Fusion {
            linear: model.digest().to_string(),
            probe: PROBE.to_owned(),
            answer: answer.clone(),
        }),
    };
    let make = |threshold: f32, card: Card| -> Result<(Vec<u8>, Fused), Failure> {
        let bytes = train_mlp(&vectors, &options, threshold, card)?;
        let fused = Fused::new(model.clone(), Mlp::read(&bytes)?)?;
        Ok((bytes, fused))
    };
    let (_, fused) = make(0.5, Card::default())?;
    let tune: Vec<f32> = of(Use::Tune)
        .filter(|row| row.label == 0 && row.language != "ja")
        .map(|row| embedded.score(&fused, model, row))
        .collect();
    let share = set("mshare", 0.006);
    let threshold = threshold_at(&tune, share);
    let card = Card {
        threshold_rule: format!("at most {share} of {} benign texts reach it", tune.len()),
        tuned_on_benign: tune.len(),
        training: format!(
            "{} vectors of the texts of {}",
            vectors.len(),
            model.header().name
        ),
        ..Card::default()
    };
    let (bytes, fused) = make(threshold, card)?;
    println!(
        "{} vectors, {} tune, threshold {threshold}",
        vectors.len(),
        tune.len()
    );
    let show = |name: &str, judge: &dyn Fn(&Row) -> (f32, bool)| {
        let rows = of(Use::Test).filter(|row| row.source.ends_with('!'));
        let outcomes = rows.map(|row| {
            let (score, found) = judge(row);
            Outcome {
                source: row.source.clone(),
                language: row.language.clone(),
                positive: row.label == 1,
                found,
                score,
                micros: None,
            }
        });
        let outcomes: Vec<Outcome> = outcomes.collect();
        println!("\n{name}\n\n{}", report(&outcomes).markdown());
    };
    show("Linear alone, on the texts that were embedded", &|row| {
        let score = model.score(&row.text);
        (score, score >= model.threshold())
    });
    show("Network and linear classifier as one", &|row| {
        let score = embedded.score(&fused, model, row);
        (score, score >= 0.5)
    });
    show("Either", &|row| {
        let (one, other) = (model.score(&row.text), embedded.score(&fused, model, row));
        (one.max(other), one >= model.threshold() || other >= 0.5)
    });
    let name = format!("{}-embedding.bin", task.name());
    Ok(std::fs::write(Path::new(&arguments.out).join(name), bytes)?)
}

/// What the network learns from: the vector of each passage that is not Japanese, with the logit
/// of a linear classifier that learned from the other half of the texts. What one says of texts
/// that it learned from is surer than what it says of any other, and would be believed too much.
fn vectors<'r>(
    model: &Linear,
    rows: &[Row],
    picked: impl Iterator<Item = &'r Row>,
    embedded: &Embedded,
    set: &dyn Fn(&str, f64) -> f64,
) -> Result<Vec<Vector>, Failure> {
    let half_of = |row: &Row| {
        let digest = base::Digest::of(row.text.as_bytes()).to_string();
        usize::from(digest.bytes().next_back().unwrap_or_default() & 1)
    };
    let options = TrainOptions::new(model.header().task, "half");
    let half = |half: usize| {
        let rows = rows.iter().filter(|row| row.r#use == Use::Train);
        let texts: Vec<Labelled> = rows
            .filter(|row| half_of(row) != half)
            .map(labelled)
            .collect();
        let bytes = train(&texts, &options).with_threshold(&[], 0.01)?;
        Linear::read(&bytes)
    };
    let halves = std::thread::scope(|scope| {
        let halves = [0, 1].map(|which| scope.spawn(move || half(which)));
        halves.map(|half| half.join().expect("the trainer does not panic"))
    });
    let [first, second] = halves;
    let halves = [first?, second?];
    let picked: Vec<&Row> = picked.filter(|row| row.language != "ja").collect();
    let mut counts: HashMap<(&str, u8), f64> = HashMap::new();
    for row in &picked {
        *counts.entry((&row.source, row.label)).or_default() += 1.0;
    }
    let mut vectors = Vec::new();
    for row in picked {
        let windows = windows_of(model, row);
        let share = (windows.len().max(1) as f64).sqrt();
        let weight = counts[&(row.source.as_str(), row.label)].powf(-set("mbalance", 0.5)) / share;
        for window in windows {
            let Some(values) = embedded.of.get(window) else {
                continue;
            };
            let score = f64::from(halves[half_of(row)].score(window)).clamp(1e-6, 1.0 - 1e-6);
            vectors.push(Vector {
                values: with_logit(values, (score / (1.0 - score)).ln()),
                positive: row.label == 1,
                weight: weight as f32,
            });
        }
    }
    for positive in [false, true] {
        let of_label = |it: &&mut Vector| it.positive == positive;
        let sum: f32 = vectors
            .iter_mut()
            .filter(of_label)
            .map(|it| it.weight)
            .sum();
        let scale = vectors.len() as f32 / 2.0 / sum;
        for vector in vectors.iter_mut().filter(of_label) {
            vector.weight *= scale;
        }
    }
    Ok(vectors)
}

/// The windows of a text that count: those that the linear classifier finds worst.
fn windows_of<'t>(model: &Linear, row: &'t Row) -> Vec<&'t str> {
    let most = if row.r#use == Use::Train { 2 } else { 6 };
    let mut found: Vec<&str> = windows(&row.text)
        .into_iter()
        .map(|range| row.text[range].trim())
        .collect();
    if found.len() > most {
        found.sort_by(|a, b| model.score(b).total_cmp(&model.score(a)));
        found.truncate(most);
    }
    found
}

/// The settings, with what `--set` changes of them.
fn options(task: Task, set: &[(String, f64)]) -> Result<TrainOptions, Failure> {
    let mut options = TrainOptions::new(task, &format!("{}-1", task.name()));
    for (name, value) in set {
        match name.as_str() {
            "cost" => options.cost = *value,
            "balance" => options.balance = *value,
            "negative" => options.negative_weight = *value,
            "rounds" => options.rounds = *value as usize,
            "kept" => options.windows_kept = *value as usize,
            "passes" => options.passes = *value as usize,
            "many" => options.many_windows = *value,
            "bits" => options.recipe.hash_bits = *value as u32,
            "reach" => options.recipe.pair_reach = *value as usize,
            "company" => options.company = *value,
            "char_min" => options.recipe.char_min = *value as usize,
            "char_max" => options.recipe.char_max = *value as usize,
            "share" | "hidden" | "mpasses" | "rate" | "decay" | "mshare" | "mbalance" => {}
            _ => return Err(format!("what is the setting {name}?").into()),
        }
    }
    Ok(options)
}

fn share(task: Task, set: &[(String, f64)]) -> f64 {
    let given = set.iter().find(|(name, _)| name == "share");
    let usual = FALSE_POSITIVES.iter().find(|(of, _)| *of == task);
    let usual = usual.map_or(0.01, |(_, share)| *share);
    given.map_or(usual, |(_, value)| *value)
}

fn labelled(row: &Row) -> Labelled {
    Labelled {
        text: row.text.clone(),
        positive: row.label == 1,
        source: row.source.clone(),
        licence: row.licence.clone(),
    }
}

/// Takes out of training what is nearly the same as a text for tuning or measuring, out of tuning
/// what is nearly the same as one for measuring, and of texts for measuring that two sources have
/// the second.
fn keep_apart(rows: Vec<Row>) -> Vec<Row> {
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    let cluster_of = clusters(&texts, ALIKE);
    let mut last_use: HashMap<usize, Use> = HashMap::new();
    let mut owner: HashMap<usize, &str> = HashMap::new();
    for (row, cluster) in rows.iter().zip(&cluster_of) {
        let seen = last_use.entry(*cluster).or_insert(row.r#use);
        *seen = (*seen).max(row.r#use);
        if row.r#use == Use::Test && row.source.ends_with('!') {
            owner.entry(*cluster).or_insert(&row.source);
        }
    }
    let mut dropped: BTreeMap<(String, String), usize> = BTreeMap::new();
    let kept = rows
        .iter()
        .zip(&cluster_of)
        .filter(|(row, cluster)| {
            let twin = row.r#use < last_use[*cluster]
                || owner.get(*cluster).is_some_and(|owner| {
                    row.r#use == Use::Test && row.source.ends_with('!') && *owner != row.source
                });
            if twin {
                *dropped
                    .entry((format!("{:?}", row.r#use), row.source.clone()))
                    .or_default() += 1;
            }
            !twin
        })
        .map(|(row, _)| row.clone())
        .collect();
    for ((r#use, source), count) in dropped {
        println!("twins left out\t{use}\t{source}\t{count}");
    }
    kept
}

fn measure<'a>(model: &Linear, rows: impl Iterator<Item = &'a Row>) {
    let outcomes: Vec<Outcome> = rows.map(|row| outcome(model, row)).collect();
    let (unseen, seen): (Vec<Outcome>, Vec<Outcome>) = outcomes
        .into_iter()
        .partition(|one| one.source.ends_with('!'));
    println!(
        "\nSources that were never trained on\n\n{}",
        report(&unseen).markdown()
    );
    println!(
        "Sources whose other texts were trained on\n\n{}",
        report(&seen).markdown()
    );
    speed(model);
}

/// The same texts where they would be data: rules and the classifier, as a policy runs them.
fn measure_as_data<'a>(model: &Linear, rows: impl Iterator<Item = &'a Row>) -> Result<(), Failure> {
    let (scorer, task) = (model.clone(), model.header().task);
    let scorer = Scorer {
        name: model.header().name.clone(),
        threshold: model.threshold(),
        score: Arc::new(move |text: &str| scorer.score(text)),
    };
    let resources = Resources {
        scorers: [(task.name().to_owned(), scorer)].into(),
        ..Resources::default()
    };
    let policy = Policy::read(&serde_json::json!({"rules": [{
        "name": "it", "at": ["tool_result"], "check": {"type": task.name()}, "action": {"type": "flag"},
    }]}));
    let policy = policy.map_err(|problems| format!("{problems:?}"))?;
    let compiled = Compiled::new(&policy, &resources).map_err(|it| format!("{it:?}"))?;
    let compiled = Arc::new(compiled);
    let outcomes = rows.filter(|row| row.source.ends_with('!')).map(|row| {
        let context = Context::default();
        let scanned = compiled.scan(Point::ToolResult, &row.text, &context);
        let scores = scanned.findings.iter().map(|found| found.score);
        Outcome {
            source: row.source.clone(),
            language: row.language.clone(),
            positive: row.label == 1,
            found: !scanned.findings.is_empty(),
            score: scores.fold(0.0, f32::max),
            micros: None,
        }
    });
    let outcomes: Vec<Outcome> = outcomes.collect();
    println!(
        "Rules and classifier, as a tool's result\n\n{}",
        report(&outcomes).markdown()
    );
    Ok(())
}

fn outcome(model: &Linear, row: &Row) -> Outcome {
    let started = Instant::now();
    let score = model.score(&row.text);
    Outcome {
        source: row.source.clone(),
        language: row.language.clone(),
        positive: row.label == 1,
        found: score >= model.threshold(),
        score,
        micros: u64::try_from(started.elapsed().as_micros()).ok(),
    }
}

/// The tuning texts that score highest though harmless, and the attacks among them that are
/// missed: what to look at when the training texts are extended. Never shows what is measured.
fn show_worst<'a>(model: &Linear, rows: impl Iterator<Item = &'a Row>) {
    let mut scored: Vec<(f32, &Row)> = rows.map(|row| (model.score(&row.text), row)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (score, row) in scored.iter().filter(|(_, row)| row.label == 0).take(60) {
        let window = model.scored(&row.text).window;
        let text: String = row.text[window].chars().take(160).collect();
        println!("{score:.3}\t{}\t{}", row.source, text.replace('\n', " "));
    }
}

/// How long 4 KB take.
fn speed(model: &Linear) {
    let text: String = "The invoice of last month is wrong, please look at it again. "
        .chars()
        .cycle()
        .take(4096)
        .collect();
    let mut micros: Vec<u128> = (0..200)
        .map(|_| {
            let started = Instant::now();
            std::hint::black_box(model.score(std::hint::black_box(&text)));
            started.elapsed().as_micros()
        })
        .collect();
    micros.sort_unstable();
    println!("4 KB: p50 {} µs, p99 {} µs", micros[100], micros[197]);
}
