//! Which files of a repository, package or folder make a model.
//!
//! Only weights that cannot run code (safetensors, GGUF) and the JSON and text
//! files that belong to them are ever taken; pickled weights are left where
//! they are, so nothing downstream can load them by accident.

use super::error::{PullError, PullFault};

/// A file that a source offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offered {
    /// Its path in the source, with `/`.
    pub path: String,
    /// Its length.
    pub size_bytes: u64,
}

/// The files to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// Indexes into the offered files.
    pub files: Vec<usize>,
    /// What is cut off the front of their paths.
    pub root: String,
    /// The GGUF file to load; a folder of safetensors is loaded as a whole.
    pub gguf: Option<String>,
}

impl Choice {
    /// The path under which a file is kept.
    pub(super) fn kept_path<'a>(&self, path: &'a str) -> &'a str {
        path.strip_prefix(self.root.as_str()).unwrap_or(path)
    }

    /// What the model's name is made of: the GGUF file's name or the folder's,
    /// unless those say nothing.
    pub(super) fn label<'a>(&'a self, fallback: &'a str) -> &'a str {
        let own = match &self.gguf {
            Some(file) => file.as_str(),
            None => self
                .root
                .trim_end_matches('/')
                .rsplit('/')
                .next()
                .unwrap_or_default(),
        };
        let generic = [
            "",
            "model",
            "models",
            "ggml-model",
            "data",
            "weights",
            "snapshot",
        ];
        if generic.contains(&super::reference::name_from(own).as_str()) {
            fallback
        } else {
            own
        }
    }
}

/// No model needs more; a repository that has more is something else.
const MOST_FILES: usize = 200;
/// JSON and text files beside the weights.
const LARGEST_SMALL_FILE: u64 = 256 << 20;
const LARGEST_MODEL: u64 = 1 << 40;

/// Picks the model among the offered files; `wanted` names one GGUF file.
///
/// # Errors
/// There is no model, or more than one; the message lists what there is.
pub(super) fn choose(offered: &[Offered], wanted: Option<&str>) -> Result<Choice, PullError> {
    let choice = match wanted {
        Some(path) => choose_file(offered, path)?,
        None => match model_folder(offered)? {
            Some(root) => choose_folder(offered, root),
            None => choose_file(offered, only_gguf(offered)?)?,
        },
    };
    check_sizes(offered, &choice)?;
    Ok(choice)
}

fn choose_file(offered: &[Offered], path: &str) -> Result<Choice, PullError> {
    let Some(index) = offered.iter().position(|file| file.path == path) else {
        return Err(PullError::new(
            PullFault::NotFound,
            format!("there is no file {path:?}{}", gguf_hint(offered)),
        ));
    };
    if !is_gguf(path) {
        let message = format!(
            "{path:?} cannot be pulled alone: name a .gguf file, or no file for a folder of safetensors"
        );
        return Err(PullError::new(PullFault::Invalid, message));
    }
    let root = path
        .rfind('/')
        .map_or(String::new(), |slash| path[..=slash].to_owned());
    let name = path[root.len()..].to_owned();
    Ok(Choice {
        files: vec![index],
        root,
        gguf: Some(name),
    })
}

fn choose_folder(offered: &[Offered], root: String) -> Choice {
    let belongs = |file: &&Offered| {
        file.path
            .strip_prefix(root.as_str())
            .is_some_and(is_model_file)
    };
    let files = offered
        .iter()
        .enumerate()
        .filter(|(_, file)| belongs(file))
        .map(|(index, _)| index)
        .collect();
    Choice {
        files,
        root,
        gguf: None,
    }
}

/// The folder with `config.json` and safetensors; the source's own root wins.
fn model_folder(offered: &[Offered]) -> Result<Option<String>, PullError> {
    let has = |path: &str| offered.iter().any(|file| file.path == path);
    let mut roots: Vec<&str> = offered
        .iter()
        .filter_map(|file| {
            let (root, name) = file
                .path
                .split_at(file.path.rfind('/').map_or(0, |slash| slash + 1));
            (is_weights(name) && has(&format!("{root}config.json"))).then_some(root)
        })
        .collect();
    roots.sort_unstable();
    roots.dedup();
    match roots.as_slice() {
        [] => Ok(None),
        ["", ..] => Ok(Some(String::new())),
        [one] => Ok(Some((*one).to_owned())),
        several => {
            let message = format!("there are several models here: {}", several.join(", "));
            Err(PullError::new(PullFault::Invalid, message))
        }
    }
}

fn only_gguf(offered: &[Offered]) -> Result<&str, PullError> {
    let mut files = offered
        .iter()
        .map(|file| file.path.as_str())
        .filter(|path| is_gguf(path));
    match (files.next(), files.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            let message = format!(
                "there are several GGUF files here; add :FILE to choose one{}",
                gguf_hint(offered)
            );
            Err(PullError::new(PullFault::Invalid, message))
        }
        (None, _) => Err(PullError::new(PullFault::Unsupported, no_model(offered))),
    }
}

fn no_model(offered: &[Offered]) -> String {
    const UNSAFE: [&str; 7] = [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"];
    let pickled = offered.iter().find(|file| {
        UNSAFE
            .iter()
            .any(|end| file.path.to_ascii_lowercase().ends_with(end))
    });
    match pickled {
        Some(file) => format!(
            "there are no safetensors or GGUF files here, only weights that could run code when they are loaded ({}); \
             these are refused",
            file.path
        ),
        None => "there is no model here: neither a GGUF file nor config.json with safetensors"
            .to_owned(),
    }
}

fn gguf_hint(offered: &[Offered]) -> String {
    let mut names: Vec<&str> = offered
        .iter()
        .map(|file| file.path.as_str())
        .filter(|path| is_gguf(path))
        .collect();
    if names.is_empty() {
        return String::new();
    }
    let more = names.len().saturating_sub(12);
    names.truncate(12);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("; there are: {}{more}", names.join(", "))
}

fn check_sizes(offered: &[Offered], choice: &Choice) -> Result<(), PullError> {
    let too_large = |what: String| Err(PullError::new(PullFault::Invalid, what));
    if choice.files.len() > MOST_FILES {
        return too_large(format!(
            "the model has {} files; at most {MOST_FILES} are taken",
            choice.files.len()
        ));
    }
    let files = choice.files.iter().map(|index| &offered[*index]);
    let mut total = 0_u64;
    for file in files {
        let heavy = is_gguf(&file.path) || file.path.ends_with(".safetensors");
        if !heavy && file.size_bytes > LARGEST_SMALL_FILE {
            return too_large(format!(
                "{} has {} bytes, which is no sane size",
                file.path, file.size_bytes
            ));
        }
        total = total.saturating_add(file.size_bytes);
    }
    if total > LARGEST_MODEL {
        return too_large(format!(
            "the model has {total} bytes; at most {LARGEST_MODEL} are taken"
        ));
    }
    Ok(())
}

fn is_gguf(path: &str) -> bool {
    path.to_ascii_lowercase().ends_with(".gguf")
}

/// `model.safetensors`, `model-00001-of-00002.safetensors`.
fn is_weights(name: &str) -> bool {
    let middle = name
        .strip_prefix("model")
        .and_then(|rest| rest.strip_suffix(".safetensors"));
    middle.is_some_and(|middle| middle.is_empty() || middle.starts_with('-'))
}

/// Whether a file belongs to a model in the form that transformers and
/// sentence-transformers write; the path is relative to the model's folder.
fn is_model_file(path: &str) -> bool {
    const NAMED: [&str; 18] = [
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "LICENSE",
        "NOTICE",
    ];
    let pooling = || matches!(path.split_once('/'), Some((folder, "config.json")) if is_module_folder(folder));
    NAMED.contains(&path) || is_weights(path) || pooling()
}

/// `1_Pooling`, `2_Normalize`: the steps of sentence-transformers.
fn is_module_folder(name: &str) -> bool {
    let rest = name.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < name.len()
        && rest.starts_with('_')
        && rest.chars().skip(1).all(|c| c.is_ascii_alphanumeric())
}
