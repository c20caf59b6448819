//! Where real models are, and tiny random ones made in place.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The directory with real models; a test that needs one fails without it, because a skipped
/// proof looks like a passed one.
pub(crate) fn test_model(name: &str) -> PathBuf {
    let root = match std::env::var_os("MEGURI_TEST_MODELS") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-models"),
    };
    let path = root.join(name);
    assert!(
        path.exists(),
        "{} is missing: `make test` fetches the test models",
        path.display()
    );
    path
}

/// The GGUF file of SmolLM2.
pub(crate) fn smollm2() -> PathBuf {
    let directory = test_model("smollm2");
    let files = std::fs::read_dir(&directory).expect("read the model directory");
    files
        .filter_map(|file| Some(file.ok()?.path()))
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "gguf")
        })
        .unwrap_or_else(|| {
            panic!(
                "no .gguf in {}: `make test` fetches it",
                directory.display()
            )
        })
}

/// A committed golden file.
pub(crate) fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("golden file is JSON")
}

/// Lines of the committed corpus.
pub(crate) fn corpus_lines() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/corpus.jsonl");
    let text = std::fs::read_to_string(path).expect("read the corpus");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("corpus line is JSON"))
        .collect()
}

/// Numbers that look random and are the same everywhere.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// Between -1 and 1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() as f32 / (1u64 << 30) as f32) - 1.0
    }
}

/// The shape of a tiny model.
#[derive(Clone, Copy)]
pub(crate) struct Tiny {
    pub(crate) family: &'static str,
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_width: usize,
    pub(crate) feed_forward: usize,
    pub(crate) context: usize,
}

impl Default for Tiny {
    fn default() -> Self {
        Self {
            family: "llama",
            hidden: 64,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_width: 16,
            feed_forward: 96,
            context: 512,
        }
    }
}

/// Tokens of the tiny vocabulary: the 256 bytes, a few merges, and two control tokens.
pub(crate) const VOCABULARY: usize = 264;

/// A named tensor of random floats.
pub(crate) struct RandomTensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl Tiny {
    /// All tensors by their safetensors names, from a seed.
    pub(crate) fn tensors(&self, seed: u64) -> Vec<RandomTensor> {
        let mut noise = Noise(seed);
        let mut out = Vec::new();
        let mut add = |name: String, shape: Vec<usize>, centre: f32, spread: f32| {
            let count = shape.iter().product();
            let values = (0..count)
                .map(|_| centre + spread * noise.float())
                .collect();
            out.push(RandomTensor {
                name,
                shape,
                values,
            });
        };
        let (queries, keys) = (
            self.heads * self.head_width,
            self.kv_heads * self.head_width,
        );
        add(
            "model.embed_tokens.weight".into(),
            vec![VOCABULARY, self.hidden],
            0.0,
            1.0,
        );
        add("model.norm.weight".into(), vec![self.hidden], 1.0, 0.1);
        add(
            "lm_head.weight".into(),
            vec![VOCABULARY, self.hidden],
            0.0,
            0.3,
        );
        for layer in 0..self.layers {
            let at = |part: &str| format!("model.layers.{layer}.{part}");
            let spread = 0.25;
            add(at("input_layernorm.weight"), vec![self.hidden], 1.0, 0.1);
            add(
                at("post_attention_layernorm.weight"),
                vec![self.hidden],
                1.0,
                0.1,
            );
            add(
                at("self_attn.q_proj.weight"),
                vec![queries, self.hidden],
                0.0,
                spread,
            );
            add(
                at("self_attn.k_proj.weight"),
                vec![keys, self.hidden],
                0.0,
                spread,
            );
            add(
                at("self_attn.v_proj.weight"),
                vec![keys, self.hidden],
                0.0,
                spread,
            );
            add(
                at("self_attn.o_proj.weight"),
                vec![self.hidden, queries],
                0.0,
                spread,
            );
            add(
                at("mlp.gate_proj.weight"),
                vec![self.feed_forward, self.hidden],
                0.0,
                spread,
            );
            add(
                at("mlp.up_proj.weight"),
                vec![self.feed_forward, self.hidden],
                0.0,
                spread,
            );
            add(
                at("mlp.down_proj.weight"),
                vec![self.hidden, self.feed_forward],
                0.0,
                spread,
            );
            if self.family == "qwen2" {
                add(at("self_attn.q_proj.bias"), vec![queries], 0.0, 0.2);
                add(at("self_attn.k_proj.bias"), vec![keys], 0.0, 0.2);
                add(at("self_attn.v_proj.bias"), vec![keys], 0.0, 0.2);
            }
            if self.family == "qwen3" {
                add(
                    at("self_attn.q_norm.weight"),
                    vec![self.head_width],
                    1.0,
                    0.1,
                );
                add(
                    at("self_attn.k_norm.weight"),
                    vec![self.head_width],
                    1.0,
                    0.1,
                );
            }
        }
        // A logit of 0 for the end of turn: never the largest of 264, so greedy answers go on.
        if let Some(head) = out
            .iter_mut()
            .find(|tensor| tensor.name == "lm_head.weight")
        {
            head.values[263 * self.hidden..].fill(0.0);
        }
        out
    }

    fn config(&self) -> Value {
        json!({
            "model_type": self.family, "hidden_size": self.hidden, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_width, "intermediate_size": self.feed_forward, "vocab_size": VOCABULARY,
            "max_position_embeddings": self.context, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "hidden_act": "silu", "tie_word_embeddings": false, "eos_token_id": 263,
        })
    }

    /// Writes a model directory: config, tokenizer, one safetensors file or two shards.
    pub(crate) fn write_directory(&self, directory: &Path, seed: u64, shards: usize) {
        write_json(&directory.join("config.json"), &self.config());
        write_json(&directory.join("tokenizer.json"), &tokenizer_json());
        write_json(
            &directory.join("tokenizer_config.json"),
            &json!({"eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE}),
        );
        let tensors = self.tensors(seed);
        let mut map = serde_json::Map::new();
        for shard in 0..shards {
            let name = if shards == 1 {
                "model.safetensors".to_owned()
            } else {
                format!("model-{shard}.safetensors")
            };
            let part: Vec<_> = tensors
                .iter()
                .enumerate()
                .filter(|(i, _)| i % shards == shard)
                .map(|(_, t)| t)
                .collect();
            map.extend(part.iter().map(|tensor| (tensor.name.clone(), json!(name))));
            write_safetensors(&directory.join(&name), &part);
        }
        if shards > 1 {
            write_json(
                &directory.join("model.safetensors.index.json"),
                &json!({"weight_map": map}),
            );
        }
    }

    /// Writes the same model as a GGUF file of floats.
    pub(crate) fn write_gguf(&self, path: &Path, seed: u64) {
        std::fs::write(path, self.gguf_bytes(seed)).expect("write the model");
    }

    /// The bytes of that file.
    pub(crate) fn gguf_bytes(&self, seed: u64) -> Vec<u8> {
        let mut tensors = self.tensors(seed);
        for tensor in &mut tensors {
            // GGUF files of `llama` hold queries and keys permuted to neighbouring pairs.
            if self.family == "llama"
                && (tensor.name.ends_with("q_proj.weight")
                    || tensor.name.ends_with("k_proj.weight"))
            {
                permute_rows(tensor, self.head_width);
            }
            tensor.name = gguf_name(&tensor.name);
        }
        let family = self.family;
        let mut out = Gguf::default();
        out.text("general.architecture", family);
        out.number(&format!("{family}.block_count"), self.layers);
        out.number(&format!("{family}.context_length"), self.context);
        out.number(&format!("{family}.embedding_length"), self.hidden);
        out.number(&format!("{family}.feed_forward_length"), self.feed_forward);
        out.number(&format!("{family}.attention.head_count"), self.heads);
        out.number(&format!("{family}.attention.head_count_kv"), self.kv_heads);
        out.number(&format!("{family}.attention.key_length"), self.head_width);
        out.float(&format!("{family}.rope.freq_base"), 10000.0);
        out.float(&format!("{family}.attention.layer_norm_rms_epsilon"), 1e-5);
        out.text("tokenizer.ggml.model", "gpt2");
        out.text("tokenizer.ggml.pre", "gpt-2");
        let (tokens, merges) = vocabulary();
        out.texts("tokenizer.ggml.tokens", &tokens);
        out.texts("tokenizer.ggml.merges", &merges);
        let kinds: Vec<i32> = (0..VOCABULARY)
            .map(|id| if id >= 262 { 3 } else { 1 })
            .collect();
        out.ints("tokenizer.ggml.token_type", &kinds);
        out.number("tokenizer.ggml.eos_token_id", 263);
        out.text("tokenizer.chat_template", CHAT_TEMPLATE);
        out.finish(&tensors)
    }
}

pub(crate) const CHAT_TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}";

/// Byte tokens in GPT-2's alphabet, six merges, two control tokens.
fn vocabulary() -> (Vec<String>, Vec<String>) {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut shift = 0;
    let mut tokens: Vec<String> = (0..256u32)
        .map(|byte| {
            let code = if printable(byte) {
                byte
            } else {
                shift += 1;
                255 + shift
            };
            char::from_u32(code).expect("a character").to_string()
        })
        .collect();
    let merges = ["t h", "i n", "e r", "a n", "o n", "th e"];
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    tokens.extend(["<|im_start|>".to_owned(), "<|im_end|>".to_owned()]);
    (
        tokens,
        merges.iter().map(|merge| (*merge).to_owned()).collect(),
    )
}

fn tokenizer_json() -> Value {
    let (tokens, merges) = vocabulary();
    let vocabulary: serde_json::Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), json!(id)))
        .collect();
    let merges: Vec<Vec<&str>> = merges
        .iter()
        .map(|merge| merge.split(' ').collect())
        .collect();
    let added: Vec<Value> = [262, 263]
        .iter()
        .map(|id| {
            json!({"id": id, "content": tokens[*id], "special": true, "single_word": false,
                         "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    json!({
        "version": "1.0", "added_tokens": added, "pre_tokenizer": bytes, "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    })
}

fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).expect("write a model file");
}

fn write_safetensors(path: &Path, tensors: &[&RandomTensor]) {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for tensor in tensors {
        let from = data.len();
        data.extend(tensor.values.iter().flat_map(|value| value.to_le_bytes()));
        header.insert(
            tensor.name.clone(),
            json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [from, data.len()]}),
        );
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    std::fs::write(path, bytes).expect("write a model file");
}

/// From halves that turn together to neighbours.
fn permute_rows(tensor: &mut RandomTensor, head_width: usize) {
    let columns = tensor.shape[1];
    let old = tensor.values.clone();
    for row in 0..tensor.shape[0] {
        let (head, within) = (row / head_width, row % head_width);
        let from = head * head_width + within / 2 + within % 2 * (head_width / 2);
        tensor.values[row * columns..][..columns]
            .copy_from_slice(&old[from * columns..][..columns]);
    }
}

fn gguf_name(name: &str) -> String {
    let mut name = name
        .replace("model.layers.", "blk.")
        .replace("model.embed_tokens", "token_embd");
    for (from, to) in [
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ] {
        name = name.replace(from, to);
    }
    name
}

/// Writes GGUF.
#[derive(Default)]
struct Gguf {
    entries: Vec<Vec<u8>>,
}

impl Gguf {
    fn entry(&mut self, key: &str, kind: u32, value: &[u8]) {
        let mut entry = sized(key);
        entry.extend(kind.to_le_bytes());
        entry.extend(value);
        self.entries.push(entry);
    }

    fn text(&mut self, key: &str, value: &str) {
        self.entry(key, 8, &sized(value));
    }

    fn number(&mut self, key: &str, value: usize) {
        self.entry(key, 4, &(value as u32).to_le_bytes());
    }

    fn float(&mut self, key: &str, value: f32) {
        self.entry(key, 6, &value.to_le_bytes());
    }

    fn texts(&mut self, key: &str, values: &[String]) {
        let mut bytes = 8u32.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| bytes.extend(sized(value)));
        self.entry(key, 9, &bytes);
    }

    fn ints(&mut self, key: &str, values: &[i32]) {
        let mut bytes = 5u32.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        values
            .iter()
            .for_each(|value| bytes.extend(value.to_le_bytes()));
        self.entry(key, 9, &bytes);
    }

    fn finish(self, tensors: &[RandomTensor]) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        self.entries.iter().for_each(|entry| out.extend(entry));
        let mut data: Vec<u8> = Vec::new();
        for tensor in tensors {
            data.resize(data.len().next_multiple_of(32), 0);
            out.extend(sized(&tensor.name));
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor
                .shape
                .iter()
                .rev()
                .for_each(|d| out.extend((*d as u64).to_le_bytes()));
            out.extend(0u32.to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            data.extend(tensor.values.iter().flat_map(|value| value.to_le_bytes()));
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }
}

fn sized(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}
